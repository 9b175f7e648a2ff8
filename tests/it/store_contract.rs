//! What the store's trait promises, checked on every store: in memory, on the emulator, on a real server.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use session_sidecar::host::Real;
use session_sidecar::store::{
    Faulty, Kind, Limit, Listing, Memory, Metered, Order, Page, Policy, Put, Retry, SharedStore, Store, read,
    rules, stack,
};
use session_sidecar::supabase::{Credential, CredentialSource, Endpoint, Settings, Supabase, Timeouts};

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(Arc::new(Memory::default()), "c/").await;
}

#[tokio::test]
async fn decorators_keep_the_contract() {
    let faulty = Faulty::new(Memory::default(), rules::none);
    let store = Limit::new(Metered::new(Retry::new(faulty, Policy::default())), 4);
    contract(Arc::new(store), "c/").await;
}

#[cfg(feature = "dev")]
mod on_the_emulator {
    use session_sidecar::emulator::{self, Emulator, Options};

    use super::*;

    async fn start(dir: &tempfile::TempDir, bare: bool) -> Emulator {
        let options = Options { dir: dir.path().join("supabase"), bare, ..Options::default() };
        emulator::start(options).await.unwrap()
    }

    #[tokio::test]
    async fn the_client_keeps_the_contract_with_either_kind_of_key() {
        let dir = tempfile::tempdir().unwrap();
        let emulator = start(&dir, false).await;
        for (key, prefix) in [(emulator.service_role_key(), "jwt/"), (emulator.secret_key(), "secret/")] {
            let supabase = connect(&emulator.url(), key, "whatsapp-sessions");
            let (store, metrics) = stack(supabase, Policy::default(), 16);
            contract(store, prefix).await;
            assert!(metrics.started() > 50);
        }
        emulator.stop().await;
    }

    #[tokio::test]
    async fn buckets_are_created_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let emulator = start(&dir, false).await;
        buckets(&emulator.url(), emulator.service_role_key()).await;
        emulator.stop().await;
    }
}

/// On a real server: its URL and a key with all rights. The bucket of the run is left behind, empty.
#[tokio::test]
async fn a_real_server_keeps_the_contract() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(url), Some(key)) =
        (variable("SIDECAR_TEST_SUPABASE_URL"), variable("SIDECAR_TEST_SUPABASE_KEY"))
    else {
        println!("skipped: SIDECAR_TEST_SUPABASE_URL and SIDECAR_TEST_SUPABASE_KEY are not set");
        return;
    };
    let name = buckets(&url, &key).await;
    let (store, _) = stack(connect(&url, &key, &name), Policy::default(), 8);
    contract(store, "contract/").await;
}

fn connect(url: &str, key: &str, bucket: &str) -> Supabase {
    let now = jiff::Timestamp::UNIX_EPOCH;
    Supabase::new(Settings {
        endpoint: Endpoint::parse(url).unwrap(),
        credential: CredentialSource::fixed(Credential::parse(key, now).unwrap()),
        bucket: bucket.to_owned(),
        ca_file: None,
        timeouts: Timeouts::default(),
        host: Arc::new(Real),
    })
    .unwrap()
}

/// What `init` relies on; returns a new bucket as the seed's service makes it, but smaller.
async fn buckets(url: &str, key: &str) -> String {
    use session_sidecar::store::Bucket;

    let name = format!("contract-{:08x}", rand::random::<u32>());
    let supabase = connect(url, key, &name);
    assert_eq!(kind(supabase.bucket().await), Kind::NoBucket);
    assert_eq!(kind(supabase.put("k", Bytes::new(), &text()).await), Kind::NoBucket);
    assert_eq!(supabase.list(&Page::default()).await.unwrap().objects, []);
    let narrow = Bucket { public: false, size_limit: Some(2000), types: Some(vec!["text/plain".into()]) };
    supabase.create_bucket(&narrow).await.unwrap();
    assert_eq!(kind(supabase.create_bucket(&narrow).await), Kind::AlreadyExists);
    assert_eq!(supabase.bucket().await.unwrap(), narrow);
    let open = Bucket::default();
    supabase.update_bucket(&open).await.unwrap();
    assert_eq!(supabase.bucket().await.unwrap(), open, "limits can be taken away");
    let types = Some(vec!["text/plain".to_owned(), "application/zstd".to_owned()]);
    let wide = Bucket { public: false, size_limit: Some(2 << 20), types };
    supabase.update_bucket(&wide).await.unwrap();
    assert_eq!(supabase.bucket().await.unwrap(), wide);
    name
}

fn text() -> Put {
    Put { content_type: "text/plain".into(), overwrite: false, metadata: None }
}

fn over() -> Put {
    Put { overwrite: true, ..text() }
}

fn kind<T: std::fmt::Debug>(result: Result<T, session_sidecar::store::StoreError>) -> Kind {
    result.expect_err("this ought to fail").kind
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.objects.iter().map(|object| object.key.as_str()).collect()
}

/// Checks every promise of the trait below a prefix that is empty at the start, and empties it.
async fn contract(store: SharedStore, prefix: &str) {
    assert!(names(&all(&store, prefix, Order::Ascending, 0).await).is_empty(), "{prefix} is not empty");
    writes_and_reads(&store, &format!("{prefix}rw/")).await;
    metadata_and_info(&store, &format!("{prefix}info/")).await;
    keys(&store, &format!("{prefix}keys/")).await;
    lists(&store, &format!("{prefix}list/")).await;
    folders(&store, &format!("{prefix}folders/")).await;
    removals(&store, &format!("{prefix}rm/")).await;
    renames(&store, &format!("{prefix}mv/")).await;
    limits(&store, &format!("{prefix}limits/")).await;
    let left = all(&store, prefix, Order::Ascending, 0).await;
    let left: Vec<String> = left.objects.into_iter().map(|object| object.key).collect();
    let removed = store.remove(&left).await.unwrap();
    assert_eq!(BTreeSet::from_iter(removed), BTreeSet::from_iter(left));
    assert!(names(&all(&store, prefix, Order::Ascending, 0).await).is_empty());
}

async fn put(store: &SharedStore, key: &str, body: &str) {
    store.put(key, Bytes::copy_from_slice(body.as_bytes()), &text()).await.unwrap();
}

/// All pages of a list as one.
async fn all(store: &SharedStore, prefix: &str, order: Order, limit: usize) -> Listing {
    let mut page = Page { prefix: prefix.to_owned(), order, limit, ..Page::default() };
    let mut whole = Listing::default();
    loop {
        let listing = store.list(&page).await.unwrap();
        assert!(listing.objects.len() <= page.size());
        whole.objects.extend(listing.objects);
        whole.folders.extend(listing.folders);
        match listing.next {
            Some(next) => page.cursor = Some(next),
            None => return whole,
        }
    }
}

async fn writes_and_reads(store: &SharedStore, prefix: &str) {
    let key = format!("{prefix}a");
    assert_eq!(kind(read(&**store, &key).await), Kind::NotFound);
    put(store, &key, "one").await;
    assert_eq!(read(&**store, &key).await.unwrap(), b"one");
    assert_eq!(kind(store.put(&key, Bytes::from_static(b"two"), &text()).await), Kind::AlreadyExists);
    assert_eq!(read(&**store, &key).await.unwrap(), b"one", "a refused upload leaves what is there");
    store.put(&key, Bytes::from_static(b"three"), &over()).await.unwrap();
    assert_eq!(read(&**store, &key).await.unwrap(), b"three");

    let mut sink = b"what an earlier try left".to_vec();
    store.get(&key, &mut sink).await.unwrap();
    assert_eq!(sink, b"three", "a download starts its sink again");

    let empty = format!("{prefix}empty");
    put(store, &empty, "").await;
    assert_eq!(read(&**store, &empty).await.unwrap(), b"");
    let large: Vec<u8> = (0..1_200_000_u32).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
    let key = format!("{prefix}large");
    store.put(&key, large.clone().into(), &over()).await.unwrap();
    assert!(read(&**store, &key).await.unwrap() == large, "1.2 MB come back byte for byte");
}

async fn metadata_and_info(store: &SharedStore, prefix: &str) {
    let key = format!("{prefix}a");
    assert_eq!(kind(store.info(&key).await), Kind::NotFound);
    let metadata = json!({ "head": "00000003-00000041-9f3c01ab", "sha256": "ab", "n": [1, "\u{e4}"] });
    let marked = Put { metadata: Some(metadata.clone()), ..text() };
    store.put(&key, Bytes::from_static(b"abc"), &marked).await.unwrap();
    let info = store.info(&key).await.unwrap();
    assert_eq!((info.size, &info.metadata), (3, &metadata));
    assert!(info.modified_at.is_some());
    let before = all(store, prefix, Order::Ascending, 0).await;
    assert_eq!(before.objects[0].size, 3);
    assert_eq!(before.objects[0].etag, info.etag);

    store.put(&key, Bytes::from_static(b"abcd"), &over()).await.unwrap();
    let info = store.info(&key).await.unwrap();
    assert_eq!((info.size, info.metadata), (4, Value::Null), "an overwrite without metadata clears it");
    let after = all(store, prefix, Order::Ascending, 0).await;
    assert_eq!(after.objects[0].created_at, before.objects[0].created_at, "an overwrite keeps created_at");
    assert_ne!(after.objects[0].etag, before.objects[0].etag);
}

async fn keys(store: &SharedStore, prefix: &str) {
    let good = [".h/u@1/s=2/1-2.base.tar.zst", "a b", "a+b", "a$2F", "(x)!*'&;:,?", "..x", "A", "a"];
    for name in good {
        put(store, &format!("{prefix}{name}"), name).await;
    }
    for name in good {
        assert_eq!(read(&**store, &format!("{prefix}{name}")).await.unwrap(), name.as_bytes());
    }
    let listed = all(store, prefix, Order::Ascending, 0).await;
    let listed: BTreeSet<_> =
        names(&listed).into_iter().map(|key| key.strip_prefix(prefix).unwrap()).collect();
    assert_eq!(listed, BTreeSet::from(good), "names come back as they were given");
    for name in ["\u{e4}", "a~b", "a%41", "a#b", "[a]", "a\\b", "a\nb", "x/../y", "./x"] {
        let key = format!("{prefix}{name}");
        assert_eq!(kind(store.put(&key, Bytes::new(), &text()).await), Kind::BadKey, "{name:?}");
        assert_eq!(kind(read(&**store, &key).await), Kind::BadKey, "{name:?}");
        assert_eq!(kind(store.info(&key).await), Kind::BadKey, "{name:?}");
        assert_eq!(kind(store.rename(&format!("{prefix}a"), &key).await), Kind::BadKey, "{name:?}");
    }
}

/// Names of one session, as the server sorts them: bytewise.
const SESSION: [&str; 8] = [
    ".claim-1",
    "00000004-00000001-aa.base.tar.zst",
    "00000005-00000001-bb.base.tar.zst",
    "00000005-00000001-bb.pin.identity",
    "00000005-00000002-cc.from.x.tar.zst",
    "00000005.claim",
    "Z",
    "claim-1",
];

async fn lists(store: &SharedStore, prefix: &str) {
    for name in SESSION.iter().rev() {
        put(store, &format!("{prefix}{name}"), "x").await;
    }
    // Neighbours that a prefix must not touch.
    put(store, &format!("{}Z", prefix.trim_end_matches('/')), "x").await;
    put(store, &format!("{}/x", prefix.to_uppercase().trim_end_matches('/')), "x").await;

    let expected: Vec<String> = SESSION.iter().map(|name| format!("{prefix}{name}")).collect();
    for limit in [0, 1, 2, 3, 7, 8, 9, 1000] {
        let ascending = all(store, prefix, Order::Ascending, limit).await;
        assert_eq!(names(&ascending), expected, "{limit} a page");
        let descending = all(store, prefix, Order::Descending, limit).await;
        assert!(names(&descending).iter().eq(expected.iter().rev()), "{limit} a page, newest first");
    }

    let page = |order, limit| Page { prefix: prefix.to_owned(), order, limit, ..Page::default() };
    for order in [Order::Ascending, Order::Descending] {
        let two = store.list(&page(order, 2)).await.unwrap();
        assert_eq!(two.order, Some(order), "two names tell the order");
        let one = store.list(&page(order, 1)).await.unwrap();
        assert_eq!(one.order, Some(order), "a cursor tells the order");
        // The order of a cursor wins over the one that is asked for.
        let other = if order == Order::Ascending { Order::Descending } else { Order::Ascending };
        let next = Page { cursor: two.next, ..page(other, 2) };
        assert_eq!(
            names(&store.list(&next).await.unwrap()),
            names(&all(store, prefix, order, 2).await)[2..4]
        );
    }

    let whole = store.list(&page(Order::Ascending, 1000)).await.unwrap();
    assert_eq!(whole.next, None);
    let date = whole.date.expect("a list carries the server's clock");
    assert_eq!(date.subsec_nanosecond(), 0);
    for object in &whole.objects {
        let age = date.duration_since(object.created_at.expect("created_at"));
        assert!((-60..3600).contains(&age.as_secs()), "{age:?}");
    }

    let part = Page { prefix: format!("{prefix}00000005-"), ..Page::default() };
    assert_eq!(names(&store.list(&part).await.unwrap()), expected[2..5], "any string is a prefix");
    let none = Page { prefix: format!("{prefix}nothing"), ..Page::default() };
    let none = store.list(&none).await.unwrap();
    assert_eq!((none.objects.len(), none.next, none.order), (0, None, None));
}

async fn folders(store: &SharedStore, prefix: &str) {
    for name in ["a", "b/1", "b/2", "b/c/3", "d/4", "e"] {
        put(store, &format!("{prefix}{name}"), "x").await;
    }
    let full = |names: &[&str]| names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
    for order in [Order::Ascending, Order::Descending] {
        for limit in [1, 2, 3, 1000] {
            let mut page =
                Page { prefix: prefix.to_owned(), order, limit, delimiter: true, ..Page::default() };
            let (mut objects, mut folders) = (Vec::new(), Vec::new());
            loop {
                let listing = store.list(&page).await.unwrap();
                objects.extend(listing.objects.into_iter().map(|object| object.key));
                folders.extend(listing.folders);
                let Some(next) = listing.next else { break };
                page.cursor = Some(next);
            }
            if order == Order::Descending {
                objects.reverse();
                folders.reverse();
            }
            assert_eq!(objects, full(&["a", "e"]), "{limit} a page, {order:?}");
            assert_eq!(folders, full(&["b/", "d/"]), "{limit} a page, {order:?}");
        }
    }
}

async fn removals(store: &SharedStore, prefix: &str) {
    let key = |name: &str| format!("{prefix}{name}");
    for name in ["a", "b", "c", "d/e"] {
        put(store, &key(name), "x").await;
    }
    assert!(store.remove(&[]).await.unwrap().is_empty());
    let removed = store.remove(&[key("a"), key("missing"), key("b"), key("d")]).await.unwrap();
    assert_eq!(BTreeSet::from_iter(removed), BTreeSet::from([key("a"), key("b")]));
    assert!(store.remove(&[key("a"), key("b")]).await.unwrap().is_empty(), "gone is gone");
    assert_eq!(kind(read(&**store, &key("a")).await), Kind::NotFound);
    assert_eq!(names(&all(store, prefix, Order::Ascending, 0).await), [key("c"), key("d/e")]);
    // A name may be used again afterwards.
    put(store, &key("a"), "again").await;
    assert_eq!(read(&**store, &key("a")).await.unwrap(), b"again");

    let contended = [key("c")];
    let results = join_all((0..8).map(|_| store.remove(&contended))).await;
    let won: usize = results.into_iter().map(|result| result.unwrap().len()).sum();
    assert_eq!(won, 1, "one removal counts an object");
}

async fn renames(store: &SharedStore, prefix: &str) {
    let key = |name: &str| format!("{prefix}{name}");
    put(store, &key(".claim-a"), "a").await;
    put(store, &key(".claim-b"), "b").await;
    let created = all(store, prefix, Order::Ascending, 0).await.objects[0].created_at;
    store.rename(&key(".claim-a"), &key("1.claim")).await.unwrap();
    assert_eq!(read(&**store, &key("1.claim")).await.unwrap(), b"a");
    assert_eq!(kind(read(&**store, &key(".claim-a")).await), Kind::NotFound);
    assert_eq!(all(store, &key("1"), Order::Ascending, 0).await.objects[0].created_at, created);

    assert_eq!(kind(store.rename(&key(".claim-b"), &key("1.claim")).await), Kind::AlreadyExists);
    assert_eq!(read(&**store, &key("1.claim")).await.unwrap(), b"a", "the winner's content stays");
    assert_eq!(read(&**store, &key(".claim-b")).await.unwrap(), b"b", "the loser keeps its temporary");
    // What a repeated rename finds.
    assert_eq!(kind(store.rename(&key(".claim-a"), &key("1.claim")).await), Kind::NotFound);
    assert_eq!(kind(store.rename(&key("missing"), &key("free")).await), Kind::NotFound);

    let claimants: Vec<String> = (0..8).map(|n| key(&format!(".race-{n}"))).collect();
    for (n, claimant) in claimants.iter().enumerate() {
        put(store, claimant, &n.to_string()).await;
    }
    let target = key("2.claim");
    let results = join_all(claimants.iter().map(|claimant| store.rename(claimant, &target))).await;
    let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "one of eight wins: {results:?}");
    assert_eq!(read(&**store, &target).await.unwrap(), winners[0].to_string().as_bytes());
    for (n, result) in results.into_iter().enumerate().filter(|(n, _)| *n != winners[0]) {
        assert_eq!(kind(result), Kind::AlreadyExists);
        assert_eq!(read(&**store, &claimants[n]).await.unwrap(), n.to_string().as_bytes());
    }
}

/// The limits that the bucket has are enforced; what it allows is accepted up to the last byte.
async fn limits(store: &SharedStore, prefix: &str) {
    let bucket = store.bucket().await.unwrap();
    assert!(!bucket.public);
    if bucket.types.is_some() {
        for content_type in ["application/x-not-allowed", "text/plain; charset=utf-8"] {
            let how = Put { content_type: content_type.into(), ..text() };
            let refused = store.put(&format!("{prefix}type"), Bytes::from_static(b"x"), &how).await;
            assert_eq!(kind(refused), Kind::TypeRefused, "{content_type}");
        }
    }
    if let Some(limit) = bucket.size_limit.filter(|limit| *limit <= 16 << 20) {
        let limit = usize::try_from(limit).unwrap();
        let body = Bytes::from(vec![b'x'; limit + 1]);
        let key = format!("{prefix}size");
        assert_eq!(kind(store.put(&key, body.clone(), &text()).await), Kind::TooLarge);
        store.put(&key, body.slice(..limit), &text()).await.unwrap();
        assert_eq!(store.info(&key).await.unwrap().size, limit as u64);
    }
}
