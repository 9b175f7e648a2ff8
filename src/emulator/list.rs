//! The two lists: v1, one folder level, relative names, letters' case ignored; v2, all names below a string
//! prefix, bytewise, by cursor.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::auth::{Who, allows};
use super::error::Refusal;
use super::index::{Bucket, Row};

/// Rows of a v1 list, whatever `limit` says.
const V1_ROWS: usize = 1500;
/// Rows of a v2 page, whatever `limit` says.
const V2_ROWS: usize = 1000;

/// Milliseconds and `Z`, as every answer has them.
pub(super) fn iso(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// `metadata` of a listed object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    e_tag: String,
    size: u64,
    mimetype: String,
    cache_control: String,
    last_modified: String,
    content_length: u64,
    http_status_code: u16,
}

impl Metadata {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            e_tag: format!("\"{}\"", row.print.etag),
            size: row.print.size,
            mimetype: row.mime.clone(),
            cache_control: row.cache_control.clone(),
            last_modified: iso(row.updated_at),
            content_length: row.print.size,
            http_status_code: 200,
        }
    }
}

/// An object or a folder of a list; a folder has nulls.
#[derive(Serialize)]
pub(super) struct Item {
    /// The last segment: in v2 with a delimiter only.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    name: String,
    id: Option<String>,
    updated_at: Option<String>,
    created_at: Option<String>,
    last_accessed_at: Option<String>,
    metadata: Option<Metadata>,
}

impl Item {
    fn new(name: String, row: Option<&Row>) -> Self {
        let created_at = row.map(|row| iso(row.created_at));
        Self {
            key: None,
            name,
            id: row.map(|row| row.id.clone()),
            updated_at: row.map(|row| iso(row.updated_at)),
            last_accessed_at: created_at.clone(),
            created_at,
            metadata: row.map(Metadata::of),
        }
    }

    fn with_key(mut self) -> Self {
        self.key = self.name.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
        self
    }
}

/// A page of a v2 list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    has_next: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor_key: Option<String>,
    folders: Vec<Item>,
    objects: Vec<Item>,
}

/// What a row sorts by before its name; none: the name alone.
fn time(column: Option<&str>, row: &Row) -> Option<Timestamp> {
    match column {
        Some("updated_at") => Some(row.updated_at),
        Some("created_at" | "last_accessed_at") => Some(row.created_at),
        _ => None,
    }
}

/// `sortBy` of a body: column and whether descending, each where given.
fn sort_by<'a>(body: &'a Value, columns: &[&str]) -> Result<(Option<&'a str>, Option<bool>), Refusal> {
    let Some(sort) = body.get("sortBy") else { return Ok((None, None)) };
    let allowed =
        |field| Refusal::schema(format!("body/sortBy/{field} must be equal to one of the allowed values"));
    let column = sort.get("column");
    let column = column.ok_or_else(|| Refusal::schema("body/sortBy must have required property 'column'"))?;
    let column = column.as_str().filter(|name| columns.contains(name)).ok_or_else(|| allowed("column"))?;
    let descending = match sort.get("order").map(Value::as_str) {
        None => None,
        Some(Some("asc")) => Some(false),
        Some(Some("desc")) => Some(true),
        Some(_) => return Err(allowed("order")),
    };
    Ok((Some(column), descending))
}

fn limit(body: &Value, default: usize, most: usize) -> Result<usize, Refusal> {
    let Some(limit) = body.get("limit") else { return Ok(default) };
    let limit = limit.as_i64().ok_or_else(|| Refusal::schema("body/limit must be integer"))?;
    match usize::try_from(limit) {
        Ok(limit) if limit > 0 => Ok(limit.min(most)),
        _ => Err(Refusal::schema("body/limit must be >= 1")),
    }
}

fn text<'a>(body: &'a Value, field: &str) -> Option<&'a str> {
    body.get(field).and_then(Value::as_str)
}

/// `POST /object/list/{bucket}`: names relative to the folder `prefix`.
pub(super) fn v1(bucket: Option<&Bucket>, who: &Who, body: &Value) -> Result<Vec<Item>, Refusal> {
    let prefix = text(body, "prefix");
    let prefix = prefix.ok_or_else(|| Refusal::schema("body must have required property 'prefix'"))?;
    let (column, descending) = sort_by(body, &["name", "updated_at", "created_at", "last_accessed_at"])?;
    let limit = limit(body, 100, V1_ROWS)?;
    let offset =
        body.get("offset").and_then(Value::as_u64).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let folder = prefix.trim_end_matches('/').to_ascii_lowercase();
    let folder = if folder.is_empty() { folder } else { folder + "/" };
    let search = text(body, "search").unwrap_or_default().to_ascii_lowercase();

    // Sorted by the time where one is asked for, then by the name in lower case.
    let mut found: BTreeMap<(Option<Timestamp>, String, String), Option<&Row>> = BTreeMap::new();
    let Some(bucket) = bucket else { return Ok(Vec::new()) };
    for (name, row) in &bucket.objects {
        if !name.to_ascii_lowercase().starts_with(&folder) || !allows(&bucket.row.set.policies, who, name) {
            continue;
        }
        let rest = &name[folder.len()..];
        let (first, row) = match rest.split_once('/') {
            Some((first, _)) => (first, None),
            None => (rest, Some(row)),
        };
        let lower = first.to_ascii_lowercase();
        if lower.starts_with(&search) {
            let sort = row.and_then(|row| time(column, row));
            found.insert((sort, lower, first.to_owned()), row);
        }
    }
    let item = |((_, _, name), row): ((_, _, String), Option<&Row>)| Item::new(name, row);
    Ok(match descending {
        Some(true) => found.into_iter().rev().skip(offset).take(limit).map(item).collect(),
        _ => found.into_iter().skip(offset).take(limit).map(item).collect(),
    })
}

/// Where a v2 list goes on: it carries its order with it, which wins over the body's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cursor {
    last: String,
    descending: Option<bool>,
    column: Option<String>,
    after: Option<Timestamp>,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let lines = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let mut cursor = Self::default();
        for line in lines.ok_or(Refusal::Cursor)?.lines() {
            let (field, value) = line.split_once(':').ok_or(Refusal::Cursor)?;
            match field {
                "l" => value.clone_into(&mut cursor.last),
                "o" => cursor.descending = Some(value == "desc"),
                "c" => cursor.column = Some(value.to_owned()),
                "a" => cursor.after = Some(value.parse().map_err(|_| Refusal::Cursor)?),
                _ => return Err(Refusal::Cursor),
            }
        }
        if cursor.last.is_empty() { Err(Refusal::Cursor) } else { Ok(cursor) }
    }

    fn to_text(&self) -> String {
        let mut lines = format!("l:{}", self.last);
        if let Some(descending) = self.descending {
            lines += if descending { "\no:desc" } else { "\no:asc" };
        }
        if let Some(column) = &self.column {
            lines.extend(["\nc:", column]);
        }
        if let Some(after) = self.after {
            lines.extend(["\na:", &iso(after)]);
        }
        STANDARD.encode(lines)
    }
}

/// `POST /object/list-v2/{bucket}`. `no_sort`: as a server that does not know `sortBy`.
pub(super) fn v2(bucket: Option<&Bucket>, who: &Who, body: &Value, no_sort: bool) -> Result<Page, Refusal> {
    let limit = limit(body, V2_ROWS, V2_ROWS)?;
    let (mut column, mut descending) = sort_by(body, &["name", "created_at", "updated_at"])?;
    let cursor = match text(body, "cursor") {
        Some(text) => Some(Cursor::parse(text)?),
        None => None,
    };
    if let Some(cursor) = &cursor {
        // Measured: a cursor without an order goes on ascending, whatever the body says.
        descending = Some(cursor.descending.unwrap_or(false));
        column = cursor.column.as_deref().or(column);
    }
    if no_sort {
        (column, descending) = (None, None);
    }
    let prefix = text(body, "prefix").unwrap_or_default();
    let delimited = body.get("with_delimiter").and_then(Value::as_bool).unwrap_or(false);

    let mut found = Vec::new();
    if let Some(bucket) = bucket {
        let back = descending == Some(true);
        let rows = match column {
            None | Some("name") => by_name(bucket, prefix, cursor.as_ref(), back),
            _ => by_time(bucket, prefix, cursor.as_ref(), back, column),
        };
        let seen = rows.filter(|(name, _)| allows(&bucket.row.set.policies, who, name));
        let last = cursor.as_ref().map_or("", |cursor| &cursor.last);
        for (name, row) in seen {
            let folder = name[prefix.len()..].find('/').filter(|_| delimited);
            let name = folder.map_or(name.as_str(), |slash| &name[..=prefix.len() + slash]);
            let again = found.last().is_some_and(|(before, _): &(&str, _)| *before == name);
            // A folder that ended the page before, or was just seen, holds more than one object.
            if folder.is_some() && (again || name == last) {
                continue;
            }
            found.push((name, folder.is_none().then_some(row)));
            if found.len() > limit {
                break;
            }
        }
    }
    let has_next = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_next).map(|(name, row)| Cursor {
        last: (*name).to_owned(),
        descending,
        column: column.map(str::to_owned),
        after: row.and_then(|row| time(column, row)),
    });
    let mut page = Page {
        has_next,
        next_cursor: next.as_ref().map(Cursor::to_text),
        next_cursor_key: next.map(|next| next.last),
        folders: Vec::new(),
        objects: Vec::new(),
    };
    for (name, row) in found {
        let item = Item::new(name.to_owned(), row);
        let item = if delimited { item.with_key() } else { item };
        if row.is_some() { page.objects.push(item) } else { page.folders.push(item) }
    }
    Ok(page)
}

type Rows<'a> = Box<dyn Iterator<Item = (&'a String, &'a Row)> + 'a>;

/// By name: only what the page shows is looked at.
fn by_name<'a>(bucket: &'a Bucket, prefix: &'a str, cursor: Option<&Cursor>, back: bool) -> Rows<'a> {
    let objects = &bucket.objects;
    let after = cursor.map(|cursor| cursor.last.as_str());
    if back {
        // The first name past the prefix: all keys are ASCII, so that a DEL is above each of them.
        let end = format!("{prefix}\u{7f}");
        let end = after.filter(|after| *after < end.as_str()).unwrap_or(&end);
        let range = objects.range::<str, _>((Bound::Unbounded, Bound::Excluded(end)));
        return Box::new(range.rev().take_while(move |(name, _)| name.starts_with(prefix)));
    }
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let range = objects.range::<str, _>((from, Bound::Unbounded));
    Box::new(range.take_while(move |(name, _)| name.starts_with(prefix)))
}

/// By a time, then by name: all of the prefix is sorted.
fn by_time<'a>(
    bucket: &'a Bucket,
    prefix: &'a str,
    cursor: Option<&Cursor>,
    back: bool,
    column: Option<&str>,
) -> Rows<'a> {
    let mut rows: Vec<_> = by_name(bucket, prefix, None, false).collect();
    rows.sort_by_key(|(name, row)| (time(column, row), name.as_str()));
    if back {
        rows.reverse();
    }
    if let Some(Cursor { last, after, .. }) = cursor {
        rows.retain(|(name, row)| {
            let order = (time(column, row), name.as_str()).cmp(&(*after, last.as_str()));
            if back { order.is_lt() } else { order.is_gt() }
        });
    }
    Box::new(rows.into_iter())
}
