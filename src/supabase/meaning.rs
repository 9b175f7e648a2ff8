//! What a refusal of Supabase Storage, of its gateway or of something in between means.

use serde_json::Value;

use crate::store::Kind;

/// The meaning of an answer that is no success, and what to tell people: one line, shortened.
///
/// Storage wraps nearly every refusal into HTTP 400, the retryable ones too; its true status is `statusCode`
/// in the body, a string or a number, of old servers sometimes 0. So the words decide first (`code`, which
/// old servers lack, then `error`), then that status, then the HTTP status. `url` is the project's, for texts
/// about a wrong one; `advice` says what to do when the key was refused.
///
/// Source: `src/internal/errors/codes.ts` of supabase/storage.
#[must_use]
pub fn meaning(http_status: u16, body: &[u8], url: &str, advice: &str) -> (Kind, String) {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return of_page(http_status, url, advice);
    };
    let word = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = match (word("message"), word("msg"), word("error")) {
        ("", "", error) => error,
        ("", message, _) | (message, _, _) => message,
    };
    let text = |kind| explain(kind, http_status, message, url, advice);
    let Some(told) = body.get("statusCode") else {
        // Not storage itself: its gateway.
        let kind = of_status(http_status, http_status);
        return (kind, text(kind));
    };
    let told = told.as_u64().or_else(|| told.as_str()?.parse().ok());
    let told =
        told.and_then(|told| u16::try_from(told).ok()).filter(|told| *told != 0).unwrap_or(http_status);
    let kind = of_message(message)
        .or_else(|| of_word(word("code")))
        .or_else(|| of_word(word("error")))
        .unwrap_or_else(|| of_status(told, http_status));
    (kind, text(kind))
}

/// The texts that tell more than their code, which is `InvalidRequest` or missing.
fn of_message(message: &str) -> Option<Kind> {
    if is_unknown_route(message) {
        return Some(Kind::Protocol);
    }
    if message.starts_with("Invalid key: ") {
        return Some(Kind::BadKey);
    }
    match message {
        "Bucket not found" => Some(Kind::NoBucket),
        "Object not found" | "The resource was not found" => Some(Kind::NotFound),
        "The resource already exists" => Some(Kind::AlreadyExists),
        // Also said when the request's stream was cut.
        "No content provided" => Some(Kind::Transient),
        // Postgres knows no role of the token's name.
        "database error, code: 22023" => Some(Kind::Denied),
        _ if message.contains("required property 'authorization'") => Some(Kind::Denied),
        _ => None,
    }
}

/// Fastify's text for a route that does not exist.
pub(super) fn is_unknown_route(message: &str) -> bool {
    message.starts_with("Route ") && message.ends_with(" not found")
}

fn of_word(word: &str) -> Option<Kind> {
    Some(match word {
        "NoSuchBucket" | "Bucket not found" => Kind::NoBucket,
        "NoSuchKey" | "not_found" => Kind::NotFound,
        "KeyAlreadyExists" | "ResourceAlreadyExists" | "BucketAlreadyExists" | "Duplicate" => {
            Kind::AlreadyExists
        }
        "EntityTooLarge" | "Payload too large" => Kind::TooLarge,
        "InvalidMimeType" | "invalid_mime_type" => Kind::TypeRefused,
        "InvalidKey" => Kind::BadKey,
        "AccessDenied"
        | "Unauthorized"
        | "InvalidJWT"
        | "ExpiredToken"
        | "SignatureDoesNotMatch"
        | "InvalidSignature"
        | "InvalidAccessKeyId" => Kind::Denied,
        "DatabaseReadOnly" => Kind::ReadOnly,
        "SlowDown" | "too_many_connections" => Kind::Throttled,
        // No retry mends a missing migration or tenant, but it says nothing about what is stored.
        "DatabaseInvalidObjectDefinition" | "DatabaseSchemaMismatch" | "TenantNotFound" => Kind::Unavailable,
        "LockTimeout"
        | "acquiring_lock_timeout"
        | "ResourceLocked"
        | "TransactionError"
        | "DatabaseTimeout"
        | "DatabaseTransactionAborted"
        | "DatabaseError"
        | "InternalError"
        | "Internal"
        | "Aborted"
        | "AbortedTerminate" => Kind::Transient,
        "ResourceNotEmpty" | "ResourceReferenced" | "FeatureNotEnabled" | "NotSupported" | "NoSuchUpload" => {
            Kind::Protocol
        }
        _ => return None,
    })
}

/// `told` is the status that the answer claims, `http` the one it wears.
fn of_status(told: u16, http: u16) -> Kind {
    match told {
        401 | 403 => Kind::Denied,
        402 | 540 => Kind::Unavailable,
        // 409 without a word that we know is no proof that the name is taken: history would count it as
        // confirmed.
        408 | 409 | 423 | 425 | 500.. => Kind::Transient,
        413 => Kind::TooLarge,
        415 => Kind::TypeRefused,
        429 => Kind::Throttled,
        _ if http >= 500 => Kind::Transient,
        // Nor is 404 a proof of absence.
        _ => Kind::Protocol,
    }
}

/// The meaning of a page, or of nothing at all: it comes from something in front of storage.
fn of_page(status: u16, url: &str, advice: &str) -> (Kind, String) {
    let kind = match of_status(status, status) {
        // Storage and its gateway refuse in JSON: this is a wall in between.
        Kind::Denied if status == 403 => Kind::Protocol,
        Kind::TooLarge => Kind::TooLarge,
        Kind::TypeRefused => Kind::Protocol,
        kind => kind,
    };
    (kind, explain(kind, status, "", url, advice))
}

fn explain(kind: Kind, status: u16, message: &str, url: &str, advice: &str) -> String {
    let message = shorten(message);
    let with = |text: &str| if message.is_empty() { text.to_owned() } else { format!("{text}: {message}") };
    match (kind, status) {
        (Kind::Unavailable, 540) => with("the project is paused (HTTP 540): restore it in the dashboard"),
        (Kind::Unavailable, 402) => with("a quota of the project is used up (HTTP 402)"),
        (Kind::Unavailable, _) => with("the project cannot be used now"),
        // A role made for us, which lacks a policy.
        (Kind::Denied, _) if message.contains("row-level security") => with("the key was refused"),
        (Kind::Denied, _) => format!("{}; {advice}", with("the key was refused")),
        (Kind::ReadOnly, _) => with("the database is read-only (its disk is full, or a quota is used up)"),
        (Kind::Throttled, _) => with("too many requests or connections"),
        (Kind::Protocol, 300..=399) => {
            format!("{url} redirects (HTTP {status}): give the URL that it redirects to")
        }
        (Kind::Protocol, 404) => with(&format!("{url} is not a Supabase project's URL (HTTP 404)")),
        (Kind::Protocol, 407) => "the proxy wants a password (HTTP 407)".to_owned(),
        _ if message.is_empty() => format!("{url} answered HTTP {status} without a word of Supabase Storage"),
        _ => message,
    }
}

/// One line of at most 200 characters.
pub(super) fn shorten(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
