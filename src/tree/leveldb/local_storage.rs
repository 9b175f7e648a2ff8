//! Whose account a Chromium profile is linked to, as far as its `localStorage` says.
//!
//! WhatsApp Web keeps the id of the linked account there. The keys of the account lie in the `IndexedDB` beside it, in a
//! form of Chromium's that moves with its versions.

use super::batch::{Write, of_table, writes};
use super::records::read_records;
use super::table::each_entry;
use super::{Failure, Member};

/// The directory of the database, below a profile.
pub const DIR: &str = "Local Storage/leveldb";
/// Origin, NUL, and the name in Latin-1.
const LAST_WID: &[u8] = b"_https://web.whatsapp.com\0\x01last-wid-md";

/// The id of the account that WhatsApp Web was last linked to (`5511900000001:12@c.us`) in a database, given by its
/// files; none where there is none.
///
/// # Errors
/// A table or a log is not whole.
pub fn last_wid<'a>(files: impl IntoIterator<Item = (Member, &'a [u8])>) -> Result<Option<String>, Failure> {
    let mut newest: Option<(u64, Option<Vec<u8>>)> = None;
    let mut see = |write: Write<'_>| {
        let newer = newest.as_ref().is_none_or(|(sequence, _)| *sequence < write.sequence);
        if write.key == LAST_WID && newer {
            newest = Some((write.sequence, write.value.map(<[u8]>::to_vec)));
        }
    };
    for (member, content) in files {
        match member {
            Member::Table(_) => each_entry(content, |key, value| {
                of_table(key, value).into_iter().for_each(&mut see);
            })?,
            Member::Log(_) => drop(read_records(content, |record| {
                let writes = writes(record).ok_or(Failure::Damage("a log holds what is no write"))?;
                writes.into_iter().for_each(&mut see);
                Ok(())
            })?),
            Member::Current | Member::Manifest(_) => {}
        }
    }
    Ok(newest.and_then(|(_, value)| value).and_then(|value| id(&text(&value)?)))
}

/// A value: Latin-1 or UTF-16, as its first byte says.
fn text(value: &[u8]) -> Option<String> {
    match value.split_first()? {
        (1, latin) => Some(latin.iter().map(|byte| char::from(*byte)).collect()),
        (0, wide) => {
            let units = wide.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        _ => None,
    }
}

/// The page stores it as JSON.
fn id(json: &str) -> Option<String> {
    let id: String = serde_json::from_str(json).ok()?;
    id.contains('@').then_some(id)
}
