//! Where the history lies, and the secret that opens it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::encryption::keys;
use super::usage;
use crate::cli::options::RemoteArgs;
use crate::error::{Code, Error, Result};
use crate::history::Keys;
use crate::host::Host;
use crate::supabase::{
    Credential, CredentialSource, Database, Endpoint, Reading, Settings, Supabase, Timeouts, Wanted,
};

/// Where the history lies, and with which right.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// The project's URL as it was given.
    pub url: String,
    /// The secret key.
    pub key: Secret,
    /// Where the key came from.
    pub key_source: KeySource,
    /// What it must be, and how it is shown.
    pub reading: Reading,
    /// The bucket.
    pub bucket: String,
    /// More certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// What the history is encrypted for, and what opens it.
    pub keys: Keys,
}

/// Where a secret came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A flag: everybody on the machine can see it.
    Flag,
    /// A variable.
    Variable(&'static str),
    /// A file, which is read again when the key is refused.
    File(PathBuf),
    /// This process made it, for a project that is known by this name: its URL is another one at each start.
    Own(String),
}

/// Looks up a variable of the environment; one that is empty is unset.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
#[must_use]
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The variables that may hold the secret key, in the order in which they count.
const KEY_VARIABLES: [(&str, &str); 3] = [
    ("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_ROLE_KEY_FILE"),
    ("SUPABASE_SECRET_KEY", "SUPABASE_SECRET_KEY_FILE"),
    ("SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_KEY_FILE"),
];

/// The variables that may hold a token that opens the bucket alone: it counts before every key that opens more.
const TOKEN_VARIABLES: (&str, &str) = ("SUPABASE_SIDECAR_TOKEN", "SUPABASE_SIDECAR_TOKEN_FILE");

impl RemoteConfig {
    /// The remote side of a project. Reads the key's file, where there is one.
    pub fn new(args: &RemoteArgs, env: Env<'_>) -> Result<Self> {
        let found = match token(args, env)? {
            Some(token) => Some((token, Reading { wanted: Wanted::Token, gateway: gateway(env)? })),
            None => key(args, env)?.map(|key| (key, Reading::KEY)),
        };
        Self::with(args, found, env)
    }

    /// The same for who changes the project itself, which only a secret key may.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] where only a token is given.
    pub fn for_owner(args: &RemoteArgs, env: Env<'_>) -> Result<Self> {
        let found = key(args, env)?.map(|key| (key, Reading::KEY));
        if found.is_none() && token(args, env)?.is_some() {
            return Err(Error::new(
                Code::Unauthorized,
                "this makes or changes the bucket, which a token of the role session_sidecar may not: set \
                 SUPABASE_SERVICE_ROLE_KEY for this one command",
            ));
        }
        Self::with(args, found, env)
    }

    fn with(args: &RemoteArgs, found: Option<((Secret, KeySource), Reading)>, env: Env<'_>) -> Result<Self> {
        let url =
            args.supabase_url.as_deref().map(str::trim).filter(|url| !url.is_empty()).ok_or_else(|| {
                usage(
                    "SUPABASE_URL is not set: give the project's URL (https://abcdefgh.supabase.co), \
                 or try `session-sidecar dev`, which needs none",
                )
            })?;
        let bucket = args.bucket.trim().to_owned();
        let ((key, key_source), reading) = found.ok_or_else(|| {
            usage(
                "no key: set SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_SERVICE_ROLE_KEY_FILE) to the project's secret key, \
                 in the dashboard under Settings, API keys; or SUPABASE_SIDECAR_TOKEN to what `session-sidecar token` makes",
            )
        })?;
        let keys = keys(&args.encryption, env)?;
        Ok(Self {
            url: url.to_owned(),
            key,
            key_source,
            reading,
            bucket,
            ca_file: args.ca_file.clone(),
            keys,
        })
    }
}

impl RemoteConfig {
    /// A client of the bucket; connects with its first call.
    pub fn connect(&self, host: Arc<dyn Host>) -> Result<Supabase> {
        let credential = match &self.key_source {
            KeySource::File(path) => CredentialSource::file(path, self.reading.clone(), host.now())?,
            _ => CredentialSource::fixed(self.credential(host.now())?),
        };
        self.connect_as(credential, host)
    }

    /// The key as it is now.
    pub fn credential(&self, now: Timestamp) -> Result<Credential> {
        self.reading.parse(self.key.expose(), now)
    }

    /// The same with the key of somebody else.
    pub fn connect_as(&self, credential: CredentialSource, host: Arc<dyn Host>) -> Result<Supabase> {
        Supabase::new(Settings {
            endpoint: Endpoint::parse(&self.url)?,
            credential,
            bucket: self.bucket.clone(),
            ca_file: self.ca_file.clone(),
            timeouts: Timeouts::default(),
            host,
        })
    }
}

fn key(args: &RemoteArgs, env: Env<'_>) -> Result<Option<(Secret, KeySource)>> {
    if let Some(key) = &args.service_role_key {
        return Ok(Some((key.clone(), KeySource::Flag)));
    }
    for (variable, file) in KEY_VARIABLES {
        if let Some(found) = secret(variable, file, env)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The token, unless a flag gives another key.
fn token(args: &RemoteArgs, env: Env<'_>) -> Result<Option<(Secret, KeySource)>> {
    match &args.sidecar_token {
        Some(token) => Ok(Some((token.clone(), KeySource::Flag))),
        None if args.service_role_key.is_some() => Ok(None),
        None => secret(TOKEN_VARIABLES.0, TOKEN_VARIABLES.1, env),
    }
}

/// What the gateway of a hosted project lets pass: it knows the keys of the dashboard, and no token.
fn gateway(env: Env<'_>) -> Result<Option<String>> {
    let Some((anon, _)) = secret("SUPABASE_ANON_KEY", "SUPABASE_ANON_KEY_FILE", env)? else {
        return Ok(None);
    };
    // A secret key here would show with every request.
    Credential::stranger(anon.expose(), None)?;
    Ok(Some(anon.expose().to_owned()))
}

/// The connection to the project's Postgres itself, where one was given.
pub fn database(flag: Option<&Secret>, env: Env<'_>) -> Result<Option<Database>> {
    let url = match flag {
        Some(url) => Some(url.clone()),
        None => secret("SUPABASE_DB_URL", "SUPABASE_DB_URL_FILE", env)?.map(|(url, _)| url),
    };
    let Some(url) = url else { return Ok(None) };
    let database = Database::parse(url.expose())?;
    // Also alone it must appear in no log.
    database.password().map(Secret::new);
    Ok(Some(database))
}

/// A secret that may be in a variable, or in the file that another one names.
pub fn secret(variable: &'static str, file: &str, env: Env<'_>) -> Result<Option<(Secret, KeySource)>> {
    match (env(variable), env(file)) {
        (Some(_), Some(_)) => Err(usage(format!("{variable} and {file} are both set: unset one of them"))),
        (Some(text), None) => {
            let text = text.into_string().map_err(|_| usage(format!("{variable} is not text")))?;
            Ok(Some((Secret::new(text.trim()), KeySource::Variable(variable))))
        }
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            Ok(Some((secret_file(file, &path)?, KeySource::File(path))))
        }
        (None, None) => Ok(None),
    }
}

/// Reads a secret from the file that `variable` names; white space around it is cut.
pub fn secret_file(variable: &str, path: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("{variable}: cannot read {}", path.display())).because(error))?;
    match text.trim() {
        "" => Err(usage(format!("{variable}: {} is empty", path.display()))),
        secret => Ok(Secret::new(secret)),
    }
}

/// A text that appears in no log, error or `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text, and registers it: wherever it might still slip into a log, `***` appears instead.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        crate::telemetry::register_secret(&text);
        Self(text)
    }

    /// For clap, which wants a parser that may fail: this one does so only for an empty text.
    pub(crate) fn from_flag(text: &str) -> Result<Self> {
        match text.trim() {
            "" => Err(usage("it is empty")),
            key => Ok(Self::new(key)),
        }
    }

    /// Whether another text is the same. How long it takes says nothing of how far they agree.
    #[must_use]
    pub fn is(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }

    /// The text itself; for the request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args<A: clap::Args>(line: &str) -> A {
        let group = A::augment_args(clap::Command::new("group").no_binary_name(true));
        A::from_arg_matches(&group.get_matches_from(line.split_whitespace())).unwrap()
    }

    fn remote(line: &str, env: &[(&str, &str)]) -> Result<RemoteConfig> {
        let env: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
        RemoteConfig::new(&args(line), &|name| env.get(name).map(OsString::from))
    }

    #[test]
    fn the_key_is_taken_from_the_first_of_its_names() {
        let url = "--supabase-url http://127.0.0.1";
        let both = [("SUPABASE_SERVICE_KEY", "third-key"), ("SUPABASE_SECRET_KEY", " second-key\n")];
        let found = remote(url, &both).unwrap();
        assert_eq!(found.key.expose(), "second-key");
        assert_eq!(found.key_source, KeySource::Variable("SUPABASE_SECRET_KEY"));
        let found = remote(&format!("{url} --service-role-key flag-key"), &both).unwrap();
        assert_eq!((found.key.expose(), found.key_source), ("flag-key", KeySource::Flag));
        let error = remote(url, &[]).unwrap_err().to_string();
        assert!(
            error.contains("SUPABASE_SERVICE_ROLE_KEY") && error.contains("SUPABASE_SIDECAR_TOKEN"),
            "{error}"
        );
        assert!(remote("", &both).unwrap_err().to_string().contains("SUPABASE_URL is not set"));
    }

    #[test]
    fn a_key_may_lie_in_a_file_but_not_in_two_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let file = ("SUPABASE_SECRET_KEY_FILE", path.to_str().unwrap());
        let url = "--supabase-url http://127.0.0.1";
        assert!(remote(url, &[file]).unwrap_err().to_string().contains("cannot read"));
        std::fs::write(&path, "\n").unwrap();
        assert!(remote(url, &[file]).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&path, "key-in-a-file\n").unwrap();
        let found = remote(url, &[file]).unwrap();
        assert_eq!((found.key.expose(), found.key_source), ("key-in-a-file", KeySource::File(path.clone())));
        let error = remote(url, &[file, ("SUPABASE_SECRET_KEY", "x")]).unwrap_err();
        assert!(error.to_string().contains("both set"), "{error}");
    }

    #[test]
    fn a_token_counts_before_a_key_that_opens_more_but_not_before_a_flag() {
        let url = "--supabase-url http://127.0.0.1";
        let both = [("SUPABASE_SIDECAR_TOKEN", "the-token"), ("SUPABASE_SERVICE_ROLE_KEY", "the-key")];
        let found = remote(url, &both).unwrap();
        assert_eq!((found.key.expose(), found.reading.wanted), ("the-token", Wanted::Token));
        let found = remote(&format!("{url} --service-role-key flag-key"), &both).unwrap();
        assert_eq!((found.key.expose(), found.reading.wanted), ("flag-key", Wanted::Key));
        let found = remote(&format!("{url} --sidecar-token flag-token"), &both).unwrap();
        assert_eq!((found.key.expose(), found.reading.wanted), ("flag-token", Wanted::Token));
        assert_eq!(found.reading.gateway, None);
        let with_anon = [both[0], ("SUPABASE_ANON_KEY", "sb_publishable_x")];
        assert_eq!(remote(url, &with_anon).unwrap().reading.gateway.as_deref(), Some("sb_publishable_x"));
        let wrong = [both[0], ("SUPABASE_ANON_KEY", "sb_secret_x")];
        assert!(remote(url, &wrong).unwrap_err().to_string().contains("SUPABASE_ANON_KEY"));
    }

    #[test]
    fn who_changes_the_project_needs_the_secret_key() {
        let owner = |env: &[(&str, &str)]| {
            let env: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
            let args = args("--supabase-url http://127.0.0.1");
            RemoteConfig::for_owner(&args, &|name| env.get(name).map(OsString::from))
        };
        let token = ("SUPABASE_SIDECAR_TOKEN", "the-token");
        let error = owner(&[token]).unwrap_err();
        assert_eq!(error.code(), Code::Unauthorized);
        assert!(error.to_string().contains("SUPABASE_SERVICE_ROLE_KEY"), "{error}");
        assert_eq!(owner(&[token, ("SUPABASE_SECRET_KEY", "the-key")]).unwrap().key.expose(), "the-key");
        assert_eq!(owner(&[]).unwrap_err().code(), Code::Usage);
    }

    #[test]
    fn a_secret_shows_in_no_debug_output() {
        let text =
            format!("{:?}", remote("--supabase-url http://127.0.0.1 --service-role-key hush-hush", &[]));
        assert!(text.contains("***") && !text.contains("hush"), "{text}");
    }
}
