// What the page says: the API's words and values in a person's. No document, no network.

const STATES = {
  STOPPED: ['Off', 'idle', 'Not connected. The link to the phone stays; connect to receive messages again.'],
  STARTING: ['Connecting', 'warn', ''],
  SCAN_QR_CODE: ['Waiting for the phone', 'warn', 'Not linked yet.'],
  PASSKEY_REQUIRED: ['Passkey needed', 'warn', 'Not linked yet.'],
  PASSKEY_CONFIRMATION_REQUIRED: ['Confirm on the phone', 'warn', 'Almost linked.'],
  WORKING: ['Linked', 'good', ''],
  FAILED: ['Needs you', 'bad', ''],
};
const FAILED = {
  logged_out: 'Logged out', replaced: 'In use elsewhere', temporary_ban: 'Banned for a while', account_locked: 'Account locked',
  client_outdated: 'Update needed', qr_expired: 'Code expired', pairing_failed: 'Linking failed', session_lost: 'Taken over',
};
const SAVING = {
  starting: 'Starting', waiting: 'Storage does not answer', queued: 'Waiting for another process', restoring: 'Restoring', ready: 'On',
  not_owned: 'Not yet: in use elsewhere', held: 'Paused until you decide', taken: 'Taken over by another process', stopped: 'Nothing watches',
};

export const number = new Intl.NumberFormat('en');
export const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export function ago(at, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(at)) / 1000);
  if (Number.isNaN(seconds)) return 'never';
  if (seconds < 2) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

export function size(bytes) {
  if (bytes == null) return 'unknown';
  let unit = 0;
  while (bytes >= 1000 && unit < 3) { bytes /= 1000; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${['B', 'kB', 'MB', 'GB'][unit]}`;
}

export const left = (at) => Math.max(0, Math.ceil((Date.parse(at) - Date.now()) / 1000));
export const clock = (seconds) => (seconds < 100 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`);
export const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;
// As many dots for every number: its length says something too.
export const masked = (phone) => `+${phone.slice(0, 2)} •••• ${phone.slice(-2)}`;

// The first of `names` that one of `places` has.
export function pick(places, ...names) {
  for (const place of places) {
    for (const name of names) if (place?.[name] != null) return place[name];
  }
  return null;
}

// What a card shows of one session: the row of the list and the answer of `status`, which may be missing.
export function view(entry, status, runner) {
  const saved = [entry, status?.persistence, entry?.here];
  const failure = status?.failure ?? null;
  const state = status?.state ?? (STATES[entry?.state] ? entry.state : null) ?? (runner ? 'STOPPED' : null);
  const saving = [entry?.sync, ...saved.map((place) => place?.state)].find((word) => SAVING[word]) ?? null;
  // Without a runner there is no connection to tell of: the card tells how its files fare.
  const [word, tone, explain] = STATES[state] ?? (saving === 'ready' ? ['Watched', 'good', ''] : [SAVING[saving] ?? 'Unknown', 'warn', '']);
  const label = (state === 'FAILED' && FAILED[failure?.code]) || word;
  const held = pick(saved, 'held');
  const dirty = pick(saved, 'dirty', 'pendingFiles') ?? 0;
  const lastSync = pick(saved, 'lastSyncAt', 'last_sync_at', 'lastCommitAt', 'last_commit_at');
  const account = pick([status?.me], 'id')?.split(/[@:]/)[0] ?? '';
  return {
    state, label, tone, explain, failure, saving,
    name: pick([entry, entry?.row, status], 'session_name', 'sessionName', 'session_alias'),
    phone: /^\d+$/.test(account) ? account : pick([entry, entry?.row], 'phone_number')?.replace(/\D/g, '') || null,
    lastSync,
    files: pick(saved, 'files'),
    bytes: pick(saved, 'bytes'),
    savingText: saving !== 'ready' ? SAVING[saving] ?? 'Unknown' : dirty ? `${count(dirty, 'change', 'changes')} waiting` : lastSync ? 'Up to date' : 'Nothing yet',
    held: Array.isArray(held) ? held : [],
    alarms: pick(saved, 'alarms') ?? [],
    qr: status?.qr ?? (status?.qrCode ? { code: status.qrCode, expiresAt: null } : null),
    // Without a runner only the files know: a logout is recorded there.
    linked: !runner || Boolean(status?.me),
    pairing: status?.pairingCode ?? null,
    passkey: status?.passkey ?? null,
    nextTry: status?.nextTryAt ?? null,
  };
}
