//! A session's executor.

use std::sync::Arc;

use genie_session::frame::{Header, Kind};
use genie_shm::{RingCloser, Word};

use super::executor::Process;
use super::inbox::{Inbox, Undelivered};
use super::memory::SessionMemory;

/// A running executor, as both threads see it.
pub struct Running {
    /// Frames to it.
    pub inbox: Inbox,
    /// Where its tensors are.
    pub memory: SessionMemory,
    /// Its process.
    pub pid: u32,
    /// The ring to it, and the one from it.
    pub(super) closers: [RingCloser; 2],
    pub(super) process: Box<dyn Process>,
    /// It counts here.
    pub(super) word: Arc<Word>,
}

/// What an executor has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Something, and it does not wait for its client.
    pub busy: bool,
    /// Changes with each frame that it takes or says, and with each operator that it begins.
    pub progress: [u64; 3],
}

impl Running {
    /// What it has to do.
    #[must_use]
    pub fn work(&self) -> Work {
        let [to, from] = [&self.closers[0], &self.closers[1]].map(RingCloser::look);
        let waits = to.put == to.taken && to.consumer_sleeps;
        Work {
            busy: !waits && !from.producer_sleeps,
            progress: [to.taken, from.put, self.word.counted()],
        }
    }

    /// The bytes of a reply have left: the executor may use their place again.
    ///
    /// # Errors
    /// The executor is gone, or takes nothing.
    pub fn place_sent(&self, place: u64) -> Result<(), Undelivered> {
        self.inbox
            .post(Header::new(Kind::PlaceSent, place, 0), Vec::new())
    }

    /// Bulk that a poll loop was sending has left: it was at `place` of what it sends from.
    ///
    /// # Errors
    /// As [`Running::place_sent`].
    pub(super) fn left(&self, place: u64) -> Result<(), Undelivered> {
        match &self.memory {
            SessionMemory::Shared(_) => self.place_sent(place),
            SessionMemory::Staged(staged) => {
                staged.outgoing.free(place);
                Ok(())
            }
        }
    }

    /// A pool of uploads is gone, and the executor is to let go of it.
    ///
    /// # Errors
    /// As [`Running::place_sent`].
    pub fn pool_gone(&self, base: u64) -> Result<(), Undelivered> {
        self.inbox
            .post(Header::new(Kind::PoolGone, base, 0), Vec::new())
    }

    /// Ends it, and who waits for it.
    pub(super) fn stop(&self) {
        self.process.kill();
        for closer in &self.closers {
            closer.close();
        }
    }
}
