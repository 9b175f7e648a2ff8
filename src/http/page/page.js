// The page at `/`. The GETs of the API are the only truth that is drawn; the event stream only says what to ask again, so
// a lost event, a reconnect and plain polling all end in the same picture. Data reaches the document as text alone.
'use strict';

const POLL_MS = 2_000;
// What no event tells (held files, alarms, a session made elsewhere) is seen after this long.
const LOOK_MS = 15_000;
// The server sends a comment more often than this; silence means a dead connection that the browser has not noticed.
const SILENCE_MS = 45_000;

// ---- Words

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

const number = new Intl.NumberFormat('en');
const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

function ago(at, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(at)) / 1000);
  if (Number.isNaN(seconds)) return 'never';
  if (seconds < 2) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

function size(bytes) {
  if (bytes == null) return 'unknown';
  let unit = 0;
  while (bytes >= 1000 && unit < 3) { bytes /= 1000; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${['B', 'kB', 'MB', 'GB'][unit]}`;
}

const left = (at) => Math.max(0, Math.ceil((Date.parse(at) - Date.now()) / 1000));
const clock = (seconds) => (seconds < 100 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`);
const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;
const masked = (phone) => `+${phone.slice(0, 2)} ${'•'.repeat(Math.max(0, phone.length - 4))} ${phone.slice(-2)}`;

// The first of `names` that one of `places` has.
function pick(places, ...names) {
  for (const place of places) {
    for (const name of names) if (place?.[name] != null) return place[name];
  }
  return null;
}

// What a card shows of one session: the row of the list and the answer of `status`, which may be missing.
function view(entry, status) {
  const saved = [entry, status?.persistence, entry?.here];
  const failure = status?.failure ?? null;
  const state = status?.state ?? (STATES[entry?.state] ? entry.state : null);
  let [label, tone, explain] = STATES[state] ?? ['Watched', 'idle', ''];
  if (state === 'FAILED' && FAILED[failure?.code]) label = FAILED[failure.code];
  const saving = saved.map((place) => place?.state).find((word) => SAVING[word]) ?? null;
  const held = pick(saved, 'held');
  const dirty = pick(saved, 'dirty', 'pendingFiles') ?? 0;
  const account = pick([status?.me], 'id')?.split(/[@:]/)[0] ?? '';
  return {
    state, label, tone, explain, failure, saving,
    name: pick([entry, entry?.row, status], 'session_name', 'sessionName', 'session_alias'),
    phone: /^\d+$/.test(account) ? account : pick([entry, entry?.row], 'phone_number')?.replace(/\D/g, '') || null,
    lastSync: pick(saved, 'lastSyncAt', 'last_sync_at', 'lastCommitAt', 'last_commit_at'),
    files: pick(saved, 'files'),
    bytes: pick(saved, 'bytes'),
    savingText: saving === 'ready' ? (dirty ? `${count(dirty, 'change', 'changes')} waiting` : 'Up to date') : SAVING[saving] ?? 'Unknown',
    held: Array.isArray(held) ? held : [],
    alarms: pick(saved, 'alarms') ?? [],
    qr: status?.qr ?? (status?.qrCode ? { code: status.qrCode, expiresAt: null } : null),
    pairing: status?.pairingCode ?? null,
    passkey: status?.passkey ?? null,
    nextTry: status?.nextTryAt ?? null,
  };
}

// ---- The API

class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

let me = { user: '', token: '' };
// Everything of one sign-in ends with its signal.
let life = new AbortController();

const part = encodeURIComponent;
const sessionPath = (id, action = '') => `/api/sessions/${part(me.user)}/${part(id)}${action && `/${action}`}`;
const whatsappPath = (action, id, more = '') => `/api/whatsapp/${action}/${part(me.user)}/${part(id)}${more && `/${more}`}`;

async function call(method, path, { body, accept = 'application/json' } = {}) {
  const signal = life.signal;
  const headers = { Accept: accept };
  if (me.token) headers.Authorization = `Bearer ${me.token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError(0, 'The server cannot be reached. Check the connection and try again.');
  }
  if (response.status === 401) {
    // Of several that are refused at once, the first one says why.
    if (!signal.aborted) signOut(me.token ? 'The server did not accept this token, or it has expired. Sign in again.' : 'This server asks for a token.');
    throw new DOMException('signed out', 'AbortError');
  }
  if (response.ok && accept !== 'application/json') return response;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok || answer.success === false) {
    throw new ApiError(response.status, answer.message || answer.error || `The server answered ${response.status}.`);
  }
  return answer;
}

// Server-sent events, read by fetch because EventSource sends no headers. Ends when the stream does.
async function readEvents(onOpen, onEvent) {
  const silent = new AbortController();
  const stop = () => silent.abort();
  life.signal.addEventListener('abort', stop);
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const headers = { Accept: 'text/event-stream' };
    if (me.token) headers.Authorization = `Bearer ${me.token}`;
    const response = await fetch(`/api/whatsapp/events/${part(me.user)}`, { headers, signal: silent.signal, cache: 'no-store', credentials: 'omit' });
    if (!response.ok) throw new ApiError(response.status, 'no events');
    onOpen(stop);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        let name = 'message';
        const data = [];
        for (const line of block.split('\n')) {
          const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
          if (field === 'event') name = text;
          if (field === 'data') data.push(text);
        }
        if (data.length) onEvent(name, data.join('\n'));
      }
    }
  } finally {
    clearTimeout(timer);
    life.signal.removeEventListener('abort', stop);
  }
}

// ---- Signing in

const $ = (id) => document.getElementById(id);
const KEYS = { user: 'session-sidecar.user', token: 'session-sidecar.token' };

// What `#token=…&user=…` brings is taken over and leaves the address bar at once.
function fromHash() {
  // A plus is a plus: user ids and tokens may have one.
  const given = new URLSearchParams(location.hash.slice(1).replaceAll('+', '%2B'));
  if (!given.has('token') && !given.has('user')) return false;
  history.replaceState(null, '', location.pathname + location.search);
  const token = given.get('token') ?? '';
  remember(given.get('user') ?? subject(token) ?? '', token);
  return true;
}

// The user that a Supabase token speaks for: only to fill in the form, the server checks.
function subject(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(atob(payload)).sub ?? null;
  } catch {
    return null;
  }
}

function remember(user, token) {
  me = { user, token };
  try {
    sessionStorage.setItem(KEYS.user, user);
    sessionStorage.setItem(KEYS.token, token);
  } catch { /* A browser that keeps nothing: signed in until the page is left. */ }
}

function recall() {
  try {
    me = { user: sessionStorage.getItem(KEYS.user) ?? '', token: sessionStorage.getItem(KEYS.token) ?? '' };
  } catch { /* As above. */ }
}

function signOut(why = '') {
  life.abort();
  const { user } = me;
  remember(user, '');
  try { sessionStorage.removeItem(KEYS.token); } catch { /* As above. */ }
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  for (const card of cards.values()) card.drop();
  cards.clear();
  showSignIn(user, why);
}

function showSignIn(user, why) {
  $('home').hidden = $('who').hidden = true;
  $('sign-in').hidden = false;
  $('user').value = user;
  $('token').value = '';
  say($('sign-in-notice'), why, 'bad');
  (why ? $('token') : $('sign-in-title')).focus();
}

function start() {
  life.abort();
  life = new AbortController();
  runner = true;
  made.clear();
  if (!me.user) return showSignIn('', me.token ? 'Which user? This token names none.' : '');
  $('sign-in').hidden = true;
  $('home').hidden = $('who').hidden = false;
  $('home-user').textContent = me.user;
  say($('home-notice'), '');
  $('empty').hidden = true;
  $('home-title').focus();
  feed('idle', 'Loading');
  follow(life.signal);
}

// ---- Drawing

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, on) {
  // Whoever stands on what goes away is led to the top of the card, not of the page.
  if (!on && element.contains(document.activeElement)) element.closest('.card')?.querySelector('h2').focus();
  element.hidden = !on;
}

function say(element, text, tone = 'idle') {
  set(element, text);
  element.dataset.tone = tone;
  element.hidden = !text;
}

function feed(tone, text) {
  $('feed').dataset.tone = tone;
  set($('feed-text'), text);
}

function make(tag, text = '', props = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, props);
}

const cards = new Map();

class Card {
  constructor(id) {
    this.id = id;
    this.entry = this.status = this.label = null;
    this.messages = { count: 0, at: null };
    this.bare = false;
    this.qrKey = '';
    this.asked = 0;
    this.root = $('card').content.cloneNode(true).firstElementChild;
    this.f = {};
    for (const element of this.root.querySelectorAll('[data-f]')) this.f[element.dataset.f] = element;
    this.root.setAttribute('data-session', id);
    this.root.addEventListener('click', (event) => {
      const button = event.target.closest('[data-do]');
      if (button) this.run(button, () => ACTIONS[button.dataset.do](this, button));
    });
    this.onSubmit('pairForm', () => pair(this));
    this.onSubmit('assertForm', () => answerPasskey(this, this.f.assertion.value));
  }

  onSubmit(form, action) {
    this.f[form].addEventListener('submit', (event) => {
      event.preventDefault();
      this.run(this.f[form].querySelector('button'), action);
    });
  }

  // One action at a time a button; the button keeps its focus, which `disabled` would take away.
  async run(button, action) {
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    this.say('');
    try {
      await action();
    } catch (error) {
      if (error.name !== 'AbortError') this.say(error.message, 'bad');
    } finally {
      button.removeAttribute('aria-busy');
    }
  }

  say(text, tone) { say(this.f.notice, text, tone); }

  get name() { return this.view?.name ?? this.id; }

  drop() {
    this.forgetQr();
    this.root.remove();
  }

  draw() {
    const { f } = this;
    const v = this.view = view(this.entry, this.status);
    set(f.name, this.name);
    set(f.id, this.id);
    show(f.id, this.name !== this.id);
    f.state.dataset.tone = v.tone;
    set(f.stateText, v.label);
    if (this.label && this.label !== v.label) set($('live'), `${this.name}: ${v.label}`);
    this.label = v.label;
    set(f.explain, v.explain);
    show(f.explain, Boolean(v.explain));
    say(f.failure, v.failure?.message ?? '', v.state === 'FAILED' ? 'bad' : 'warn');

    const scanning = v.state === 'SCAN_QR_CODE';
    show(f.linking, scanning);
    if (scanning && v.qr) this.loadQr(v.qr.code);
    else this.forgetQr();
    show(f.pairing, scanning && Boolean(v.pairing));
    set(f.pairCode, v.pairing?.code ?? '');
    show(f.challenge, v.passkey?.step === 'challenge');
    show(f.confirming, v.passkey?.step === 'confirm');
    set(f.confirmTitle, v.passkey?.code ? 'Does the phone show the same code?' : 'Finish linking on the phone');
    set(f.confirmCode, v.passkey?.code ?? '');
    show(f.confirmCode, Boolean(v.passkey?.code));
    set(f.confirmButton, v.passkey?.code ? 'The codes match' : 'Continue');

    show(f.phoneFact, Boolean(v.phone));
    if (v.phone) set(f.phone, this.bare ? `+${v.phone}` : masked(v.phone));
    set(f.phoneToggle, this.bare ? 'Hide' : 'Show');
    f.phoneToggle.setAttribute('aria-pressed', String(this.bare));
    f.phoneToggle.setAttribute('aria-label', 'Show the phone number');
    set(f.saving, v.savingText);
    set(f.files, v.files == null ? 'unknown' : number.format(v.files));
    set(f.bytes, size(v.bytes));
    show(f.messageFact, this.messages.count > 0);

    this.list(f.alarms, v.alarms.map(String));
    this.list(f.held, v.held.map((file) => `${file.path}: ${file.reason}`));
    show(f.heldBox, v.held.length > 0);
    set(f.heldTitle, count(v.held.length, 'file is held', 'files are held'));

    const off = !v.state || v.state === 'STOPPED' || v.state === 'FAILED';
    show(f.connect, runner && off);
    show(f.disconnect, runner && !off);
    this.tick();
  }

  list(element, lines) {
    if (element.dataset.lines !== lines.join('\n')) {
      element.dataset.lines = lines.join('\n');
      element.replaceChildren(...lines.map((line) => make('li', line)));
    }
    show(element, lines.length > 0);
  }

  // What changes with the clock alone.
  tick() {
    const { f, view: v } = this;
    if (!v) return;
    set(f.synced, ago(v.lastSync));
    if (v.lastSync) { f.synced.dateTime = v.lastSync; f.synced.title = moment.format(new Date(v.lastSync)); }
    if (this.messages.count) set(f.messages, `${number.format(this.messages.count)}, last ${ago(this.messages.at)}`);
    if (v.state === 'STARTING') {
      const wait = v.nextTry ? `Next try in ${clock(left(v.nextTry))}.` : '';
      set(f.explain, wait);
      f.explain.hidden = !wait;
    }
    set(f.qrLeft, v.qr?.expiresAt ? `New code in ${clock(left(v.qr.expiresAt))}` : '');
    set(f.pairLeft, v.pairing ? `Valid for ${clock(left(v.pairing.expiresAt))}.` : '');
    const due = [v.qr, v.pairing].some((code) => code?.expiresAt && left(code.expiresAt) === 0);
    if (due && Date.now() - this.asked > POLL_MS) loadStatus(this.id).catch(() => {});
  }

  async loadQr(code) {
    if (this.qrKey === code) return;
    this.qrKey = code;
    try {
      const response = await call('GET', `${whatsappPath('qr', this.id)}?format=svg`, { accept: 'image/svg+xml' });
      const url = URL.createObjectURL(await response.blob());
      if (this.qrKey !== code) return URL.revokeObjectURL(url);
      URL.revokeObjectURL(this.f.qr.src);
      this.f.qr.src = url;
      this.f.qr.hidden = false;
      this.f.qrWait.hidden = true;
    } catch {
      // The next look at the status asks again.
      if (this.qrKey === code) this.forgetQr();
    }
  }

  forgetQr() {
    this.qrKey = '';
    if (this.f.qr.hidden) return;
    URL.revokeObjectURL(this.f.qr.src);
    this.f.qr.removeAttribute('src');
    this.f.qr.hidden = true;
    this.f.qrWait.hidden = false;
  }
}

// ---- What happens

// Whether this server has WhatsApp connections of its own, or only keeps the files of another bot.
let runner = true;
// Sessions made here that the list does not have yet.
const made = new Set();

async function loadSessions() {
  const { sessions } = await call('GET', `/api/sessions/${part(me.user)}`);
  const entries = new Map(sessions.map((entry) => [pick([entry], 'session_id', 'sessionId'), entry]));
  for (const id of entries.keys()) made.delete(id);
  for (const id of made) entries.set(id, null);
  for (const [id, card] of cards) {
    if (entries.has(id)) continue;
    card.drop();
    cards.delete(id);
  }
  for (const [id, entry] of entries) {
    const card = cards.get(id) ?? new Card(id);
    card.entry = entry;
    card.draw();
    if (cards.has(id)) continue;
    cards.set(id, card);
    $('cards').append(card.root);
  }
  $('empty').hidden = cards.size > 0;
}

async function loadStatus(id) {
  const card = cards.get(id);
  if (!card || !runner) return;
  card.asked = Date.now();
  try {
    card.status = await call('GET', whatsappPath('status', id));
  } catch (error) {
    // Not even unknown sessions are 404 there: the server has no runner.
    if (error.status !== 404) throw error;
    runner = false;
  }
  if (cards.get(id) === card) card.draw();
}

async function loadAll() {
  await loadSessions();
  await Promise.all([...cards.keys()].map(loadStatus));
  $('new-session').hidden = !runner;
}

// Asks again once for a burst of events.
const asked = new Map();
function soon(key, load) {
  if (asked.has(key)) return;
  asked.set(key, setTimeout(() => {
    asked.delete(key);
    load().catch(() => {});
  }, 100));
}

function onEvent(name, text) {
  let data;
  try { data = JSON.parse(text); } catch { return; }
  const named = pick([data], 'sessionId', 'session_id') ?? pick([data.session], 'sessionId', 'session_id') ?? data.session;
  const id = typeof named === 'string' ? named.split('/').pop() : null;
  const card = cards.get(id);
  if (name === 'message' && card) {
    card.messages = { count: card.messages.count + 1, at: new Date().toISOString() };
    return card.draw();
  }
  if (!card || name === 'sync') soon('', loadSessions);
  if (card && name !== 'message') soon(id, () => loadStatus(id));
}

// Wakes a wait early: when the page comes back to the front, or the network does.
let wake = () => {};
function wait(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake = () => { clearTimeout(timer); resolve(); };
    signal.addEventListener('abort', wake, { once: true });
  });
}

let dropEvents = () => {};

// Keeps the picture true until the sign-in ends: the stream while it lasts, and every two seconds while there is none.
async function follow(signal) {
  let live = false;
  (async () => {
    let failures = 0;
    while (!signal.aborted) {
      try {
        await readEvents((stop) => {
          live = true;
          failures = 0;
          dropEvents = stop;
          wake();
        }, onEvent);
      } catch (error) {
        // No runner, no events; else polled meanwhile, and tried again below.
        if (error.status === 404) return;
      }
      live = false;
      failures += 1;
      wake();
      await new Promise((resolve) => setTimeout(resolve, Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2)));
    }
  })();
  while (!signal.aborted) {
    try {
      await loadAll();
      say($('home-notice'), '');
      if (live) feed('good', 'Live');
      else feed('warn', `Checking every ${POLL_MS / 1000} s`);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) return signOut('There is nothing for this user that this token may see.');
      feed('bad', error.status ? 'Trouble' : 'Not reachable');
      say($('home-notice'), error.message, 'bad');
    }
    await wait(live ? LOOK_MS : POLL_MS, signal);
  }
}

// ---- Actions

// Asks before what cannot be taken back lightly. Gives the typed text (or true), or null.
function ask({ title, text, yes, danger = false, label = '', must = null }) {
  const dialog = $('ask');
  const input = $('ask-input');
  set($('ask-title'), title);
  set($('ask-text'), text);
  set($('ask-yes'), yes);
  $('ask-yes').className = danger ? 'danger primary' : 'primary';
  set($('ask-label'), label);
  $('ask-field').hidden = !label;
  input.required = Boolean(label);
  input.value = '';
  const check = () => input.setCustomValidity(must && input.value !== must ? `Type ${must}` : '');
  check();
  return new Promise((resolve) => {
    let answer = null;
    input.oninput = check;
    $('ask-no').onclick = () => dialog.close();
    $('ask-form').onsubmit = (event) => {
      event.preventDefault();
      answer = label ? input.value.trim() : true;
      dialog.close();
    };
    // Escape closes too; the browser gives the focus back to where it was.
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    (label ? input : $('ask-no')).focus();
  });
}

async function pair(card) {
  const phoneNumber = card.f.pairPhone.value.replace(/\D/g, '');
  await call('POST', whatsappPath('pairing-code', card.id), { body: { phoneNumber } });
  card.f.pairPhone.value = '';
  card.f.byNumber.open = false;
  await loadStatus(card.id);
  set($('live'), `Pairing code ${[...card.f.pairCode.textContent].join(' ')}`);
}

// The challenge as `navigator.credentials.get` takes it; WAHA and WhatsApp's own pages wrap it in `publicKey`.
const challenge = (card) => card.view.passkey.options.publicKey ?? card.view.passkey.options;

const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));

// For browsers without PublicKeyCredential.parseRequestOptionsFromJSON.
function parseChallenge(options) {
  return { ...options, challenge: bytes(options.challenge), allowCredentials: options.allowCredentials?.map((one) => ({ ...one, id: bytes(one.id) })) };
}

async function tryPasskey(card) {
  if (!window.PublicKeyCredential) throw new Error('This browser has no passkeys here: they need https, or localhost.');
  const parse = PublicKeyCredential.parseRequestOptionsFromJSON?.bind(PublicKeyCredential) ?? parseChallenge;
  let credential;
  try {
    credential = await navigator.credentials.get({ publicKey: parse(challenge(card)), signal: life.signal });
  } catch (error) {
    if (error.name === 'SecurityError') throw new Error('The browser refused: this passkey belongs to whatsapp.com. Copy the challenge and answer it there.');
    throw new Error('No passkey was given. Try again, or copy the challenge and answer it elsewhere.');
  }
  await answerPasskey(card, JSON.stringify(credential.toJSON()));
}

async function answerPasskey(card, text) {
  let body;
  try { body = JSON.parse(text); } catch { throw new Error('The answer is no JSON. Paste the whole of what the browser gave.'); }
  await call('POST', whatsappPath('passkey', card.id), { body });
  card.f.assertion.value = '';
  await loadStatus(card.id);
}

async function copy(card, text, what) {
  try {
    await navigator.clipboard.writeText(text);
    card.say(`${what} copied.`, 'good');
  } catch {
    // Without https there is no clipboard: the text is put where it can be copied by hand.
    card.f.assertion.value = text;
    card.f.assertion.select();
    card.say('The browser does not let this page copy. The text is selected below: copy it by hand.', 'warn');
  }
}

const ACTIONS = {
  async connect(card) {
    await call('POST', whatsappPath('connect', card.id), { body: {} });
    await loadStatus(card.id);
  },
  async disconnect(card) {
    await call('POST', whatsappPath('disconnect', card.id), { body: {} });
    await loadStatus(card.id);
  },
  async sync(card) {
    const { action, held } = await call('POST', sessionPath(card.id, 'sync'), { body: {} });
    await loadSessions();
    if (held?.length) card.say(`Saved, but for ${count(held.length, 'file that is held', 'files that are held')}.`, 'warn');
    else card.say(action === 'exists' ? 'Everything was saved already.' : 'Saved.', 'good');
  },
  async logout(card) {
    const text = 'The phone forgets this device, and linking again takes a QR code or a passkey. The keys until now stay in history.';
    if (!await ask({ title: `Log out ${card.name}?`, text, yes: 'Log out', danger: true })) return;
    await call('POST', runner ? whatsappPath('logout', card.id) : sessionPath(card.id, 'logout'), { body: {} });
    await loadAll();
    card.say('Logged out.', 'good');
  },
  async remove(card) {
    const text = 'The phone is unlinked, then the files, their copy in the bucket and the history are removed. What was pinned can be brought back for a while with the command undelete.';
    if (!await ask({ title: `Delete ${card.name}?`, text, yes: 'Delete', danger: true, label: `Type ${card.id} to go on`, must: card.id })) return;
    await call('DELETE', sessionPath(card.id));
    made.delete(card.id);
    await loadAll();
    set($('live'), `${card.name} is deleted.`);
    $('home-title').focus();
  },
  togglePhone(card) {
    card.bare = !card.bare;
    card.draw();
  },
  copyChallenge: (card) => copy(card, JSON.stringify(challenge(card)), 'The challenge is'),
  copyCommand: (card) => copy(card, `navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(${JSON.stringify(challenge(card))})}).then((answer) => copy(JSON.stringify(answer)))`, 'The command is'),
  tryPasskey,
  async confirmPasskey(card) {
    await call('POST', whatsappPath('passkey', card.id, 'confirm'), { body: {} });
    await loadStatus(card.id);
  },
  history: showHistory,
};

async function newSession() {
  const name = await ask({ title: 'New session', text: 'One session is one linked phone. Give it a name that you will know it by.', yes: 'Make and connect', label: 'Name' });
  if (!name) return;
  const slug = name.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 64);
  // The ids of the service before this one look like the second kind.
  const id = slug && !cards.has(slug) ? slug : `session_${Date.now()}_${crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, '0')}`;
  made.add(id);
  try {
    await call('POST', whatsappPath('connect', id), { body: { sessionName: name } });
    await loadAll();
    cards.get(id)?.root.querySelector('h2').focus();
  } catch (error) {
    made.delete(id);
    if (error.name !== 'AbortError') say($('home-notice'), error.message, 'bad');
  }
}

async function showHistory(card) {
  const report = await call('GET', sessionPath(card.id, 'history'));
  set($('history-title'), `History of ${card.name}`);
  set($('history-text'), report.points.length ? `${count(report.points.length, 'point', 'points')}, newest first.` : 'Nothing is saved yet.');
  $('history-table').hidden = !report.points.length;
  $('history-rows').replaceChildren(...report.points.map((point) => historyRow(card, report, point)));
  if ($('history').open) return;
  say($('history-notice'), '');
  $('history').showModal();
  $('history-title').focus();
}

function historyRow(card, report, point) {
  const at = pick([point], 'created_at', 'createdAt');
  const when = at ? moment.format(new Date(at)) : 'unknown';
  // `{epoch}-{seq}-{nonce}`: what people compare, without the zeros and the nonce.
  const short = point.id.split('-').slice(0, 2).map((word) => word.replace(/^0+(?=.)/, '')).join('-');
  const notes = make('td', '', { role: 'cell' });
  const tag = (text, tone) => { notes.append(make('span', text, { className: 'tag' })); notes.lastChild.dataset.tone = tone; };
  if (point.id === report.head) tag('Newest', 'good');
  if (pick([point], 'in_chain', 'inChain') === false) tag('Cut off', 'warn');
  for (const pin of point.pins ?? []) tag(`Kept: ${pin}`, 'idle');
  const last = make('td', '', { role: 'cell' });
  if (point.id !== report.head) {
    const button = make('button', 'Restore', { type: 'button' });
    button.setAttribute('aria-label', `Restore ${when}`);
    button.onclick = () => restore(card, point.id, when, button);
    last.append(button);
  }
  const row = make('tr', '', { role: 'row' });
  row.append(make('td', when, { role: 'cell' }), make('td', short, { role: 'cell', className: 'mono', title: point.id }), make('td', size(point.size), { role: 'cell' }), notes, last);
  return row;
}

async function restore(card, at, when, button) {
  const text = `The bot stops, the files become those of ${when}, and it connects again if it was connected. What was saved since stays in history. Chats may need a moment to agree on new keys.`;
  if (!await ask({ title: 'Go back to this point?', text, yes: 'Restore', danger: true })) return;
  button.setAttribute('aria-busy', 'true');
  say($('history-notice'), 'Restoring…');
  try {
    await call('POST', sessionPath(card.id, 'restore'), { body: { at } });
    await Promise.all([showHistory(card), loadAll()]);
    say($('history-notice'), `Restored ${when}.`, 'good');
    $('history-title').focus();
  } catch (error) {
    button.removeAttribute('aria-busy');
    if (error.name !== 'AbortError') say($('history-notice'), error.message, 'bad');
  }
}

// ---- Start

$('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  remember($('user').value.trim(), $('token').value.trim());
  start();
});
$('token').addEventListener('input', () => {
  const user = subject($('token').value.trim());
  if (user) $('user').value = user;
});
$('sign-out').addEventListener('click', () => signOut());
$('new-session').addEventListener('click', newSession);
$('history-close').addEventListener('click', () => $('history').close());
window.addEventListener('hashchange', () => {
  if (!fromHash()) return;
  for (const card of cards.values()) card.drop();
  cards.clear();
  start();
});
let hiddenAt = 0;
// A phone that slept may hold a dead stream that looks alive.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    hiddenAt = Date.now();
    return;
  }
  if (Date.now() - hiddenAt > POLL_MS * 5) dropEvents();
  wake();
});
window.addEventListener('online', () => wake());
setInterval(() => { for (const card of cards.values()) card.tick(); }, 1_000);

if (!fromHash()) recall();
start();
