//! What must not be read in a log: phone numbers, JIDs, keys and tokens.
//!
//! A masked number keeps its first and last two digits (`55…89`), so that two sessions can still be told apart.
//! What looks like a number but is ours stays: ids of commits, UUIDs, hashes, counts of bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// Digits that may be a phone number wherever they stand (E.164 allows 15, a LID has as many).
const PHONE: usize = 8;
/// Digits that are one when an `@` follows.
const JID: usize = 5;

/// A text whose phone numbers, JIDs, keys and tokens are masked when it is printed.
#[derive(Clone, Copy)]
pub struct Masked<'a>(pub &'a str);

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&secrets(&numbers(self.0)))
    }
}

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Masks phone numbers and JIDs, also within paths, file names and ids.
#[must_use]
pub fn numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        if let Some(length) = own_id(&bytes[at..]) {
            at += length;
            continue;
        }
        let end = at + count(&bytes[at..], u8::is_ascii_alphanumeric);
        if !is_hash(&bytes[at..end]) {
            while at < end {
                let digits = count(&bytes[at..end], u8::is_ascii_digit);
                if digits == 0 {
                    at += 1;
                    continue;
                }
                if is_phone(&bytes[..at], &bytes[at..at + digits], &bytes[at + digits..]) {
                    out.push_str(&text[copied..at + 2]);
                    out.push('…');
                    copied = at + digits - 2;
                }
                at += digits;
            }
        }
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn count(bytes: &[u8], is: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is(byte)).count()
}

/// The length of a commit's id or a UUID that stands here as a whole.
fn own_id(bytes: &[u8]) -> Option<usize> {
    let groups = |lengths: &[usize]| {
        let mut at = 0;
        for (nth, length) in lengths.iter().enumerate() {
            if nth > 0 {
                (bytes.get(at) == Some(&b'-')).then_some(())?;
                at += 1;
            }
            (count(&bytes[at..], u8::is_ascii_alphanumeric) == *length).then_some(())?;
            bytes[at..at + length].iter().all(u8::is_ascii_hexdigit).then_some(())?;
            at += length;
        }
        Some(at)
    };
    let commit = || {
        let length = groups(&[8, 8, 8])?;
        bytes[..8].iter().chain(&bytes[9..17]).all(u8::is_ascii_digit).then_some(length)
    };
    commit().or_else(|| groups(&[8, 4, 4, 4, 12]))
}

/// MD5, SHA-1 or SHA-256 as lower-case hex.
fn is_hash(word: &[u8]) -> bool {
    matches!(word.len(), 32 | 40 | 64)
        && word.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
        && word.iter().any(u8::is_ascii_lowercase)
}

fn is_phone(before: &[u8], digits: &[u8], rest: &[u8]) -> bool {
    if digits.len() >= JID && jid_follows(rest) {
        return true;
    }
    let counted = [" bytes", " files"].iter().any(|unit| rest.starts_with(unit.as_bytes()));
    // One that is forged is no small number, and whoever must remove it has to see it.
    let is_epoch = ["epoch ", "epoch="].iter().any(|word| before.ends_with(word.as_bytes()));
    // No number begins with three zeros: an epoch, a padded sequence.
    digits.len() >= PHONE && !digits.starts_with(b"000") && !counted && !is_epoch
}

/// `@`, perhaps after the device or agent of a JID: `:12@`, `_1:5@`, `.0@`.
fn jid_follows(mut rest: &[u8]) -> bool {
    for _ in 0..2 {
        let device = rest.get(1..).map_or(0, |after| count(after, u8::is_ascii_digit));
        if matches!(rest.first(), Some(b':' | b'_' | b'.')) && (1..=3).contains(&device) {
            rest = &rest[1 + device..];
        }
    }
    rest.first() == Some(&b'@')
}

static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Below this a text is too common to be replaced wherever it appears, and no key is that short.
const SHORTEST_SECRET: usize = 8;

/// From now on `***` appears instead of this text, plain or percent-encoded, in whatever is logged.
pub fn register_secret(secret: &str) {
    if secret.len() < SHORTEST_SECRET {
        return;
    }
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let spaces = encoded.replace('+', "%20");
    let quoted = serde_json::to_string(secret).unwrap_or_default();
    let quoted = quoted.trim_matches('"').to_owned();
    let mut known = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    for form in [secret.to_owned(), encoded, spaces, quoted] {
        if !known.contains(&form) {
            known.push(form);
        }
    }
    // A secret that contains another one is replaced first, and whole.
    known.sort_by_key(|form| std::cmp::Reverse(form.len()));
}

/// Replaces registered secrets, and whatever looks like a token of Supabase.
#[must_use]
pub fn secrets(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for secret in SECRETS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), "***"));
        }
    }
    for (prefix, shown) in [("eyJ", ""), ("sb_secret_", "sb_secret_")] {
        if let Some(masked) = tokens(&text, prefix, shown) {
            text = Cow::Owned(masked);
        }
    }
    text
}

/// Replaces words that begin with `prefix` and are long enough to be a token.
fn tokens(text: &str, prefix: &str, shown: &str) -> Option<String> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let (mut out, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find(prefix) {
        let length = count(&rest.as_bytes()[at..], is_token);
        out.push_str(&rest[..at]);
        if length >= prefix.len() + SHORTEST_SECRET {
            found = true;
            out.push_str(shown);
            out.push_str("***");
        } else {
            out.push_str(&rest[at..at + length]);
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Masks one line of a JSON log: numbers within its strings, secrets everywhere. What is a number in JSON is a
/// count, and stays.
#[must_use]
pub fn json_line(line: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(open) = rest.find('"') {
        out.push_str(&rest[..=open]);
        rest = &rest[open + 1..];
        let close = string_end(rest.as_bytes());
        out.push_str(&numbers(&rest[..close]));
        rest = &rest[close..];
        if let Some(after) = rest.strip_prefix('"') {
            out.push('"');
            rest = after;
        }
    }
    out.push_str(rest);
    secrets(&out).into_owned()
}

/// Where a JSON string ends, given what follows its opening quote.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phones_and_jids_are_masked_wherever_they_stand() {
        for (text, masked) in [
            ("5511999887766", "55…66"),
            ("+5511999887766 said", "+55…66 said"),
            ("%2B5511999887766", "%2B55…66"),
            ("wa5511999887766", "wa55…66"),
            ("5511999887766@s.whatsapp.net", "55…66@s.whatsapp.net"),
            ("5511999887766:12@s.whatsapp.net", "55…66:12@s.whatsapp.net"),
            ("12345:2@lid", "12…45:2@lid"),
            ("12345_1:5@lid", "12…45_1:5@lid"),
            ("4915112345678-1612345678@g.us", "49…78-16…78@g.us"),
            ("user/5511999887766/creds.json", "user/55…66/creds.json"),
            ("session-104337748256512_1.25.json", "session-10…12_1.25.json"),
            ("lid-mapping-5511999887766_reverse.json", "lid-mapping-55…66_reverse.json"),
            (
                "sender-key-120363041234567890@g.us--5511999887766--0.json",
                "sender-key-12…90@g.us--55…66--0.json",
            ),
            ("é5511999887766é", "é55…66é"),
        ] {
            assert_eq!(numbers(text), masked);
        }
    }

    #[test]
    fn what_is_ours_stays_readable() {
        for text in [
            "00000003-00000042-12345678",
            "00000004-00000043-77aa01bc.base.from.00000003-00000042-1b20c7d9.tar.zst",
            "00000004.claim",
            ".claim-550e8400-e29b-41d4-a716-446655440000",
            "550e8400-e29b-41d4-a716-446655440000/default",
            "pre-key-1234.json",
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "52428800 bytes over the limit",
            "127.0.0.1:54321",
            "bucket: epoch 99999998 is more than 1,000,000 above 2",
            "taken epoch=4000000001 by=another",
            "2026-11-23T21:00:00.123456Z",
        ] {
            assert!(matches!(numbers(text), Cow::Borrowed(_)), "{text} became {}", numbers(text));
        }
    }

    #[test]
    fn registered_secrets_are_replaced_in_every_form() {
        register_secret("pa ss/w\"ord+12");
        for form in ["pa ss/w\"ord+12", "pa%20ss%2Fw%22ord%2B12", "pa+ss%2Fw%22ord%2B12", "pa ss/w\\\"ord+12"]
        {
            assert_eq!(secrets(&format!("<{form}>")), "<***>");
        }
        register_secret("short");
        assert_eq!(secrets("short"), "short");
    }

    #[test]
    fn tokens_are_replaced_although_nobody_registered_them() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl-_";
        assert_eq!(secrets(&format!("Bearer {jwt}, {jwt}")), "Bearer ***, ***");
        assert_eq!(secrets("key sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"), "key sb_secret_***");
        assert_eq!(secrets("eyJ is how a token begins"), "eyJ is how a token begins");
    }

    #[test]
    fn a_json_line_keeps_its_numbers_and_masks_its_strings() {
        let line =
            r#"{"bytes":52428800,"session":"5511999887766/a","text":"\"5511999887766\\","n":[12345678]}"#;
        let masked = r#"{"bytes":52428800,"session":"55…66/a","text":"\"55…66\\","n":[12345678]}"#;
        assert_eq!(json_line(line), masked);
    }

    proptest! {
        #[test]
        fn a_masked_json_line_is_still_json(text in any::<String>(), number in any::<u64>()) {
            let line = serde_json::json!({ "text": text, "number": number }).to_string();
            let parsed: serde_json::Value = serde_json::from_str(&json_line(&line)).unwrap();
            prop_assert_eq!(&parsed["number"], &serde_json::json!(number));
        }

        #[test]
        fn no_phone_survives_in_any_surrounding(
            before in "[^0-9A-Za-z]{0,4}", phone in "[1-9][0-9]{9,14}", after in "([^0-9A-Za-z-][ -~]{0,8})?",
        ) {
            prop_assume!(!after.starts_with(" bytes") && !after.starts_with(" files"));
            let text = format!("{before}{phone}{after}");
            prop_assert!(!numbers(&text).contains(&phone), "{}", text);
        }
    }
}
