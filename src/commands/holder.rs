//! The process that holds a root, found through its control socket.

use std::io;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::http::control::Client;
use crate::session::STATE_DIR;
use crate::sync::rootdir::ControlAddress;

/// A client of the process that holds a root.
pub struct Holder {
    client: Client,
    /// The client's path leads through it.
    _address: ControlAddress,
}

impl Deref for Holder {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The process that holds this root; none: nobody answers there.
pub fn find(root: &Path) -> Result<Option<Holder>> {
    let address = match ControlAddress::of(root) {
        Ok(address) => address,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::io(format!("cannot look into {}", root.join(STATE_DIR).display()), error));
        }
    };
    match UnixStream::connect(address.path()) {
        Ok(_) => Ok(Some(Holder { client: Client::new(address.path(), None)?, _address: address })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(Error::new(
            Code::BadRoot,
            format!(
                "the process that holds {} cannot be asked: run this as the user that it runs as",
                root.display()
            ),
        )
        .because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_nobody_holds_has_no_holder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r".repeat(150));
        assert!(find(&root).unwrap().is_none());
        std::fs::create_dir_all(root.join(STATE_DIR)).unwrap();
        assert!(find(&root).unwrap().is_none());
        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap());
        std::fs::rename(dir.path().join("s"), root.join(STATE_DIR).join("control.sock")).unwrap();
        assert!(find(&root).unwrap().is_none());
    }

    #[test]
    fn a_root_that_is_a_file_is_said_to_be_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(find(file.path()).err().unwrap().code(), Code::BadRoot);
    }
}
