//! CRC-32C (Castagnoli), as `LevelDB` stores it.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let (mut byte, mut place) = (0_u32, 0);
    while place < 256 {
        let mut value = byte;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[place] = value;
        byte += 1;
        place += 1;
    }
    table
};

/// Of these bytes, one part after the other.
fn crc(parts: [&[u8]; 2]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize];
    !parts.into_iter().flatten().fold(!0, step)
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
