//! From a session to the other devices of its client: what its executor says for them, each to a thread
//! of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use genie_session::fault::Fault;
use genie_session::transfer::Transfer;
use parking_lot::Mutex;

/// Parcels that wait for one device. Their bytes lie in the session's memory, which is bounded.
const PARCELS_MAX: usize = 4096;
/// Transfers that are not wanted, and that nobody has heard of yet. Of more the bytes come for nothing.
const UNWANTED_MAX: usize = 4096;

/// What goes to another device.
#[derive(Debug)]
pub enum Parcel {
    /// Bytes of a transfer, which lie in the session's memory.
    Part {
        /// Which.
        transfer: u64,
        /// Where.
        place: u64,
        /// How many.
        bytes: u64,
        /// How many the transfer has in all.
        total: u64,
    },
    /// A transfer fails.
    Fault(u64, Fault),
}

impl Parcel {
    /// Which transfer it is of.
    #[must_use]
    pub fn transfer(&self) -> u64 {
        let (Self::Part { transfer, .. } | Self::Fault(transfer, _)) = self;
        *transfer
    }
}

/// What goes to another device: what somebody waits for goes ahead of all else.
#[derive(Debug)]
pub struct Parcels {
    urgent: Receiver<Parcel>,
    rest: Receiver<Parcel>,
}

impl Parcels {
    /// The next one; `None` when nothing more comes.
    #[must_use]
    pub fn next(&self) -> Option<Parcel> {
        if let Some(urgent) = self.next_urgent() {
            return Some(urgent);
        }
        // Both end together, and each may still hold something.
        select! {
            recv(self.urgent) -> parcel => parcel.or_else(|_| self.rest.recv()).ok(),
            recv(self.rest) -> parcel => parcel.or_else(|_| self.urgent.recv()).ok(),
        }
    }

    /// The next that is urgent, if one is there.
    #[must_use]
    pub fn next_urgent(&self) -> Option<Parcel> {
        self.urgent.try_recv().ok()
    }

    /// The next part of a transfer whose last part was not the last: nothing else comes between.
    #[must_use]
    pub fn next_of(&self, transfer: u64) -> Option<Parcel> {
        let from = match Transfer(transfer).is_urgent() {
            true => &self.urgent,
            false => &self.rest,
        };
        from.recv().ok()
    }
}

#[derive(Debug)]
struct Way {
    urgent: Sender<Parcel>,
    rest: Sender<Parcel>,
}

/// Ways to other devices, by their numbers among the client's logs. None once the session is over.
#[derive(Debug)]
pub struct Ways(Mutex<Option<HashMap<u16, Way>>>);

impl Default for Ways {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Ways {
    /// A way to `log`; what goes there comes out of it. `None`: there is one already, or the session
    /// is over.
    #[must_use]
    pub fn open(&self, log: u16) -> Option<Parcels> {
        let mut ways = self.0.lock();
        let ways = ways.as_mut()?;
        if ways.contains_key(&log) {
            return None;
        }
        let (to_urgent, urgent) = bounded(PARCELS_MAX);
        let (to_rest, rest) = bounded(PARCELS_MAX);
        let way = Way {
            urgent: to_urgent,
            rest: to_rest,
        };
        ways.insert(log, way);
        Some(Parcels { urgent, rest })
    }

    /// Sends a parcel; waits while too many are on their way. False: there is no such way.
    #[must_use]
    pub fn send(&self, log: u16, parcel: Parcel) -> bool {
        let is_urgent = Transfer(parcel.transfer()).is_urgent();
        let way = (self.0.lock().as_ref()).and_then(|ways| {
            let way = ways.get(&log)?;
            Some(if is_urgent { &way.urgent } else { &way.rest }.clone())
        });
        way.is_some_and(|way| way.send(parcel).is_ok())
    }

    /// Nothing more goes anywhere.
    pub fn close(&self) {
        *self.0.lock() = None;
    }
}

/// Transfers that nobody wants any more.
#[derive(Debug, Default)]
pub struct Unwanted {
    names: Mutex<HashSet<u64>>,
    /// As many, to be looked at without the lock.
    count: AtomicUsize,
}

impl Unwanted {
    /// Nobody wants `transfer`.
    pub fn add(&self, transfer: u64) {
        let mut names = self.names.lock();
        if names.len() < UNWANTED_MAX {
            names.insert(transfer);
        }
        self.count.store(names.len(), Ordering::Release);
    }

    /// Whether that was said of `transfer`, which is forgotten then.
    #[must_use]
    pub fn take(&self, transfer: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut names = self.names.lock();
        let was_there = names.remove(&transfer);
        self.count.store(names.len(), Ordering::Release);
        was_there
    }

    /// Forgets those that `of` is true of, and gives them.
    #[must_use]
    pub fn take_all(&self, of: impl Fn(u64) -> bool) -> Vec<u64> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut names = self.names.lock();
        let taken: Vec<u64> = names.extract_if(|&name| of(name)).collect();
        self.count.store(names.len(), Ordering::Release);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(transfer: Transfer) -> Parcel {
        let fault = Fault::new(genie_session::fault::Code::Operator, 0, "");
        Parcel::Fault(transfer.0, fault)
    }

    #[test]
    fn what_is_urgent_goes_first_and_nothing_is_lost_at_the_end() {
        let ways = Ways::default();
        let parcels = ways.open(1).unwrap();
        assert!(ways.open(1).is_none());
        let name = |number| Transfer::new(0, 1, number).unwrap();
        for transfer in [
            name(0),
            name(1),
            name(2).urgent(),
            name(3),
            name(4).urgent(),
        ] {
            assert!(ways.send(1, fault(transfer)));
        }
        assert!(!ways.send(2, fault(name(5))));
        ways.close();
        assert!(!ways.send(1, fault(name(6))));
        let order = std::iter::from_fn(|| parcels.next()).map(|parcel| parcel.transfer());
        let wanted = [
            name(2).urgent(),
            name(4).urgent(),
            name(0),
            name(1),
            name(3),
        ];
        assert_eq!(order.collect::<Vec<_>>(), wanted.map(|name| name.0));
    }

    #[test]
    fn what_is_unwanted_is_told_once_and_bounded() {
        let unwanted = Unwanted::default();
        assert!(!unwanted.take(7));
        unwanted.add(7);
        unwanted.add(8);
        assert!(unwanted.take(7) && !unwanted.take(7));
        assert_eq!(unwanted.take_all(|name| name == 8), [8]);
        (0..2 * UNWANTED_MAX as u64).for_each(|name| unwanted.add(name));
        assert_eq!(unwanted.take_all(|_| true).len(), UNWANTED_MAX);
    }
}
