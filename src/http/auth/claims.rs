//! What a user's token must say, once its signature is known to be good.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Refusal;

/// Clocks differ; a token that begins to count this soon counts.
const SLACK: SignedDuration = SignedDuration::from_secs(60);
/// Roles of keys, not of people.
const NO_USERS: [&str; 5] = ["anon", "service_role", "supabase_admin", "postgres", crate::session::ROLE];

/// The claims that are looked at.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    sub: Option<String>,
    role: Option<String>,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A user whose token counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id: `sub`.
    pub id: String,
    /// When the token ends.
    pub until: Timestamp,
}

impl Claims {
    /// Whose token it is, if it counts now.
    pub fn user(self, now: Timestamp) -> Result<User, Refusal> {
        let until = self.exp.and_then(moment).ok_or(Refusal::Invalid("the token has no end (exp)"))?;
        if until <= now {
            return Err(Refusal::Invalid("the token has expired: sign in again"));
        }
        if self.nbf.is_some_and(|nbf| moment(nbf).is_none_or(|from| from > now + SLACK)) {
            return Err(Refusal::Invalid("the token does not count yet (nbf)"));
        }
        let authenticated = match &self.aud {
            Some(Audience::One(aud)) => aud == "authenticated",
            Some(Audience::Many(many)) => many.iter().any(|aud| aud == "authenticated"),
            None => false,
        };
        if !authenticated {
            return Err(Refusal::Invalid("the token is for something else (aud is not authenticated)"));
        }
        if self.role.as_deref().is_none_or(|role| NO_USERS.contains(&role)) {
            return Err(Refusal::Invalid("it is a key of the project, not a user's token"));
        }
        match self.sub.filter(|sub| !sub.is_empty()) {
            Some(id) => Ok(User { id, until }),
            None => Err(Refusal::Invalid("the token names no user (sub)")),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a moment out of range is none, also after the cut")]
fn moment(seconds: f64) -> Option<Timestamp> {
    seconds.is_finite().then(|| Timestamp::from_second(seconds as i64).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(change: impl FnOnce(&mut Value)) -> Result<User, Refusal> {
        let mut claims = json!({"sub": "u1", "role": "authenticated", "aud": "authenticated", "exp": 2000});
        change(&mut claims);
        serde_json::from_value::<Claims>(claims).unwrap().user(Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn a_users_token_counts_until_its_end() {
        let user = judged(|_| ()).unwrap();
        assert_eq!(user, User { id: "u1".to_owned(), until: Timestamp::from_second(2000).unwrap() });
        assert!(judged(|claims| claims["aud"] = json!(["other", "authenticated"])).is_ok());
        assert!(judged(|claims| claims["nbf"] = json!(1030)).is_ok());
        assert!(judged(|claims| claims["exp"] = json!(1000.5)).is_err());
    }

    #[test]
    fn what_is_no_users_token_is_refused() {
        for (claim, value) in [
            ("exp", json!(1000)),
            ("exp", json!(-5)),
            ("exp", json!(1e300)),
            ("exp", Value::Null),
            ("aud", json!("anon")),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("role", json!("anon")),
            ("role", json!("service_role")),
            ("role", Value::Null),
            ("sub", json!("")),
            ("sub", Value::Null),
            ("nbf", json!(1500)),
        ] {
            let refused = judged(|claims| claims[claim] = value.clone());
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{claim} {value}: {refused:?}");
        }
    }
}
