use std::time::Duration;

use super::*;
use crate::tree::identity::{Format, Identity};
use crate::tree::scan::Scan;

const ACCOUNT: &str = "Default/Local Storage/leveldb/CURRENT";
const KEYS: &str = "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb";

fn account(name: &[u8]) -> BTreeMap<String, Creds> {
    let identity = Identity::Paired(BTreeSet::from([Hash::of(name)]));
    let creds = Creds { format: Some(Format::WhatsappWebJs), identity, ..Creds::ABSENT };
    BTreeMap::from([(ACCOUNT.to_owned(), creds)])
}

fn file(bytes: &[u8]) -> Meta {
    Meta { size: bytes.len() as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(bytes) }
}

#[test]
fn a_profile_that_was_linked_anew_waits_for_the_keys_of_its_account() {
    let keys = format!("{KEYS}/CURRENT");
    let table = Table {
        files: BTreeMap::from([(ACCOUNT.to_owned(), file(b"old")), (keys.clone(), file(b"old keys"))]),
        ..Table::default()
    };
    let (head, disk) = (account(b"old"), account(b"new"));
    let known = Known { table: &table, creds: &head, logged_out: None, accept_identity: false };
    let mut sight = Sight::found(Scan::default(), BTreeMap::from([(ACCOUNT.to_owned(), file(b"new"))]), disk);
    sight.scan.leveldbs.insert(KEYS.to_owned(), None);
    let planned = |sight: &Sight| {
        plan(
            known,
            sight,
            &BTreeMap::new(),
            &mut MassDelete::new(false, Duration::from_secs(5)),
            Instant::now(),
        )
    };

    // They were written to during all looks.
    sight.scan.held.insert(KEYS.to_owned(), Reason::Changing);
    let waits = planned(&sight);
    assert!(!waits.base && !waits.changes(&table), "{waits:?}");

    sight.scan.held.clear();
    sight.metas.insert(keys.clone(), file(b"new keys"));
    let goes = planned(&sight);
    assert!(goes.base && goes.pin == Some("identity"), "{goes:?}");
    assert_eq!(goes.table.files[&keys], file(b"new keys"));
}
