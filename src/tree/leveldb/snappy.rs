//! Unpacks what Snappy packed. Source: `format_description.txt` of Snappy.

use super::{take, varint};

/// More than any block of a table holds.
const MOST: u64 = 256 << 20;

/// None where it is not whole.
pub(super) fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let from = &mut packed;
    let length = usize::try_from(varint(from).filter(|length| *length <= MOST)?).ok()?;
    // What is claimed may be far from what comes.
    let mut out = Vec::with_capacity(length.min(1 << 20));
    while let Some(&tag) = from.first() {
        *from = &from[1..];
        let high = u64::from(tag >> 2);
        let (back, copied) = match tag & 3 {
            0 => {
                let literal = match high {
                    0..60 => high + 1,
                    _ => number(from, high - 59)? + 1,
                };
                out.extend_from_slice(take(from, literal)?);
                (0, 0)
            }
            1 => (u64::from(tag >> 5) << 8 | number(from, 1)?, (high & 7) + 4),
            2 => (number(from, 2)?, high + 1),
            _ => (number(from, 4)?, high + 1),
        };
        if copied > 0 {
            let begin = out.len().checked_sub(usize::try_from(back).ok().filter(|back| *back > 0)?)?;
            for at in begin..begin + usize::try_from(copied).ok()? {
                // It may go on into what it has just copied.
                out.push(out[at]);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

fn number(from: &mut &[u8], bytes: u64) -> Option<u64> {
    let bytes = take(from, bytes)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
