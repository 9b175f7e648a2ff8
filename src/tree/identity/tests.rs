use serde_json::json;

use super::*;

/// Made anew by Baileys, as `initAuthCreds` does.
fn unpaired() -> Value {
    json!({
        "noiseKey": {"private": {"type": "Buffer", "data": "bmV3"}},
        "pairingEphemeralKeyPair": {"private": 2},
        "signedIdentityKey": {"private": 3},
        "registrationId": 44,
        "advSecretKey": "c2VjcmV0",
        "nextPreKeyId": 1,
        "registered": false
    })
}

fn paired(noise: &str, next: u64) -> Value {
    let mut creds = unpaired();
    creds["noiseKey"] = json!({"private": noise});
    creds["nextPreKeyId"] = json!(next);
    creds["me"] = json!({"id": "5511900000001:12@s.whatsapp.net", "name": "Bot", "lid": "6:12@lid"});
    creds["account"] = json!({"details": "x", "accountSignature": "y"});
    creds
}

fn parse(creds: &Value) -> Creds {
    Creds::parse(Some(creds.to_string().as_bytes()))
}

fn at_top(creds: Creds) -> BTreeMap<String, Creds> {
    [(String::new(), creds)].into()
}

fn tree<const N: usize>(dirs: [(&str, Creds); N]) -> BTreeMap<String, Creds> {
    dirs.into_iter().map(|(dir, creds)| (dir.to_owned(), creds)).collect()
}

fn guard(disk: Creds) -> Judgement {
    identity_guard(&at_top(parse(&paired("a", 813))), &at_top(disk))
}

#[track_caller]
fn assert_held(disk: Creds, why: Loss) {
    let judged = guard(disk);
    assert_eq!(judged.verdict, IdentityVerdict::Hold { why });
    assert!(judged.verdict.alarm().unwrap().contains("accept-identity"));
    if why != Loss::Vanished {
        assert_eq!(judged.held.get(""), Some(&why));
    }
}

#[test]
fn a_creds_json_made_empty_is_held() {
    assert_held(Creds::parse(Some(b"")), Loss::Unreadable);
    assert_held(Creds::parse(Some(b"null")), Loss::Unreadable);
    assert_held(Creds::parse(Some(b"\"\"")), Loss::Unreadable);
}

#[test]
fn a_truncated_creds_json_is_held() {
    let whole = paired("a", 813).to_string();
    for length in 0..whole.len() {
        assert_held(Creds::parse(Some(&whole.as_bytes()[..length])), Loss::Unreadable);
    }
}

#[test]
fn an_unreadable_creds_json_is_held() {
    assert_held(Creds::UNREADABLE, Loss::Unreadable);
}

#[test]
fn a_creds_json_that_vanished_is_held() {
    assert_held(Creds::ABSENT, Loss::Vanished);
    let judged = identity_guard(&at_top(parse(&paired("a", 813))), &BTreeMap::new());
    assert_eq!(judged.verdict, IdentityVerdict::Hold { why: Loss::Vanished });
}

#[test]
fn a_creds_json_regenerated_unpaired_is_held() {
    assert_held(parse(&unpaired()), Loss::Unpaired);
    assert_held(parse(&json!({})), Loss::Unpaired);
}

#[test]
fn a_creds_json_with_me_id_alone_is_held() {
    // What a pairing code that was asked for leaves.
    let mut creds = unpaired();
    creds["me"] = json!({"id": "5511900000001@s.whatsapp.net", "name": "~"});
    assert_held(parse(&creds), Loss::Unpaired);
    for nothing in [json!(null), json!({}), json!("")] {
        creds["account"] = nothing;
        assert_held(parse(&creds), Loss::Unpaired);
    }
    let mut without_me = paired("a", 813);
    without_me["me"] = json!(null);
    assert_held(parse(&without_me), Loss::Unpaired);
}

#[test]
fn a_paired_identity_survives_what_baileys_writes_later() {
    let mut later = paired("a", 818);
    later["me"]["name"] = json!("Another name");
    later["me"]["lid"] = json!("7:12@lid");
    later["signedPreKey"] = json!({"keyId": 2});
    later["processedHistoryMessages"] = json!([{"key": 1}]);
    let judged = guard(parse(&later));
    assert_eq!(judged.verdict, IdentityVerdict::Same);
    assert!(judged.held.is_empty() && !judged.verdict.pins());
}

#[test]
fn the_order_of_keys_is_not_identity_and_every_part_is() {
    let creds = r#"{"account":{"b":1,"a":2},"me":{"id":"1@s.whatsapp.net"},"noiseKey":{"x":[1],"y":2}}"#;
    let same = r#"{"noiseKey": {"y":2, "x":[1]}, "me":{"id":"1@s.whatsapp.net"}, "account":{"a":2,"b":1}}"#;
    let identity = |text: &str| Creds::parse(Some(text.as_bytes())).identity;
    assert_eq!(identity(creds), identity(same));
    for part in PARTS {
        let mut other = paired("a", 813);
        other[part] = json!({"other": true});
        assert_ne!(parse(&other).identity, parse(&paired("a", 813)).identity, "{part}");
    }
    let mut other = paired("a", 813);
    other["me"]["id"] = json!("5511900000001:13@s.whatsapp.net");
    assert_ne!(parse(&other).identity, parse(&paired("a", 813)).identity);
}

#[test]
fn another_paired_identity_is_pinned_and_committed_as_a_base() {
    let verdict = guard(parse(&paired("b", 1))).verdict;
    assert_eq!(verdict, IdentityVerdict::NewPairing);
    assert!(verdict.pins() && verdict.wants_base());
}

#[test]
fn a_new_pairing_in_another_directory_replaces_the_one_that_vanished() {
    let head = tree([("old", parse(&paired("a", 813)))]);
    let disk = tree([("new", parse(&paired("b", 1)))]);
    assert_eq!(identity_guard(&head, &disk).verdict, IdentityVerdict::NewPairing);
}

#[test]
fn an_auth_directory_that_was_renamed_is_the_same_identity() {
    let head = tree([("old", parse(&paired("a", 813)))]);
    let disk = tree([("new", parse(&paired("a", 813)))]);
    assert_eq!(identity_guard(&head, &disk).verdict, IdentityVerdict::Same);
}

#[test]
fn next_pre_key_id_below_the_heads_is_a_rolled_back_tree() {
    let verdict = guard(parse(&paired("a", 812))).verdict;
    assert_eq!(verdict, IdentityVerdict::RolledBack { pre_keys: (813, 812) });
    assert!(verdict.pins() && verdict.alarm().unwrap().contains("812"));
}

#[test]
fn the_first_pairing_of_a_tree_is_told_from_a_replaced_one() {
    for before in [Creds::ABSENT, Creds::UNREADABLE, parse(&unpaired())] {
        let judged = identity_guard(&at_top(before), &at_top(parse(&paired("a", 1))));
        assert_eq!(judged.verdict, IdentityVerdict::FirstPairing);
    }
    let judged = identity_guard(&BTreeMap::new(), &at_top(parse(&unpaired())));
    assert_eq!(judged.verdict, IdentityVerdict::Same);
}

#[test]
fn one_of_several_identities_may_go_but_the_last_one_is_held() {
    let (a, b) = (parse(&paired("a", 813)), parse(&paired("b", 5)));
    let head = tree([("a", a), ("b", b.clone())]);
    let verdict = identity_guard(&head, &tree([("b", b)])).verdict;
    assert_eq!(verdict, IdentityVerdict::Shrunk);
    assert!(verdict.pins());
    let judged = identity_guard(&head, &BTreeMap::new());
    assert_eq!(judged.verdict, IdentityVerdict::Hold { why: Loss::Vanished });
}

#[test]
fn one_of_several_identities_that_was_made_anew_is_held_without_the_others() {
    let (a, b) = (parse(&paired("a", 813)), parse(&paired("b", 5)));
    let head = tree([("a", a), ("b", b.clone())]);
    for (lost, why) in [(parse(&unpaired()), Loss::Unpaired), (Creds::UNREADABLE, Loss::Unreadable)] {
        let judged = identity_guard(&head, &tree([("a", lost), ("b", b.clone())]));
        assert_eq!(judged.verdict, IdentityVerdict::Same);
        assert_eq!(judged.held, [("a".to_owned(), why)].into());
    }
}

#[test]
fn auth_directories_are_found_by_their_creds_json() {
    let dirs = auth_dirs(["creds.json", "a/b/creds.json", "a/creds.json.bak", "xcreds.json"]);
    assert_eq!(dirs, [String::new(), "a/b".to_owned()].into());
}

#[test]
fn the_phone_is_known_and_never_shown() {
    let creds = parse(&paired("a", 813));
    assert_eq!(creds.phone.as_deref(), Some("5511900000001"));
    assert!(!format!("{creds:?}").contains("5511"), "{creds:?}");
    assert_eq!(phone("601659152470529:12@lid"), None);
    assert_eq!(phone("5511900000001@s.whatsapp.net").as_deref(), Some("5511900000001"));
    assert_eq!(phone("x"), None);
}
