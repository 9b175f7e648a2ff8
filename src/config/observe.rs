//! What is shown and told of the sessions: labels of metrics, and who gets webhooks.

use std::path::PathBuf;

use url::Url;

use super::{Env, KeySource, Secret, secret, secret_file, usage};
use crate::cli::options::{ObserveArgs, WebhookArgs};
use crate::error::{Error, Result};
use crate::webhook::Key;

pub use crate::cli::values::SessionLabels;

/// What is shown and told of the sessions.
#[derive(Debug, Clone)]
pub struct Observe {
    /// Whether metrics name sessions.
    pub labels: SessionLabels,
    /// Who gets webhooks; none: nobody.
    pub webhook: Option<WebhookConfig>,
}

/// Who gets webhooks.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Where they go.
    pub url: Url,
    /// What signs them; none: nothing does.
    pub key: Option<Key>,
    /// Where that was read from, if from a file.
    pub key_file: Option<PathBuf>,
    /// More certificates to trust.
    pub ca_file: Option<PathBuf>,
}

impl SessionLabels {
    /// Whether sessions are named, on the listener of the API or on that of the probes.
    ///
    /// The API's is where the world may come by, and `/metrics` asks for no credential: only who says so names them there.
    #[must_use]
    pub fn shows(self, api: bool) -> bool {
        match self {
            Self::Auto => !api,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl Observe {
    /// What flags and variables say. Reads the secret's file, where there is one.
    ///
    /// # Errors
    /// [`Code::Usage`](crate::error::Code::Usage) for what is no URL, or a secret that cannot be one.
    pub fn new(args: &ObserveArgs, ca_file: Option<&PathBuf>, env: Env<'_>) -> Result<Self> {
        Ok(Self { labels: args.metrics_sessions, webhook: WebhookConfig::new(&args.webhook, ca_file, env)? })
    }
}

impl WebhookConfig {
    /// What flags and variables say; none: there is no receiver.
    ///
    /// # Errors
    /// As [`Observe::new`].
    pub fn new(args: &WebhookArgs, ca_file: Option<&PathBuf>, env: Env<'_>) -> Result<Option<Self>> {
        let given = match &args.webhook_url {
            Some(url) => Some(url.clone()),
            None => secret("SIDECAR_WEBHOOK_URL", "SIDECAR_WEBHOOK_URL_FILE", env)?.map(|(url, _)| url),
        };
        let Some(given) = given else { return Ok(None) };
        let bad = || {
            usage(
                "--webhook-url (SIDECAR_WEBHOOK_URL) is not a URL: give one that begins with https:// or http://",
            )
        };
        let url = Url::parse(given.expose().trim()).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad());
        }
        let (secret, key_file) = signing(args, env)?;
        let key = secret.map(|secret| Key::parse(secret.expose())).transpose()?;
        Ok(Some(Self { url, key, key_file, ca_file: ca_file.cloned() }))
    }
}

fn signing(args: &WebhookArgs, env: Env<'_>) -> Result<(Option<Secret>, Option<PathBuf>), Error> {
    const FILE: &str = "SIDECAR_WEBHOOK_SECRET_FILE";
    // The file's variable is the flag's; clap has read it.
    match (secret("SIDECAR_WEBHOOK_SECRET", "", env)?, &args.webhook_secret_file) {
        (Some(_), Some(_)) => Err(usage(
            "SIDECAR_WEBHOOK_SECRET and SIDECAR_WEBHOOK_SECRET_FILE are both set: unset one of them",
        )),
        (Some((secret, KeySource::Variable(_))), None) => Ok((Some(secret), None)),
        (_, Some(path)) => Ok((Some(secret_file(FILE, path)?), Some(path.clone()))),
        (_, None) => Ok((None, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;
    use crate::error::Code;

    fn webhook(line: &str, env: &[(&str, &str)]) -> Result<Option<WebhookConfig>> {
        let group = <WebhookArgs as clap::Args>::augment_args(clap::Command::new("x").no_binary_name(true));
        let group = group.mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        let matches = group.get_matches_from(line.split_whitespace());
        let args = <WebhookArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        WebhookConfig::new(&args, None, &|name| env.get(name).map(OsString::from))
    }

    const URL: (&str, &str) = ("SIDECAR_WEBHOOK_URL", "https://hooks.example/a-token-in-the-path");

    #[test]
    fn without_a_url_there_are_no_webhooks() {
        assert!(webhook("", &[("SIDECAR_WEBHOOK_SECRET", "whsec_AAAA")]).unwrap().is_none());
        let found = webhook("", &[URL]).unwrap().unwrap();
        assert_eq!((found.url.host_str(), found.key.is_none()), (Some("hooks.example"), true));
        let flag = webhook("--webhook-url http://127.0.0.1:9/x", &[URL]).unwrap().unwrap();
        assert_eq!(flag.url.port(), Some(9));
    }

    #[test]
    fn the_secret_comes_from_a_variable_or_a_file_but_not_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "whsec_AAAA\n").unwrap();
        let flag = format!("--webhook-secret-file {}", path.display());
        let found = webhook(&flag, &[URL]).unwrap().unwrap();
        assert_eq!((found.key.is_some(), found.key_file.as_ref()), (true, Some(&path)));
        let variable = ("SIDECAR_WEBHOOK_SECRET", "whsec_AAAA");
        assert!(webhook("", &[URL, variable]).unwrap().unwrap().key.is_some());
        assert!(webhook(&flag, &[URL, variable]).unwrap_err().to_string().contains("both set"));
    }

    #[test]
    fn what_is_no_url_or_no_secret_is_refused_without_being_repeated() {
        for url in ["hooks.example/hush-hush", "ftp://hooks.example/hush-hush", "https://"] {
            let error = webhook("", &[("SIDECAR_WEBHOOK_URL", url)]).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{url}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        assert_eq!(
            webhook("", &[URL, ("SIDECAR_WEBHOOK_SECRET", "whsec_%%")]).unwrap_err().code(),
            Code::Usage
        );
    }

    #[test]
    fn sessions_are_named_to_the_platform_and_to_the_world_only_on_request() {
        assert!(SessionLabels::Auto.shows(false) && !SessionLabels::Auto.shows(true));
        assert!(SessionLabels::On.shows(true) && !SessionLabels::Off.shows(false));
    }
}
