//! Grants: memory that the peer may fill, each byte once.

use crate::block::{Grant, RegionId};
use crate::drops::DropReason;
use crate::error::TransferError;
use crate::limits::{CONTENTS_MAX, GRANTS_MAX, HOLES_MAX};
use crate::ranges::RangeSet;

#[derive(Debug)]
struct Slot {
    /// `None` when no grant is open here.
    open: Option<Grant>,
    len: u64,
    /// What arrived, verified or not.
    received: RangeSet,
    /// Of that, verified bytes.
    bytes: u64,
    /// Parts that are not verified.
    unverified: usize,
    /// Ended before it was whole, for this reason; not yet told, as parts are not verified.
    ended: Option<(Grant, TransferError)>,
    /// The generation that was last ended here before it was whole. The next one that is revoked
    /// in this slot comes `GRANTS_MAX` grants later, when the sender has long been told.
    revoked: Option<u64>,
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It ended; the program is to be told.
    Now,
    /// It ended; the program is told when the last part was verified.
    Later,
    /// It had ended before.
    Before,
}

/// What came of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// The part is in its grant.
    Placed,
    /// And that is whole.
    Whole,
    /// The part may come again.
    Again,
    /// The grant ended meanwhile.
    Ended,
    /// And this was the last part: the program is to be told.
    Last(TransferError),
}

/// The open grants of a connection. A generation chooses its slot, and is never given twice; so one
/// below the next that is not open has ended, and whatever comes for it is late.
#[derive(Debug)]
pub(crate) struct Grants {
    slots: Box<[Slot]>,
    next: u64,
    open: usize,
}

impl Slot {
    fn is_taken(&self) -> bool {
        self.open.is_some() || self.ended.is_some()
    }

    /// Runs that are there, or may come by a failed verification.
    fn runs(&self) -> usize {
        self.received.len() + self.unverified
    }
}

impl Grants {
    pub(crate) fn new() -> Self {
        let slot = || Slot {
            open: None,
            len: 0,
            // Slack for what splits a run: see `claim`.
            received: RangeSet::new(HOLES_MAX + CONTENTS_MAX),
            bytes: 0,
            unverified: 0,
            ended: None,
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
        while self.slot(self.next).is_taken() {
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
            Some(_) if slot.runs() > HOLES_MAX - CONTENTS_MAX && offset > 0 => {
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

    /// Takes `low..end`, which is placed once it was verified; `false` when it can't be remembered.
    pub(crate) fn claim(&mut self, grant: Grant, low: u64, end: u64) -> bool {
        let slot = self.slot(grant.generation);
        // One run for the part, and one for the gap that it leaves if it fails.
        let fits = slot.runs() + 2 <= HOLES_MAX && slot.received.insert(low, end).is_ok();
        slot.unverified += usize::from(fits);
        fits
    }

    /// Parts of this grant are not verified.
    pub(crate) fn is_unverified(&mut self, grant: Grant) -> bool {
        self.slot(grant.generation).unverified > 0
    }

    /// A part was verified, or not.
    pub(crate) fn verified(&mut self, grant: Grant, low: u64, end: u64, fits: bool) -> Verified {
        let slot = self.slot(grant.generation);
        slot.unverified = slot.unverified.saturating_sub(1);
        if slot.open != Some(grant) {
            if slot.unverified == 0
                && let Some((_, error)) = slot.ended.take()
            {
                self.open -= 1;
                return Verified::Last(error);
            }
            return Verified::Ended;
        }
        if !fits {
            // `claim` saw to it that there is room.
            let _fits = slot.received.remove(low, end);
            return Verified::Again;
        }
        slot.bytes += end - low;
        if slot.bytes < slot.len {
            return Verified::Placed;
        }
        self.close(grant);
        Verified::Whole
    }

    /// Ends a grant that is whole.
    fn close(&mut self, grant: Grant) {
        let slot = self.slot(grant.generation);
        if slot.open == Some(grant) {
            slot.open = None;
            self.open -= 1;
        }
    }

    /// Ends a grant that is not whole.
    pub(crate) fn end(&mut self, grant: Grant, error: TransferError) -> Ending {
        let slot = self.slot(grant.generation);
        if slot.open != Some(grant) {
            return Ending::Before;
        }
        if slot.unverified > 0 {
            (slot.open, slot.ended) = (None, Some((grant, error)));
            return Ending::Later;
        }
        self.close(grant);
        Ending::Now
    }

    /// Data that still come for this grant are not to be acknowledged, lest the sender believe that
    /// they were placed.
    pub(crate) fn spoil(&mut self, grant: Grant) {
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
            let error = TransferError::Cancelled;
            assert_eq!(grants.end(grant, error), Ending::Now);
            assert_eq!(grants.end(grant, error), Ending::Before);
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

    #[test]
    fn a_part_that_fails_comes_again_and_a_grant_ends_after_its_last_part() {
        let mut grants = Grants::new();
        let grant = grants.open(REGION, 100).unwrap();
        assert!(grants.claim(grant, 0, 50) && grants.claim(grant, 50, 100));
        assert_eq!(grants.check(grant, 0, 100), Err(DropReason::DuplicateBytes));
        assert_eq!(grants.verified(grant, 0, 50, false), Verified::Again);
        assert_eq!(grants.missing(grant, 0, 100), Some((0, 50)));
        assert_eq!(grants.verified(grant, 50, 100, true), Verified::Placed);
        assert!(grants.claim(grant, 0, 50));
        assert_eq!(grants.verified(grant, 0, 50, true), Verified::Whole);
        assert_eq!(grants.open_count(), 0);

        let grant = grants.open(REGION, 100).unwrap();
        let error = TransferError::Cancelled;
        assert!(grants.claim(grant, 0, 40) && grants.claim(grant, 60, 100));
        assert_eq!(grants.end(grant, error), Ending::Later);
        assert_eq!(grants.check(grant, 40, 20), Err(DropReason::LateDuplicate));
        assert_eq!(grants.verified(grant, 0, 40, true), Verified::Ended);
        assert_eq!(grants.open_count(), 1, "the slot is not given again yet");
        assert_eq!(
            grants.verified(grant, 60, 100, false),
            Verified::Last(error)
        );
        assert_eq!(grants.open_count(), 0);
    }

    #[test]
    fn every_part_may_fail_however_many_there_are() {
        let mut grants = Grants::new();
        let grant = grants.open(REGION, 1 << 20).unwrap();
        let count = (0..).take_while(|at| grants.claim(grant, at * 10, at * 10 + 10));
        let count = count.count() as u64;
        assert!(count > HOLES_MAX as u64 - 5, "{count}");
        for at in (0..count).filter(|at| at % 2 == 1) {
            let verified = grants.verified(grant, at * 10, at * 10 + 10, false);
            assert_eq!(verified, Verified::Again);
            assert_eq!(
                grants.missing(grant, at * 10, at * 10 + 10),
                Some((at * 10, at * 10 + 10))
            );
        }
    }
}
