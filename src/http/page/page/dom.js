// Small steps in the document. Data gets in as text alone.

export const $ = (id) => document.getElementById(id);

export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, on) {
  // Whoever stands on what goes away is led to the top of the card, not of the page.
  if (!on && element.contains(document.activeElement)) element.closest('.card')?.querySelector('h2').focus();
  element.hidden = !on;
}

export function say(element, text, tone = 'idle') {
  set(element, text);
  element.dataset.tone = tone;
  element.hidden = !text;
}

export function make(tag, text = '', props = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, props);
}
