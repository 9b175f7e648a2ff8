//! What the server takes for a key, a bucket's name, a content type and a size.

use super::BucketOptions;
use super::error::Refusal;

/// The server's own limit (`UPLOAD_FILE_SIZE_LIMIT`), above every bucket's.
pub(super) const LARGEST: u64 = 500 * 1024 * 1024;

/// What fits into an entry of the database's index, when it does not compress.
const LONGEST_KEY: usize = 2_700;

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_!.*'() &$=@;:+,?-".contains(c)
}

/// Refuses keys that the server refuses.
pub(super) fn key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || !key.chars().all(|c| c == '/' || allowed(c)) {
        return Err(Refusal::InvalidKey(key.to_owned()));
    }
    // The file backend's rules, as self-hosted projects have it.
    if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Refusal::InvalidKey(format!("{key} contains dot path segment")));
    }
    if key.split('/').any(|segment| segment.len() > 255) {
        return Err(Refusal::Internal);
    }
    if key.len() > LONGEST_KEY {
        return Err(Refusal::Database("54000"));
    }
    Ok(())
}

/// Refuses names that no bucket may have.
pub(super) fn bucket_name(name: &str) -> Result<(), Refusal> {
    let fits = (1..=100).contains(&name.len()) && name.chars().all(allowed);
    if fits { Ok(()) } else { Err(Refusal::BucketName) }
}

/// Refuses content types that are none, or that the bucket does not list. A parameter (`; charset=…`) makes
/// another type.
pub(super) fn mime_type(bucket: &BucketOptions, mime: &str) -> Result<(), Refusal> {
    let listed = |types: &Vec<String>| {
        types.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(family) => mime.starts_with(family),
            None => mime == allowed,
        })
    };
    let fits = mime.contains('/') && bucket.allowed_mime_types.as_ref().is_none_or(listed);
    if fits { Ok(()) } else { Err(Refusal::MimeType(mime.to_owned())) }
}

/// Refuses what is larger than the bucket or the server takes.
pub(super) fn size(bucket: &BucketOptions, size: u64) -> Result<(), Refusal> {
    if size <= bucket.file_size_limit.unwrap_or(LARGEST) { Ok(()) } else { Err(Refusal::TooLarge) }
}

/// The bytes of `50MB`; sizes count in thousands.
pub(super) fn size_text(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let units = [("gb", 1e9), ("mb", 1e6), ("kb", 1e3), ("b", 1.0)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !number.split('.').all(digits) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no size is near 2^53")]
    number.parse::<f64>().ok().map(|number| (number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_servers_alphabet() {
        let good =
            ["a", ".history/u/s/x", "a b", "k//z", "/k", "k/", "4915@s.whatsapp.net", "..hidden", "a?b+c"];
        for good in good {
            assert_eq!(key(good), Ok(()), "{good}");
        }
        for bad in ["", "a%b", "a~b", "a#b", "[a]", "{a}", "a|b", "a\\b", "ä", "a\tb", "k/../z", "./k"] {
            assert_eq!(key(bad).unwrap_err().said().2, "InvalidKey", "{bad}");
        }
        assert_eq!(key(&"x".repeat(255)), Ok(()));
        assert_eq!(key(&"x".repeat(256)).unwrap_err().said().0, 500);
    }

    #[test]
    fn a_charset_makes_another_type() {
        let types = vec!["application/json".into(), "image/*".into()];
        let mut bucket = BucketOptions::default();
        (bucket.file_size_limit, bucket.allowed_mime_types) = (Some(10), Some(types));
        let fits = |bucket: &BucketOptions, mime| mime_type(bucket, mime).is_ok();
        assert!(fits(&bucket, "application/json") && fits(&bucket, "image/png"));
        assert!(!fits(&bucket, "application/json; charset=utf-8") && !fits(&bucket, "APPLICATION/JSON"));
        assert!(size(&bucket, 10).is_ok() && size(&bucket, 11).is_err());
        bucket.allowed_mime_types = None;
        assert!(fits(&bucket, "a/b; c=d") && !fits(&bucket, "garbage"));
    }

    #[test]
    fn sizes_are_read_as_the_server_reads_them() {
        assert_eq!(size_text("50MB"), Some(50_000_000));
        assert_eq!(size_text("1.5kb"), Some(1_500));
        assert_eq!((size_text("50 MiB"), size_text("MB"), size_text("5")), (None, None, None));
    }
}
