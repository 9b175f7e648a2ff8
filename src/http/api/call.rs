//! What a handler is given: who calls, about which session, with what.

use std::collections::HashMap;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::{Api, BODY_LIMIT, Shared, select};
use crate::http::auth::Access;
use crate::session::{SessionKey, check_id};

/// A call whose caller may see the user in its path.
#[derive(Debug)]
pub struct Call {
    /// The user in the path.
    pub user: String,
    /// Who calls.
    pub access: Access,
    /// The headers.
    pub headers: HeaderMap,
    session: Option<String>,
    query: HashMap<String, String>,
    body: Map<String, Value>,
}

impl Call {
    /// The session that is named: in the path, else in the query, else in the body.
    pub fn named(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The session that is meant: the one that is named, else see [`select`]; `default` where the user has none.
    pub async fn session(&self, api: &Api) -> Result<SessionKey, Problem> {
        let session = if let Some(named) = &self.session {
            named.clone()
        } else {
            let entries = api.directory.of(&self.user, api).await?;
            select::meant(&entries).map_or_else(|| select::FIRST.to_owned(), |entry| entry.session_id.clone())
        };
        Ok(SessionKey::new(self.user.clone(), session)?)
    }

    /// The body.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_value(Value::Object(self.body.clone()))
            .map_err(|error| Problem::bad_request(format!("the body does not fit: {error}")))
    }

    /// A value of the query; one that is empty is none.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A yes or no of the query; none: it does not say.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.query.get(name).map(String::as_str) {
            None => Ok(None),
            Some("true" | "1" | "") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(Problem::bad_request(format!("`{name}` is neither true nor false"))),
        }
    }
}

impl FromRequest<Shared> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        // The guard let it in; a route without it is a bug, and must not be open.
        let access = parts.extensions.remove::<Access>().ok_or_else(Problem::internal)?;
        let (user, mut session) = ids(&mut parts, api).await?;
        let user = user.ok_or_else(Problem::internal)?;
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let bytes = match parts.method {
            Method::GET | Method::HEAD => Bytes::new(),
            _ => to_bytes(body, BODY_LIMIT).await.map_err(|_| Problem::too_large())?,
        };
        let body = object(&bytes)?;
        if session.is_none() {
            session = query.get("sessionId").filter(|id| !id.is_empty()).cloned();
        }
        if session.is_none() {
            session = match body.get("sessionId") {
                None | Some(Value::Null) => None,
                Some(Value::String(id)) if id.is_empty() => None,
                Some(Value::String(id)) => Some(id.clone()),
                Some(_) => return Err(Problem::bad_request("`sessionId` is not text")),
            };
        }
        if let Some(session) = &session {
            check_id("session", session)?;
        }
        Ok(Self { user, access, headers: parts.headers, session, query, body })
    }
}

/// User and session of a path, checked.
pub async fn ids(
    parts: &mut axum::http::request::Parts,
    api: &Shared,
) -> Result<(Option<String>, Option<String>), Problem> {
    use axum::extract::FromRequestParts;
    let malformed = |_| Problem::from(check_id("user", "").expect_err("no id is no id"));
    let params = RawPathParams::from_request_parts(parts, api).await.map_err(malformed)?;
    let (mut user, mut session) = (None, None);
    for (name, value) in &params {
        check_id(name, value)?;
        match name {
            "user" => user = Some(value.to_owned()),
            _ => session = Some(value.to_owned()),
        }
    }
    Ok((user, session))
}

/// A body; an empty one is valid, whatever its type says: clients of the old service send none.
fn object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        _ => Err(Problem::bad_json()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_object_or_nothing() {
        for nothing in ["", " \n", "null", "{}"] {
            assert!(object(nothing.as_bytes()).unwrap().is_empty(), "{nothing}");
        }
        assert_eq!(object(br#"{"a":1}"#).unwrap()["a"], 1);
        for bad in ["{", "[]", "1", "\"x\"", "a=b", "\u{0}"] {
            assert_eq!(object(bad.as_bytes()).unwrap_err().code(), "bad_json", "{bad}");
        }
    }
}
