use std::collections::BTreeMap;

use super::super::{IdentityVerdict, Loss, identity_guard};
use super::*;

const WHATSAPP_RUST: &str = "CREATE TABLE __diesel_schema_migrations(version TEXT);
    CREATE TABLE device(id INTEGER PRIMARY KEY, lid TEXT NOT NULL DEFAULT '', pn TEXT NOT NULL DEFAULT '',
        registration_id INTEGER, noise_key BLOB, identity_key BLOB, adv_secret_key BLOB, account BLOB,
        login_counter INTEGER DEFAULT 0, push_name TEXT DEFAULT '');";
const WHATSMEOW: &str = "CREATE TABLE whatsmeow_device(jid TEXT PRIMARY KEY, lid TEXT, registration_id BIGINT,
    noise_key bytea, identity_key bytea, adv_key bytea, adv_details bytea, adv_account_sig bytea, push_name TEXT);";

fn database(sql: &str) -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(sql).unwrap();
    database
}

/// A paired row of whatsapp-rust.
fn add(database: &Connection, id: i64, pn: &str) {
    let row = "INSERT INTO device(id, pn, registration_id, noise_key, identity_key, adv_secret_key, account)
        VALUES (?1, ?2, ?1, x'01', x'02', x'03', x'04')";
    database.execute(row, (id, pn)).unwrap();
}

fn creds(database: &Connection) -> Creds {
    accounts(database).unwrap().unwrap()
}

fn one() -> Connection {
    let database = database(WHATSAPP_RUST);
    add(&database, 1, "5511900000001:12@s.whatsapp.net");
    database
}

fn two() -> Connection {
    let database = one();
    add(&database, 2, "5511900000002:1@s.whatsapp.net");
    database
}

fn at(path: &str, creds: Creds) -> BTreeMap<String, Creds> {
    [(path.to_owned(), creds)].into()
}

fn judge(head: &Connection, disk: &Connection) -> IdentityVerdict {
    identity_guard(&at("whatsapp.db", creds(head)), &at("whatsapp.db", creds(disk))).verdict
}

#[test]
fn a_database_of_something_else_holds_no_account() {
    assert_eq!(accounts(&database("CREATE TABLE device(id, name)")).unwrap(), None);
    assert_eq!(accounts(&database("CREATE TABLE notes(text)")).unwrap(), None);
    let without_migrations = WHATSAPP_RUST.split_once(';').unwrap().1;
    assert_eq!(accounts(&database(without_migrations)).unwrap(), None);
}

#[test]
fn a_store_that_waits_for_its_qr_code_is_no_identity() {
    let database = database(WHATSAPP_RUST);
    assert_eq!(creds(&database).identity, Identity::Unpaired);
    database
        .execute("INSERT INTO device(id, noise_key, adv_secret_key) VALUES (1, x'01', x'02')", [])
        .unwrap();
    assert_eq!(creds(&database).identity, Identity::Unpaired);
    // The server named the phone, and the proof is not there.
    database.execute("UPDATE device SET pn = '5511900000001@s.whatsapp.net'", []).unwrap();
    assert_eq!(creds(&database).identity, Identity::Unpaired);
    database.execute("UPDATE device SET account = x'01'", []).unwrap();
    assert!(creds(&database).identity.is_paired());
}

#[test]
fn what_a_login_writes_is_no_other_identity() {
    let database = one();
    let before = creds(&database);
    let later = "UPDATE device SET login_counter = 9, push_name = 'Bot', lid = '7@lid'";
    database.execute_batch(later).unwrap();
    assert_eq!(creds(&database), before);
    assert_eq!(before.format, Some(Format::WhatsappRust));
    assert_eq!(before.phone.as_deref(), Some("5511900000001"));
    assert!(!format!("{before:?}").contains("5511"));
}

#[test]
fn every_part_of_a_row_is_identity() {
    let before = creds(&one());
    for part in ["registration_id", "noise_key", "identity_key", "adv_secret_key", "account"] {
        let database = one();
        database.execute(&format!("UPDATE device SET {part} = x'99'"), []).unwrap();
        assert_ne!(creds(&database).identity, before.identity, "{part}");
    }
}

#[test]
fn the_last_paired_row_that_vanishes_is_held() {
    let unpaired = one();
    unpaired.execute("UPDATE device SET account = NULL, pn = ''", []).unwrap();
    assert_eq!(judge(&one(), &unpaired), IdentityVerdict::Hold { why: Loss::Unpaired });
    assert_eq!(judge(&two(), &unpaired), IdentityVerdict::Hold { why: Loss::Unpaired });
    let empty = database(WHATSAPP_RUST);
    assert_eq!(judge(&one(), &empty), IdentityVerdict::Hold { why: Loss::Unpaired });
    let head = at("whatsapp.db", creds(&one()));
    for (disk, why) in [
        (BTreeMap::new(), Loss::Vanished),
        (at("whatsapp.db", Creds::UNREADABLE), Loss::Unreadable),
        (at("whatsapp.db", Creds::ABSENT), Loss::Vanished),
    ] {
        assert_eq!(identity_guard(&head, &disk).verdict, IdentityVerdict::Hold { why });
    }
}

#[test]
fn another_paired_row_in_place_of_the_old_one_is_pinned_and_a_base() {
    let other = database(WHATSAPP_RUST);
    add(&other, 1, "5511900000009:1@s.whatsapp.net");
    let verdict = judge(&one(), &other);
    assert_eq!(verdict, IdentityVerdict::NewPairing);
    assert!(verdict.pins() && verdict.wants_base());
}

#[test]
fn a_shrinking_set_is_pinned_and_a_growing_one_is_not() {
    let verdict = judge(&two(), &one());
    assert_eq!(verdict, IdentityVerdict::Shrunk);
    assert!(verdict.pins() && !verdict.wants_base());
    assert_eq!(judge(&one(), &two()), IdentityVerdict::Same);
    assert_eq!(judge(&two(), &two()), IdentityVerdict::Same);
    let exchanged = one();
    add(&exchanged, 3, "5511900000003:1@s.whatsapp.net");
    assert_eq!(judge(&two(), &exchanged), IdentityVerdict::Shrunk, "one of two was replaced");
}

#[test]
fn the_first_pairing_is_told_from_a_replaced_one() {
    assert_eq!(judge(&database(WHATSAPP_RUST), &one()), IdentityVerdict::FirstPairing);
}

#[test]
fn an_account_that_moved_to_another_database_is_the_same() {
    let (head, disk) = (at("old.db", creds(&one())), at("new.db", creds(&one())));
    assert_eq!(identity_guard(&head, &disk).verdict, IdentityVerdict::Same);
}

#[test]
fn the_rows_of_whatsmeow_are_paired_as_long_as_they_are_there() {
    let database = database(WHATSMEOW);
    assert_eq!(creds(&database).identity, Identity::Unpaired);
    let row =
        "INSERT INTO whatsmeow_device(jid, registration_id, noise_key, identity_key, adv_key, adv_details,
        adv_account_sig) VALUES (?1, 1, x'01', x'02', x'03', x'04', x'05')";
    database.execute(row, ["5511900000001:3@s.whatsapp.net"]).unwrap();
    let first = creds(&database);
    assert_eq!((first.format, first.phone.as_deref()), (Some(Format::Whatsmeow), Some("5511900000001")));
    assert_eq!(first.identity.paired().count(), 1);
    database.execute("UPDATE whatsmeow_device SET push_name = 'Bot', lid = '7@lid'", []).unwrap();
    assert_eq!(creds(&database), first);
    database.execute(row, ["5511900000002.0:3@s.whatsapp.net"]).unwrap();
    let both = creds(&database);
    assert_eq!(both.identity.paired().count(), 2);
    let judged = identity_guard(&at("main.db", both), &at("main.db", first));
    assert_eq!(judged.verdict, IdentityVerdict::Shrunk);
}

#[test]
fn an_older_schema_that_lacks_a_column_is_still_read() {
    let database = database("CREATE TABLE whatsmeow_device(jid TEXT, noise_key BLOB)");
    database
        .execute("INSERT INTO whatsmeow_device VALUES ('5511900000001@s.whatsapp.net', x'01')", [])
        .unwrap();
    assert!(creds(&database).identity.is_paired());
}
