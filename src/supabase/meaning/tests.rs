use super::*;

const URL: &str = "https://ref.supabase.co";
const ADVICE: &str = "give the service_role key";

/// `code`, the body's `statusCode`, the HTTP status, the body's `error`, what it means. From codes.ts and
/// from recorded answers.
const TABLE: &[(&str, u16, u16, &str, Kind)] = &[
    ("ResourceNotEmpty", 409, 400, "ResourceNotEmpty", Kind::Protocol),
    ("FeatureNotEnabled", 409, 400, "FeatureNotEnabled", Kind::Protocol),
    ("NotSupported", 409, 400, "NotSupported", Kind::Protocol),
    ("NoSuchBucket", 404, 400, "Bucket not found", Kind::NoBucket),
    ("NoSuchUpload", 404, 400, "NoSuchUpload", Kind::Protocol),
    ("NoSuchKey", 404, 400, "not_found", Kind::NotFound),
    ("MissingParameter", 400, 400, "MissingParameter", Kind::Protocol),
    ("InvalidParameter", 400, 400, "InvalidParameter", Kind::Protocol),
    ("InvalidJWT", 400, 400, "InvalidJWT", Kind::Denied),
    ("AccessDenied", 403, 400, "Unauthorized", Kind::Denied),
    ("ResourceAlreadyExists", 409, 400, "Duplicate", Kind::AlreadyExists),
    ("SignatureDoesNotMatch", 403, 400, "SignatureDoesNotMatch", Kind::Denied),
    ("InvalidSignature", 400, 400, "InvalidSignature", Kind::Denied),
    ("ExpiredToken", 400, 400, "ExpiredToken", Kind::Denied),
    ("TenantNotFound", 400, 400, "TenantNotFound", Kind::Unavailable),
    ("InvalidMimeType", 415, 400, "invalid_mime_type", Kind::TypeRefused),
    ("InvalidRange", 416, 416, "invalid_range", Kind::Protocol),
    ("EntityTooLarge", 413, 400, "Payload too large", Kind::TooLarge),
    ("EntityTooLarge", 413, 413, "FastifyError", Kind::TooLarge),
    ("InternalError", 500, 500, "InternalError", Kind::Transient),
    ("InternalError", 500, 500, "Internal", Kind::Transient),
    ("InvalidBucketName", 400, 400, "Invalid Input", Kind::Protocol),
    ("InvalidKey", 400, 400, "InvalidKey", Kind::BadKey),
    ("KeyAlreadyExists", 409, 400, "Duplicate", Kind::AlreadyExists),
    ("BucketAlreadyExists", 409, 400, "Duplicate", Kind::AlreadyExists),
    ("DatabaseTimeout", 544, 544, "DatabaseTimeout", Kind::Transient),
    ("DatabaseReadOnly", 503, 400, "DatabaseReadOnly", Kind::ReadOnly),
    ("DatabaseTransactionAborted", 500, 500, "DatabaseTransactionAborted", Kind::Transient),
    ("DatabaseInvalidObjectDefinition", 503, 400, "DatabaseInvalidObjectDefinition", Kind::Unavailable),
    ("DatabaseSchemaMismatch", 503, 400, "DatabaseSchemaMismatch", Kind::Unavailable),
    ("ResourceLocked", 423, 400, "ResourceLocked", Kind::Transient),
    ("ResourceReferenced", 409, 400, "ResourceReferenced", Kind::Protocol),
    ("TransactionError", 409, 400, "TransactionError", Kind::Transient),
    ("DatabaseError", 500, 500, "DatabaseError", Kind::Transient),
    ("LockTimeout", 503, 400, "acquiring_lock_timeout", Kind::Transient),
    ("InvalidAccessKeyId", 403, 400, "InvalidAccessKeyId", Kind::Denied),
    ("Aborted", 500, 500, "Aborted", Kind::Transient),
    ("AbortedTerminate", 500, 500, "AbortedTerminate", Kind::Transient),
    ("SlowDown", 429, 429, "too_many_connections", Kind::Throttled),
];

fn kind(status: u16, body: &str) -> Kind {
    meaning(status, body.as_bytes(), URL, ADVICE).0
}

#[test]
fn every_known_refusal_has_its_meaning() {
    for (code, told, http, error, expected) in TABLE {
        let body = format!(r#"{{"statusCode":"{told}","error":"{error}","message":"m","code":"{code}"}}"#);
        assert_eq!(kind(*http, &body), *expected, "{body}");
    }
}

#[test]
fn servers_without_a_code_are_understood_by_their_other_words() {
    for (code, told, http, error, expected) in TABLE {
        // These share their word with nothing, but a number or text is all that tells.
        if ["InvalidBucketName", "EntityTooLarge"].contains(code) {
            continue;
        }
        let body = format!(r#"{{"statusCode":{told},"error":"{error}","message":"m"}}"#);
        assert_eq!(kind(*http, &body), *expected, "{body}");
        let zero = format!(r#"{{"statusCode":0,"error":"{error}","message":"m","code":"{code}"}}"#);
        let by_word = of_word(code).or_else(|| of_word(error));
        if by_word.is_some() {
            assert_eq!(kind(*http, &zero), *expected, "{zero}");
        }
    }
}

#[test]
fn generic_refusals_are_told_apart_by_their_text() {
    for (http, body, expected) in [
        (
            400,
            r#"{"statusCode":"400","error":"InvalidRequest","message":"No content provided","code":"InvalidRequest"}"#,
            Kind::Transient,
        ),
        (
            400,
            r#"{"statusCode":"400","error":"Error","message":"headers must have required property 'authorization'","code":"InvalidRequest"}"#,
            Kind::Denied,
        ),
        (
            400,
            r#"{"statusCode":"400","error":"InvalidKey","message":"Invalid key: k/ä","code":"InvalidKey"}"#,
            Kind::BadKey,
        ),
        (
            400,
            r#"{"statusCode":"404","error":"Not found","message":"The resource was not found"}"#,
            Kind::NotFound,
        ),
        (400, r#"{"statusCode":"404","error":"not_found","message":"Bucket not found"}"#, Kind::NoBucket),
        (
            400,
            r#"{"statusCode":"400","error":"Error","message":"body/prefixes must NOT have fewer than 1 items","code":"InvalidRequest"}"#,
            Kind::Protocol,
        ),
        (
            404,
            r#"{"statusCode":"404","error":"Not Found","message":"Route GET:/storage/v1/bucket/b not found","code":"InvalidRequest"}"#,
            Kind::Protocol,
        ),
        (
            431,
            r#"{"error":"Request Header Fields Too Large","message":"Exceeded maximum allowed HTTP header size","statusCode":431}"#,
            Kind::Protocol,
        ),
    ] {
        assert_eq!(kind(http, body), expected, "{body}");
    }
}

#[test]
fn what_nobody_knows_is_neither_absent_nor_taken() {
    assert_eq!(
        kind(
            400,
            r#"{"statusCode":"404","error":"InvalidRequest","message":"The related resource does not exist"}"#
        ),
        Kind::Protocol
    );
    assert_eq!(kind(400, r#"{"statusCode":"409","error":"Conflict","message":"busy"}"#), Kind::Transient);
    assert_eq!(kind(404, "<html>nginx</html>"), Kind::Protocol);
    assert_eq!(kind(404, r#"{"message":"no Route matched with those values"}"#), Kind::Protocol);
}

#[test]
fn gateways_and_walls_in_between_are_recognised() {
    for (http, body, expected) in [
        (
            401,
            r#"{"message":"Invalid API key","hint":"Double check your Supabase `anon` or `service_role` API key."}"#,
            Kind::Denied,
        ),
        (401, "", Kind::Denied),
        (403, "<html>blocked by the company</html>", Kind::Protocol),
        (402, r#"{"message":"exceeded"}"#, Kind::Unavailable),
        (540, "", Kind::Unavailable),
        (413, "<html>nginx</html>", Kind::TooLarge),
        (429, "error code: 1015", Kind::Throttled),
        (301, "", Kind::Protocol),
        (407, "", Kind::Protocol),
        (400, "", Kind::Protocol),
        (500, "", Kind::Transient),
        (502, "<html>Cloudflare</html>", Kind::Transient),
        (503, r#"{"message":"name resolution failed"}"#, Kind::Transient),
        (520, "", Kind::Transient),
        (524, "", Kind::Transient),
    ] {
        assert_eq!(kind(http, body), expected, "{http} {body}");
    }
}

#[test]
fn texts_say_what_to_do_and_stay_on_one_line() {
    let denied = |message: &str| {
        let body = format!(r#"{{"statusCode":"403","error":"Unauthorized","message":"{message}"}}"#);
        meaning(400, body.as_bytes(), URL, ADVICE).1
    };
    assert!(denied("signature verification failed").contains("service_role"));
    // Of a role made for us: another key is not the answer.
    assert!(!denied("new row violates row-level security policy").contains("service_role"));
    assert!(meaning(540, b"", URL, ADVICE).1.contains("paused"));
    assert!(meaning(402, b"", URL, ADVICE).1.contains("quota"));
    assert!(meaning(404, b"<html>", URL, ADVICE).1.contains(URL));
    assert!(meaning(302, b"", URL, ADVICE).1.contains("redirects"));
    let long = format!(r#"{{"statusCode":"500","message":"a\n\u0007b {}"}}"#, "x".repeat(999));
    let (_, text) = meaning(500, long.as_bytes(), URL, ADVICE);
    assert!(text.starts_with("a b xxx") && text.chars().count() <= 201, "{text}");
}

#[test]
fn recorded_refusals_are_absent_or_taken_only_by_their_code() {
    let mut seen = 0;
    for line in include_str!("../../../tests/fixtures/supabase-storage.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let response = &case["response"];
        let (Some(status), Some(body)) = (response["status"].as_u64(), response["body"].as_str()) else {
            continue;
        };
        let Ok(Value::Object(told)) = serde_json::from_str(body) else { continue };
        let Some(code) = told.get("code").and_then(Value::as_str).filter(|_| status >= 400) else { continue };
        let kind = kind(u16::try_from(status).unwrap(), body);
        assert_eq!(kind == Kind::NotFound, code == "NoSuchKey", "{line}");
        assert_eq!(kind == Kind::NoBucket, code == "NoSuchBucket", "{line}");
        assert_eq!(kind == Kind::AlreadyExists, code.ends_with("AlreadyExists"), "{line}");
        // Of a role that Postgres does not know.
        let no_role = body.contains("code: 22023");
        assert_eq!(kind == Kind::Denied && status >= 500, no_role, "{line}");
        let passes = status >= 500 && !no_role || body.contains("No content provided");
        assert_eq!(kind == Kind::Transient, passes, "{line}");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}
