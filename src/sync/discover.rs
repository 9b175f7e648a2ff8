//! Which sessions there are: below the root, and in the bucket.

use std::collections::BTreeSet;
use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::session::{LOST_AND_FOUND, Layout, STATE_DIR, SessionKey};
use crate::store::{Page, Store, StoreError};
use crate::tree::{Dir, beneath::is_dir};

/// Lists of folders that are asked for at once.
const AT_ONCE: usize = 8;
const PAGE: usize = 1000;

/// What lies below a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Directories that are sessions.
    pub sessions: BTreeSet<SessionKey>,
    /// Paths outside every session: nothing of them is stored.
    pub strays: BTreeSet<String>,
}

/// Looks below the root; reads names only. Links are no sessions.
pub fn local(root: &Dir, layout: &Layout) -> io::Result<Local> {
    let mut found = Local::default();
    match layout {
        Layout::Single(key) => {
            found.sessions.insert(key.clone());
        }
        Layout::User(user) => sessions_in(root, user, "", &mut found)?,
        Layout::Many => {
            for name in root.names()? {
                let name = name.to_string_lossy().into_owned();
                if name == STATE_DIR || name == LOST_AND_FOUND {
                } else if is_dir(root, &name) && crate::session::check_id("user", &name).is_ok() {
                    sessions_in(&root.dir(&name)?, &name, &format!("{name}/"), &mut found)?;
                } else {
                    found.strays.insert(name);
                }
            }
        }
    }
    Ok(found)
}

fn sessions_in(dir: &Dir, user: &str, above: &str, found: &mut Local) -> io::Result<()> {
    for name in dir.names()? {
        let name = name.to_string_lossy().into_owned();
        let reserved = above.is_empty() && (name == STATE_DIR || name == LOST_AND_FOUND);
        match SessionKey::new(user, name.as_str()) {
            _ if reserved => {}
            Ok(key) if is_dir(dir, &name) => {
                found.sessions.insert(key);
            }
            _ => {
                found.strays.insert(format!("{above}{name}"));
            }
        }
    }
    Ok(())
}

/// Where the folders of users lie: histories, and the mirror.
const HISTORIES: &str = ".history/";
const BOTH: [&str; 2] = [HISTORIES, ""];

/// Sessions that the bucket knows, by history or by mirror.
pub async fn remote(store: &dyn Store, layout: &Layout) -> Result<BTreeSet<SessionKey>, StoreError> {
    match layout {
        Layout::Single(key) => Ok(BTreeSet::from([key.clone()])),
        Layout::User(user) => of_user(store, user).await,
        Layout::Many => {
            let mut users = folders(store, HISTORIES).await?;
            users.extend(folders(store, "").await?);
            sessions_of(store, &BOTH, users).await
        }
    }
}

/// Sessions of one user that the bucket knows, by history or by mirror.
pub async fn of_user(store: &dyn Store, user: &str) -> Result<BTreeSet<SessionKey>, StoreError> {
    sessions_of(store, &BOTH, BTreeSet::from([user.to_owned()])).await
}

/// Sessions of all users that have a history.
pub async fn with_history(store: &dyn Store) -> Result<BTreeSet<SessionKey>, StoreError> {
    sessions_of(store, &[HISTORIES], folders(store, HISTORIES).await?).await
}

/// The sessions of some users below some prefixes.
async fn sessions_of(
    store: &dyn Store,
    prefixes: &[&str],
    users: BTreeSet<String>,
) -> Result<BTreeSet<SessionKey>, StoreError> {
    let users: Vec<_> =
        users.into_iter().filter(|user| crate::session::check_id("user", user).is_ok()).collect();
    let sessions = stream::iter(users)
        .map(|user| async move {
            let mut names = BTreeSet::new();
            for prefix in prefixes {
                names.extend(folders(store, &format!("{prefix}{user}/")).await?);
            }
            let keys = names.into_iter().filter_map(move |name| SessionKey::new(user.as_str(), name).ok());
            Ok::<_, StoreError>(keys.collect::<BTreeSet<_>>())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(sessions.into_iter().flatten().collect())
}

/// Names of the folders directly below a prefix.
async fn folders(store: &dyn Store, prefix: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut names = BTreeSet::new();
    let mut page = Page { prefix: prefix.to_owned(), limit: PAGE, delimiter: true, ..Page::default() };
    loop {
        let listing = store.list(&page).await?;
        let inner =
            listing.folders.iter().filter_map(|folder| folder.strip_prefix(prefix)?.strip_suffix('/'));
        names.extend(inner.map(str::to_owned));
        match listing.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, Put};

    fn key(text: &str) -> SessionKey {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn sessions_of_history_and_of_a_mirror_are_found() {
        let store = Memory::new(std::sync::Arc::new(crate::host::Real));
        for name in [".history/u1/a/00000001.claim", "u1/b/creds.json", "u2/c/keys/x.json", "loose.json"] {
            store.put(name, "x".into(), &Put::default()).await.unwrap();
        }
        let many = remote(&store, &Layout::Many).await.unwrap();
        assert_eq!(many, BTreeSet::from([key("u1/a"), key("u1/b"), key("u2/c")]));
        let one = remote(&store, &Layout::User("u1".into())).await.unwrap();
        assert_eq!(one, BTreeSet::from([key("u1/a"), key("u1/b")]));
        assert_eq!(with_history(&store).await.unwrap(), BTreeSet::from([key("u1/a")]));
    }

    #[test]
    fn directories_are_sessions_and_all_else_is_stray() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["u/s", "u/.hidden", ".session-sidecar", "lost+found"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        std::fs::write(root.path().join("note.txt"), "x").unwrap();
        std::fs::write(root.path().join("u/note.txt"), "x").unwrap();
        let found = local(&Dir::open(root.path()).unwrap(), &Layout::Many).unwrap();
        assert_eq!(found.sessions, BTreeSet::from([key("u/s")]));
        assert_eq!(found.strays, ["note.txt", "u/.hidden", "u/note.txt"].map(str::to_owned).into());
    }
}
