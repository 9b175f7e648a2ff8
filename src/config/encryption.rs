//! The keys of an encrypted history, from flags, a file and a variable.

use super::{Env, secret, secret_file, usage};
use crate::cli::options::EncryptionArgs;
use crate::error::Result;
use crate::history::Keys;

/// Where the identities are, if they are not in a file: never a flag, which everybody on the machine can see.
const IDENTITY: &str = "SIDECAR_IDENTITY";
const IDENTITY_FILE: &str = "SIDECAR_IDENTITY_FILE";

/// Reads them.
pub(super) fn keys(args: &EncryptionArgs, env: Env<'_>) -> Result<Keys> {
    let identities = match (&args.identity_file, env(IDENTITY)) {
        (Some(_), Some(_)) => {
            let text = format!(
                "{IDENTITY} and --identity-file ({IDENTITY_FILE}) are both given: leave one of them out"
            );
            return Err(usage(text));
        }
        (Some(path), None) => Some(secret_file(IDENTITY_FILE, path)?),
        // Its `_FILE` is the flag's variable, which was read with it.
        (None, Some(_)) => {
            secret(IDENTITY, "", &|name| env(name).filter(|_| name == IDENTITY))?.map(|(text, _)| text)
        }
        (None, None) => None,
    };
    let recipients = args.recipient.iter().flat_map(|list| list.split([',', ' ', '\n', '\t']));
    let keys = Keys::new(
        recipients.map(str::trim).filter(|one| !one.is_empty()),
        identities.as_ref().map_or("", |text| text.expose()),
        args.accept_plaintext,
    )?;
    if identities.is_some() && !keys.can_open() {
        let text = format!(
            "the identity file (--identity-file, {IDENTITY}) holds only comments: give a line AGE-SECRET-KEY-1…"
        );
        return Err(usage(text));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
