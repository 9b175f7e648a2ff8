//! PostgREST: the project's tables and functions, below `/rest/v1`.

use std::fmt;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{Answer, Client, Reply, Request};
use super::meaning::shorten;
use crate::error::{Code, Error};
use crate::store::{Kind, StoreError};

/// Sessions that a call of our functions names at most.
pub const AT_ONCE: usize = 500;

/// What a refusal of PostgREST means for whoever called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestKind {
    /// The database does not answer, or not now: ask again.
    Unavailable,
    /// The key has no right to it.
    Denied,
    /// There is no such table or function: the SQL was not applied, or another schema is exposed.
    Missing,
    /// The request cannot be carried out as it is.
    Refused,
    /// Whatever answered is no PostgREST.
    Foreign,
}

/// A call of PostgREST that came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub struct RestError {
    /// What it means.
    pub kind: RestKind,
    /// The function or table.
    pub op: &'static str,
    /// The code of PostgREST or Postgres (`PGRST202`, `42501`), where there is one.
    pub code: Option<String>,
    /// For people: one line, without secrets.
    pub message: String,
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.message)?;
        self.code.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}

impl From<RestError> for Error {
    fn from(error: RestError) -> Self {
        match error.kind {
            RestKind::Unavailable => {
                Self::new(Code::Unreachable, format!("the database does not answer: {error}"))
            }
            RestKind::Denied => {
                Self::new(Code::Unauthorized, format!("the key may not use the database: {error}"))
            }
            RestKind::Missing => Self::new(
                Code::SchemaMissing,
                format!(
                    "the project lacks our tables and functions ({error}): `session-sidecar init --database-url URL` adds them, \
                     `session-sidecar schema` prints the SQL for the dashboard's editor; --lease storage does without"
                ),
            ),
            RestKind::Refused => Self::new(Code::NotSupabase, format!("the database refused: {error}")),
            RestKind::Foreign => Self::new(Code::NotSupabase, error.to_string()),
        }
    }
}

impl Client {
    /// Calls one of our functions: one JSON value in, one out.
    pub async fn rpc<T: DeserializeOwned>(
        &self,
        function: &'static str,
        request: &impl Serialize,
    ) -> Result<T, RestError> {
        let url = format!("{}/rpc/{function}", self.endpoint().rest());
        let request = Request::new(function, Method::POST, url).json(&json!({ "request": request }));
        self.rest(&request).await
    }

    /// Rows of a table; `query` is what PostgREST takes after the `?`. At most 1,000 an answer.
    pub async fn rows<T: DeserializeOwned>(&self, table: &str, query: &str) -> Result<Vec<T>, RestError> {
        let url = format!("{}/{table}?{query}", self.endpoint().rest());
        self.rest(&Request::new("table", Method::GET, url)).await
    }

    async fn rest<T: DeserializeOwned>(&self, request: &Request) -> Result<T, RestError> {
        let op = request.op;
        let answer = match self.send(request).await.map_err(|error| broken(op, &error))? {
            Reply::Success(response) => self.read(op, response).await.map_err(|error| broken(op, &error))?,
            Reply::Refusal(answer) => return Err(self.rest_refusal(op, &answer)),
        };
        serde_json::from_slice(&answer.body).map_err(|_| RestError {
            kind: RestKind::Foreign,
            op,
            code: None,
            message: format!(
                "{} does not answer as our SQL does: apply it again (`schema`, `init`)",
                self.endpoint()
            ),
        })
    }

    fn rest_refusal(&self, op: &'static str, answer: &Answer) -> RestError {
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let word = |name: &str| body.as_ref().and_then(|body| body.get(name)?.as_str().map(str::to_owned));
        let code = word("code");
        let words = word("message");
        let no_role = code.as_deref() == Some("22023")
            && words.as_ref().is_some_and(|words| words.starts_with("role "));
        let kind = if no_role { RestKind::Denied } else { meaning(answer.status, code.as_deref()) };
        let message = match words {
            Some(message) if kind == RestKind::Denied => {
                format!("{}; {}", self.redact(&shorten(&message)), self.advice(code.as_deref()))
            }
            Some(message) => self.redact(&shorten(&message)),
            None => self.refusal(op, answer).message,
        };
        RestError { kind, op, code, message }
    }
}

/// The meaning of an answer, by PostgREST's code first: gateways have their own ideas of a status.
fn meaning(status: u16, code: Option<&str>) -> RestKind {
    let code = code.unwrap_or_default();
    match (code, status) {
        ("PGRST202" | "PGRST205" | "PGRST106" | "42P01" | "42883", _) => RestKind::Missing,
        ("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003", _) => RestKind::Unavailable,
        ("42501" | "PGRST301" | "PGRST302" | "PGRST303", _) | (_, 401 | 403) => RestKind::Denied,
        // Serialisation, deadlock, locks, timeouts, shutdown, connections; a database on a full disk is read-only.
        (_, _)
            if ["40", "53", "55", "57", "08", "25"]
                .iter()
                .any(|class| code.len() == 5 && code.starts_with(class)) =>
        {
            RestKind::Unavailable
        }
        (_, 402 | 408 | 425 | 429 | 500..) => RestKind::Unavailable,
        ("", _) => RestKind::Foreign,
        _ => RestKind::Refused,
    }
}

fn broken(op: &'static str, error: &StoreError) -> RestError {
    let kind = if error.kind == Kind::Protocol { RestKind::Foreign } else { RestKind::Unavailable };
    RestError { kind, op, code: None, message: error.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_means_what_its_code_says() {
        for (status, code, kind) in [
            (404, Some("PGRST202"), RestKind::Missing),
            (404, Some("PGRST205"), RestKind::Missing),
            (404, Some("42P01"), RestKind::Missing),
            (403, Some("42501"), RestKind::Denied),
            (401, Some("PGRST303"), RestKind::Denied),
            (401, None, RestKind::Denied),
            (500, Some("40001"), RestKind::Unavailable),
            (500, Some("57014"), RestKind::Unavailable),
            (405, Some("25006"), RestKind::Unavailable),
            (503, Some("PGRST000"), RestKind::Unavailable),
            (504, Some("PGRST003"), RestKind::Unavailable),
            (540, None, RestKind::Unavailable),
            (502, None, RestKind::Unavailable),
            (400, Some("PT400"), RestKind::Refused),
            (409, Some("23505"), RestKind::Refused),
            (404, None, RestKind::Foreign),
        ] {
            assert_eq!(meaning(status, code), kind, "{status} {code:?}");
        }
    }

    #[test]
    fn missing_functions_name_every_way_on() {
        let error = RestError {
            kind: RestKind::Missing,
            op: "acquire_session_leases",
            code: None,
            message: String::new(),
        };
        let error = Error::from(error);
        assert_eq!((error.code(), error.code().exit()), (Code::SchemaMissing, 2));
        for way in ["init", "schema", "--lease storage"] {
            assert!(error.to_string().contains(way), "{error}");
        }
    }
}
