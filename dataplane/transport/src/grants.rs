//! Grants: memory that the peer may fill, each byte once.

use crate::block::{Grant, RegionId};
use crate::drops::DropReason;
use crate::limits::{CONTENTS_MAX, GRANTS_MAX, HOLES_MAX};
use crate::ranges::RangeSet;

#[derive(Debug)]
struct Slot {
    /// `None` when no grant is open here.
    open: Option<Grant>,
    len: u64,
    received: RangeSet,
    bytes: u64,
    /// The generation that was last ended here before it was whole. The next one that is revoked
    /// in this slot comes `GRANTS_MAX` grants later, when the sender has long been told.
    revoked: Option<u64>,
}

/// The open grants of a connection. A generation chooses its slot, and is never given twice; so one
/// below the next that is not open has ended, and whatever comes for it is late.
#[derive(Debug)]
pub(crate) struct Grants {
    slots: Box<[Slot]>,
    next: u64,
    open: usize,
}

impl Grants {
    pub(crate) fn new() -> Self {
        let slot = || Slot {
            open: None,
            len: 0,
            received: RangeSet::new(HOLES_MAX),
            bytes: 0,
            revoked: None,
        };
        Self {
            slots: (0..GRANTS_MAX).map(|_| slot()).collect(),
            next: 0,
            open: 0,
        }
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    /// Opens a grant of `len` bytes; `None` when all slots are taken.
    pub(crate) fn open(&mut self, region: RegionId, len: u64) -> Option<Grant> {
        if self.open == GRANTS_MAX {
            return None;
        }
        // Skipped generations count as ended; a slot is free, so this ends within one turn.
        while self.slot(self.next).open.is_some() {
            self.next += 1;
        }
        let grant = Grant {
            region,
            generation: self.next,
        };
        self.next += 1;
        self.open += 1;
        let slot = self.slot(grant.generation);
        (slot.open, slot.len, slot.bytes) = (Some(grant), len, 0);
        slot.received.clear();
        Some(grant)
    }

    /// Whether `offset..offset + len` may be placed, in part at least.
    pub(crate) fn check(&mut self, grant: Grant, offset: u64, len: u64) -> Result<(), DropReason> {
        if grant.generation >= self.next {
            return Err(DropReason::UnknownGrant);
        }
        let slot = self.slot(grant.generation);
        match slot.open {
            Some(open) if open == grant => {}
            Some(open) if open.generation == grant.generation => {
                return Err(DropReason::WrongRegion);
            }
            _ if slot.revoked == Some(grant.generation) => return Err(DropReason::Revoked),
            _ => return Err(DropReason::LateDuplicate),
        }
        let end = offset.checked_add(len).ok_or(DropReason::OutOfBounds)?;
        if end > slot.len {
            return Err(DropReason::OutOfBounds);
        }
        match slot.received.missing(offset, end) {
            None => Err(DropReason::DuplicateBytes),
            // A frame's pieces are checked before the first is taken: each must find a run left.
            Some(_) if slot.received.len() > HOLES_MAX - CONTENTS_MAX && offset > 0 => {
                let touches = slot.received.contains(offset - 1) || slot.received.contains(end);
                if touches {
                    Ok(())
                } else {
                    Err(DropReason::HolesFull)
                }
            }
            Some(_) => Ok(()),
        }
    }

    /// The first part of `from..end` that has not arrived.
    pub(crate) fn missing(&mut self, grant: Grant, from: u64, end: u64) -> Option<(u64, u64)> {
        self.slot(grant.generation).received.missing(from, end)
    }

    /// Takes `low..end`, which is then to be written; `Some(true)` when it is the last part of the
    /// grant, which thereby ended. `None`: it can't be remembered, and must not be written.
    pub(crate) fn take(&mut self, grant: Grant, low: u64, end: u64) -> Option<bool> {
        let slot = self.slot(grant.generation);
        slot.bytes += slot.received.insert(low, end).ok()?;
        let done = slot.bytes == slot.len;
        if done {
            self.close(grant);
        }
        Some(done)
    }

    /// Ends a grant; `false` if it had ended.
    pub(crate) fn close(&mut self, grant: Grant) -> bool {
        let slot = self.slot(grant.generation);
        let was_open = slot.open == Some(grant);
        if was_open {
            slot.open = None;
            self.open -= 1;
        }
        was_open
    }

    /// Ends a grant that is not whole: data that still comes for it is not to be acknowledged, lest
    /// the sender believe that it was placed.
    pub(crate) fn revoke(&mut self, grant: Grant) -> bool {
        let was_open = self.close(grant);
        if was_open {
            self.spoil(grant);
        }
        was_open
    }

    /// Ends a grant whose region failed, even at its last piece; otherwise like `revoke`.
    pub(crate) fn spoil(&mut self, grant: Grant) {
        self.close(grant);
        self.slot(grant.generation).revoked = Some(grant.generation);
    }

    /// Any open grant.
    pub(crate) fn any(&self) -> Option<Grant> {
        self.slots.iter().find_map(|slot| slot.open)
    }

    fn slot(&mut self, generation: u64) -> &mut Slot {
        // The remainder is below the number of slots.
        &mut self.slots[(generation % GRANTS_MAX as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: RegionId = RegionId(5);

    #[test]
    fn a_grant_takes_each_byte_once_and_ends() {
        let mut grants = Grants::new();
        let grant = grants.open(REGION, 100).unwrap();
        assert_eq!(grants.check(grant, 90, 11), Err(DropReason::OutOfBounds));
        assert_eq!(
            grants.check(grant, u64::MAX, 2),
            Err(DropReason::OutOfBounds)
        );
        assert_eq!(grants.check(grant, 40, 20), Ok(()));
        assert_eq!(grants.take(grant, 40, 60), Some(false));
        assert_eq!(grants.check(grant, 45, 5), Err(DropReason::DuplicateBytes));
        assert_eq!(grants.missing(grant, 30, 100), Some((30, 40)));
        assert_eq!(grants.take(grant, 0, 40), Some(false));
        assert_eq!(grants.take(grant, 60, 100), Some(true));
        assert_eq!(grants.check(grant, 0, 100), Err(DropReason::LateDuplicate));
        assert_eq!(grants.open_count(), 0);
    }

    #[test]
    fn only_what_was_granted_is_known() {
        let mut grants = Grants::new();
        let grant = grants.open(REGION, 10).unwrap();
        let other = Grant {
            region: RegionId(6),
            ..grant
        };
        assert_eq!(grants.check(other, 0, 1), Err(DropReason::WrongRegion));
        let never = Grant {
            generation: grant.generation + 1,
            ..grant
        };
        assert_eq!(grants.check(never, 0, 1), Err(DropReason::UnknownGrant));
    }

    #[test]
    fn a_long_grant_does_not_block_the_others() {
        let mut grants = Grants::new();
        let long = grants.open(REGION, 10).unwrap();
        for _ in 0..3 * GRANTS_MAX {
            let grant = grants.open(REGION, 10).unwrap();
            assert_ne!(grant.generation % GRANTS_MAX as u64, long.generation);
            assert!(grants.close(grant) && !grants.close(grant));
        }
        while grants.open(REGION, 1).is_some() {}
        assert_eq!(grants.open_count(), GRANTS_MAX);
        assert_eq!(grants.check(long, 0, 10), Ok(()));
    }

    #[test]
    fn too_many_holes_are_refused_and_closing_one_is_not() {
        let mut grants = Grants::new();
        let grant = grants.open(REGION, 1 << 20).unwrap();
        let mut at = 10;
        while grants.check(grant, at, 1).is_ok() {
            assert_eq!(grants.take(grant, at, at + 1), Some(false));
            at += 10;
        }
        assert_eq!(grants.check(grant, at, 1), Err(DropReason::HolesFull));
        assert_eq!(grants.check(grant, 11, 1), Ok(()));
        assert_eq!(grants.check(grant, 0, 10), Ok(()));
    }
}
