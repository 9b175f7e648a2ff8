// The dialog that asks.

import { $, set } from './dom.js';

// Asks before what cannot be taken back lightly. Gives the typed text (or true), or null.
export function ask({ title, text, yes, danger = false, label = '', must = null }) {
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
