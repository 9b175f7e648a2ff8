//! Columns, their types, and values as Postgres prints them in JSON.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::error::PgError;

/// A row: every column of its table.
pub(super) type Row = Map<String, Value>;

/// A type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Bool,
    Json,
    Time,
}

/// A table's name and columns.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

/// The table of sessions, as the service that we replace writes it; with text ids and their unique constraint.
pub(super) const SESSIONS: Shape = Shape {
    name: "whatsapp_sessions",
    columns: &[
        ("user_id", Kind::Text),
        ("session_id", Kind::Text),
        ("session_name", Kind::Text),
        ("session_alias", Kind::Text),
        ("phone_number", Kind::Text),
        ("connection_type", Kind::Text),
        ("max_connections", Kind::Int),
        ("status", Kind::Text),
        ("is_default", Kind::Bool),
        ("is_active", Kind::Bool),
        ("session_data", Kind::Json),
        ("created_at", Kind::Time),
        ("last_activity", Kind::Time),
    ],
};

pub(super) const LEASES: Shape = Shape {
    name: "session_sidecar_leases",
    columns: &[
        ("bucket", Kind::Text),
        ("user_id", Kind::Text),
        ("session_id", Kind::Text),
        ("epoch", Kind::Int),
        ("holder", Kind::Text),
        ("expires_at", Kind::Time),
        ("granted_at", Kind::Time),
        ("head", Kind::Text),
        ("wish_by", Kind::Text),
        ("wish_at", Kind::Time),
        ("updated_at", Kind::Time),
    ],
};

/// A time as Postgres prints it.
pub(super) fn stamp(time: Timestamp) -> String {
    time.to_string().replace('Z', "+00:00")
}

impl Kind {
    /// As `format_type` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "integer",
            Self::Bool => "boolean",
            Self::Json => "jsonb",
            Self::Time => "timestamp with time zone",
        }
    }

    /// A value of JSON as a column keeps it.
    pub(super) fn cast(self, value: Value) -> Result<Value, PgError> {
        let cast = match (self, &value) {
            (_, Value::Null)
            | (Self::Json, _)
            | (Self::Text, Value::String(_))
            | (Self::Bool, Value::Bool(_)) => {
                return Ok(value);
            }
            (Self::Text, other) => Some(other.to_string().into()),
            (Self::Int, Value::Number(number)) => number.as_i64().map(Value::from),
            (Self::Int, Value::String(text)) => text.parse::<i64>().ok().map(Value::from),
            (Self::Bool, Value::String(text)) => match text.as_str() {
                "true" | "t" => Some(true.into()),
                "false" | "f" => Some(false.into()),
                _ => None,
            },
            (Self::Time, Value::String(text)) => {
                text.parse().ok().map(|time| stamp(super::lease_table::micros(time)).into())
            }
            _ => None,
        };
        cast.ok_or_else(|| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            PgError::new(400, "22P02", format!("invalid input syntax for type {}: \"{text}\"", self.name()))
        })
    }

    /// A value in a filter.
    pub(super) fn literal(self, text: &str) -> Result<Value, PgError> {
        match self {
            Self::Json => serde_json::from_str(text)
                .map_err(|_| PgError::new(400, "22P02", "invalid input syntax for type json")),
            _ => self.cast(text.into()),
        }
    }
}

impl Shape {
    pub(super) fn kind(&self, column: &str) -> Option<Kind> {
        self.columns.iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind)
    }

    /// The values of a body as the columns keep them.
    pub(super) fn cast(&self, values: Row) -> Result<Row, PgError> {
        let unknown = |name: &str| {
            let message =
                format!("Could not find the '{name}' column of '{}' in the schema cache", self.name);
            PgError::new(400, "PGRST204", message)
        };
        let cast = |(name, value): (String, Value)| {
            let kind = self.kind(&name).ok_or_else(|| unknown(&name))?;
            Ok((name, kind.cast(value)?))
        };
        values.into_iter().map(cast).collect()
    }
}
