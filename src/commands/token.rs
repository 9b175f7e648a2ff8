//! `token`: what a sidecar that needs no secret key is given.

use jiff::Timestamp;
use serde::Serialize;

use super::output::Output;
use crate::cli::Token;
use crate::config::{Secret, environment, secret, secret_file};
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::session::{ROLE, Scope, check_id};
use crate::supabase::mint;

#[derive(Serialize)]
struct Report<'a> {
    token: &'a str,
    role: &'a str,
    expires_at: Timestamp,
    user: Option<&'a str>,
    session: Option<&'a str>,
}

/// Makes one, and prints it alone.
pub(super) fn run(args: &Token, out: Output) -> Result<()> {
    let scope = scope(args)?;
    let minted = mint(jwt_secret(args)?.expose(), &scope, args.ttl, Real.now())?;
    let (user, session) = match &scope {
        Scope::Bucket => (None, None),
        Scope::User(user) => (Some(user.as_str()), None),
        Scope::Session(key) => (Some(key.user()), Some(key.session())),
    };
    let report = Report { token: &minted.token, role: ROLE, expires_at: minted.expires_at, user, session };
    out.result(&report, |report| report.token.to_owned())
}

fn scope(args: &Token) -> Result<Scope> {
    match (&args.session, &args.user) {
        (Some(_), Some(_)) => Err(Error::new(
            Code::Usage,
            "--session (SIDECAR_SESSION) and --user (SIDECAR_USER) exclude each other: a token is for one session, or for \
             all of one user",
        )),
        (Some(key), None) => Ok(Scope::Session(key.clone())),
        (None, Some(user)) => {
            check_id("user", user)?;
            Ok(Scope::User(user.clone()))
        }
        (None, None) => Ok(Scope::Bucket),
    }
}

fn jwt_secret(args: &Token) -> Result<Secret> {
    if let Some(path) = &args.jwt_secret_file {
        return secret_file("--jwt-secret-file", path);
    }
    let found = secret("SUPABASE_JWT_SECRET", "SUPABASE_JWT_SECRET_FILE", &environment)?;
    found.map(|(secret, _)| secret).ok_or_else(|| {
        Error::new(
            Code::Usage,
            "no JWT secret: set SUPABASE_JWT_SECRET, or give its file as --jwt-secret-file; in the dashboard under \
             Settings, JWT keys, legacy JWT secret",
        )
    })
}
