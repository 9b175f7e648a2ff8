//! The files of a session's database. Nothing here touches one while a client has it open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::time::{Instant, sleep};

use super::DATABASE;
use crate::error::{Code, Error};
use crate::tree::identity::{CREDS, Creds};

/// How long a closed client may take to let go of its database.
const RELEASE: Duration = Duration::from_secs(10);
/// How long the log may outlive the client: a reader beside it keeps the log alive.
const LOG: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// The database of a session in this directory.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Refuses a directory with the paired account of another library: a client of ours would link a second device
/// beside it, and two bots would write into one tree.
pub(super) fn refuse_other_engine(dir: &Path) -> Result<(), Error> {
    let engine = match std::fs::read(dir.join(CREDS)) {
        Ok(bytes) if Creds::parse(Some(&bytes)).identity.is_paired() => Some("Baileys"),
        _ => whatsmeow(dir)?.then_some("whatsmeow"),
    };
    match engine {
        None => Ok(()),
        Some(engine) => Err(Error::new(
            Code::OtherEngine,
            format!(
                "the session holds a linked account of {engine}: run its own bot with `exec -- CMD`, or connect \
                 another session id"
            ),
        )),
    }
}

/// Whether a database at the top of the directory holds a device of whatsmeow.
fn whatsmeow(dir: &Path) -> Result<bool, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(|error| Error::io("the session's directory", error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| Error::io("the session's directory", error))?.path();
        let is_database =
            path.extension().is_some_and(|end| end == "db" || end == "sqlite" || end == "sqlite3");
        // What SQLite cannot read is no account of anybody; ours is opened, and its errors told, by its client.
        if is_database && path.is_file() && has_whatsmeow_device(&path).unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_whatsmeow_device(path: &Path) -> rusqlite::Result<bool> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let tables: i64 = database.query_row(
        "select count(*) from sqlite_master where type = 'table' and name = 'whatsmeow_device'",
        [],
        |row| row.get(0),
    )?;
    Ok(tables > 0
        && database.query_row("select exists(select 1 from whatsmeow_device)", [], |row| row.get(0))?)
}

/// Refuses a database that SQLite cannot read, at once: the crate's pool would try for half a minute.
///
/// # Errors
/// What SQLite says of it.
pub(super) fn refuse_damaged(dir: &Path) -> Result<(), String> {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = database(dir);
    if !path.exists() {
        return Ok(());
    }
    let look = |database: Connection| {
        database.query_row("select count(*) from sqlite_master", [], |row| row.get::<_, i64>(0))
    };
    match Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(look) {
        // Any other trouble may pass.
        Err(error) if matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) => {
            Err(error.to_string())
        }
        _ => Ok(()),
    }
}

/// Removes a database whose link is gone, so that the next client begins anew. History has it.
pub(super) fn discard(dir: &Path) -> Result<(), Error> {
    for end in ["", "-wal", "-shm"] {
        match std::fs::remove_file(dir.join(format!("{DATABASE}{end}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("the database of the link that is gone cannot be removed", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Waits until nobody has the database open; the directory may be moved or deleted then.
///
/// # Errors
/// [`Code::Conflict`] when a client does not let go of it.
pub(super) async fn released<T>(client: &Weak<T>, dir: &Path) -> Result<(), Error> {
    if !gone(client, RELEASE).await {
        return Err(Error::new(
            Code::Conflict,
            "the session's database is still in use by its last connection: try again in a moment",
        ));
    }
    // The count falls before the last owner has closed the database; closing removes the log.
    let (log, deadline) = (dir.join(format!("{DATABASE}-wal")), Instant::now() + LOG);
    while log.exists() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    Ok(())
}

/// Whether the client ends within this time.
pub(super) async fn gone<T>(client: &Weak<T>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while client.strong_count() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn refusal(dir: &Path) -> String {
        let error = refuse_other_engine(dir).unwrap_err();
        assert_eq!(error.code(), Code::OtherEngine);
        error.to_string()
    }

    #[test]
    fn a_paired_account_of_baileys_is_refused_and_an_unpaired_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        refuse_other_engine(dir.path()).unwrap();
        refuse_other_engine(&dir.path().join("absent")).unwrap();
        std::fs::write(dir.path().join(CREDS), r#"{"me":{"id":"15550001111:1@s.whatsapp.net"}}"#).unwrap();
        refuse_other_engine(dir.path()).unwrap();
        let paired = r#"{"me":{"id":"15550001111:1@s.whatsapp.net"},"account":{"details":"x"}}"#;
        std::fs::write(dir.path().join(CREDS), paired).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("Baileys") && message.contains("exec -- CMD"), "{message}");
        assert!(!message.contains("15550001111"));
    }

    /// GOWA calls its database `whatsapp.db` too.
    #[test]
    fn a_linked_device_of_whatsmeow_is_refused_whatever_its_file_is_called() {
        for name in [DATABASE, "store.sqlite3"] {
            let dir = tempfile::tempdir().unwrap();
            let database = Connection::open(dir.path().join(name)).unwrap();
            database.execute("create table whatsmeow_device (jid text)", []).unwrap();
            refuse_other_engine(dir.path()).unwrap();
            database.execute("insert into whatsmeow_device values ('x')", []).unwrap();
            assert!(refusal(dir.path()).contains("whatsmeow"), "{name}");
        }
    }

    #[test]
    fn what_is_no_database_is_nobodys_account() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("notes.db"), "not a database, but long enough to be read as one")
            .unwrap();
        refuse_other_engine(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_database_is_refused_and_an_absent_or_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        refuse_damaged(dir.path()).unwrap();
        std::fs::write(database(dir.path()), "").unwrap();
        refuse_damaged(dir.path()).unwrap();
        std::fs::write(database(dir.path()), "no database, and long enough to be read as one".repeat(100))
            .unwrap();
        assert!(refuse_damaged(dir.path()).unwrap_err().contains("not a database"));
    }

    #[test]
    fn a_void_database_goes_with_its_log_and_nothing_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["whatsapp.db", "whatsapp.db-wal", "whatsapp.db-shm", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        discard(dir.path()).unwrap();
        discard(dir.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_keeps_its_database_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let client = Arc::new(());
        let error = released(&Arc::downgrade(&client), dir.path()).await.unwrap_err();
        assert_eq!(error.code(), Code::Conflict);
        let weak = Arc::downgrade(&client);
        drop(client);
        released(&weak, dir.path()).await.unwrap();
    }
}
