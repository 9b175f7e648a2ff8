//! What a file is called in the mirror, and whether the bucket can take it.

use crate::session::SessionKey;
use crate::store::{self, Bucket};

/// Hosted storage puts an S3 key limit of 1,024 bytes under ours, less its own prefix and version.
const KEY_BYTES: usize = 850;
/// A segment is a file name where storage keeps its objects in files.
const SEGMENT_BYTES: usize = 255;

/// Why a file is not in the mirror; history has it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// Over the bucket's size limit.
    TooLarge,
    /// The bucket refuses its content type.
    TypeRefused,
    /// Its key, or a segment of it, would be too long.
    NameTooLong,
    /// The server refused it for a reason of its own.
    Refused,
}

impl Skip {
    /// For the warning.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "over the size limit of the bucket",
            Self::TypeRefused => "of a content type that the bucket refuses",
            Self::NameTooLong => "with a name that is too long for a key",
            Self::Refused => "refused by the server",
        }
    }
}

/// The full key of a path: every byte that a key cannot hold, and `$`, is `$XX`.
#[must_use]
pub fn key_of(session: &SessionKey, path: &str) -> String {
    format!("{}{}", session.mirror_prefix(), escape(path))
}

/// The key of a file of this size, and its content type.
pub fn admit(
    session: &SessionKey,
    path: &str,
    size: u64,
    bucket: &Bucket,
) -> Result<(String, &'static str), Skip> {
    let key = key_of(session, path);
    if key.len() > KEY_BYTES || key.split('/').any(|segment| segment.len() > SEGMENT_BYTES) {
        return Err(Skip::NameTooLong);
    }
    if bucket.size_limit.is_some_and(|limit| size > limit) {
        return Err(Skip::TooLarge);
    }
    let content_type = content_type(path);
    if !bucket.accepts(content_type) {
        return Err(Skip::TypeRefused);
    }
    Ok((key, content_type))
}

/// By extension, as the service does whose buckets we take over. A bucket that allows only these two never
/// had the others.
#[must_use]
pub fn content_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("txt") => "text/plain",
        _ => "application/octet-stream",
    }
}

/// A path as the rest of a key.
#[must_use]
pub fn escape(path: &str) -> String {
    let mut key = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte != b'$' && store::is_key_byte(byte) {
            key.push(char::from(byte));
        } else {
            key.push('$');
            key.push_str(&hex::encode_upper([byte]));
        }
    }
    key
}

/// The path that a key's rest stands for; none when it is not UTF-8. A `$` without two hex digits is itself: other
/// writers do not escape.
#[must_use]
pub fn unescape(rest: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(rest.len());
    let mut left = rest.as_bytes();
    while let Some((&first, after)) = left.split_first() {
        let hex = (first == b'$').then(|| after.get(..2)).flatten();
        if let Some(byte) = hex.and_then(|digits| hex::decode(digits).ok()) {
            bytes.extend(byte);
            left = &after[2..];
        } else {
            bytes.push(first);
            left = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::table::check_path;

    fn session() -> SessionKey {
        SessionKey::new("u", "s").unwrap()
    }

    #[test]
    fn only_what_a_key_cannot_hold_is_escaped() {
        let plain = "keys/app-state 1_!.*'()&@=;:+,?.json";
        assert_eq!(escape(plain), plain);
        assert_eq!(escape("a$b~ä%.json"), "a$24b$7E$C3$A4$25.json");
    }

    #[test]
    fn a_dollar_of_somebody_else_is_itself() {
        for rest in ["a$", "a$b", "a$2", "$zz", "$2é"] {
            assert_eq!(unescape(rest).as_deref(), Some(rest));
        }
        assert_eq!(unescape("$FF"), None);
        assert_eq!(unescape("$2e$2E/x").as_deref(), Some("../x"), "for check_path to refuse");
    }

    #[test]
    fn what_the_bucket_cannot_take_is_skipped() {
        let seed = Bucket {
            public: false,
            size_limit: Some(10),
            types: Some(vec!["application/json".to_owned(), "text/plain".to_owned()]),
        };
        let admit = |path: &str, size| admit(&session(), path, size, &seed);
        assert_eq!(admit("creds.json", 10), Ok(("u/s/creds.json".to_owned(), "application/json")));
        assert_eq!(admit("a.txt", 1), Ok(("u/s/a.txt".to_owned(), "text/plain")));
        assert_eq!(admit("creds.json", 11), Err(Skip::TooLarge));
        assert_eq!(admit("wa.db", 1), Err(Skip::TypeRefused));
        assert_eq!(admit("json", 1), Err(Skip::TypeRefused));
        assert_eq!(admit(&format!("{}.json", "a".repeat(251)), 1), Err(Skip::NameTooLong));
        assert_eq!(admit(&format!("{}.json", "ä".repeat(50)), 1), Err(Skip::NameTooLong));
        assert_eq!(admit(&format!("{}x.json", "abcdefg/".repeat(106)), 1), Err(Skip::NameTooLong));
    }

    proptest! {
        #[test]
        fn every_path_comes_back_from_a_key_that_storage_takes(path in "\\PC{1,60}(/[^/\0]{1,20}){0,3}") {
            prop_assume!(check_path(&path).is_ok());
            let key = key_of(&session(), &path);
            prop_assert!(store::is_valid_key(&key), "{key}");
            prop_assert_eq!(unescape(&escape(&path)), Some(path));
        }
    }
}
