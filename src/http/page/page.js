// The page at `/`. The GETs of the API are the only truth that is drawn; the event stream only says what to ask again, so
// a lost event, a reconnect and plain polling all end in the same picture. Data reaches the document as text alone.

import { begin, call, forget, fromHash, life, me, part, readEvents, recall, refused, remember, sessionPath, subject, whatsappPath } from './page/api.js';
import { ask } from './page/ask.js';
import { Card } from './page/card.js';
import { $, say, set } from './page/dom.js';
import { showHistory } from './page/history.js';
import { answerHere, challenge, command } from './page/passkey.js';
import { count, pick } from './page/words.js';

const POLL_MS = 2_000;
// What no event tells (held files, alarms, a session made elsewhere) is seen after this long.
const LOOK_MS = 15_000;

// ---- Signing in

function signOut(why = '') {
  forget();
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  clear();
  showSignIn(me.user, why);
}

function clear() {
  for (const card of cards.values()) card.drop();
  cards.clear();
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
  const signal = begin();
  runner = true;
  made.clear();
  if (!me.user) return showSignIn('', me.token ? 'Which user? This token names none.' : '');
  $('sign-in').hidden = true;
  $('home').hidden = $('who').hidden = false;
  $('home-user').textContent = me.user;
  say($('home-notice'), '');
  $('empty').hidden = true;
  feed('idle', 'Loading');
  follow(signal);
}

function feed(tone, text) {
  $('feed').dataset.tone = tone;
  set($('feed-text'), text);
}

// ---- What happens

const cards = new Map();

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
    const card = cards.get(id) ?? new Card(id, (one, name) => ACTIONS[name](one), (one) => loadStatus(one).catch(() => {}));
    card.entry = entry;
    card.draw(runner);
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
  if (cards.get(id) === card) card.draw(runner);
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
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
    wake = end;
  });
}

let dropEvents = () => {};

// Keeps the picture true until the sign-in ends: the stream while it lasts, and every two seconds while there is none.
async function follow(signal) {
  let live = false;
  let trouble = false;
  let events = async () => {
    events = null;
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
  };
  while (!signal.aborted) {
    try {
      await loadAll();
      events?.();
      if (trouble) say($('home-notice'), '');
      trouble = false;
      if (live) feed('good', 'Live');
      else feed('warn', `Checking every ${POLL_MS / 1000} s`);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) return signOut('There is nothing for this user that this token may see.');
      feed('bad', error.status ? 'Trouble' : 'Not reachable');
      trouble = true;
      say($('home-notice'), error.message, 'bad');
    }
    await wait(live ? LOOK_MS : POLL_MS, signal);
  }
}

// ---- Actions

async function pair(card) {
  const phoneNumber = card.f.pairPhone.value.replace(/\D/g, '');
  await call('POST', whatsappPath('pairing-code', card.id), { body: { phoneNumber } });
  card.f.pairPhone.value = '';
  card.f.byNumber.open = false;
  await loadStatus(card.id);
  set($('live'), `Pairing code ${[...card.f.pairCode.textContent].join(' ')}`);
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
  copyChallenge: (card) => copy(card, JSON.stringify(challenge(card.view.passkey)), 'The challenge is'),
  copyCommand: (card) => copy(card, command(card.view.passkey), 'The command is'),
  answerPasskey: (card) => answerPasskey(card, card.f.assertion.value),
  tryPasskey: async (card) => answerPasskey(card, await answerHere(card.view.passkey, life.signal)),
  async confirmPasskey(card) {
    await call('POST', whatsappPath('passkey', card.id, 'confirm'), { body: {} });
    await loadStatus(card.id);
  },
  history: (card) => showHistory(card, loadAll),
  pair,
};

async function newSession() {
  say($('home-notice'), '');
  const name = await ask({ title: 'New session', text: 'One session is one linked phone. Give it a name that you will know it by.', yes: 'Make and connect', label: 'Name' });
  if (!name) return;
  const slug = name.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 64);
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

// ---- Start

refused.act = signOut;

$('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  remember($('user').value.trim(), $('token').value.trim());
  start();
  $('home-title').focus();
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
  clear();
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
