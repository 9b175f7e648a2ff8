// Passkeys: the challenge of WhatsApp as browsers take it.

// WAHA and WhatsApp's own pages wrap the options in `publicKey`.
export const challenge = (passkey) => passkey.options.publicKey ?? passkey.options;

// What answers the challenge in the developer console of WhatsApp's own page. The console's `copy` is gone once its line has
// run, so it is kept.
export const command = (passkey) => '((keep) => navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON('
  + `${JSON.stringify(challenge(passkey))})}).then((answer) => keep(JSON.stringify(answer))))(copy)`;

const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));

// For browsers without PublicKeyCredential.parseRequestOptionsFromJSON.
function parse(options) {
  const allowCredentials = options.allowCredentials?.map((one) => ({ ...one, id: bytes(one.id) }));
  return { ...options, challenge: bytes(options.challenge), allowCredentials };
}

// The answer as JSON text, where this browser gives one.
export async function answerHere(passkey, signal) {
  if (!window.PublicKeyCredential) throw new Error('This browser has no passkeys here: they need https, or localhost.');
  const read = PublicKeyCredential.parseRequestOptionsFromJSON?.bind(PublicKeyCredential) ?? parse;
  try {
    return JSON.stringify(await navigator.credentials.get({ publicKey: read(challenge(passkey)), signal }));
  } catch (error) {
    if (error.name === 'SecurityError') throw new Error('The browser refused: this passkey belongs to whatsapp.com. Copy the challenge and answer it there.');
    throw new Error('No passkey was given. Try again, or copy the challenge and answer it elsewhere.');
  }
}
