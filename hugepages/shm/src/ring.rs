//! A bounded queue of frames from one process to another, in shared memory: one producer, one
//! consumer, no lock. A side that has nothing to do spins for a moment, then sleeps on a futex,
//! and the other side wakes it only if it sleeps. A side that waits for other things too arms the
//! ring instead, and is woken by a [`Bell`].
//!
//! Layout: a page of words, then the bytes. Each cursor counts bytes since the beginning and is
//! written by one side; it keeps its own cursor in private memory and believes of the other's
//! only what is possible. A frame is `length u32, zero u32, bytes`, padded to 8.

mod bell;
mod shared;
mod wait;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::mapping::{Mapping, MemoryError};
pub use bell::Bell;
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

/// How a ring stands, as its memory says: the other side may have written anything there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLook {
    /// Bytes that were put in.
    pub put: u64,
    /// Bytes that were taken out.
    pub taken: u64,
    /// Who takes out sleeps until more comes.
    pub consumer_sleeps: bool,
    /// Who puts in sleeps until there is room.
    pub producer_sleeps: bool,
}

impl RingCloser {
    /// How the ring stands.
    #[must_use]
    pub fn look(&self) -> RingLook {
        let sleeps = |at| self.0.word32(at).load(Ordering::Acquire) != 0;
        RingLook {
            put: self.0.word64(HEAD_AT).load(Ordering::Acquire),
            taken: self.0.word64(TAIL_AT).load(Ordering::Acquire),
            consumer_sleeps: sleeps(CONSUMER_SLEEPS_AT),
            producer_sleeps: sleeps(PRODUCER_SLEEPS_AT),
        }
    }

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
            let moved = self.wait_moved(deadline)?;
            if !moved && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sleeps on the futex until the consumer took something since the last try, or the deadline.
    fn wait_moved(&mut self, deadline: Option<Instant>) -> Result<bool, RingError> {
        let before = self.tail_seen;
        let mut sleeps = 0;
        let moved = self
            .shared
            .sleep(PRODUCER_SLEEPS_AT, deadline, &mut sleeps, || {
                Ok(self.shared.word64(TAIL_AT).load(Ordering::Acquire) != before)
            });
        self.stats.sleeps += sleeps;
        moved
    }

    /// From now on a consumer that sleeps is woken by `bell`, not by its futex.
    pub fn set_bell(&mut self, bell: Arc<dyn Bell>) {
        self.shared.bell = Some(bell);
    }

    /// The longest frame that there is room for now, in bytes; `None` if not even for an empty
    /// one.
    ///
    /// # Errors
    /// A damaged ring.
    pub fn room(&self) -> Result<Option<u64>, RingError> {
        let free = self.shared.capacity - (self.head - self.tail()?);
        let longest = free.checked_sub(PREFIX_BYTES);
        Ok(longest.map(|len| len.min(self.shared.frame_max())))
    }

    /// Sleeps on the futex until there may be more room than at the last try, the ring closes
    /// (true, too), or `timeout`. A consumer wakes it once the ring is at most half full.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn wait_room(&mut self, timeout: Duration) -> Result<bool, RingError> {
        Ok(self.wait_moved(Some(Instant::now() + timeout))? || self.is_closed())
    }

    /// Says that this side waits for room for a frame of `len` bytes, so that the consumer rings
    /// its bell once the ring is at most half full. False, and nothing said, if there is room or
    /// the ring is closed or damaged: then try again.
    #[must_use]
    pub fn arm(&mut self, len: u64) -> bool {
        let room = || self.room().map_or(true, |room| room >= Some(len));
        let asleep = self.shared.arm(PRODUCER_SLEEPS_AT, room);
        self.stats.sleeps += u64::from(asleep);
        asleep
    }

    /// Takes back [`RingProducer::arm`].
    pub fn disarm(&mut self) {
        self.shared.disarm(PRODUCER_SLEEPS_AT);
    }

    /// True once either side closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
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
            if self.spin() {
                continue;
            }
            let mut sleeps = 0;
            let came = self
                .shared
                .sleep(CONSUMER_SLEEPS_AT, deadline, &mut sleeps, || {
                    Ok(self.head_moved())
                })?;
            self.stats.sleeps += sleeps;
            if !came && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return self.try_pop(frame);
            }
        }
    }

    /// From now on a producer that waits for room is woken by `bell`, not by its futex.
    pub fn set_bell(&mut self, bell: Arc<dyn Bell>) {
        self.shared.bell = Some(bell);
    }

    /// Says that this side sleeps, so that the producer rings its bell at the next frame. False,
    /// and nothing said, if there is a frame already or the ring is closed: then take it out.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        let asleep = self.shared.arm(CONSUMER_SLEEPS_AT, || self.head_moved());
        self.stats.sleeps += u64::from(asleep);
        asleep
    }

    /// Takes back [`RingConsumer::arm`]: no bell is rung any more.
    pub fn disarm(&mut self) {
        self.shared.disarm(CONSUMER_SLEEPS_AT);
    }

    /// Spins for as long as it tends to pay. True if there is a frame or the ring is closed.
    pub fn spin(&mut self) -> bool {
        let (shared, tail) = (&self.shared, self.tail);
        self.spinner
            .spin(|| shared.word64(HEAD_AT).load(Ordering::Acquire) != tail || shared.is_closed())
    }

    /// True if there is a frame or the ring is closed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.head_moved() || self.is_closed()
    }

    /// True once either side closed it; frames may be left in it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    fn head_moved(&self) -> bool {
        self.shared.word64(HEAD_AT).load(Ordering::Acquire) != self.tail
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
