//! What the history is encrypted for, and what of it is not encrypted.

use super::check::Check;
use crate::history::{Keys, Name};
use crate::session::Layout;
use crate::store::{Order, Page, Store, StoreError};

/// Pages that are looked at, of 1000 names each: more says nothing more.
const PAGES: usize = 50;
const NAME: &str = "encryption";

/// What lies in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Objects of commits that are encrypted.
    encrypted: usize,
    /// Objects of commits that are not.
    plaintext: usize,
    /// Objects of mirrors.
    mirrored: usize,
    /// Whether there are more that were not looked at.
    more: bool,
}

/// Counts below the prefixes of a root.
pub(super) async fn look(store: &dyn Store, layout: &Layout) -> Result<Found, StoreError> {
    let prefixes = match layout {
        Layout::Single(key) => vec![key.history_prefix(), key.mirror_prefix()],
        Layout::User(user) => vec![format!(".history/{user}/"), format!("{user}/")],
        Layout::Many => vec![String::new()],
    };
    let mut found = Found::default();
    let mut pages = 0;
    for prefix in prefixes {
        let mut page = Page { prefix, limit: 1000, order: Order::Ascending, ..Page::default() };
        loop {
            let listing = store.list(&page).await?;
            for object in &listing.objects {
                found.count(&object.key);
            }
            pages += 1;
            match listing.next {
                Some(next) if pages < PAGES && page.cursor.as_ref() != Some(&next) => {
                    page.cursor = Some(next);
                }
                next => {
                    found.more |= next.is_some();
                    break;
                }
            }
        }
    }
    Ok(found)
}

impl Found {
    fn count(&mut self, key: &str) {
        let mut parts = key.splitn(4, '/');
        let first = parts.next().unwrap_or_default();
        if first == ".history" {
            match parts.nth(2).and_then(Name::parse) {
                Some(Name::Commit(name)) if name.encrypted => self.encrypted += 1,
                Some(Name::Commit(_)) => self.plaintext += 1,
                _ => {}
            }
        } else if !first.starts_with('.') && key.matches('/').count() >= 2 {
            self.mirrored += 1;
        }
    }

    fn plaintext_left(self) -> Option<String> {
        let at_least = if self.more { "at least " } else { "" };
        (self.plaintext + self.mirrored > 0).then(|| {
            format!(
                "{at_least}{} objects of commits and {} of mirrors are plaintext",
                self.plaintext, self.mirrored
            )
        })
    }
}

/// The line.
pub(super) fn check(keys: &Keys, found: Result<Found, StoreError>) -> Check {
    if let Err(error) = keys.check_for_writing() {
        return Check::error(
            NAME,
            &error,
            "make a pair with `age-keygen -o FILE`, and keep a copy of FILE elsewhere",
        );
    }
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            return Check::warn(NAME, format!("the bucket cannot be listed: {error}"), "see the other lines");
        }
    };
    if !keys.encrypts() {
        let who = "Supabase, and everybody with the project's secret key or a backup of the bucket, can read the accounts' keys";
        if found.encrypted > 0 && !keys.accepts_plaintext() {
            let what = format!("off, and {} objects in the bucket are encrypted", found.encrypted);
            let advice = "give the recipient and the identity that they were written with";
            return Check::fail(NAME, crate::error::Code::NoIdentity, what, advice);
        }
        return Check::ok(NAME, format!("off: {who}; --recipient encrypts the history"));
    }
    let on = format!("on, for {}, and an identity opens it", keys.fingerprints().join(", "));
    match found.plaintext_left() {
        None => Check::ok(NAME, format!("{on}; nothing in the bucket is plaintext")),
        Some(left) => Check::warn(
            NAME,
            format!("{on}; {left}"),
            "`sync` each session, or let it run: what is kept gets encrypted, all else goes; `status` says what stays, and why",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::commands::doctor::check::Verdict;
    use crate::error::Code;
    use crate::history::testing::keys;
    use crate::host::Real;
    use crate::store::{Memory, Put};

    #[tokio::test]
    async fn plaintext_is_counted_in_history_and_mirror_and_in_no_other_place() {
        let store = Memory::new(Arc::new(Real));
        let id = "00000001-00000001-00000001";
        for key in [
            format!(".history/u/s/{id}.base.tar.zst"),
            format!(".history/u/s/{id}.base.tar.zst.age"),
            format!(".history/u/s/{id}.pin.label"),
            ".history/u/s/00000001.claim".to_owned(),
            "u/s/creds.json".to_owned(),
            ".doctor-x/u/probe".to_owned(),
        ] {
            store.put(&key, Bytes::new(), &Put::default()).await.unwrap();
        }
        let found = look(&store, &Layout::Many).await.unwrap();
        assert_eq!(found, Found { encrypted: 1, plaintext: 1, mirrored: 1, more: false });
        let one = look(&store, &Layout::Single("u/s".parse().unwrap())).await.unwrap();
        assert_eq!(one, found);
        assert_eq!(look(&store, &Layout::User("v".to_owned())).await.unwrap(), Found::default());
        let check = check(&keys(), Ok(found));
        assert!(
            check.verdict == Verdict::Warn && check.found.contains("1 objects of commits and 1 of mirrors")
        );
    }

    #[test]
    fn encryption_is_told_by_fingerprint_and_what_its_lack_means_too() {
        let keys = keys();
        let on = check(&keys, Ok(Found { encrypted: 3, ..Found::default() }));
        assert!(on.verdict == Verdict::Ok && on.found.contains(&keys.fingerprints()[0]), "{}", on.found);
        let off = check(&Keys::off(), Ok(Found::default()));
        assert!(off.verdict == Verdict::Ok && off.found.contains("can read"), "{}", off.found);
        let lost = check(&Keys::off(), Ok(Found { encrypted: 3, ..Found::default() }));
        assert_eq!(lost.code, Some(Code::NoIdentity));
    }
}
