use super::*;
use crate::host::Step;

#[derive(Debug)]
struct Clock(Mutex<Timestamp>);

impl Host for Clock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn step(&self, _: Step) -> std::io::Result<()> {
        Ok(())
    }
    fn synced(&self, _: &std::path::Path) {}
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn put(overwrite: bool) -> Put {
    Put { content_type: "text/plain".into(), overwrite, metadata: None }
}

#[tokio::test]
async fn overwrite_and_rename_keep_created_at_and_dates_are_whole_seconds() {
    let clock = Arc::new(Clock(Mutex::new(at("2026-11-24T10:00:00.123456Z"))));
    let memory = Memory::new(Arc::clone(&clock) as Arc<dyn Host>);
    memory.put("a", Bytes::from_static(b"1"), &put(false)).await.unwrap();
    *clock.0.lock().unwrap() = at("2026-11-24T11:00:00.9Z");
    memory.put("a", Bytes::from_static(b"2"), &put(true)).await.unwrap();
    memory.rename("a", "b").await.unwrap();
    let listing = memory.list(&Page::default()).await.unwrap();
    assert_eq!(listing.objects[0].created_at, Some(at("2026-11-24T10:00:00.123Z")));
    assert_eq!(listing.date, Some(at("2026-11-24T11:00:00Z")));
    assert_eq!(memory.info("b").await.unwrap().modified_at, Some(at("2026-11-24T11:00:00.9Z")));
}

#[tokio::test]
async fn limits_and_types_of_the_bucket_are_enforced() {
    let memory = Memory::new(Arc::new(crate::host::Real));
    let types = Some(vec!["text/plain".to_owned(), "image/*".to_owned()]);
    memory.set_bucket(Some(Bucket { size_limit: Some(3), types, public: false }));
    let try_put = async |content_type: &str, body: &'static str| {
        let how = Put { content_type: content_type.into(), overwrite: true, metadata: None };
        memory.put("k", Bytes::from_static(body.as_bytes()), &how).await.map_err(|error| error.kind)
    };
    assert_eq!(try_put("text/plain", "123").await, Ok(()));
    assert_eq!(try_put("image/png", "123").await, Ok(()));
    assert_eq!(try_put("text/plain", "1234").await, Err(Kind::TooLarge));
    assert_eq!(try_put("text/plain; charset=utf-8", "1").await, Err(Kind::TypeRefused));
    assert_eq!(try_put("application/zstd", "1").await, Err(Kind::TypeRefused));
}

#[tokio::test]
async fn a_missing_bucket_lists_as_empty_and_only_bucket_and_put_tell() {
    let memory = Memory::new(Arc::new(crate::host::Real));
    memory.plant("k", "v", Timestamp::UNIX_EPOCH);
    memory.set_bucket(None);
    assert_eq!(memory.bucket().await.unwrap_err().kind, Kind::NoBucket);
    assert!(memory.list(&Page::default()).await.unwrap().objects.is_empty());
    assert!(memory.remove(&["k".to_owned()]).await.unwrap().is_empty());
    assert_eq!(memory.put("n", Bytes::new(), &put(false)).await.unwrap_err().kind, Kind::NoBucket);
}

#[tokio::test]
async fn every_content_under_a_name_is_remembered() {
    let memory = Memory::new(Arc::new(crate::host::Real));
    memory.put("h/1", Bytes::from_static(b"x"), &put(false)).await.unwrap();
    memory.remove(&["h/1".to_owned()]).await.unwrap();
    memory.put("h/1", Bytes::from_static(b"x"), &put(false)).await.unwrap();
    assert!(memory.rewritten("h/").is_empty(), "the same content again is no rewrite");
    memory.remove(&["h/1".to_owned()]).await.unwrap();
    memory.put("h/1", Bytes::from_static(b"y"), &put(false)).await.unwrap();
    assert_eq!(memory.rewritten("h/"), ["h/1".to_owned()].into());
    assert!(memory.rewritten("m/").is_empty());
    assert_eq!(memory.log().len(), 3);
    assert_eq!(memory.calls(Op::Put), 3);
}
