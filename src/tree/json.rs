//! Whether a JSON file is whole: bots write in place, so every write has a moment at which it is empty.

use std::io;

use serde::Deserialize as _;
use serde::de::IgnoredAny;

use super::Content;

/// Whether this content may stand under this path: `*.json` must parse, anything else may be anything.
///
/// Formats move, so only the syntax is checked. Errors are those of reading a spooled copy.
pub fn is_fit(path: &str, content: &Content) -> io::Result<bool> {
    if !has_json_name(path) {
        return Ok(true);
    }
    if let Content::Bytes(bytes) = content {
        return Ok(serde_json::from_slice::<IgnoredAny>(bytes).is_ok());
    }
    let mut parser = serde_json::Deserializer::from_reader(io::BufReader::new(content.reader()));
    match IgnoredAny::deserialize(&mut parser).and_then(|_| parser.end()) {
        Ok(()) => Ok(true),
        Err(error) if error.is_io() => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Whether a path is named `*.json`.
#[must_use]
pub fn has_json_name(path: &str) -> bool {
    path.strip_suffix(".json").is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;

    fn fit(path: &str, bytes: &[u8]) -> bool {
        is_fit(path, &Content::Bytes(bytes.to_vec().into())).unwrap()
    }

    #[test]
    fn an_empty_truncated_or_zeroed_json_file_is_not_fit() {
        assert!(!fit("creds.json", b""));
        assert!(!fit("creds.json", b"  \n"));
        assert!(!fit("creds.json", br#"{"noiseKey":{"private""#));
        assert!(!fit("keys/pre-key-1.json", &[0; 64]));
        assert!(!fit("creds.json", b"{}{"));
    }

    #[test]
    fn what_baileys_writes_is_fit() {
        assert!(fit("creds.json", br#"{"a":[1,-2.5e3,null],"b":"\ud800"}"#));
        assert!(fit("lid-mapping-1.json", br#""5511900000001""#));
    }

    #[test]
    fn other_files_may_be_empty() {
        assert!(fit("creds.bin", b""));
        assert!(fit("json", b""));
        assert!(fit("keys/.json", b""));
    }

    #[test]
    fn a_spooled_json_file_is_checked_to_its_end() {
        let spooled = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            Content::Spooled { file: Arc::new(file), size: bytes.len() as u64 }
        };
        assert!(is_fit("a.json", &spooled(b"[1,2,3]")).unwrap());
        assert!(!is_fit("a.json", &spooled(b"[1,2,3]]")).unwrap());
        assert!(!is_fit("a.json", &spooled(b"[1,2,3")).unwrap());
    }
}
