//! `/rest/v1`: as much of `PostgREST` as the lease functions, the table of sessions and their readers need.
//!
//! Functions: the five of `supabase/migrations`. Tables: `whatsapp_sessions`, and `session_sidecar_leases` to read.
//! Of the query language: `eq.`, `neq.`, `is.`, `in.(…)`, `select` of columns, `order`, `limit`, `offset`,
//! `on_conflict`, `columns`. All is kept in one file, which is written anew with every change.

mod calls;
mod column;
mod error;
mod http;
mod lease_table;
mod leases;
mod query;
mod report;
mod requests;
mod table;

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::error::PgError;
pub use self::lease_table::{Lease, LeaseTable};

pub(super) use self::http::answer;

/// The rows of a project's database, to look at, to keep and to put back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    /// `session_sidecar_leases`.
    pub leases: LeaseTable,
    /// `whatsapp_sessions`, in the order of their creation; every row has every column.
    pub sessions: Vec<Map<String, Value>>,
}

/// The database.
pub(super) struct Rest {
    tables: Tables,
    path: PathBuf,
    /// Whether somebody ran the SQL.
    pub(super) schema: bool,
    /// The directory is another's now.
    pub(super) closed: bool,
}

impl Rest {
    /// Reads what an earlier life kept in `path`.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let tables = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Tables::default(),
            Err(e) => return Err(e),
        };
        Ok(Self { tables, path, schema: true, closed: false })
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A transaction: all of `change`, kept on disk, or nothing.
    pub(super) fn change<T, E: From<io::Error>>(
        &mut self,
        change: impl FnOnce(&mut Tables) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut next = self.tables.clone();
        let done = change(&mut next)?;
        if next != self.tables {
            self.put(next)?;
        }
        Ok(done)
    }

    /// Replaces all rows.
    pub(super) fn put(&mut self, tables: Tables) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::other("the emulator has ended"));
        }
        let partial = self.path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(&tables)?)?;
        fs::rename(&partial, &self.path)?;
        self.tables = tables;
        Ok(())
    }
}
