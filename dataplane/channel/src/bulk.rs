//! Which bulk travels how. Both ends know this rule, so that neither has to tell the other.

use std::ops::Range;

/// Bulk of at most so many bytes travels inside the byte stream; longer bulk by `Send` and
/// `Receive`.
pub const INLINE_MAX: u64 = 16 << 10;
/// Most bytes of one `Send` or `Receive`; a longer bulk is cut in parts of so many, so that it
/// needs no memory of its own size and its parts overlap on their way.
pub const BULK_PART_MAX: u64 = 8 << 20;

/// The parts of a bulk of `len` bytes, as ranges of its bytes, in order; each is one `Send` and one
/// `Receive`. None where the bulk travels inside the stream.
pub fn parts(len: u64) -> impl Iterator<Item = Range<u64>> {
    let len = if len > INLINE_MAX { len } else { 0 };
    (0..len.div_ceil(BULK_PART_MAX)).map(move |part| {
        let start = part * BULK_PART_MAX;
        start..len.min(start.saturating_add(BULK_PART_MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_byte_once() {
        for len in [0, 1, INLINE_MAX] {
            assert_eq!(parts(len).count(), 0);
        }
        for len in [
            INLINE_MAX + 1,
            BULK_PART_MAX,
            BULK_PART_MAX + 1,
            5 * BULK_PART_MAX,
            (1 << 36) + 3,
        ] {
            let mut at = 0;
            for part in parts(len) {
                assert_eq!(part.start, at);
                assert!(part.end > at && part.end - at <= BULK_PART_MAX);
                at = part.end;
            }
            assert_eq!(at, len);
        }
        assert_eq!(parts(u64::MAX).next(), Some(0..BULK_PART_MAX));
    }
}
