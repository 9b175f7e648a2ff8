use super::batch::writes;
use super::local_storage::last_wid;
use super::records::read_records;
use super::testing::{INDEXED_DB, LOCAL_STORAGE, batch, profile, records, table as table_of};
use std::collections::BTreeMap;

use super::*;

fn file(name: &str) -> Vec<u8> {
    profile().remove(&format!("{INDEXED_DB}/{name}")).unwrap()
}

/// Where the records of a file end: a file that ends there is whole.
fn ends(file: &[u8]) -> Vec<usize> {
    let mut ends: Vec<usize> = (0..=file.len())
        .map(|length| usize::try_from(read_records(&file[..length], |_| Ok(())).unwrap()).unwrap())
        .collect();
    ends.dedup();
    ends
}

#[test]
fn names_tell_what_a_file_is() {
    assert_eq!(Member::parse("CURRENT"), Some(Member::Current));
    assert_eq!(Member::parse("MANIFEST-000012"), Some(Member::Manifest(12)));
    assert_eq!(Member::parse("1234567.ldb"), Some(Member::Table(1_234_567)));
    assert_eq!(Member::parse("000003.log"), Some(Member::Log(3)));
    for other in ["LOG", "LOCK", "12.log", "000003.dbtmp", "00000x.ldb", "MANIFEST-", "creds.json", "a.log"] {
        assert_eq!(Member::parse(other), None, "{other}");
    }
    assert!(is_leveldb(["CURRENT", "000003.log"]) && is_leveldb(["MANIFEST-000001"]));
    assert!(!is_leveldb(["CURRENT", "LOCK"]) && !is_leveldb(["000003.log"]));
}

#[test]
fn what_is_too_large_for_a_database_belongs_to_it() {
    let (db, blobs) = ("Default/IndexedDB/x.indexeddb.leveldb", "Default/IndexedDB/x.indexeddb.blob");
    assert_eq!(blobs_of(db).as_deref(), Some(blobs));
    assert_eq!(database_of_blob(&format!("{blobs}/1/00/1")).as_deref(), Some(db));
    assert_eq!(database_of_blob(blobs).as_deref(), Some(db));
    assert_eq!(database_of_blob("x.indexeddb.blobs/1"), None);
    assert_eq!(blobs_of(LOCAL_STORAGE), None);
}

#[test]
fn the_manifest_of_a_real_database_names_its_live_files() {
    let version = Version::parse(&file("MANIFEST-000001")).unwrap();
    assert_eq!(version.comparator, "idb_cmp1");
    assert_eq!(version.length, 367);
    let files = profile();
    let sizes: BTreeMap<u64, u64> = files
        .iter()
        .filter_map(|(path, content)| {
            match Member::parse(path.strip_prefix(INDEXED_DB)?.strip_prefix('/')?) {
                Some(Member::Table(number)) => Some((number, content.len() as u64)),
                _ => None,
            }
        })
        .collect();
    // Others lie there still: a compaction had just written a new one.
    assert!(!version.tables.is_empty());
    assert!(
        version.tables.iter().all(|(number, size)| sizes.get(number) == Some(size)),
        "{version:?} {sizes:?}"
    );
    assert!(version.needs_log(10) && !version.needs_log(8));
}

#[test]
fn the_tables_of_a_real_database_are_whole_and_hold_sorted_writes() {
    let files = profile();
    let mut count = 0;
    for (path, content) in files.iter().filter(|(path, _)| path.rsplit('.').next() == Some("ldb")) {
        table::check(content).unwrap();
        table::each_entry(content, |key, value| {
            assert!(super::batch::of_table(key, value).is_some(), "{path}");
            count += 1;
        })
        .unwrap();
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn the_log_of_a_real_database_holds_writes_to_its_end() {
    let log = file("000010.log");
    let (mut last, mut count) = (0, 0);
    let whole = read_records(&log[..], |record| {
        for write in writes(record).unwrap() {
            assert!(write.sequence > last);
            last = write.sequence;
        }
        count += 1;
        Ok(())
    });
    assert_eq!(whole.unwrap(), log.len() as u64);
    assert!(count > 10, "{count}");
}

#[test]
fn a_manifest_cut_anywhere_is_a_state_before_or_none() {
    let manifest = file("MANIFEST-000001");
    let ends = ends(&manifest);
    for length in 0..=manifest.len() {
        let whole = ends.iter().rposition(|end| *end <= length).map(|at| ends[at]);
        match Version::parse(&manifest[..length]) {
            Ok(version) => assert_eq!(Some(version.length), whole.map(|end| end as u64)),
            // Before the first record nothing is known.
            Err(_) => assert_eq!(whole, Some(0)),
        }
    }
}

#[test]
fn no_flipped_bit_of_a_manifest_is_taken_for_another_state() {
    let manifest = file("MANIFEST-000001");
    let ends = ends(&manifest);
    for at in 0..manifest.len() {
        for bit in 0..8 {
            let mut damaged = manifest.clone();
            damaged[at] ^= 1 << bit;
            // What was cut off is as if it was never written; LevelDB sees it so, too.
            if let Ok(version) = Version::parse(&damaged) {
                let length = usize::try_from(version.length).unwrap();
                assert!(ends.contains(&length) && length <= at, "byte {at}, bit {bit}");
                assert_eq!(version, Version::parse(&manifest[..length]).unwrap());
            }
        }
    }
}

#[test]
fn a_log_cut_anywhere_keeps_its_whole_records() {
    // Real ones, over several blocks each.
    let log = &file("000010.log")[..200_000];
    let (mut whole_before, mut count_before) = (0, 0);
    for length in (0..200).chain((200..log.len()).step_by(1009)) {
        let mut count = 0;
        let whole = read_records(&log[..length], |record| {
            count += 1;
            assert!(writes(record).is_some());
            Ok(())
        });
        let whole = whole.unwrap();
        assert!(whole <= length as u64 && whole >= whole_before && count >= count_before, "{length}");
        // Cut there, it is whole.
        let end = usize::try_from(whole).unwrap();
        assert_eq!(read_records(&log[..end], |_| Ok(())).unwrap(), whole);
        (whole_before, count_before) = (whole, count);
    }
    assert!(count_before > 2, "{count_before}");
}

#[test]
fn zeros_behind_a_log_are_its_end_and_records_behind_zeros_are_damage() {
    let log = records(&[b"one", b"two"]);
    let mut reserved = log.clone();
    reserved.resize(100_000, 0);
    assert_eq!(read_records(&reserved[..], |_| Ok(())).unwrap(), log.len() as u64);
    reserved.extend(&log);
    assert!(matches!(read_records(&reserved[..], |_| Ok(())), Err(Failure::Damage(_))));
}

#[test]
fn damage_before_the_end_of_a_log_is_no_end() {
    let log = records(&[b"one", b"two", b"three"]);
    for at in 0..log.len() - 12 {
        for bit in 0..8 {
            let mut damaged = log.clone();
            damaged[at] ^= 1 << bit;
            let mut seen: Vec<Vec<u8>> = Vec::new();
            let read = read_records(&damaged[..], |record| {
                seen.push(record.to_vec());
                Ok(())
            });
            // Never a record that was not written.
            assert!(seen.iter().all(|record| [&b"one"[..], b"two", b"three"].contains(&&record[..])));
            // A length that leads behind the end looks like a record that was being written.
            let length = [4, 5].contains(&(at % 10)) || read.is_err();
            assert!(length, "byte {at}, bit {bit}: {read:?}");
        }
    }
}

#[test]
fn a_flipped_bit_or_a_lost_end_of_a_table_is_found() {
    let table = file("000012.ldb");
    for at in (0..table.len() - 48).step_by(331).chain(table.len() - 200..table.len() - 48) {
        let mut damaged = table.clone();
        damaged[at] ^= 0x10;
        assert!(table::check(&damaged).is_err(), "{at}");
    }
    for length in (0..table.len()).step_by(4999).chain(table.len() - 60..table.len()) {
        assert!(table::check(&table[..length]).is_err(), "{length}");
    }
    // The footer leads to the blocks: whatever it says, nothing is read outside.
    for at in table.len() - 48..table.len() {
        for bit in 0..8 {
            let mut damaged = table.clone();
            damaged[at] ^= 1 << bit;
            let _ = table::check(&damaged);
        }
    }
}

#[test]
fn the_account_of_a_page_is_told_by_the_newest_write() {
    let files = profile();
    let own: Vec<(Member, &[u8])> = files
        .iter()
        .filter_map(|(path, content)| {
            let name = path.strip_prefix(LOCAL_STORAGE)?.strip_prefix('/')?;
            Some((Member::parse(name)?, &content[..]))
        })
        .collect();
    assert_eq!(last_wid(own.clone()).unwrap().as_deref(), Some("5511900000000:1@c.us"));

    let key = b"_https://web.whatsapp.com\0\x01last-wid-md";
    let tagged = |sequence: u64, kind: u64| [&key[..], &(sequence << 8 | kind).to_le_bytes()].concat();
    let newest = tagged(900, 1);
    let with_table = table_of(&[(&newest, b"\x01\"4915100000000:2@c.us\"")]);
    let told = |table: Vec<u8>, log: &[u8]| {
        last_wid([(Member::Table(5), &table[..]), (Member::Log(6), log)]).unwrap()
    };
    assert_eq!(told(with_table.clone(), &[]).as_deref(), Some("4915100000000:2@c.us"));
    // Logged out: the page takes it away.
    let deleted = records(&[&batch(901, &[(b"x", Some(b"y")), (key, None)])]);
    assert_eq!(told(with_table.clone(), &deleted), None);
    // A table may be newer than a log that is still there.
    let older = records(&[&batch(12, &[(key, None)])]);
    assert_eq!(told(with_table, &older).as_deref(), Some("4915100000000:2@c.us"));
    let wide: Vec<u8> =
        std::iter::once(0).chain("\"1@c.us\"".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert_eq!(told(table_of(&[(&tagged(1, 1), &wide)]), &[]).as_deref(), Some("1@c.us"));
    assert_eq!(told(table_of(&[(&tagged(1, 0), b"")]), &[]), None);
}

#[test]
fn current_names_a_manifest_or_nothing() {
    assert_eq!(manifest_name(b"MANIFEST-000001\n"), Some("MANIFEST-000001"));
    for bad in [&b""[..], b"MANIFEST-000001", b"MANIFEST-\n", b"../x\n", b"000003.log\n", b"\xff\n"] {
        assert_eq!(manifest_name(bad), None);
    }
}
