//! Where the API answers, and whom.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{Env, KeySource, Secret, secret, usage};
use crate::cli::options::ApiArgs;
use crate::cli::values::{AuthKind, Listen};
use crate::error::Result;
use crate::supabase::Credential;

/// Where the API answers, and whom.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where it listens; none: there is no API.
    pub listen: Option<SocketAddr>,
    /// Whom it answers.
    pub auth: AuthSettings,
    /// How many sessions one user may have.
    pub max_sessions_per_user: usize,
}

/// Whom the API answers.
#[derive(Debug, Clone)]
pub enum AuthSettings {
    /// Everybody: something in front decides.
    Open,
    /// Everybody on this machine: no credential is configured, and nobody else can connect.
    Local,
    /// Who shows one of these.
    Guarded {
        /// The token that opens everything.
        token: Option<(Secret, KeySource)>,
        /// Users' own tokens, which open their own sessions.
        users: Option<UserTokens>,
    },
}

/// How users' tokens are verified.
#[derive(Debug, Clone)]
pub struct UserTokens {
    /// The project's URL as it was given.
    pub url: String,
    /// The key that apps are given: with it the project can be asked whose a token is.
    pub anon: Option<Secret>,
    /// The secret of projects that sign with one.
    pub jwt_secret: Option<(Secret, KeySource)>,
    /// More certificates to trust.
    pub ca_file: Option<PathBuf>,
}

/// The project whose users may call.
#[derive(Debug, Clone, Copy)]
pub struct Project<'a> {
    /// Its URL.
    pub url: &'a str,
    /// More certificates to trust.
    pub ca_file: Option<&'a PathBuf>,
}

impl ApiSettings {
    /// What flags and variables say. Reads the files of secrets, where there are any. `listen` is what [`listen`] made of
    /// the flag; `project` is none where there is no Supabase.
    pub fn new(
        args: &ApiArgs,
        listen: Option<SocketAddr>,
        project: Option<Project<'_>>,
        env: Env<'_>,
    ) -> Result<Self> {
        let most = usize::from(args.max_sessions_per_user);
        if most == 0 {
            return Err(usage("--max-sessions-per-user is 0: give how many sessions one user may have"));
        }
        let auth = match listen {
            // Nobody is answered: nothing has to be given.
            None => AuthSettings::Local,
            Some(listen) => auth(args, listen.ip(), project, env)?,
        };
        Ok(Self { listen, auth, max_sessions_per_user: most })
    }
}

impl ApiSettings {
    /// The token that opens everything, where one is configured and counts.
    #[must_use]
    pub fn token(&self) -> Option<Secret> {
        match &self.auth {
            AuthSettings::Guarded { token, .. } => token.as_ref().map(|(token, _)| token.clone()),
            AuthSettings::Open | AuthSettings::Local => None,
        }
    }
}

fn auth(args: &ApiArgs, listen: IpAddr, project: Option<Project<'_>>, env: Env<'_>) -> Result<AuthSettings> {
    let token = token(args, env)?;
    let users = users(project, args.auth == Some(AuthKind::User), env)?;
    match args.auth {
        Some(AuthKind::None) if token.is_some() => Err(usage(
            "--auth none (SIDECAR_AUTH) lets everybody in although API_TOKEN is set: unset one of them",
        )),
        Some(AuthKind::None) => Ok(AuthSettings::Open),
        Some(AuthKind::Token) if token.is_none() => {
            Err(usage("--auth token needs a token: set API_TOKEN or API_TOKEN_FILE"))
        }
        Some(AuthKind::Token) => Ok(AuthSettings::Guarded { token, users: None }),
        Some(AuthKind::User) if users.is_none() => {
            Err(usage("--auth user needs the project whose users may call: set SUPABASE_URL"))
        }
        Some(AuthKind::User) => Ok(AuthSettings::Guarded { token: None, users }),
        None if token.is_some() || users.is_some() => Ok(AuthSettings::Guarded { token, users }),
        None if listen.to_canonical().is_loopback() => Ok(AuthSettings::Local),
        None => Err(usage(format!(
            "the API at {listen} would be open to everybody who can connect: set API_TOKEN, or set \
             SUPABASE_ANON_KEY so that users of the project call with their own tokens, or give --auth none \
             (SIDECAR_AUTH) where something in front decides"
        ))),
    }
}

fn token(args: &ApiArgs, env: Env<'_>) -> Result<Option<(Secret, KeySource)>> {
    let found = match &args.api_token {
        Some(token) => Some((token.clone(), KeySource::Flag)),
        None => secret("API_TOKEN", "API_TOKEN_FILE", env)?,
    };
    match &found {
        Some((token, _)) if !token.expose().bytes().all(|b| b.is_ascii_graphic()) => {
            Err(usage("API_TOKEN holds characters that no header can carry: give letters, digits and signs"))
        }
        _ => Ok(found),
    }
}

/// Users can call once it is clear that they are meant to: an anon key, a JWT secret, or `--auth user`.
fn users(project: Option<Project<'_>>, asked: bool, env: Env<'_>) -> Result<Option<UserTokens>> {
    let anon = secret("SUPABASE_ANON_KEY", "SUPABASE_ANON_KEY_FILE", env)?.map(|(key, _)| key);
    if let Some(key) = &anon {
        // A secret key here would be sent along with tokens of strangers.
        Credential::stranger(key.expose(), None)?;
    }
    let jwt_secret = secret("SUPABASE_JWT_SECRET", "SUPABASE_JWT_SECRET_FILE", env)?;
    Ok(match project {
        Some(Project { url, ca_file }) if asked || anon.is_some() || jwt_secret.is_some() => {
            Some(UserTokens { url: url.to_owned(), anon, jwt_secret, ca_file: ca_file.cloned() })
        }
        _ => None,
    })
}

/// Where a command listens: where it is told to, else at the `PORT` that a platform gives (all interfaces), else where
/// the command does by default. A command that `PORT` is not for passes none.
pub fn listen(
    by_default: SocketAddr,
    asked: Option<Listen>,
    port: Option<OsString>,
) -> Result<Option<SocketAddr>> {
    match (asked, port.filter(|port| !port.is_empty())) {
        (Some(Listen::Off), _) => Ok(None),
        (Some(Listen::At(address)), _) => Ok(Some(address)),
        (None, Some(port)) => {
            let port = port.to_str().and_then(|port| port.trim().parse().ok());
            let port: u16 = port.ok_or_else(|| usage("PORT is not a port: give a number from 1 to 65535"))?;
            Ok(Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
        }
        (None, None) => Ok(Some(by_default)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::error::Code;

    const HERE: &str = "127.0.0.1:3000";
    const EVERYWHERE: &str = "[::]:3000";

    fn settings(line: &str, listen: &str, url: Option<&str>, env: &[(&str, &str)]) -> Result<ApiSettings> {
        let group = <ApiArgs as clap::Args>::augment_args(clap::Command::new("api").no_binary_name(true));
        let matches = group.get_matches_from(line.split_whitespace());
        let args = <ApiArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        let project = url.map(|url| Project { url, ca_file: None });
        ApiSettings::new(&args, Some(listen.parse().unwrap()), project, &|name| {
            env.get(name).map(OsString::from)
        })
    }

    const URL: Option<&str> = Some("http://127.0.0.1:54321");
    const ANON: (&str, &str) = ("SUPABASE_ANON_KEY", "sb_publishable_x");
    const TOKEN: (&str, &str) = ("API_TOKEN", "a-token");

    #[test]
    fn whatever_credential_is_configured_counts() {
        let guarded = |line: &str, url, env: &[_]| match settings(line, EVERYWHERE, url, env).unwrap().auth {
            AuthSettings::Guarded { token, users } => (token.is_some(), users.is_some()),
            other => panic!("{other:?}"),
        };
        assert_eq!(guarded("", None, &[TOKEN]), (true, false));
        assert_eq!(guarded("--api-token another", URL, &[]), (true, false));
        assert_eq!(guarded("", URL, &[ANON]), (false, true));
        assert_eq!(guarded("", URL, &[("SUPABASE_JWT_SECRET", "s")]), (false, true));
        assert_eq!(guarded("", URL, &[ANON, TOKEN]), (true, true));
        assert_eq!(guarded("--auth token", URL, &[ANON, TOKEN]), (true, false));
        assert_eq!(guarded("--auth user", URL, &[ANON, TOKEN]), (false, true));
        assert_eq!(guarded("--auth user", URL, &[]), (false, true));
    }

    #[test]
    fn without_a_credential_the_api_is_open_on_this_machine_alone() {
        for here in [HERE, "[::1]:3000", "[::ffff:127.0.0.1]:3000"] {
            assert!(matches!(settings("", here, URL, &[]).unwrap().auth, AuthSettings::Local), "{here}");
        }
        for elsewhere in [EVERYWHERE, "0.0.0.0:3000", "10.1.2.3:3000"] {
            let error = settings("", elsewhere, URL, &[]).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.code().exit(), 2);
            for way in ["API_TOKEN", "SUPABASE_ANON_KEY", "--auth none"] {
                assert!(text.contains(way), "{text}");
            }
        }
        assert!(matches!(settings("--auth none", EVERYWHERE, URL, &[]).unwrap().auth, AuthSettings::Open));
    }

    #[test]
    fn contradictions_are_refused() {
        for (line, url, env) in [
            ("--auth none", URL, vec![TOKEN]),
            ("--auth token", URL, vec![ANON]),
            ("--auth user", None, vec![ANON]),
            ("", URL, vec![("SUPABASE_ANON_KEY", "sb_secret_x")]),
            ("", URL, vec![("API_TOKEN", "no\nheader")]),
            ("", URL, vec![TOKEN, ("API_TOKEN_FILE", "/nowhere")]),
            ("--max-sessions-per-user 0", URL, vec![TOKEN]),
        ] {
            let error = settings(line, HERE, url, &env).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{line} {env:?}");
            assert!(!error.to_string().contains("a-token"), "{error}");
        }
        assert_eq!(settings("", HERE, None, &[TOKEN]).unwrap().max_sessions_per_user, 10);
    }

    #[test]
    fn the_flag_counts_before_port_and_port_before_the_default() {
        let by_default: SocketAddr = HERE.parse().unwrap();
        let at = |asked, port: Option<&str>| listen(by_default, asked, port.map(OsString::from));
        let asked = Listen::At("10.0.0.1:1".parse().unwrap());
        assert_eq!(at(None, None).unwrap(), Some(by_default));
        assert_eq!(at(None, Some("")).unwrap(), Some(by_default));
        assert_eq!(at(None, Some("8080")).unwrap(), Some("[::]:8080".parse().unwrap()));
        assert_eq!(at(Some(asked), Some("8080")).unwrap(), Some("10.0.0.1:1".parse().unwrap()));
        assert_eq!(at(Some(Listen::Off), Some("8080")).unwrap(), None);
        for bad in ["x", "70000", "-1", "127.0.0.1:3000"] {
            assert_eq!(at(None, Some(bad)).unwrap_err().code(), Code::Usage, "{bad}");
        }
    }
}
