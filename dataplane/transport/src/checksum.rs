//! CRC32C, which finds accidents on links that are trusted.

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes of a tag when checksummed.
pub const CHECKSUM_BYTES: usize = 4;

/// CRC32C (Castagnoli) of `bytes` that follow others whose sum is `seed`; begin with zero.
#[must_use]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    if seed == 0 {
        // By far the most, and without the quarter of a kilobyte of state of the other way.
        return crc_fast::crc32_iscsi(bytes);
    }
    // The register of the sum so far: without the inversion at its end.
    let register = u64::from(!seed);
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, register);
    digest.update(bytes);
    // A sum of 32 bits.
    digest.finalize() as u32
}

/// As it stands in a frame.
pub(crate) fn sum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c(0, bytes).to_be_bytes()
}

/// Writes the sum to the front of `tag`. `None` without room.
pub(crate) fn write_sum(bytes: &[u8], tag: &mut [u8]) -> Option<()> {
    *tag.first_chunk_mut()? = sum(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_that_of_rfc_3720() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_sum_is_the_same_in_parts_and_bit_by_bit() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|at| (at * at / 8) as u8).collect();
        for (from, len) in [(0, 0), (1, 7), (3, 255), (5, 256), (9, 1500), (13, 8192)] {
            let bytes = &bytes[from..from + len];
            let mut register = !0_u32;
            for byte in bytes {
                register ^= u32::from(*byte);
                for _ in 0..8 {
                    register = (register >> 1) ^ (0x82f6_3b78 * (register & 1));
                }
            }
            assert_eq!(crc32c(0, bytes), !register, "{len} bytes");
            for cut in [0, len / 3, len / 2, len] {
                let (first, rest) = bytes.split_at(cut);
                assert_eq!(crc32c(crc32c(0, first), rest), !register, "{len} at {cut}");
            }
        }
    }
}
