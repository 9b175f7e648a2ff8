//! The accounts in a database: the device tables of whatsapp-rust and of whatsmeow.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use sha2::{Digest as _, Sha256};

use super::{Creds, Format, Identity, phone};
use crate::tree::Hash;

/// A table with one row an account.
struct Device {
    format: Format,
    table: &'static str,
    /// The table is this library's if it has these columns.
    marks: &'static [&'static str],
    /// Tables of the library beside it.
    beside: &'static [&'static str],
    /// Whether a row is linked to a phone.
    paired: &'static str,
    /// What never changes from pairing to logout. A version of the library may lack some.
    parts: &'static [&'static str],
    /// The account's JID.
    me: &'static str,
}

/// whatsapp-rust makes its row, with keys, before it is paired, and may change `adv_secret_key` until then. whatsmeow
/// stores a row only when it is.
const DEVICES: [Device; 2] = [
    Device {
        format: Format::WhatsappRust,
        table: "device",
        marks: &["noise_key", "adv_secret_key", "pn", "account"],
        beside: &["__diesel_schema_migrations"],
        paired: "pn <> '' AND account IS NOT NULL",
        parts: &["registration_id", "noise_key", "identity_key", "adv_secret_key", "account", "pn"],
        me: "pn",
    },
    Device {
        format: Format::Whatsmeow,
        table: "whatsmeow_device",
        marks: &["jid"],
        beside: &[],
        paired: "jid <> ''",
        parts: &[
            "jid",
            "registration_id",
            "noise_key",
            "identity_key",
            "adv_key",
            "adv_details",
            "adv_account_sig",
        ],
        me: "jid",
    },
];

/// The accounts in a database; none where it is of no library that is known. // P4
///
/// # Errors
/// The database cannot be read.
pub fn accounts(database: &Connection) -> rusqlite::Result<Option<Creds>> {
    let mut found: Option<Creds> = None;
    for device in &DEVICES {
        if !device.is_there(database)? {
            continue;
        }
        let creds = device.creds(database)?;
        // Of two libraries' tables in one database, the one that is paired counts.
        if found.as_ref().is_none_or(|found| !found.identity.is_paired()) {
            found = Some(creds);
        }
    }
    Ok(found)
}

impl Device {
    fn is_there(&self, database: &Connection) -> rusqlite::Result<bool> {
        let columns = columns(database, self.table)?;
        let mut beside = self.beside.iter();
        Ok(self.marks.iter().all(|mark| columns.contains(*mark))
            && beside.try_fold(true, |all, table| {
                Ok::<_, rusqlite::Error>(all && !columns_are_none(database, table)?)
            })?)
    }

    fn creds(&self, database: &Connection) -> rusqlite::Result<Creds> {
        let columns = columns(database, self.table)?;
        let parts: Vec<&str> = self.parts.iter().copied().filter(|part| columns.contains(*part)).collect();
        let Self { table, paired, me, .. } = self;
        let query = format!("SELECT {me}, {} FROM {table} WHERE {paired} ORDER BY {me}", parts.join(", "));
        let mut statement = database.prepare(&query)?;
        let mut rows = statement.query([])?;
        let (mut identities, mut account) = (BTreeSet::new(), None);
        while let Some(row) = rows.next()? {
            identities.insert(identity_hash(self.format, &parts, row)?);
            account = account.or(text(row.get_ref(0)?).and_then(phone));
        }
        let identity = if identities.is_empty() { Identity::Unpaired } else { Identity::Paired(identities) };
        Ok(Creds { format: Some(self.format), identity, next_pre_key_id: None, phone: account })
    }
}

fn columns(database: &Connection, table: &str) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = database.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn columns_are_none(database: &Connection, table: &str) -> rusqlite::Result<bool> {
    Ok(columns(database, table)?.is_empty())
}

fn identity_hash(format: Format, parts: &[&str], row: &Row<'_>) -> rusqlite::Result<Hash> {
    let mut hasher = Sha256::new();
    hasher.update(format.as_str());
    for (column, part) in parts.iter().enumerate() {
        let mut field = |kind: u8, bytes: &[u8]| {
            hasher.update(format!("\n{part} {kind} {}\n", bytes.len()));
            hasher.update(bytes);
        };
        match row.get_ref(column + 1)? {
            ValueRef::Null => field(0, &[]),
            ValueRef::Integer(number) => field(1, &number.to_be_bytes()),
            ValueRef::Real(number) => field(2, &number.to_be_bytes()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => field(3, bytes),
        }
    }
    Ok(Hash::finish(hasher))
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    value.as_str().ok()
}

#[cfg(test)]
mod tests;
