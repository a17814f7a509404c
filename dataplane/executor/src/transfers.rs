//! What other devices of the session send to this one: expected by a storage, here, or neither yet.

use std::collections::{HashMap, HashSet};

use genie_session::fault::{Code, Fault};
use genie_session::segment::IdMap;
use genie_session::transfer::Transfer;

/// Transfers that are here and that nobody has used, or that nobody wants any more: more are an attack,
/// since the storages that expect them are bounded.
const HELD_MAX: usize = 1 << 20;

/// What a storage expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// As what it comes.
    pub transfer: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// A transfer that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// Its place, and its bytes.
    At(u64, u64),
    /// It failed.
    Fault(Fault),
}

/// What nobody wants any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It is here, at this place.
    Here(u64),
    /// It has yet to come.
    Comes(Expected),
}

/// More than there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// All of a session's, at one device.
#[derive(Debug, Default)]
pub struct Transfers {
    expected: IdMap<Expected>,
    here: IdMap<Here>,
    /// Of storages that were freed before their bytes came.
    unwanted: HashSet<u64>,
    /// Logs from which nothing comes any more.
    gone: HashMap<u16, Fault>,
}

impl Transfers {
    /// Storage `id` expects `expected`.
    pub fn expect(&mut self, id: u64, expected: Expected) {
        self.expected.insert(id, expected);
    }

    /// What storage `id` expects.
    pub fn expected(&self, id: u64) -> Option<Expected> {
        self.expected.get(&id).copied()
    }

    /// What storage `id` expected, if it is here, or never will be.
    pub fn take(&mut self, id: u64) -> Option<(Expected, Here)> {
        let expected = self.expected(id)?;
        let from = Transfer(expected.transfer).from();
        let here = self.here.remove(&expected.transfer);
        let here = here.or_else(|| self.gone.get(&from).cloned().map(Here::Fault))?;
        self.expected.remove(&id);
        Some((expected, here))
    }

    /// Storage `id` is freed. What becomes of what it expected, if it did.
    pub fn give_up(&mut self, id: u64) -> Option<GivenUp> {
        let expected = self.expected.remove(&id)?;
        match self.here.remove(&expected.transfer) {
            Some(Here::At(place, _)) => Some(GivenUp::Here(place)),
            Some(Here::Fault(_)) => None,
            None => {
                self.unwanted.insert(expected.transfer);
                Some(GivenUp::Comes(expected))
            }
        }
    }

    /// A transfer is here. Its place, if nobody wants it.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn arrived(&mut self, transfer: u64, here: Here) -> Result<Option<u64>, TooMany> {
        if self.unwanted.remove(&transfer) {
            return Ok(match here {
                Here::At(place, _) => Some(place),
                Here::Fault(_) => None,
            });
        }
        if self.here.len() + self.unwanted.len() >= HELD_MAX {
            return Err(TooMany);
        }
        self.here.insert(transfer, here);
        Ok(None)
    }

    /// Nothing comes from a log any more.
    pub fn gone(&mut self, log: u16, fault: Fault) {
        self.unwanted
            .retain(|&transfer| Transfer(transfer).from() != log);
        self.gone.insert(log, fault);
    }
}

/// What a storage gets whose bytes are not those that were announced.
pub fn other_bytes(expected: Expected, got: u64) -> Fault {
    Fault::new(
        Code::Protocol,
        0,
        format!(
            "another device sent {got} bytes where {} were announced",
            expected.bytes
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(from: usize, number: u64) -> u64 {
        Transfer::new(from, 1, number).unwrap().0
    }

    fn expected(transfer: u64) -> Expected {
        Expected { transfer, bytes: 8 }
    }

    #[test]
    fn bytes_may_come_before_and_after_they_are_expected() {
        let (mut all, early, late) = (Transfers::default(), named(0, 1), named(0, 2));
        assert_eq!(all.arrived(early, Here::At(64, 8)), Ok(None));
        all.expect(10, expected(early));
        all.expect(11, expected(late));
        assert_eq!(all.take(11), None);
        assert_eq!(all.take(10), Some((expected(early), Here::At(64, 8))));
        assert_eq!(all.arrived(late, Here::At(128, 8)), Ok(None));
        assert_eq!(all.take(11), Some((expected(late), Here::At(128, 8))));
        assert_eq!(all.take(11), None);
    }

    #[test]
    fn what_is_freed_before_it_comes_gives_its_place_back() {
        let (mut all, here, late) = (Transfers::default(), named(0, 1), named(0, 2));
        all.expect(10, expected(here));
        all.expect(11, expected(late));
        assert_eq!(all.arrived(here, Here::At(64, 8)), Ok(None));
        assert_eq!(all.give_up(10), Some(GivenUp::Here(64)));
        assert_eq!(all.give_up(11), Some(GivenUp::Comes(expected(late))));
        assert_eq!(all.arrived(late, Here::At(128, 8)), Ok(Some(128)));
        assert_eq!(all.give_up(11), None);
        assert!(all.unwanted.is_empty() && all.here.is_empty() && all.expected.is_empty());
    }

    #[test]
    fn a_log_that_is_gone_fails_what_is_expected_of_it_and_nothing_else() {
        let mut all = Transfers::default();
        let (lost, came, other) = (named(2, 1), named(2, 2), named(3, 3));
        for (id, transfer) in [(10, lost), (11, came), (12, other)] {
            all.expect(id, expected(transfer));
        }
        all.arrived(came, Here::At(64, 8)).unwrap();
        let fault = Fault::new(Code::SessionGone, 0, "gone");
        all.gone(2, fault.clone());
        assert_eq!(all.take(10), Some((expected(lost), Here::Fault(fault))));
        assert_eq!(all.take(11), Some((expected(came), Here::At(64, 8))));
        assert_eq!(all.take(12), None);
    }
}
