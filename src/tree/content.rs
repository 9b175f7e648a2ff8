//! The bytes of a file, frozen when they were read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Hash;

/// What a file held at the moment of its stable read. Cheap to clone; never changes again.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// A private copy on disk without a name, for large files.
    Spooled {
        /// The copy.
        file: Arc<File>,
        /// Bytes.
        size: u64,
    },
}

impl Content {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Spooled { size, .. } => *size,
        }
    }

    /// The first bytes of it; all of it where there are not so many.
    #[must_use]
    pub fn cut(self, size: u64) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let end = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                Self::Bytes(bytes.slice(..end))
            }
            Self::Spooled { file, size: all } => Self::Spooled { file, size: size.min(all) },
        }
    }

    /// Reads it from the start; any number of readers may read at once.
    #[must_use]
    pub fn reader(&self) -> Box<dyn Read + Send> {
        match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Self::Spooled { file, size } => Box::new(Spool { file: Arc::clone(file), at: 0, size: *size }),
        }
    }

    /// Reads `len` bytes from `at`; both lie within it.
    #[must_use]
    pub fn range(&self, at: u64, len: u64) -> Box<dyn Read + Send> {
        let end = at.saturating_add(len).min(self.size());
        let at = at.min(end);
        match self {
            Self::Bytes(bytes) => {
                let place = |at: u64| usize::try_from(at).expect("no more than the length of a buffer");
                Box::new(io::Cursor::new(bytes.slice(place(at)..place(end))))
            }
            Self::Spooled { file, .. } => Box::new(Spool { file: Arc::clone(file), at, size: end }),
        }
    }

    /// The hash of all of it.
    pub fn hash(&self) -> io::Result<Hash> {
        let mut hasher = Sha256::new();
        let mut reader = self.reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Hash::finish(hasher)),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// All of it in memory.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Spooled { size, .. } => {
                let mut bytes = Vec::with_capacity(usize::try_from(*size).unwrap_or(0));
                self.reader().read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }
}

struct Spool {
    file: Arc<File>,
    at: u64,
    size: u64,
}

impl Read for Spool {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}
