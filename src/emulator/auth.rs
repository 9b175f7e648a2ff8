//! Who asks, and what row-level security lets them see.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::session::{ROLE, SESSION_CLAIM, Scope, USER_CLAIM};

/// 1 January 2100: keys of a development server do not run out.
const FAR: u64 = 4_102_444_800;

/// The keys of a project, made at the first start and kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) jwt_secret: String,
    pub(super) service_role: String,
    pub(super) anon: String,
    /// A key of the new kind (`sb_secret_…`): no JWT; only a gateway swaps it for one.
    pub(super) secret: String,
}

impl Keys {
    /// Reads the keys of `path`, or makes them there (mode 0600).
    pub(super) fn load_or_make(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => return serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let random = || hex::encode(rand::random::<[u8; 32]>());
        let mut keys = Self {
            jwt_secret: random(),
            service_role: String::new(),
            anon: String::new(),
            secret: format!("sb_secret_{}", &random()[..32]),
        };
        keys.service_role = keys.sign(&json!({ "iss": "supabase", "role": "service_role", "exp": FAR }));
        keys.anon = keys.sign(&json!({ "iss": "supabase", "role": "anon", "exp": FAR }));
        let partial = path.with_extension("partial");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(&keys)?)?;
        fs::rename(&partial, path)?;
        Ok(keys)
    }

    /// A JWT with these claims, signed with the project's secret.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let key = EncodingKey::from_secret(self.jwt_secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("claims are a JSON object")
    }

    /// The token of a signed-in user.
    pub(super) fn user(&self, sub: &str) -> String {
        self.sign(&json!({ "role": "authenticated", "aud": "authenticated", "sub": sub, "exp": FAR }))
    }

    /// Whether a gateway swaps what a request shows for the service role's token: a new key is no JWT, and is
    /// taken in `apikey` if nothing else is sent.
    pub(super) fn swaps(&self, headers: &HeaderMap) -> bool {
        header(headers, "apikey") == Some(&self.secret)
            && bearer(headers).is_none_or(|bearer| bearer == self.secret)
    }

    /// Whose token this is, and why it is nobody's.
    pub(super) fn verify(&self, token: &str) -> Result<Who, BadToken> {
        if token == self.service_role {
            // Nearly every call: known without its signature.
            return Ok(Who::Service);
        }
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        let key = DecodingKey::from_secret(self.jwt_secret.as_bytes());
        let claims = match jsonwebtoken::decode::<Claims>(token, &key, &rules) {
            Ok(data) => data.claims,
            Err(e) => {
                return Err(match e.kind() {
                    ErrorKind::ExpiredSignature => BadToken::Expired,
                    ErrorKind::InvalidSignature => BadToken::Signature,
                    _ => BadToken::Malformed,
                });
            }
        };
        Ok(match claims.role.as_deref() {
            Some("service_role") => Who::Service,
            None | Some("anon") => Who::Anon,
            Some("authenticated") => Who::User(claims.sub.unwrap_or_default()),
            Some(ROLE) => {
                let claim = |name: &str| claims.others.get(name);
                Who::Sidecar(Scope::of_claims(claim(USER_CLAIM), claim(SESSION_CLAIM)))
            }
            Some(role) => Who::Role(role.to_owned()),
        })
    }
}

/// A header's text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The token of `Authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    header(headers, AUTHORIZATION.as_str()).map(|text| text.strip_prefix("Bearer ").unwrap_or(text))
}

/// A token that is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadToken {
    Expired,
    Signature,
    Malformed,
}

#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    sub: Option<String>,
    // A claim that is null is there, and narrows to nothing.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The role a request runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Bypasses row-level security.
    Service,
    Anon,
    /// Signed in, with the token's `sub`.
    User(String),
    /// The role that our SQL makes, with what the token is for; none: nothing.
    Sidecar(Option<Scope>),
    /// Another Postgres role.
    Role(String),
}

impl Who {
    /// The id of a signed-in user: who owns what they make.
    pub(super) fn sub(&self) -> Option<String> {
        if let Self::User(sub) = self { Some(sub.clone()) } else { None }
    }

    /// The Postgres role of a token that is neither a user's nor one of the project's keys.
    pub(super) fn role(&self) -> Option<&str> {
        match self {
            Self::Sidecar(_) => Some(ROLE),
            Self::Role(role) => Some(role),
            Self::Service | Self::Anon | Self::User(_) => None,
        }
    }

    /// Whether our policies open the rows of a session to them.
    pub(super) fn covers(&self, user: &str, session: &str) -> bool {
        match self {
            Self::Service => true,
            Self::User(sub) => sub == user,
            Self::Sidecar(scope) => scope.as_ref().is_some_and(|scope| scope.covers(user, session)),
            Self::Anon | Self::Role(_) => false,
        }
    }
}

/// A row-level security policy on the objects of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The seed's four: a user may do everything below the folder named by their id.
    OwnFolder,
    /// A careless one: every signed-in user may do everything.
    EveryUser,
    /// Everything, and the bucket's row, to this Postgres role.
    Role(String),
    /// Those of our SQL for the role `session_sidecar`: what its token is for, and the bucket's row.
    Sidecar,
    /// Restrictive, to public: nothing below `prefix`, but for one role.
    Closed {
        /// The closed folder, with its `/`.
        prefix: String,
        /// The Postgres role it stays open to.
        except: String,
    },
}

/// Whether the policies of a bucket let `who` touch the object `name`.
pub(super) fn allows(policies: &[Policy], who: &Who, name: &str) -> bool {
    if *who == Who::Service {
        return true;
    }
    let permits = |policy: &Policy| match (policy, who) {
        (Policy::OwnFolder, Who::User(sub)) => name.split_once('/').is_some_and(|(folder, _)| folder == sub),
        (Policy::EveryUser, Who::User(_)) => true,
        (Policy::Role(role), Who::Role(_) | Who::Sidecar(_)) => who.role() == Some(role),
        (Policy::Sidecar, Who::Sidecar(Some(scope))) => scope.reaches(name),
        _ => false,
    };
    let closed = |policy: &Policy| match policy {
        Policy::Closed { prefix, except } => {
            name.starts_with(prefix.as_str()) && who.role() != Some(except)
                // Our SQL exempts its own role, whose other policies say how far it gets.
                && !(policies.contains(&Policy::Sidecar) && matches!(who, Who::Sidecar(_)))
        }
        _ => false,
    };
    policies.iter().any(permits) && !policies.iter().any(closed)
}

/// Whether `who` sees the row of a bucket with these policies.
pub(super) fn sees_bucket(policies: &[Policy], who: &Who) -> bool {
    match who {
        Who::Service => true,
        Who::Sidecar(_) if policies.contains(&Policy::Sidecar) => true,
        Who::Role(_) | Who::Sidecar(_) => {
            policies.iter().any(|policy| matches!(policy, Policy::Role(role) if who.role() == Some(role)))
        }
        Who::Anon | Who::User(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::load_or_make(&tempfile::tempdir().unwrap().path().join("keys.json")).unwrap()
    }

    #[test]
    fn keys_outlive_a_restart_and_nobody_else_reads_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let first = Keys::load_or_make(&path).unwrap();
        assert_eq!(Keys::load_or_make(&path).unwrap().service_role, first.service_role);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn tokens_are_told_apart_as_the_server_does() {
        let keys = keys();
        assert_eq!(keys.verify(&keys.service_role), Ok(Who::Service));
        assert_eq!(keys.verify(&keys.anon), Ok(Who::Anon));
        assert_eq!(keys.verify(&keys.user("u1")), Ok(Who::User("u1".into())));
        assert_eq!(keys.verify(&keys.sign(&json!({"sub": "x", "exp": FAR}))), Ok(Who::Anon));
        let expired = keys.sign(&json!({"role": "service_role", "exp": 1}));
        assert_eq!(keys.verify(&expired), Err(BadToken::Expired));
        let foreign = Keys { jwt_secret: "other".into(), ..keys.clone() }.user("u1");
        assert_eq!(keys.verify(&foreign), Err(BadToken::Signature));
        assert_eq!(keys.verify(&keys.secret), Err(BadToken::Malformed));
    }

    #[test]
    fn a_user_reaches_their_own_folder_only() {
        let seed = [Policy::OwnFolder];
        let user = Who::User("u1".into());
        assert!(allows(&seed, &user, "u1/s/creds.json"));
        for foreign in ["u2/s/creds.json", ".history/u1/s/x", "/u1/x", "u1", "U1/x"] {
            assert!(!allows(&seed, &user, foreign), "{foreign}");
        }
        assert!(!allows(&seed, &Who::Anon, "u1/s/creds.json"));
        assert!(allows(&[], &Who::Service, "u1/s/creds.json"));
    }

    #[test]
    fn a_restrictive_policy_closes_what_a_careless_one_opens() {
        let closed = Policy::Closed { prefix: ".history/".into(), except: "sidecar".into() };
        let policies = [Policy::EveryUser, closed, Policy::Role("sidecar".into())];
        let user = Who::User("u1".into());
        assert!(!allows(&policies, &user, ".history/u/s/x"));
        assert!(allows(&policies, &user, ".HISTORY/u/s/x"));
        assert!(allows(&policies, &Who::Role("sidecar".into()), ".history/u/s/x"));
    }
}
