//! The memory of a ring, as both sides see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use super::wait::{futex_wait, futex_wake};
use super::{Bell, CAPACITY_MIN, RingError};
use crate::mapping::{Mapping, MemoryError};

const WORDS_BYTES: u64 = 4096;
pub(super) const HEAD_AT: usize = 0;
pub(super) const TAIL_AT: usize = 128;
pub(super) const CONSUMER_SLEEPS_AT: usize = 256;
pub(super) const PRODUCER_SLEEPS_AT: usize = 384;
const CLOSED_AT: usize = 512;
pub(super) const PREFIX_BYTES: u64 = 8;

/// Both sides' view of the memory.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) memory: Arc<Mapping>,
    pub(super) capacity: u64,
    /// Wakes the other side, if it does not sleep on its futex.
    pub(super) bell: Option<Arc<dyn Bell>>,
}

impl Shared {
    pub(super) fn create(capacity: u64) -> Result<Self, RingError> {
        let capacity = capacity
            .clamp(CAPACITY_MIN, 1 << 40)
            .checked_next_power_of_two()
            .ok_or(MemoryError::Size(capacity))?;
        Ok(Self {
            memory: Arc::new(Mapping::create(WORDS_BYTES + capacity)?),
            capacity,
            bell: None,
        })
    }

    pub(super) fn open(memory: Arc<Mapping>) -> Result<Self, RingError> {
        let capacity = memory.capacity().saturating_sub(WORDS_BYTES);
        if !capacity.is_power_of_two() || capacity < CAPACITY_MIN {
            return Err(RingError::Corrupt("its size is not a power of two"));
        }
        Ok(Self {
            memory,
            capacity,
            bell: None,
        })
    }

    pub(super) fn frame_max(&self) -> u64 {
        self.capacity / 2 - PREFIX_BYTES
    }

    pub(super) fn word64(&self, at: usize) -> &AtomicU64 {
        let base = self.base();
        // SAFETY: `at` is one of the constants above, aligned to 128 inside the first page of
        // the mapping, which lives as long as `self`; the word is only accessed atomically.
        unsafe { &*base.add(at).cast() }
    }

    pub(super) fn word32(&self, at: usize) -> &AtomicU32 {
        let base = self.base();
        // SAFETY: as in `word64`.
        unsafe { &*base.add(at).cast() }
    }

    fn base(&self) -> *const u8 {
        // An empty range at the start is always inside.
        self.memory
            .address(0, 0)
            .map_or(std::ptr::null(), |address| address.as_ptr().cast_const())
    }

    pub(super) fn put(&self, cursor: u64, bytes: &[u8]) -> Result<(), RingError> {
        let at = cursor & (self.capacity - 1);
        let first = bytes.len().min((self.capacity - at) as usize);
        self.memory.write(WORDS_BYTES + at, &bytes[..first])?;
        self.memory.write(WORDS_BYTES, &bytes[first..])?;
        Ok(())
    }

    pub(super) fn get(&self, cursor: u64, bytes: &mut [u8]) -> Result<(), RingError> {
        let at = cursor & (self.capacity - 1);
        let first = bytes.len().min((self.capacity - at) as usize);
        let (head, rest) = bytes.split_at_mut(first);
        self.memory.read(WORDS_BYTES + at, head)?;
        self.memory.read(WORDS_BYTES, rest)?;
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word32(CLOSED_AT).load(Ordering::Acquire) != 0
    }

    pub(super) fn close(&self) {
        self.word32(CLOSED_AT).store(1, Ordering::SeqCst);
        for at in [CONSUMER_SLEEPS_AT, PRODUCER_SLEEPS_AT] {
            self.word32(at).store(0, Ordering::SeqCst);
            futex_wake(self.word32(at));
        }
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// Wakes the side that sleeps on this word, if it does. True if it did.
    pub(super) fn wake(&self, at: usize) -> bool {
        fence(Ordering::SeqCst);
        let word = self.word32(at);
        let sleeps = word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::SeqCst) != 0;
        match &self.bell {
            Some(bell) if sleeps => bell.ring(),
            None if sleeps => futex_wake(word),
            _ => {}
        }
        sleeps
    }

    /// Says that the side of this word sleeps, so that it is woken, unless `ready` or closed.
    pub(super) fn arm(&self, at: usize, ready: impl FnOnce() -> bool) -> bool {
        self.word32(at).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let asleep = !ready() && !self.is_closed();
        if !asleep {
            self.disarm(at);
        }
        asleep
    }

    pub(super) fn disarm(&self, at: usize) {
        self.word32(at).store(0, Ordering::SeqCst);
    }

    /// Sleeps on this word until `ready`, the ring closes, or the deadline. Counts sleeps.
    pub(super) fn sleep(
        &self,
        at: usize,
        deadline: Option<Instant>,
        sleeps: &mut u64,
        mut ready: impl FnMut() -> Result<bool, RingError>,
    ) -> Result<bool, RingError> {
        let word = self.word32(at);
        loop {
            // Each time it is set it is cleared by one wake at most.
            *sleeps += 1;
            word.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let is_ready = ready();
            if !matches!(is_ready, Ok(false)) || self.is_closed() {
                word.store(0, Ordering::SeqCst);
                return is_ready;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                word.store(0, Ordering::SeqCst);
                return Ok(false);
            }
            futex_wait(word, 1, left);
        }
    }
}
