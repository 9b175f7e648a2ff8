//! CRC-32C (Castagnoli), as `LevelDB` stores it.

/// Of these bytes, one part after the other.
fn crc([first, then]: [&[u8]; 2]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(first), then)
}

/// Whether a stored sum is that of the bytes. Stored sums are masked: data may hold sums itself.
pub(super) fn is_sum(stored: [u8; 4], parts: [&[u8]; 2]) -> bool {
    u32::from_le_bytes(stored) == mask(crc(parts))
}

pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A stored sum, for files that tests make.
#[cfg(test)]
pub(super) fn sum(parts: [&[u8]; 2]) -> [u8; 4] {
    mask(crc(parts)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_rfc_3720() {
        assert_eq!(crc([&[0; 32], &[]]), 0x8a91_36aa);
        assert_eq!(crc([&[0xff; 16], &[0xff; 16]]), 0x62a8_ab43);
        assert!(is_sum(sum([b"a", b"b"]), [b"ab", b""]));
    }
}
