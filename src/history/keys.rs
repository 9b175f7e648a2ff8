//! Who can read what is written: `age` recipients and identities, and what is done about plaintext.
//!
//! Only X25519 keys, as `age-keygen` makes them. The header of an `age` file names nobody: whether an identity opens it is
//! found out by trying.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;

use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, x25519};
use sha2::{Digest as _, Sha256};

use super::HistoryError;
use super::name::Id;
use crate::error::{Code, Error, Result};
use crate::telemetry::register_secret;

/// Recipients at most: 100 bytes each, in every object.
const RECIPIENTS: usize = 100;
/// Bytes of a fingerprint: enough to tell a person's few keys apart.
const FINGERPRINT: usize = 8;

/// What commits are encrypted for, and what opens them. Cheap to clone, never printed.
#[derive(Clone, Default)]
pub struct Keys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    recipients: Vec<x25519::Recipient>,
    identities: Vec<x25519::Identity>,
    accept_plaintext: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("recipients", &self.fingerprints())
            .field("identities", &self.0.identities.len())
            .field("accept_plaintext", &self.0.accept_plaintext)
            .finish()
    }
}

impl Keys {
    /// No encryption: plaintext is written, and plaintext is read.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// `recipients` are `age1…`, `identities` is the text of an identity file: `AGE-SECRET-KEY-1…`, one a line, and
    /// comments.
    ///
    /// # Errors
    /// [`Code::Usage`] for what is neither. No error holds any of the text.
    pub fn new<'a>(
        recipients: impl IntoIterator<Item = &'a str>,
        identities: &str,
        accept_plaintext: bool,
    ) -> Result<Self> {
        let mut keys = Inner { accept_plaintext, ..Inner::default() };
        for text in recipients {
            let recipient = recipient(text)?;
            if !keys.recipients.contains(&recipient) {
                keys.recipients.push(recipient);
            }
        }
        if keys.recipients.len() > RECIPIENTS {
            let text = format!("--recipient (SIDECAR_RECIPIENT): more than {RECIPIENTS} are not taken");
            return Err(Error::new(Code::Usage, text));
        }
        let lines = identities.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            register_secret(line);
            keys.identities.push(identity(line)?);
        }
        Ok(Self(Arc::new(keys)))
    }

    /// Whether commits are encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        !self.0.recipients.is_empty()
    }

    /// Whether anything was configured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.encrypts() || !self.0.identities.is_empty()
    }

    /// Whether there is an identity to open anything with.
    #[must_use]
    pub fn can_open(&self) -> bool {
        !self.0.identities.is_empty()
    }

    /// Whether a person said that plaintext is to be believed.
    #[must_use]
    pub fn accepts_plaintext(&self) -> bool {
        self.0.accept_plaintext
    }

    /// The recipients, each by the start of the SHA-256 of its text (`age1…`), sorted.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        let short = |recipient: &x25519::Recipient| {
            hex::encode(&Sha256::digest(recipient.to_string())[..FINGERPRINT])
        };
        let mut all: Vec<String> = self.0.recipients.iter().map(short).collect();
        all.sort();
        all
    }

    /// What a process that writes must have: both halves, and an identity that opens what the recipients get. Nobody should
    /// find out at the next restore that nobody can read it.
    ///
    /// # Errors
    /// [`Code::NoIdentity`], [`Code::WrongIdentity`], and [`Code::Usage`] for identities without recipients: unless plaintext
    /// is accepted, which is the way out of encryption.
    pub fn check_for_writing(&self) -> Result<()> {
        if !self.encrypts() {
            if self.0.identities.is_empty() || self.0.accept_plaintext {
                return Ok(());
            }
            let text = "there is an identity and no recipient: give --recipient (SIDECAR_RECIPIENT; `age-keygen -y FILE` \
                        prints it), or --accept-plaintext to go back to a history that is not encrypted";
            return Err(Error::new(Code::Usage, text));
        }
        if self.0.identities.is_empty() {
            let text = "there is a recipient and no identity: what is written could not be read back; give \
                        --identity-file (SIDECAR_IDENTITY_FILE), or the variable SIDECAR_IDENTITY";
            return Err(Error::new(Code::NoIdentity, text));
        }
        if self.opens_its_own()? {
            return Ok(());
        }
        let text = "no identity opens what the recipients get: add the identity of one of them (--identity-file, \
                    SIDECAR_IDENTITY), or its recipient (`age-keygen -y FILE` prints it)";
        Err(Error::new(Code::WrongIdentity, text))
    }

    /// Tries it.
    fn opens_its_own(&self) -> Result<bool> {
        let failed = |error| Error::new(Code::Internal, "the encryption cannot be tried").because(error);
        let nonce: [u8; 16] = rand::random();
        let mut sealed = self.seal(Vec::new()).map_err(failed)?;
        let sealed = sealed.write_all(&nonce).and_then(|()| sealed.finish()).map_err(failed)?;
        let id = Id { epoch: 0, seq: 0, nonce: 0 };
        let mut opened = Vec::new();
        match self.open(id, &*sealed) {
            Ok(mut stream) => stream.read_to_end(&mut opened).map_err(failed)?,
            Err(Locked::History(_)) => return Ok(false),
            Err(Locked::Reading(error)) => return Err(failed(error)),
        };
        Ok(opened == nonce)
    }

    /// Encrypts what is written into it for all recipients; `finish` it. Everything is encrypted with a new key, so the
    /// same bytes twice give other bytes.
    pub(super) fn seal<W: Write>(&self, output: W) -> io::Result<StreamWriter<W>> {
        let recipients = self.0.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(output)
    }

    /// Decrypts a commit. What comes out of it was written by somebody who knows a recipient, which is not a secret.
    pub(super) fn open<R: BufRead>(&self, id: Id, input: R) -> Result<StreamReader<R>, Locked> {
        if self.0.identities.is_empty() {
            return Err(HistoryError::NoIdentity { id }.into());
        }
        let identities = self.0.identities.iter().map(|identity| identity as &dyn age::Identity);
        let opened = Decryptor::new_buffered(input).and_then(|sealed| sealed.decrypt(identities));
        opened.map_err(|error| match error {
            DecryptError::NoMatchingKeys => HistoryError::WrongIdentity { id }.into(),
            DecryptError::Io(error) => Locked::Reading(error),
            // Its words are for other programs' users.
            DecryptError::UnknownFormat | DecryptError::InvalidHeader => {
                HistoryError::damaged(id, "it is not an age file").into()
            }
            _ => HistoryError::damaged(id, "the header of its age file was changed").into(),
        })
    }
}

/// Why an `age` file does not open.
#[derive(Debug)]
pub(super) enum Locked {
    /// Known.
    History(HistoryError),
    /// The input ended or failed.
    Reading(io::Error),
}

impl From<HistoryError> for Locked {
    fn from(error: HistoryError) -> Self {
        Self::History(error)
    }
}

fn recipient(text: &str) -> Result<x25519::Recipient> {
    let known = text.to_ascii_lowercase();
    let why = match text.parse() {
        Ok(recipient) => return Ok(recipient),
        Err(_) if known.starts_with("age-secret-key-") => {
            register_secret(text);
            "is given an identity, the secret half: give the public half, which `age-keygen -y FILE` prints"
        }
        Err(_) if known.starts_with("ssh-") || known.starts_with("age1") && known.len() != 62 => {
            "is of a kind that is not taken (ssh, plugins, post-quantum), or cut off: give an X25519 recipient, as \
             `age-keygen` makes it (age1…, 62 characters)"
        }
        Err(_) => "is no age recipient: give age1…, as `age-keygen` prints it",
    };
    Err(Error::new(Code::Usage, format!("--recipient (SIDECAR_RECIPIENT) {why}")))
}

fn identity(line: &str) -> Result<x25519::Identity> {
    let known = line.to_ascii_lowercase();
    let why = match line.parse() {
        Ok(identity) => return Ok(identity),
        Err(_) if known.starts_with("age1") => {
            "a recipient, the public half: give the line AGE-SECRET-KEY-1… that `age-keygen` made"
        }
        Err(_) if known.starts_with("age-encryption.org/") || known.starts_with("-----begin age") => {
            "encrypted with a passphrase, which nobody can type here: decrypt the file first (`age -d`)"
        }
        Err(_) if known.starts_with("-----begin") || known.starts_with("age-plugin-") => {
            "of a kind that is not taken (ssh, plugins): give X25519 identities (AGE-SECRET-KEY-1…)"
        }
        Err(_) => "no age identity: give lines AGE-SECRET-KEY-1…, as `age-keygen` writes them",
    };
    Err(Error::new(Code::Usage, format!("the identity (--identity-file, SIDECAR_IDENTITY) is {why}")))
}

#[cfg(test)]
mod tests;
