//! Secrets that are compared with what a caller shows, and read again from their file.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::config::{KeySource, Secret, secret_file};

/// How long a replaced file may go unseen: a token that leaked must not live on until somebody shows the new one.
const REREAD: Duration = Duration::from_secs(5);

/// A secret, fixed or in a file that may be replaced while we run.
#[derive(Debug)]
pub struct SecretSource {
    file: Option<PathBuf>,
    current: Mutex<(Secret, Instant)>,
}

impl From<(Secret, KeySource)> for SecretSource {
    fn from((secret, source): (Secret, KeySource)) -> Self {
        let file = match source {
            KeySource::File(path) => Some(path),
            KeySource::Flag | KeySource::Variable(_) | KeySource::Own(_) => None,
        };
        Self { file, current: Mutex::new((secret, Instant::now())) }
    }
}

impl SecretSource {
    /// The secret as it is now. A file that is unreadable or half-written keeps the one there was.
    pub async fn current(&self) -> Secret {
        let (known, read) = self.known();
        let Some(file) = self.file.clone().filter(|_| read.elapsed() >= REREAD) else { return known };
        let fresh = tokio::task::spawn_blocking(move || secret_file("the file of a secret", &file)).await;
        let now = match fresh {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a secret could not be read again: the one before counts on");
                known
            }
            Err(_) => known,
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (now.clone(), Instant::now());
        now
    }

    /// Whether `shown` is the secret; takes as long for a nearly right one as for any other.
    pub async fn is(&self, shown: &str) -> bool {
        let secret = self.current().await;
        // Digests, so that the length does not show either.
        let (ours, theirs) = (Sha256::digest(secret.expose()), Sha256::digest(shown));
        ours.ct_eq(&theirs).into()
    }

    fn known(&self) -> (Secret, Instant) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replaced_token_counts_within_seconds_and_the_old_one_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "the-old-one\n").unwrap();
        let source = SecretSource::from((Secret::new("the-old-one"), KeySource::File(path.clone())));
        std::fs::write(&path, "the-new-one\n").unwrap();
        assert!(source.is("the-old-one").await);
        tokio::time::advance(REREAD).await;
        assert!(!source.is("the-old-one").await);
        assert!(source.is("the-new-one").await);
        std::fs::write(&path, "").unwrap();
        tokio::time::advance(REREAD).await;
        assert!(source.is("the-new-one").await, "half-written");
        assert!(!source.is("").await);
    }
}
