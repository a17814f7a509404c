//! Bytes that differ from transfer to transfer and from place to place, and can be made again to
//! compare.

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

fn word(seed: u64, at: u64) -> u64 {
    let mixed = (seed.rotate_left(32) ^ at)
        .wrapping_add(ODD)
        .wrapping_mul(ODD);
    mixed ^ (mixed >> 29)
}

/// Fills `bytes` with what `seed` stands for.
pub fn fill(bytes: &mut [u8], seed: u64) {
    fill_from(bytes, seed, 0);
}

/// The same for a piece that begins `at` bytes, a multiple of 8, into the whole.
pub fn fill_from(bytes: &mut [u8], seed: u64, at: usize) {
    for (chunk, at) in bytes.chunks_mut(8).zip(at as u64 / 8..) {
        chunk.copy_from_slice(&word(seed, at).to_le_bytes()[..chunk.len()]);
    }
}

/// How many of `bytes` are not what `seed` stands for.
#[must_use]
pub fn differences(bytes: &[u8], seed: u64) -> u64 {
    differences_from(bytes, seed, 0)
}

/// The same for a piece that begins `at` bytes, a multiple of 8, into the whole.
#[must_use]
pub fn differences_from(bytes: &[u8], seed: u64, at: usize) -> u64 {
    let mut found = 0;
    for (chunk, at) in bytes.chunks(8).zip(at as u64 / 8..) {
        let wanted = word(seed, at).to_le_bytes();
        if *chunk != wanted[..chunk.len()] {
            found += chunk.iter().zip(wanted).filter(|(a, b)| **a != *b).count() as u64;
        }
    }
    found
}

/// How many bytes differ between two runs of the same length.
#[must_use]
pub fn differences_between(a: &[u8], b: &[u8]) -> u64 {
    if a == b {
        return 0;
    }
    a.iter().zip(b).filter(|(a, b)| a != b).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_is_found_wherever_it_is() {
        let mut bytes = vec![0; 1003];
        fill(&mut bytes, 7);
        assert_eq!(differences(&bytes, 7), 0);
        for at in [0, 7, 8, 500, 999, 1002] {
            bytes[at] ^= 1;
            assert_eq!(differences(&bytes, 7), 1, "at {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let (mut whole, mut pieces) = (vec![0; 1003], vec![0; 1003]);
        fill(&mut whole, 7);
        for at in (0..1003).step_by(64) {
            let end = 1003.min(at + 64);
            fill_from(&mut pieces[at..end], 7, at);
            assert_eq!(differences_from(&whole[at..end], 7, at), 0);
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn a_transfer_is_not_taken_for_another() {
        let mut bytes = vec![0; 4096];
        fill(&mut bytes, 1);
        assert!(differences(&bytes, 2) > 4000);
        // Nor for itself, eight bytes further on.
        let mut shifted = bytes.clone();
        shifted.copy_within(8.., 0);
        assert!(differences(&shifted, 1) > 4000);
    }
}
