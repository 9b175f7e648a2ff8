use super::*;
use crate::history::chain::{Silent, fetch};
use crate::history::commit::Kind;
use crate::history::testing::{Author, id, key, keys, memory, object, pair, time};
use crate::store::Memory;

fn listed(names: &[(u32, bool)]) -> Survey {
    let name = |(seq, encrypted): &(u32, bool)| {
        let age = if *encrypted { ".age" } else { "" };
        object(&format!("{}.base.tar.zst{age}", id(1, *seq)), 0)
    };
    Survey { complete: true, ..Survey::of(&key(), &names.iter().map(name).collect::<Vec<_>>()) }
}

#[test]
fn plaintext_is_read_where_it_is_older_than_all_that_is_encrypted_and_nowhere_else() {
    let (recipient, identity) = pair();
    let writer = Keys::new([recipient.as_str()], &identity, false).unwrap();
    let accepting = Keys::new([recipient.as_str()], &identity, true).unwrap();
    let reader = Keys::new([], &identity, false).unwrap();
    let allowed = |keys: &Keys, since: Option<u32>, names: &[(u32, bool)], seq: u32| {
        judge(keys, since.map(|seq| id(1, seq)), &listed(names), &[id(1, seq)]).is_ok()
    };
    let plain = &[(1, false), (2, false)];
    let turned_on = &[(1, false), (2, false), (3, true)];
    let injected = &[(1, true), (2, false)];
    for (keys, since, names, seq, expected, what) in [
        (&writer, None, &plain[..], 2, true, "the first run with a recipient"),
        (&writer, None, turned_on, 2, true, "what was before it was turned on"),
        (&writer, None, turned_on, 3, true, "what is encrypted"),
        (&writer, None, injected, 2, false, "what somebody put on top"),
        (&accepting, None, injected, 2, true, "a person believes it"),
        (&writer, Some(1), plain, 2, false, "all that was encrypted was removed, and this disk remembers"),
        (&writer, Some(3), plain, 2, true, "older than what this disk remembers"),
        (&reader, None, plain, 2, false, "a reader with identities alone"),
        (&Keys::off(), None, plain, 2, true, "nothing was asked for"),
        (&Keys::off(), Some(1), plain, 2, false, "the recipient was forgotten, not given up"),
        (&Keys::off(), None, turned_on, 3, false, "nothing to open it with"),
    ] {
        assert_eq!(allowed(keys, since, names, seq), expected, "{what}");
    }
}

async fn read(memory: &Memory, keys: &Keys, depth: Depth) -> Result<(), HistoryError> {
    let survey = survey(memory, &key(), depth, None).await?;
    let scratch = tempfile::tempdir().unwrap();
    let head = survey.head().unwrap();
    let chain = fetch(Access::new(memory, keys), &key(), &survey, head, scratch.path(), &Silent).await?;
    chain.verify()
}

#[tokio::test]
async fn an_encrypted_chain_opens_for_its_identity_and_is_never_called_damaged_for_others() {
    let (memory, _) = memory();
    let mut author = Author { keys: keys(), size_limit: Some(500), ..Author::new() };
    author.put("creds.json", b"{\"v\":1}").commit(&memory, Kind::Base).await;
    author.put("creds.json", b"{\"v\":2}").commit(&memory, Kind::Delta).await;
    let names = memory.keys(&key().history_prefix());
    assert!(names.len() > 2 && names.iter().all(|name| name.ends_with(".tar.zst.age")), "{names:?}");
    read(&memory, &author.keys, Depth::Chain).await.unwrap();
    let wrong = read(&memory, &keys(), Depth::Chain).await.unwrap_err();
    assert!(matches!(wrong, HistoryError::WrongIdentity { .. }) && !wrong.is_damage(), "{wrong}");
    let none = read(&memory, &Keys::off(), Depth::Chain).await.unwrap_err();
    assert!(matches!(none, HistoryError::NoIdentity { .. }) && !none.is_damage(), "{none}");
    assert_eq!((wrong.code().exit(), none.code().exit()), (2, 2));
}

#[tokio::test]
async fn any_flipped_byte_is_damage_or_does_not_open_and_a_lost_tail_is_damage() {
    let (memory, _) = memory();
    let mut author = Author { keys: keys(), ..Author::new() };
    author.put("creds.json", b"{\"v\":1}").commit(&memory, Kind::Base).await;
    let name = memory.keys(&key().history_prefix()).remove(0);
    let whole = memory.content(&name).unwrap().to_vec();
    let payload = whole.windows(4).position(|bytes| bytes == b"--- ").unwrap();
    for at in [30, payload + 10, payload + 60, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        memory.plant(&name, bytes, time(0));
        let error = read(&memory, &author.keys, Depth::All).await.unwrap_err();
        assert!(error.is_damage() || at < payload, "{at}: {error}");
    }
    for cut in [whole.len() - 1, payload + 60, 20, 0] {
        memory.plant(&name, whole[..cut].to_vec(), time(0));
        assert!(read(&memory, &author.keys, Depth::All).await.unwrap_err().is_damage(), "{cut}");
    }
    memory.plant(&name, [whole.clone(), vec![0; 300_000]].concat(), time(0));
    assert!(read(&memory, &author.keys, Depth::All).await.unwrap_err().is_damage(), "bytes after its end");
    let endless = [&b"age-encryption.org/v1\n"[..], &b"-> x\nAAAA\n".repeat(10_000)].concat();
    memory.plant(&name, endless, time(0));
    let error = read(&memory, &author.keys, Depth::All).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("no end"), "{error}");
}

#[tokio::test]
async fn plaintext_on_top_is_refused_also_by_who_has_listed_only_the_head() {
    let (memory, _) = memory();
    let mut author = Author { keys: keys(), ..Author::new() };
    author.put("creds.json", b"{\"v\":1}").commit(&memory, Kind::Base).await;
    let ours = std::mem::replace(&mut author.keys, Keys::off());
    // More names than a page has: a short look sees nothing of what is encrypted.
    for seq in 2..1002 {
        memory.plant(&object(&format!("{}.base.tar.zst", id(1, seq)), 0).key, "", time(0));
    }
    author.seq = 1002;
    author.put("creds.json", b"{\"v\":2}").commit(&memory, Kind::Base).await;
    assert!(!survey(&memory, &key(), Depth::Chain, None).await.unwrap().complete);
    let error = read(&memory, &ours, Depth::Chain).await.unwrap_err();
    assert!(matches!(error, HistoryError::Plaintext { .. }) && !error.is_damage(), "{error}");
}
