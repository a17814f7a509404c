//! Answers that are waited for, and the memory that they go to.
//!
//! Memory of a waiting thread is lent to the thread that reads, for one call of the link at a time
//! (a tick at most). Who gives up waiting waits for the loan to end, whatever became of the session:
//! only then may the memory go.

use std::collections::HashMap;
use std::time::Duration;

use genie_session::fault::Fault;

use super::sync::{AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};
use crate::link::TICK;

/// An answer that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A fetch or a barrier, by its id.
    Wait(u64),
    /// A synchronous operator, by its record.
    Call(u64),
}

/// How far an answer has come.
enum Slot {
    /// Not here. A fetch's bytes go to this place.
    Pending(Destination),
    /// Bytes are being read into place.
    Lent,
    /// Here.
    Done(Result<Vec<u8>, Fault>),
}

/// Memory of a waiting thread.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pointer: *mut u8,
    len: usize,
    /// Bytes that are there.
    at: usize,
}

// SAFETY: the memory belongs to a thread that waits until its slot is gone, and only the holder of
// its one loan writes to it.
unsafe impl Send for Destination {}

impl Destination {
    /// For an answer without bytes.
    pub(super) const NOWHERE: Self = Self {
        pointer: std::ptr::null_mut(),
        len: 0,
        at: 0,
    };

    /// # Safety
    /// `len` bytes at `pointer` may be written until [`Slots::forget`] has returned for the key that
    /// this is given with, or its answer was taken.
    pub(super) unsafe fn new(pointer: *mut u8, len: usize) -> Self {
        Self {
            pointer,
            len,
            at: 0,
        }
    }
}

/// All of a session's.
#[derive(Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<Key, Slot>>,
    changed: Condvar,
    changes: AtomicU64,
    waiting: AtomicUsize,
    waits: AtomicU64,
}

/// Memory that is lent until this value goes.
pub(super) struct Loan<'a> {
    slots: &'a Slots,
    key: Key,
    place: Destination,
}

/// A thread waits as long as this value lives.
pub(super) struct Waiting<'a>(&'a Slots);

impl Slots {
    /// Somebody waits for `key` from now on.
    pub(super) fn open(&self, key: Key, place: Destination) {
        self.slots.lock().insert(key, Slot::Pending(place));
    }

    /// Nobody waits for `key` any more; returns once its memory is not lent.
    pub(super) fn forget(&self, key: Key) {
        let mut slots = self.slots.lock();
        while matches!(slots.get(&key), Some(Slot::Lent)) {
            self.changed.wait_for(&mut slots, TICK);
        }
        slots.remove(&key);
    }

    /// Whether the answer is here.
    pub(super) fn is_done(&self, key: Key) -> bool {
        matches!(self.slots.lock().get(&key), Some(Slot::Done(_)))
    }

    /// The answer, once.
    pub(super) fn take(&self, key: Key) -> Option<Result<Vec<u8>, Fault>> {
        let slot = self.slots.lock().remove(&key);
        match slot {
            Some(Slot::Done(answer)) => Some(answer),
            _ => None,
        }
    }

    /// The answer to `key` is here. Nothing if nobody waits: it was given up, or it is the answer to
    /// a record that was repeated.
    pub(super) fn answer(&self, key: Key, answer: Result<Vec<u8>, Fault>) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(&key) {
            *slot = Slot::Done(answer);
        }
        self.tell(slots);
    }

    /// Bytes that `key` still wants; `None` if nobody waits.
    pub(super) fn room(&self, key: Key) -> Option<u64> {
        let slots = self.slots.lock();
        match slots.get(&key) {
            Some(Slot::Pending(place)) => Some((place.len - place.at) as u64),
            _ => None,
        }
    }

    /// The memory of `key`, if somebody still waits with some.
    pub(super) fn lend(&self, key: Key) -> Option<Loan<'_>> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&key)?;
        let Slot::Pending(place) = *slot else {
            return None;
        };
        *slot = Slot::Lent;
        Some(Loan {
            slots: self,
            key,
            place,
        })
    }

    /// Threads that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The calling thread waits.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waits.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// How often a thread has waited so far.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// How often something changed: an answer came, a loan ended, or somebody stopped reading.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Until something has changed since there were `seen` changes, or for `timeout`.
    pub(super) fn pause(&self, seen: u64, timeout: Duration) {
        let mut slots = self.slots.lock();
        if self.changes() == seen {
            self.changed.wait_for(&mut slots, timeout);
        }
    }

    /// Reads, unless somebody else does. Whoever waits is told afterwards: it may have found the
    /// reading taken, and goes on with it.
    pub(super) fn turn<R, T>(
        &self,
        reading: &Mutex<R>,
        read: impl FnOnce(&mut R) -> T,
    ) -> Option<T> {
        let mut reading = reading.try_lock()?;
        let result = read(&mut reading);
        drop(reading);
        self.wake();
        Some(result)
    }

    /// Wakes all that wait.
    pub(super) fn wake(&self) {
        self.tell(self.slots.lock());
    }

    /// Something changed. Costs nothing where nobody pauses.
    fn tell(&self, slots: MutexGuard<'_, HashMap<Key, Slot>>) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        drop(slots);
        self.changed.notify_all();
    }
}

impl Loan<'_> {
    /// What is still to be filled.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        if self.place.len == self.place.at {
            return &mut [];
        }
        // SAFETY: valid for `len` bytes as long as the slot exists (see `Destination::new`), and it
        // says `Lent` until this loan, of which there is one, goes; `at` is at most `len`.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.place.pointer.add(self.place.at),
                self.place.len - self.place.at,
            )
        }
    }

    /// The next `n` bytes of it are there.
    pub(super) fn filled(&mut self, n: usize) {
        self.place.at += n.min(self.place.len - self.place.at);
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut slots = self.slots.slots.lock();
        if let Some(slot @ Slot::Lent) = slots.get_mut(&self.key) {
            *slot = Slot::Pending(self.place);
        }
        self.slots.tell(slots);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
