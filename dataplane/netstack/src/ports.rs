//! Local ports for connections that we begin.

use std::ops::RangeInclusive;

/// Picks ports at random and then the next free one, so that a peer can't guess them (RFC 6056,
/// algorithm 1).
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    state: u64,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>, seed: u64) -> Self {
        Self { range, state: seed }
    }

    /// A port that is not in use; none if all are.
    pub(crate) fn pick(&mut self, in_use: impl Fn(u16) -> bool) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let count = u32::from(last) - u32::from(first) + 1;
        let start = (self.random() >> 32) % u64::from(count);
        (0..count)
            .map(|step| (start + u64::from(step)) % u64::from(count))
            .filter_map(|offset| u16::try_from(offset).ok()?.checked_add(first))
            .find(|port| !in_use(*port))
    }

    /// `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use std::collections::BTreeSet;

    #[test]
    fn each_port_once_then_none() {
        let mut ports = Ports::new(65_533..=65_535, 7);
        let mut taken = BTreeSet::new();
        for _ in 0..3 {
            let port = ports.pick(|port| taken.contains(&port)).unwrap();
            assert!(taken.insert(port));
        }
        assert_eq!(taken, BTreeSet::from([65_533, 65_534, 65_535]));
        assert_eq!(ports.pick(|port| taken.contains(&port)), None);
        taken.remove(&65_534);
        assert_eq!(ports.pick(|port| taken.contains(&port)), Some(65_534));
    }

    #[test]
    fn seeds_differ() {
        let mut picks = BTreeSet::new();
        for seed in 0..32 {
            picks.insert(Ports::new(49_152..=65_535, seed).pick(|_| false));
        }
        assert!(picks.len() > 28, "{picks:?}");
    }
}
