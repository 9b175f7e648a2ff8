//! What stands after the `?`: filters, columns, order, page.

use std::cmp::Ordering;

use serde_json::Value;
use url::form_urlencoded;

use super::column::{Row, Shape};
use super::error::PgError;

/// Rows of one answer at most, as hosted projects are set up.
const MAX_ROWS: usize = 1_000;

/// A query, with columns that exist.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    pub(super) filters: Vec<Filter>,
    /// Empty: all.
    select: Vec<String>,
    order: Vec<Order>,
    limit: Option<usize>,
    pub(super) offset: usize,
    pub(super) on_conflict: Option<Vec<String>>,
    pub(super) columns: Option<Vec<String>>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Filter {
    column: String,
    /// `is`, which knows null; all others hold of no null.
    is: bool,
    negated: bool,
    values: Vec<Value>,
}

#[derive(Debug, PartialEq)]
struct Order {
    column: String,
    descending: bool,
    nulls_first: bool,
}

fn unparsed(what: &str, text: &str) -> PgError {
    PgError::new(400, "PGRST100", format!("\"failed to parse {what} ({text})\" (line 1, column 1)"))
}

fn unknown(shape: &Shape, column: &str) -> PgError {
    PgError::new(400, "42703", format!("column {}.{column} does not exist", shape.name))
}

/// The items of `a,"b,c"`; a backslash inside of quotes takes the next character as it is.
fn items(text: &str) -> Vec<String> {
    let (mut items, mut quoted, mut chars) = (vec![String::new()], false, text.chars());
    while let Some(c) = chars.next() {
        let last = items.last_mut().expect("there is always one");
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => last.extend(chars.next()),
            ',' if !quoted => items.push(String::new()),
            c => last.push(c),
        }
    }
    items
}

impl Query {
    pub(super) fn parse(shape: &Shape, text: &str) -> Result<Self, PgError> {
        let mut query = Self::default();
        let columns = |text: &str| {
            let names: Vec<_> = items(text).iter().map(|name| name.trim().to_owned()).collect();
            match names.iter().find(|name| shape.kind(name).is_none()) {
                Some(name) => Err(unknown(shape, name)),
                None => Ok(names),
            }
        };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let number = || value.parse::<usize>().map_err(|_| unparsed(&name, &value));
            match &*name {
                "select" if matches!(&*value, "*" | "") => {}
                "select" => query.select = columns(&value)?,
                "columns" => query.columns = Some(columns(&value)?),
                "on_conflict" => query.on_conflict = Some(columns(&value)?),
                "limit" => query.limit = Some(number()?),
                "offset" => query.offset = number()?,
                "order" => {
                    query.order =
                        value.split(',').map(|o| Order::parse(shape, o)).collect::<Result<_, _>>()?;
                }
                column => query.filters.push(Filter::parse(shape, column, &value)?),
            }
        }
        Ok(query)
    }

    pub(super) fn matches(&self, row: &Row) -> bool {
        self.filters.iter().all(|filter| filter.holds(&row[&filter.column]))
    }

    /// The page of these rows that the query wants.
    pub(super) fn page(&self, mut rows: Vec<Row>) -> Vec<Row> {
        rows.sort_by(|a, b| {
            self.order.iter().map(|order| order.compare(a, b)).fold(Ordering::Equal, Ordering::then)
        });
        let limit = self.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS);
        rows.into_iter().skip(self.offset).take(limit).collect()
    }

    /// The columns of a row that the query wants.
    pub(super) fn shown(&self, mut row: Row) -> Row {
        if self.select.is_empty() {
            return row;
        }
        self.select.iter().filter_map(|name| row.remove_entry(name)).collect()
    }
}

impl Filter {
    fn parse(shape: &Shape, column: &str, text: &str) -> Result<Self, PgError> {
        let kind = shape.kind(column).ok_or_else(|| unknown(shape, column))?;
        let (operator, value) = text.split_once('.').ok_or_else(|| unparsed("filter", text))?;
        let values = match (operator, value) {
            ("eq" | "neq", _) => vec![kind.literal(value)?],
            ("is", "null") => vec![Value::Null],
            ("is", "true" | "false") => vec![(value == "true").into()],
            ("in", "()") => vec![],
            ("in", _) => {
                let inner = value.strip_prefix('(').and_then(|value| value.strip_suffix(')'));
                let inner = inner.ok_or_else(|| unparsed("filter", text))?;
                items(inner).iter().map(|item| kind.literal(item)).collect::<Result<_, _>>()?
            }
            _ => return Err(unparsed("filter", text)),
        };
        Ok(Self { column: column.to_owned(), is: operator == "is", negated: operator == "neq", values })
    }

    fn holds(&self, value: &Value) -> bool {
        (self.is || !value.is_null()) && self.values.contains(value) != self.negated
    }
}

impl Order {
    fn parse(shape: &Shape, text: &str) -> Result<Self, PgError> {
        let mut words = text.split('.');
        let column = words.next().unwrap_or_default().trim().to_owned();
        if shape.kind(&column).is_none() {
            return Err(unknown(shape, &column));
        }
        let mut order = Self { column, descending: false, nulls_first: false };
        for word in words {
            match word {
                "asc" => {}
                "desc" => (order.descending, order.nulls_first) = (true, true),
                "nullsfirst" => order.nulls_first = true,
                "nullslast" => order.nulls_first = false,
                _ => return Err(unparsed("order", text)),
            }
        }
        Ok(order)
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let order = match (&a[&self.column], &b[&self.column]) {
            (Value::Null, Value::Null) => return Ordering::Equal,
            (Value::Null, _) => return if self.nulls_first { Ordering::Less } else { Ordering::Greater },
            (_, Value::Null) => return if self.nulls_first { Ordering::Greater } else { Ordering::Less },
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
            // Times too: what Postgres prints sorts as text.
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => a.to_string().cmp(&b.to_string()),
        };
        if self.descending { order.reverse() } else { order }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::column::SESSIONS;
    use super::*;

    fn row(session: &str, active: Option<bool>) -> Row {
        let row = json!({ "user_id": "u", "session_id": session, "is_active": active });
        row.as_object().unwrap().clone()
    }

    fn kept(query: &str) -> Vec<String> {
        let rows = [row("a", Some(true)), row("b,c", None), row("d", Some(false))];
        let query = Query::parse(&SESSIONS, query).unwrap();
        let rows = query.page(rows.into_iter().filter(|row| query.matches(row)).collect());
        rows.into_iter().map(|row| row["session_id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn filters_hold_as_in_sql() {
        assert_eq!(kept("session_id=eq.a"), ["a"]);
        assert_eq!(kept("is_active=neq.true"), ["d"], "null is neither");
        assert_eq!(kept("is_active=is.null"), ["b,c"]);
        assert_eq!(kept("is_active=is.false&user_id=eq.u"), ["d"]);
        assert_eq!(kept("session_id=in.(a,%22b%2Cc%22)"), ["a", "b,c"]);
        assert!(kept("session_id=in.()").is_empty() && kept("user_id=eq.x").is_empty());
    }

    #[test]
    fn rows_are_ordered_and_paged() {
        assert_eq!(kept("order=is_active"), ["d", "a", "b,c"]);
        assert_eq!(kept("order=is_active.desc"), ["b,c", "a", "d"]);
        assert_eq!(kept("order=is_active.desc.nullslast"), ["a", "d", "b,c"]);
        assert_eq!(kept("order=user_id,session_id.desc&limit=1&offset=1"), ["b,c"]);
    }

    #[test]
    fn what_is_not_understood_is_said_and_not_left_out() {
        let code = |text: &str| Query::parse(&SESSIONS, text).unwrap_err().code;
        assert_eq!(code("status=like.a*"), "PGRST100");
        assert_eq!(code("status=connected"), "PGRST100");
        assert_eq!(code("limit=many"), "PGRST100");
        assert_eq!(code("order=status.up"), "PGRST100");
        for text in ["nonsense=eq.1", "select=nonsense", "order=nonsense"] {
            assert_eq!(code(text), "42703", "{text}");
        }
        assert_eq!(code("is_active=eq.perhaps"), "22P02");
    }
}
