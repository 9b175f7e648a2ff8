use super::*;
use crate::history::survey::{Depth, survey};
use crate::history::testing::{id, key, memory};
use crate::store::Bucket;

#[tokio::test]
async fn a_pin_is_listed_with_its_reason_and_written_once() {
    let (memory, _) = memory();
    pin(&memory, &key(), id(1, 2), "identity").await.unwrap();
    pin(&memory, &key(), id(1, 2), "identity").await.unwrap();
    let survey = survey(&memory, &key(), Depth::All, None).await.unwrap();
    assert_eq!(survey.pins.len(), 1);
    assert_eq!((survey.pins[0].id, survey.pins[0].reason.as_str()), (id(1, 2), "identity"));
    assert_eq!(memory.log().len(), 1);
}

#[tokio::test]
async fn a_pin_is_sent_under_a_type_that_the_bucket_takes() {
    let (memory, _) = memory();
    memory.set_bucket(Some(Bucket { types: Some(vec!["application/zstd".into()]), ..Bucket::default() }));
    pin(&memory, &key(), id(1, 2), "rewind").await.unwrap();
    assert_eq!(memory.keys("").len(), 1);
}

#[tokio::test]
async fn a_reason_is_one_word() {
    let (memory, _) = memory();
    for reason in ["", "Identity", "a b", "a/b", "a.b"] {
        assert!(
            matches!(pin(&memory, &key(), id(1, 2), reason).await, Err(HistoryError::Refused(_))),
            "{reason}"
        );
    }
}
