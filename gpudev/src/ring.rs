//! A bounded queue of frames from one process to another, in shared memory: one producer, one
//! consumer, no lock. A side that has nothing to do spins for a moment, then sleeps on a futex,
//! and the other side wakes it only if it sleeps.
//!
//! Layout: a page of words, then the bytes. Each cursor counts bytes since the beginning and is
//! written by one side; it keeps its own cursor in private memory and believes of the other's
//! only what is possible. A frame is `length u32, zero u32, bytes`, padded to 8.

mod shared;
mod wait;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::mapping::{Mapping, MemoryError};
use shared::{CONSUMER_SLEEPS_AT, HEAD_AT, PREFIX_BYTES, PRODUCER_SLEEPS_AT, Shared, TAIL_AT};
use wait::Spinner;
pub use wait::WaitPolicy;

/// Bytes of a ring if nothing else is asked for.
pub const CAPACITY_BYTES: u64 = 4 << 20;
/// Smallest ring.
pub const CAPACITY_MIN: u64 = 4096;

/// Why nothing could be put in or taken out.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Either side closed it, and everything before was taken out.
    #[error("the ring is closed")]
    Closed,
    /// The other side wrote what it never could by following the rules.
    #[error("the ring is damaged: {0}")]
    Corrupt(&'static str),
    /// The frame could never fit.
    #[error("a frame of {len} bytes is too long for the ring: at most {max} fit")]
    TooLong {
        /// Its length.
        len: u64,
        /// The longest that fits.
        max: u64,
    },
    /// The memory was refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What one side did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Frames put in or taken out.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Times this side said that it was going to sleep (a frame may have come just then).
    pub sleeps: u64,
    /// Times this side woke the other.
    pub wakes: u64,
}

/// Closes a ring from anywhere, and wakes who sleeps in it.
#[derive(Clone, Debug)]
pub struct RingCloser(Shared);

impl RingCloser {
    /// Closes it. What is in it can still be taken out.
    pub fn close(&self) {
        self.0.close();
    }
}

/// The side that puts frames in. Dropping it closes the ring.
#[derive(Debug)]
pub struct RingProducer {
    shared: Shared,
    head: u64,
    tail_seen: u64,
    stats: RingStats,
}

/// The side that takes frames out. Dropping it closes the ring.
#[derive(Debug)]
pub struct RingConsumer {
    shared: Shared,
    tail: u64,
    head_seen: u64,
    spinner: Spinner,
    stats: RingStats,
}

impl RingProducer {
    /// A new ring of `capacity` bytes (rounded up to a power of two) and its producer.
    ///
    /// # Errors
    /// No memory.
    pub fn create(capacity: u64) -> Result<Self, RingError> {
        Ok(Self::new(Shared::create(capacity)?))
    }

    /// The producer of a ring that the other side created.
    ///
    /// # Errors
    /// Memory that is no ring.
    pub fn open(memory: Arc<Mapping>) -> Result<Self, RingError> {
        Ok(Self::new(Shared::open(memory)?))
    }

    fn new(shared: Shared) -> Self {
        Self {
            shared,
            head: 0,
            tail_seen: 0,
            stats: RingStats::default(),
        }
    }

    /// The longest frame that fits.
    #[must_use]
    pub fn frame_max(&self) -> u64 {
        self.shared.frame_max()
    }

    /// The memory, to be sent to the other side.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.shared.memory.file()
    }

    /// Closes the ring from elsewhere.
    #[must_use]
    pub fn closer(&self) -> RingCloser {
        RingCloser(self.shared.clone())
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Puts in one frame, the concatenation of `parts`, if there is room.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn try_push(&mut self, parts: &[&[u8]]) -> Result<bool, RingError> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let max = self.shared.frame_max();
        if len > max {
            return Err(RingError::TooLong { len, max });
        }
        if self.shared.is_closed() {
            return Err(RingError::Closed);
        }
        let size = PREFIX_BYTES + len.next_multiple_of(8);
        if self.shared.capacity - (self.head - self.tail_seen) < size {
            self.tail_seen = self.tail()?;
            if self.shared.capacity - (self.head - self.tail_seen) < size {
                return Ok(false);
            }
        }
        self.shared.put(self.head, &len.to_le_bytes())?;
        let mut cursor = self.head + PREFIX_BYTES;
        for part in parts {
            self.shared.put(cursor, part)?;
            cursor += part.len() as u64;
        }
        self.head += size;
        self.shared
            .word64(HEAD_AT)
            .store(self.head, Ordering::Release);
        self.stats.frames += 1;
        self.stats.bytes += len;
        self.stats.wakes += u64::from(self.shared.wake(CONSUMER_SLEEPS_AT));
        Ok(true)
    }

    /// Puts in one frame; waits for room as long as it takes.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), RingError> {
        self.push_until(parts, None).map(drop)
    }

    /// Puts in one frame; waits at most `timeout` for room. False if there was none.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn push_timeout(&mut self, parts: &[&[u8]], timeout: Duration) -> Result<bool, RingError> {
        self.push_until(parts, Some(Instant::now() + timeout))
    }

    fn push_until(
        &mut self,
        parts: &[&[u8]],
        deadline: Option<Instant>,
    ) -> Result<bool, RingError> {
        while !self.try_push(parts)? {
            let before = self.tail_seen;
            let mut sleeps = 0;
            let moved = self
                .shared
                .sleep(PRODUCER_SLEEPS_AT, deadline, &mut sleeps, || {
                    Ok(self.shared.word64(TAIL_AT).load(Ordering::Acquire) != before)
                });
            self.stats.sleeps += sleeps;
            if !moved? && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The consumer's cursor, if it is possible.
    fn tail(&self) -> Result<u64, RingError> {
        let tail = self.shared.word64(TAIL_AT).load(Ordering::Acquire);
        if tail > self.head || tail < self.tail_seen || !tail.is_multiple_of(8) {
            return Err(RingError::Corrupt("the consumer's cursor is impossible"));
        }
        Ok(tail)
    }
}

impl RingConsumer {
    /// A new ring of `capacity` bytes (rounded up to a power of two) and its consumer.
    ///
    /// # Errors
    /// No memory.
    pub fn create(capacity: u64, policy: WaitPolicy) -> Result<Self, RingError> {
        Ok(Self::new(Shared::create(capacity)?, policy))
    }

    /// The consumer of a ring that the other side created.
    ///
    /// # Errors
    /// Memory that is no ring.
    pub fn open(memory: Arc<Mapping>, policy: WaitPolicy) -> Result<Self, RingError> {
        Ok(Self::new(Shared::open(memory)?, policy))
    }

    fn new(shared: Shared, policy: WaitPolicy) -> Self {
        let spinner = Spinner::new(policy);
        Self {
            shared,
            tail: 0,
            head_seen: 0,
            spinner,
            stats: RingStats::default(),
        }
    }

    /// The memory, to be sent to the other side.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.shared.memory.file()
    }

    /// Closes the ring from elsewhere.
    #[must_use]
    pub fn closer(&self) -> RingCloser {
        RingCloser(self.shared.clone())
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Replaces `frame` by the next frame, if there is one.
    ///
    /// # Errors
    /// [`RingError`]. A damaged ring stays damaged.
    pub fn try_pop(&mut self, frame: &mut Vec<u8>) -> Result<bool, RingError> {
        if self.head_seen == self.tail {
            self.head_seen = self.head()?;
            if self.head_seen == self.tail {
                if !self.shared.is_closed() {
                    return Ok(false);
                }
                // It may have been closed right after a last frame.
                self.head_seen = self.head()?;
                if self.head_seen == self.tail {
                    return Err(RingError::Closed);
                }
            }
        }
        let mut prefix = [0; PREFIX_BYTES as usize];
        self.shared.get(self.tail, &mut prefix)?;
        let len = u64::from_le_bytes(prefix);
        if len > self.shared.frame_max() {
            return Err(RingError::Corrupt("a frame is longer than any may be"));
        }
        let size = PREFIX_BYTES + len.next_multiple_of(8);
        if size > self.head_seen - self.tail {
            return Err(RingError::Corrupt(
                "a frame reaches past the producer's cursor",
            ));
        }
        frame.resize(len as usize, 0);
        self.shared.get(self.tail + PREFIX_BYTES, frame)?;
        self.tail += size;
        self.shared
            .word64(TAIL_AT)
            .store(self.tail, Ordering::Release);
        self.stats.frames += 1;
        self.stats.bytes += len;
        // A producer that waits is woken when it surely has room, not for every frame.
        if self.head_seen - self.tail <= self.shared.capacity / 2 {
            self.stats.wakes += u64::from(self.shared.wake(PRODUCER_SLEEPS_AT));
        }
        Ok(true)
    }

    /// Replaces `frame` by the next frame; waits as long as it takes.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn pop(&mut self, frame: &mut Vec<u8>) -> Result<(), RingError> {
        self.pop_until(frame, None).map(drop)
    }

    /// Replaces `frame` by the next frame; waits at most `timeout`. False if none came.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn pop_timeout(
        &mut self,
        frame: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<bool, RingError> {
        self.pop_until(frame, Some(Instant::now() + timeout))
    }

    fn pop_until(
        &mut self,
        frame: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<bool, RingError> {
        loop {
            if self.try_pop(frame)? {
                return Ok(true);
            }
            let (shared, tail) = (&self.shared, self.tail);
            let arrived = || shared.word64(HEAD_AT).load(Ordering::Acquire) != tail;
            if self.spinner.spin(|| arrived() || shared.is_closed()) {
                continue;
            }
            let mut sleeps = 0;
            let came = shared.sleep(CONSUMER_SLEEPS_AT, deadline, &mut sleeps, || Ok(arrived()))?;
            self.stats.sleeps += sleeps;
            if !came && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return self.try_pop(frame);
            }
        }
    }

    /// The producer's cursor, if it is possible.
    fn head(&self) -> Result<u64, RingError> {
        let head = self.shared.word64(HEAD_AT).load(Ordering::Acquire);
        let distance = head.wrapping_sub(self.tail);
        if head < self.head_seen || distance > self.shared.capacity || !head.is_multiple_of(8) {
            return Err(RingError::Corrupt("the producer's cursor is impossible"));
        }
        Ok(head)
    }
}

impl Drop for RingProducer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Drop for RingConsumer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests;
