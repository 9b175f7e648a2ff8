//! The tree of one session on disk: what it is, how it is read while a bot writes, how it is put in place.

pub mod beneath;
pub mod content;
pub mod table;

pub use beneath::Dir;
pub use content::Content;
pub use table::{Entry, Hash, Meta, Summary, Table};
