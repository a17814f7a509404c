//! Grants of slots, as they stand in a message.

use genie_transport::{Grant, RegionId};

/// Bytes of one: slot (u32), region and generation (u64).
pub const GRANT_BYTES: usize = 4 + 8 + 8;

/// Writes as many as there is room for; gives how many.
pub fn write<'a>(grants: impl IntoIterator<Item = &'a (u32, Grant)>, into: &mut [u8]) -> usize {
    let mut count = 0;
    for ((slot, grant), place) in grants.into_iter().zip(into.chunks_exact_mut(GRANT_BYTES)) {
        place[..4].copy_from_slice(&slot.to_le_bytes());
        place[4..12].copy_from_slice(&grant.region.0.to_le_bytes());
        place[12..].copy_from_slice(&grant.generation.to_le_bytes());
        count += 1;
    }
    count
}

/// Reads them. Whoever made them up only misleads the transfers that use them.
pub fn read(said: &[u8]) -> impl Iterator<Item = (u32, Grant)> + '_ {
    said.chunks_exact(GRANT_BYTES).map(|place| {
        let word = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&place[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let slot = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        let grant = Grant {
            region: RegionId(word(4)),
            generation: word(12),
        };
        (slot, grant)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_part_is_not() {
        let grants: Vec<_> = (0..3)
            .map(|slot| {
                let (region, generation) = (RegionId(7 << 40 | u64::from(slot)), !u64::from(slot));
                (slot, Grant { region, generation })
            })
            .collect();
        let mut bytes = [0; 2 * GRANT_BYTES + 5];
        assert_eq!(write(&grants, &mut bytes), 2);
        let known: Vec<_> = read(&bytes).collect();
        assert_eq!(known, grants[..2]);
        assert_eq!(read(&bytes[..GRANT_BYTES - 1]).count(), 0);
        assert_eq!(read(&[]).count(), 0);
    }
}
