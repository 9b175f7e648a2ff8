//! The tree of one session on disk: what it is, how it is read while a bot writes, how it is put in place.

pub mod baileys;
pub mod beneath;
pub mod blocks;
pub mod content;
pub mod disk;
pub mod durable;
pub mod exported;
pub mod fence;
pub mod filter;
pub mod guard;
pub mod identity;
mod inotify;
pub mod json;
pub mod leveldb;
pub mod moves;
pub mod publish;
pub mod read;
pub mod reason;
pub mod scan;
pub mod sqlite;
pub mod staging;
pub mod table;
pub mod watch;

pub use beneath::Dir;
pub use blocks::BlockTable;
pub use content::Content;
pub use filter::{Filter, Preset};
pub use reason::Reason;
pub use scan::Scan;
pub use table::{Entry, Hash, Meta, Summary, Table};
