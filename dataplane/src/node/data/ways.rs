//! From a session to the other devices of its client: what its executor says for them, each to a thread
//! of its own.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, bounded};
use genie_session::fault::Fault;
use parking_lot::Mutex;

/// Parcels that wait for one device. Their bytes lie in the session's memory, which is bounded.
const PARCELS_MAX: usize = 4096;

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

/// Ways to other devices, by their numbers among the client's logs. None once the session is over.
#[derive(Debug)]
pub struct Ways(Mutex<Option<HashMap<u16, Sender<Parcel>>>>);

impl Default for Ways {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Ways {
    /// A way to `log`; what goes there comes out of it. `None`: there is one already, or the session
    /// is over.
    #[must_use]
    pub fn open(&self, log: u16) -> Option<Receiver<Parcel>> {
        let mut ways = self.0.lock();
        let ways = ways.as_mut()?;
        if ways.contains_key(&log) {
            return None;
        }
        let (to, from) = bounded(PARCELS_MAX);
        ways.insert(log, to);
        Some(from)
    }

    /// Sends a parcel; waits while too many are on their way. False: there is no such way.
    #[must_use]
    pub fn send(&self, log: u16, parcel: Parcel) -> bool {
        let way = self
            .0
            .lock()
            .as_ref()
            .and_then(|ways| ways.get(&log).cloned());
        way.is_some_and(|way| way.send(parcel).is_ok())
    }

    /// Nothing more goes anywhere.
    pub fn close(&self) {
        *self.0.lock() = None;
    }
}
