//! Transfers of which nobody has heard yet that they arrived. A receiver may have had no memory for one:
//! then the value is poisoned there, and its source has to have kept it, written since or not.

use super::{Copy, Places};
use crate::limits::LOGS_MAX;
use crate::segment::IdMap;

/// Values written since they were brought whose sources are kept, at most; of more the sources go.
pub const KEPT_MAX: usize = 1024;
/// Transfers remembered at most; of older ones the sources of written values go.
const BROUGHT_MAX: usize = 1 << 14;

/// A value that was brought and then written, of which it is in doubt whether it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The value.
    pub value: u64,
    /// Where it was brought.
    pub device: usize,
    source: Copy,
    look: u64,
}

/// What may have to be taken back.
#[derive(Debug, Default)]
pub struct Unproven {
    look: u64,
    /// By value and device: before which look.
    brought: IdMap<u64>,
    kept: Vec<Doubt>,
}

fn key(value: u64, device: usize) -> u64 {
    value * LOGS_MAX as u64 + device as u64
}

impl Unproven {
    /// A value is on its way to `device`.
    pub fn bring(&mut self, value: u64, device: usize) {
        if self.brought.len() >= BROUGHT_MAX {
            self.brought.clear();
        }
        self.brought.insert(key(value, device), self.look);
    }

    /// A value was written at `device`, so `copies` are it no longer: gives those that can go.
    pub fn write(&mut self, value: u64, device: usize, mut copies: Vec<Copy>) -> Vec<Copy> {
        let Some(&look) = self.brought.get(&key(value, device)) else {
            return copies;
        };
        if self.kept.len() < KEPT_MAX && !copies.is_empty() {
            self.kept.push(Doubt {
                value,
                device,
                // The oldest is where it was made.
                source: copies.remove(0),
                look,
            });
            self.brought.remove(&key(value, device));
        }
        copies
    }

    /// A look is asked for: its number.
    pub fn look(&mut self) -> u64 {
        self.look += 1;
        self.look
    }

    /// A look found that all before it went well: gives the copies that can go.
    pub fn proven(&mut self, look: u64) -> Vec<Copy> {
        if self.brought.is_empty() && self.kept.is_empty() {
            return Vec::new();
        }
        self.brought.retain(|_, before| *before >= look);
        let kept = std::mem::take(&mut self.kept);
        let (gone, kept): (Vec<Doubt>, _) = kept.into_iter().partition(|one| one.look < look);
        self.kept = kept;
        gone.into_iter().map(|one| one.source).collect()
    }

    /// Something failed. Values have one copy each again, where they were made: gives the copies that
    /// can go, and what is in doubt, the latest first: whether that arrived has to be asked, one after
    /// the other, and told to [`Self::settle`].
    pub fn failed(&mut self, places: &mut Places) -> (Vec<Copy>, Vec<Doubt>) {
        self.brought.clear();
        let mut doubts = std::mem::take(&mut self.kept);
        doubts.reverse();
        (places.drop_replicas(), doubts)
    }

    /// What was in doubt has arrived, or is back at its source. Gives the copies that can go.
    pub fn settle(places: &mut Places, doubt: Doubt, arrived: bool) -> Vec<Copy> {
        if arrived || places.get(doubt.value).is_none() {
            vec![doubt.source]
        } else {
            places.replace(doubt.value, doubt.source)
        }
    }

    /// It is not known whether they arrived, the latest first: asked another time.
    pub fn put_back(&mut self, mut doubts: Vec<Doubt>) {
        doubts.reverse();
        doubts.append(&mut self.kept);
        self.kept = doubts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(device: usize, id: u64) -> Copy {
        Copy { device, id }
    }

    /// A value of device 0 that was brought to device 1 and written there.
    fn written() -> (Places, Unproven, u64) {
        let (mut places, mut unproven) = (Places::new(2), Unproven::default());
        let value = places.take(1);
        places.insert(value, 10);
        places.add(value, 0, 7, "");
        unproven.bring(value, 1);
        places.add(value, 1, 3, "");
        let dropped = places.written(value, 1);
        assert_eq!(unproven.write(value, 1, dropped), []);
        (places, unproven, value)
    }

    #[test]
    fn a_source_goes_once_a_look_behind_it_went_well() {
        let (_, mut unproven, _) = written();
        let earlier = 0;
        assert_eq!(unproven.proven(earlier), []);
        let look = unproven.look();
        assert_eq!(unproven.proven(look), [copy(0, 7)]);
        assert_eq!(unproven.proven(look), []);
    }

    #[test]
    fn what_never_arrived_is_at_its_source_again() {
        let (mut places, mut unproven, value) = written();
        let (gone, doubts) = unproven.failed(&mut places);
        assert_eq!((gone.len(), doubts.len()), (0, 1));
        let gone = Unproven::settle(&mut places, doubts[0], false);
        assert_eq!(gone, [copy(1, 3)]);
        let copies: Vec<_> = places.get(value).unwrap().copies().collect();
        assert_eq!(copies, [copy(0, 7)]);
        assert_eq!((places.held(0), places.held(1)), (10, 0));
    }

    #[test]
    fn what_arrived_stays_and_replicas_go() {
        let (mut places, mut unproven, value) = written();
        let other = places.take(1);
        places.insert(other, 10);
        places.add(other, 0, 8, "");
        places.add(other, 1, 4, "");
        let (gone, doubts) = unproven.failed(&mut places);
        assert_eq!(gone, [copy(1, 4)]);
        assert_eq!(Unproven::settle(&mut places, doubts[0], true), [copy(0, 7)]);
        assert_eq!(places.get(value).unwrap().at(1), Some(3));
        assert_eq!((places.held(0), places.held(1)), (10, 10));
    }
}
