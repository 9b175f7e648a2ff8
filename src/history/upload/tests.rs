use std::sync::Arc;

use super::*;
use crate::history::commit::Kind as CommitKind;
use crate::history::testing::{Author, key, memory};
use crate::store::{Fault, Faulty, Op, rules};

fn bucket(types: &[&str]) -> Bucket {
    Bucket { types: Some(types.iter().map(|text| (*text).to_owned()).collect()), ..Bucket::default() }
}

fn chosen(types: &[&str]) -> (String, bool) {
    let (chosen, warning) = content_type(&bucket(types)).unwrap();
    (chosen, warning.is_some())
}

#[test]
fn a_commit_is_sent_as_what_it_is_where_the_bucket_allows_it() {
    assert_eq!(content_type(&Bucket::default()).unwrap().0, ZSTD);
    for types in [&["application/zstd"][..], &["text/plain", "application/*"], &["*/*"], &[]] {
        assert_eq!(chosen(types), (ZSTD.into(), false), "{types:?}");
    }
    assert_eq!(chosen(&["text/plain", "application/octet-stream"]), (OCTETS.into(), false));
}

#[test]
fn else_as_the_first_concrete_type_with_a_warning() {
    assert_eq!(chosen(&["application/json", "text/plain"]), ("application/json".into(), true));
    assert_eq!(chosen(&["image/*", "text/*"]), ("text/plain".into(), true));
    assert_eq!(chosen(&["text/plain;charset=utf-8", "image/png"]), ("image/png".into(), true));
    let (_, warning) = content_type(&bucket(&["application/json"])).unwrap();
    assert!(warning.unwrap().0.contains("init"));
}

#[test]
fn a_bucket_that_accepts_nothing_that_can_be_named_is_an_error() {
    for types in [&["image/*"][..], &["text/plain; charset=utf-8"], &["nonsense"]] {
        let error = content_type(&bucket(types)).unwrap_err();
        assert_eq!(error.code(), crate::error::Code::BucketRefuses);
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_is_confirmed_and_changes_nothing() {
    let (memory, _) = memory();
    let store = Faulty::new(Arc::clone(&memory), rules::first(1, Op::Put, Fault::After(Kind::Transient)));
    let mut author = Author::new();
    author.size_limit = Some(200);
    let frozen = author.put("creds.json", b"{}").freeze(CommitKind::Base);
    assert!(frozen.objects.len() > 1);
    assert!(upload(&store, &key(), &frozen, ZSTD).await.is_err());
    upload(&store, &key(), &frozen, ZSTD).await.unwrap();
    assert_eq!(memory.keys(&key().history_prefix()).len(), frozen.objects.len());
    assert!(memory.rewritten("").is_empty());
}
