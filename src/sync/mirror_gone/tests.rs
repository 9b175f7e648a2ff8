use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::host::Real;
use crate::store::{Memory, Put};
use crate::sync::mirror::md5_hex;
use crate::tree::Meta;

#[tokio::test]
async fn what_history_has_too_goes_and_what_is_in_no_commit_stays() {
    let (store, key): (_, SessionKey) = (Memory::new(Arc::new(Real)), "u/s".parse().unwrap());
    let put = async |path: &str, body: &'static str, marked: bool| {
        let (sha256, md5) = (Hash::of(body.as_bytes()), md5_hex(body.as_bytes()));
        let metadata = marked.then(|| json!({ "sidecar": { "head": "x", "sha256": sha256, "md5": md5 } }));
        let how = Put { metadata, overwrite: true, ..Put::default() };
        store.put(&format!("u/s/{path}"), Bytes::from_static(body.as_bytes()), &how).await.unwrap();
    };
    let mut head = Table::default();
    for (path, body) in [("creds.json", "{\"now\":1}"), ("keys/same", "same"), ("keys/other", "ours")] {
        let meta =
            Meta { size: body.len() as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(body.as_bytes()) };
        head.files.insert(path.to_owned(), meta);
    }
    put("creds.json", "{\"before\":1}", true).await;
    put("gone.json", "of an older commit", true).await;
    put("keys/same", "same", false).await;
    put("keys/other", "else", false).await;
    put("notes.txt", "a person's", false).await;
    put(".emptyFolderPlaceholder", "", false).await;
    store.put("u/s2/creds.json", Bytes::new(), &Put::default()).await.unwrap();
    let mut foreign = BTreeSet::new();
    assert_eq!(remove_ours(&store, &key, &head, &mut foreign).await.unwrap(), 3);
    assert_eq!(foreign, BTreeSet::from(["u/s/keys/other", "u/s/notes.txt"].map(str::to_owned)));
    assert_eq!(remove_ours(&store, &key, &head, &mut foreign).await.unwrap(), 0);
    assert_eq!(store.keys("u/s").len(), 4);
}
