//! The format of logs and manifests: records in blocks of 32 KiB, each with its sum.

use std::io::{self, Read};

use super::{Failure, crc};

/// Records do not cross the end of a block; longer ones are split.
const BLOCK: usize = 32 << 10;
/// Sum, length, kind.
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Hands over every whole record and returns where the last one ends.
///
/// What follows there is what a writer had not finished: `LevelDB` passes over it when it opens the database. A copy
/// must be cut there, for `LevelDB` goes on writing behind it in the same file, and what stands there then is damage.
/// Whatever else is not as it was written is an error here, also where `LevelDB` would leave it out and go on.
pub fn read_records(
    mut reader: impl Read,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut block = Vec::with_capacity(BLOCK);
    // Of a record that is split: what was read of it.
    let mut parts: Option<Vec<u8>> = None;
    let (mut begins, mut whole) = (0, 0);
    loop {
        block.clear();
        fill(&mut reader, &mut block)?;
        let last = block.len() < BLOCK;
        let mut at = 0;
        while let Some(header) = block.get(at..at + HEADER) {
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let Some(body) = block.get(at + HEADER..at + HEADER + length) else {
                return if last {
                    Ok(whole)
                } else {
                    Err(Failure::Damage("a record goes on behind its block"))
                };
            };
            let kind = header[6];
            if kind == 0 && length == 0 {
                return nothing_follows(&block[at..], &mut reader).map(|()| whole);
            }
            if !crc::is_sum([header[0], header[1], header[2], header[3]], [&[kind], body]) {
                return Err(Failure::Damage("the sum of a record is wrong"));
            }
            at += HEADER + length;
            match (kind, &mut parts) {
                (FULL, None) => each(body)?,
                (FIRST, None) => parts = Some(body.to_vec()),
                (MIDDLE, Some(parts)) => parts.extend_from_slice(body),
                (LAST, Some(before)) => {
                    before.extend_from_slice(body);
                    each(before)?;
                    parts = None;
                }
                _ => return Err(Failure::Damage("the parts of a record do not follow each other")),
            }
            if parts.is_none() {
                whole = begins + at as u64;
            }
        }
        if last {
            return Ok(whole);
        }
        begins += BLOCK as u64;
    }
}

/// Reads a block, or what is left of the file.
fn fill(reader: &mut impl Read, block: &mut Vec<u8>) -> io::Result<()> {
    reader.take(BLOCK as u64).read_to_end(block).map(drop)
}

/// A file system may have reserved room that a crash left as zeros.
fn nothing_follows(rest: &[u8], reader: &mut impl Read) -> Result<(), Failure> {
    let mut zero = rest.iter().all(|byte| *byte == 0);
    let mut more = Vec::new();
    while zero {
        more.clear();
        fill(reader, &mut more)?;
        if more.is_empty() {
            return Ok(());
        }
        zero = more.iter().all(|byte| *byte == 0);
    }
    Err(Failure::Damage("records follow a gap"))
}
