// The points of a session's past, and the way back to one.

import { call, sessionPath } from './api.js';
import { ask } from './ask.js';
import { $, make, say, set } from './dom.js';
import { count, moment, pick, size } from './words.js';

// `after` is called once a restore has changed the session.
export async function showHistory(card, after) {
  const report = await call('GET', sessionPath(card.id, 'history'));
  set($('history-title'), `History of ${card.name}`);
  set($('history-text'), report.points.length ? `${count(report.points.length, 'point', 'points')}, newest first.` : 'Nothing is saved yet.');
  $('history-table').hidden = !report.points.length;
  $('history-rows').replaceChildren(...report.points.map((point) => historyRow(card, report, point, after)));
  if ($('history').open) return;
  say($('history-notice'), '');
  $('history').showModal();
  $('history-title').focus();
}

function historyRow(card, report, point, after) {
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
    button.onclick = () => restore(card, point.id, when, button, after);
    last.append(button);
  }
  const row = make('tr', '', { role: 'row' });
  row.append(make('td', when, { role: 'cell' }), make('td', short, { role: 'cell', className: 'mono', title: point.id }), make('td', size(point.size), { role: 'cell' }), notes, last);
  return row;
}

async function restore(card, at, when, button, after) {
  const text = `The bot stops, the files become those of ${when}, and it connects again if it was connected. What was saved since stays in history. Chats may need a moment to agree on new keys.`;
  if (!await ask({ title: 'Go back to this point?', text, yes: 'Restore', danger: true })) return;
  button.setAttribute('aria-busy', 'true');
  say($('history-notice'), 'Restoring…');
  try {
    await call('POST', sessionPath(card.id, 'restore'), { body: { at } });
    await Promise.all([showHistory(card, after), after()]);
    say($('history-notice'), `Restored ${when}.`, 'good');
    $('history-title').focus();
  } catch (error) {
    button.removeAttribute('aria-busy');
    if (error.name !== 'AbortError') say($('history-notice'), error.message, 'bad');
  }
}
