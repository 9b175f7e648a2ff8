//! The table behind PostgREST: written by our function, read as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Notes, Row};
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::supabase::{Client, RestError, RestKind};

/// Rows of one page; PostgREST may give fewer.
const PAGE: usize = 1000;

/// The table of a project.
#[derive(Debug)]
pub struct PostgrestNotes {
    client: Arc<Client>,
    table: String,
}

impl PostgrestNotes {
    /// A table in schema `public`.
    #[must_use]
    pub fn new(client: Arc<Client>, table: String) -> Self {
        Self { client, table }
    }

    fn missing(&self, why: &str) -> Error {
        Error::new(
            Code::SchemaMissing,
            format!(
                "the project lacks the table `{}` or our function for it ({why}): `session-sidecar init --database-url URL` adds \
                 them, `session-sidecar schema` prints the SQL, --metadata off does without",
                self.table
            ),
        )
    }

    fn failed(&self, error: RestError) -> Error {
        match error.kind {
            RestKind::Missing => self.missing(&error.to_string()),
            RestKind::Unavailable => error.into(),
            _ => Error::new(Code::NotSupabase, format!("{error}; --metadata off does without the table")),
        }
    }
}

#[derive(Serialize)]
struct Request<'a> {
    table: &'a str,
    rows: &'a [Row],
}

#[derive(Deserialize)]
struct Answer {
    table: bool,
    rows: Vec<Result>,
}

#[derive(Deserialize)]
struct Result {
    user: String,
    session: String,
    why: Option<String>,
}

#[derive(Deserialize)]
struct Standing {
    user_id: Option<String>,
    session_id: Option<String>,
    is_active: Option<bool>,
}

#[async_trait]
impl Notes for PostgrestNotes {
    async fn note(&self, rows: &[Row]) -> std::result::Result<Vec<(SessionKey, String)>, Error> {
        let request = Request { table: &self.table, rows };
        let answer: Answer =
            self.client.rpc("note_session_metadata", &request).await.map_err(|error| self.failed(error))?;
        if !answer.table {
            return Err(self.missing("there is none with user_id, session_id and session_data"));
        }
        let refused = answer.rows.into_iter().filter_map(|row| {
            // Without a row, and without one to be made, there is nothing to say.
            let why = row.why.filter(|why| why != "no row")?;
            Some((SessionKey::new(row.user, row.session).ok()?, why))
        });
        Ok(refused.collect())
    }

    async fn inactive(&self) -> std::result::Result<BTreeSet<SessionKey>, Error> {
        let (mut inactive, mut others, mut offset) = (BTreeSet::new(), BTreeSet::new(), 0);
        loop {
            // Rows that are equal in all three may change places between two pages.
            let query = format!(
                "select=user_id,session_id,is_active&order=user_id,session_id,is_active&limit={PAGE}&offset={offset}"
            );
            let page: Vec<Standing> =
                self.client.rows(&self.table, &query).await.map_err(|error| self.failed(error))?;
            if page.is_empty() {
                return Ok(&inactive - &others);
            }
            offset += page.len();
            for Standing { user_id, session_id, is_active } in page {
                let (Some(user), Some(session)) = (user_id, session_id) else { continue };
                // What cannot be a session of ours is none.
                let Ok(key) = SessionKey::new(user, session) else { continue };
                if is_active == Some(false) { &mut inactive } else { &mut others }.insert(key);
            }
        }
    }

    async fn rows(&self, user: &str) -> std::result::Result<Vec<serde_json::Value>, Error> {
        let mut all = Vec::new();
        loop {
            // An id holds nothing that a filter would take for anything else, but `+` and the like.
            let user: String = url::form_urlencoded::byte_serialize(user.as_bytes()).collect();
            let query =
                format!("select=*&user_id=eq.{user}&order=session_id&limit={PAGE}&offset={}", all.len());
            let page: Vec<serde_json::Value> =
                self.client.rows(&self.table, &query).await.map_err(|error| self.failed(error))?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }
}
