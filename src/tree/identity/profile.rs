//! The account of a browser that WhatsApp Web runs in (whatsapp-web.js, wppconnect), as far as it can be told.
//!
//! The page notes the id of its account in `localStorage`, and takes it out when it is logged out. The keys lie in the
//! `IndexedDB`, in Chromium's own form: of them it is only known whether the database is still the same, see
//! [`lost_databases`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;

use super::{Creds, Format, Identity};
use crate::tree::leveldb::{CURRENT, Member, local_storage};
use crate::tree::{Content, Hash, Meta, Table};

/// How the directory of the database begins that WhatsApp Web keeps its keys in.
const ORIGIN: &str = "https_web.whatsapp.com_";

/// The browser's profile that a file tells the account of.
#[must_use]
pub fn profile_of(holder: &str) -> Option<&str> {
    let dir = holder.strip_suffix(CURRENT)?.strip_suffix('/')?.strip_suffix(local_storage::DIR)?;
    if dir.is_empty() { Some(dir) } else { dir.strip_suffix('/') }
}

/// Whether a file is one of those that tell the account of a profile.
pub(super) fn is_part(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    Member::parse(name).is_some() && profile_of(&format!("{dir}/{CURRENT}")).is_some()
}

/// The account that a file tells, with the others beside it; what cannot be read tells none.
pub(super) fn read(
    paths: &BTreeSet<&str>,
    holder: &str,
    read: impl Fn(&str) -> io::Result<Content>,
) -> io::Result<Option<Creds>> {
    let dir = holder.strip_suffix(CURRENT).unwrap_or(holder);
    let beside = paths.iter().copied().filter(|path| path.starts_with(dir) && is_part(path));
    let contents = beside.map(|path| Ok((path, read(path)?))).collect::<io::Result<Vec<_>>>();
    contents.map_or(Ok(Some(Creds::UNREADABLE)), Creds::of_profile)
}

impl Creds {
    /// Reads the account out of the files of a profile's `localStorage`; none where it says nothing of one.
    ///
    /// # Errors
    /// A copy cannot be read.
    pub fn of_profile<'a>(
        contents: impl IntoIterator<Item = (&'a str, Content)>,
    ) -> io::Result<Option<Self>> {
        let mut files: Vec<(Member, Bytes)> = Vec::new();
        for (path, content) in contents {
            if let Some(member) = Member::parse(path.rsplit('/').next().unwrap_or(path)) {
                files.push((member, content.bytes()?));
            }
        }
        Ok(match local_storage::last_wid(files.iter().map(|(member, bytes)| (*member, &bytes[..]))) {
            Ok(wid) => wid.map(|wid| Self::of_wid(&wid)),
            Err(_) => Some(Self::UNREADABLE),
        })
    }

    fn of_wid(wid: &str) -> Self {
        let number = wid.split_once('@').filter(|(_, server)| *server == "c.us").map(|(user, _)| user);
        let number = number.and_then(|user| user.split([':', '.']).next());
        let phone = number.filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        Self {
            format: Some(Format::WhatsappWebJs),
            identity: Identity::Paired([Hash::of(format!("whatsapp-web\n{wid}").as_bytes())].into()),
            next_pre_key_id: None,
            phone: phone.map(str::to_owned),
        }
    }
}

/// Databases of WhatsApp Web that the head has, and that are gone or were made anew. // P4
///
/// Chromium throws a database away that it cannot open, also one of a newer Chromium, and begins another without a
/// word. Numbers of logs only go up for as long as a database lives, and a log only grows: whatever has less begins anew,
/// or was rolled back.
#[must_use]
pub fn lost_databases(head: &Table, now: &Table) -> BTreeSet<String> {
    let dirs = head.files.keys().filter_map(|path| path.strip_suffix(CURRENT)?.strip_suffix('/'));
    let lost = |dir: &&str| {
        let current = format!("{dir}/{CURRENT}");
        !now.files.contains_key(&current) || newest_log(&now.files, dir) < newest_log(&head.files, dir)
    };
    dirs.filter(|dir| holds_account(dir)).filter(lost).map(str::to_owned).collect()
}

fn holds_account(dir: &str) -> bool {
    let name = dir.rsplit('/').next().unwrap_or(dir);
    (name.starts_with(ORIGIN) && name.ends_with(".leveldb")) || dir.ends_with(local_storage::DIR)
}

/// Number and size of the newest log in a directory.
fn newest_log(files: &BTreeMap<String, Meta>, dir: &str) -> Option<(u64, u64)> {
    let below = format!("{dir}/");
    let here = files.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
    let logs = here.filter_map(|(path, meta)| match Member::parse(&path[below.len()..]) {
        Some(Member::Log(number)) => Some((number, meta.size)),
        _ => None,
    });
    logs.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: &str = "s/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb";

    fn table(files: &[(&str, u64)]) -> Table {
        let meta = |size| Meta { size, mode: 0o600, mtime_ns: 0, sha256: Hash::of(b"") };
        let files = files.iter().map(|(name, size)| (format!("{DB}/{name}"), meta(*size)));
        Table { files: files.collect(), ..Table::default() }
    }

    #[test]
    fn a_profile_is_told_by_one_file_of_its_local_storage() {
        assert_eq!(profile_of("a/Default/Local Storage/leveldb/CURRENT"), Some("a/Default"));
        assert_eq!(profile_of("Local Storage/leveldb/CURRENT"), Some(""));
        for other in [&format!("{DB}/CURRENT"), "Local Storage/leveldb/000003.log", "leveldb/CURRENT"] {
            assert_eq!(profile_of(other), None);
        }
        assert!(is_part("Default/Local Storage/leveldb/000003.log") && !is_part("Default/000003.log"));
    }

    #[test]
    fn a_database_that_goes_on_is_not_lost() {
        let head = table(&[("CURRENT", 16), ("000010.log", 500), ("000008.ldb", 9)]);
        for now in [
            table(&[("CURRENT", 16), ("000010.log", 500), ("000008.ldb", 9)]),
            table(&[("CURRENT", 16), ("000010.log", 700)]),
            table(&[("CURRENT", 16), ("000012.log", 0), ("000013.ldb", 9)]),
        ] {
            assert!(lost_databases(&head, &now).is_empty(), "{now:?}");
        }
    }

    #[test]
    fn a_database_that_is_gone_made_anew_or_rolled_back_is_lost() {
        let head = table(&[("CURRENT", 16), ("000010.log", 500)]);
        for now in [
            Table::default(),
            table(&[("000010.log", 500)]),
            table(&[("CURRENT", 16), ("000003.log", 90_000)]),
            table(&[("CURRENT", 16), ("000010.log", 499)]),
            table(&[("CURRENT", 16)]),
        ] {
            assert_eq!(lost_databases(&head, &now), [DB.to_owned()].into(), "{now:?}");
        }
        assert!(lost_databases(&Table::default(), &head).is_empty());
    }

    #[test]
    fn databases_of_other_pages_come_and_go() {
        let other = |name: &str| format!("Default/IndexedDB/https_ads.example_0.indexeddb.leveldb/{name}");
        let meta = Meta { size: 1, mode: 0o600, mtime_ns: 0, sha256: Hash::of(b"") };
        let files = ["CURRENT", "000003.log"].map(|name| (other(name), meta));
        let head = Table { files: files.into(), ..Table::default() };
        assert!(lost_databases(&head, &Table::default()).is_empty());
    }

    #[test]
    fn an_account_is_told_by_its_id_and_its_device() {
        let first = Creds::of_wid("5511900000001:12@c.us");
        assert_eq!(first.phone.as_deref(), Some("5511900000001"));
        assert_eq!(first.format, Some(Format::WhatsappWebJs));
        assert_eq!(first.identity, Creds::of_wid("5511900000001:12@c.us").identity);
        assert_ne!(first.identity, Creds::of_wid("5511900000001:13@c.us").identity);
        assert_eq!(Creds::of_wid("123@lid").phone, None);
    }
}
