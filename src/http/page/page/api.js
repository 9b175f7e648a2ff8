// Who asks, and the calls to the API. The token travels in a header alone.

// The server sends a comment more often than this; silence means a dead connection that the browser has not noticed.
const SILENCE_MS = 45_000;

export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export let me = { user: '', token: '' };
// Everything of one sign-in ends with its signal.
export let life = new AbortController();
// What to do when the server wants (another) token; the page says.
export const refused = { act: () => {} };

export function begin() {
  life.abort();
  life = new AbortController();
  return life.signal;
}

export const part = encodeURIComponent;
export const sessionPath = (id, action = '') => `/api/sessions/${part(me.user)}/${part(id)}${action && `/${action}`}`;
export const whatsappPath = (action, id, more = '') => `/api/whatsapp/${action}/${part(me.user)}/${part(id)}${more && `/${more}`}`;

export async function call(method, path, { body, accept = 'application/json' } = {}) {
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
    if (!signal.aborted) refused.act(me.token ? 'The server did not accept this token, or it has expired. Sign in again.' : 'This server asks for a token.');
    throw new DOMException('signed out', 'AbortError');
  }
  if (response.ok && accept !== 'application/json') return response;
  const answer = await response.json().catch(() => ({}));
  signal.throwIfAborted();
  if (!response.ok || answer.success === false) {
    throw new ApiError(response.status, answer.message || answer.error || `The server answered ${response.status}.`);
  }
  return answer;
}

// Server-sent events, read by fetch because EventSource sends no headers. Ends when the stream does.
export async function readEvents(onOpen, onEvent) {
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

const KEYS = { user: 'session-sidecar.user', token: 'session-sidecar.token' };

// What `#token=…&user=…` brings is taken over and leaves the address bar at once.
export function fromHash() {
  // A plus is a plus: user ids and tokens may have one.
  const given = new URLSearchParams(location.hash.slice(1).replaceAll('+', '%2B'));
  if (!given.has('token') && !given.has('user')) return false;
  history.replaceState(null, '', location.pathname + location.search);
  const token = given.get('token') ?? '';
  remember(given.get('user') ?? subject(token) ?? '', token);
  return true;
}

// The user that a Supabase token speaks for: only to fill in the form, the server checks.
export function subject(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(atob(payload)).sub ?? null;
  } catch {
    return null;
  }
}

export function remember(user, token) {
  me = { user, token };
  try {
    sessionStorage.setItem(KEYS.user, user);
    sessionStorage.setItem(KEYS.token, token);
  } catch { /* A browser that keeps nothing: signed in until the page is left. */ }
}

export function forget() {
  life.abort();
  remember(me.user, '');
}

export function recall() {
  try {
    me = { user: sessionStorage.getItem(KEYS.user) ?? '', token: sessionStorage.getItem(KEYS.token) ?? '' };
  } catch { /* As above. */ }
}
