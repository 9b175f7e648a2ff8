// One session on the page: what is drawn of it, and which buttons it has.

import { call, whatsappPath } from './api.js';
import { $, make, say, set, show } from './dom.js';
import { ago, clock, count, left, masked, moment, number, size, view } from './words.js';

// After a code has run out, the new one is asked for this often.
const ASK_MS = 2_000;

export class Card {
  // `act(card, name)` does what the button `data-do=name` or the form says; `reload(id)` asks for the status.
  constructor(id, act, reload) {
    this.reload = reload;
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
      if (button) this.run(button, () => act(this, button.dataset.do));
    });
    this.onSubmit('pairForm', () => act(this, 'pair'));
    this.onSubmit('assertForm', () => act(this, 'answerPasskey'));
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

  draw(runner = this.runner) {
    this.runner = runner;
    const { f } = this;
    const v = this.view = view(this.entry, this.status, runner);
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
    set(f.files, v.files == null ? 'unknown' : v.files === 0 ? 'none' : `${number.format(v.files)} (${size(v.bytes)})`);
    show(f.messageFact, this.messages.count > 0);

    this.list(f.alarms, v.alarms.map(String));
    this.list(f.held, v.held.map((file) => `${file.path}: ${file.reason}`));
    show(f.heldBox, v.held.length > 0);
    set(f.heldTitle, count(v.held.length, 'file is held', 'files are held'));

    const off = !v.state || v.state === 'STOPPED' || v.state === 'FAILED';
    show(f.connect, runner && off);
    show(f.disconnect, runner && !off);
    set(f.disconnect, v.state === 'WORKING' ? 'Disconnect' : 'Stop');
    show(f.logout, v.linked);
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
    if (due && Date.now() - this.asked > ASK_MS) this.reload(this.id);
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
