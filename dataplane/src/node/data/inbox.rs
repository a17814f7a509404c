//! Frames on their way to an executor, from several threads, none of which may wait for another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genie_session::frame::Header;
use genie_shm::{RingError, RingProducer};
use parking_lot::Mutex;

/// Frames of the daemon's own that may wait: one a plan or a reply's place, both bounded already.
const POSTED_MAX: usize = 64 << 10;
/// Bytes of them that may wait, and of a frame that waits whatever they are: a plan may be refused, a
/// place that was sent may not.
const POSTED_BYTES_MAX: usize = 16 << 20;
const SMALL_BYTES: usize = 64;
/// How long a full ring is left alone. It holds megabytes of records, so nothing runs dry.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// The ring towards an executor, shared by the reader (records, uploads), the writer (places that
/// were sent) and the control plane (plans).
///
/// Only the reader waits for room, and it does not hold the ring meanwhile: otherwise the writer
/// would wait for it, the executor for the writer, and it for the executor.
pub struct Inbox {
    ring: Mutex<RingProducer>,
    posted: Mutex<Posted>,
    has_posted: AtomicBool,
}

#[derive(Default)]
struct Posted {
    frames: VecDeque<(Header, Vec<u8>)>,
    bytes: usize,
}

/// Why a frame was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// The executor is gone.
    #[error("the executor can't be reached: {0}")]
    Ring(#[from] RingError),
    /// The caller gave up.
    #[error("the session ended meanwhile")]
    GaveUp,
    /// The executor does not take what it is owed.
    #[error("the executor leaves {0} frames of the daemon waiting")]
    Overrun(usize),
}

impl Inbox {
    /// Over a ring.
    #[must_use]
    pub fn new(ring: RingProducer) -> Self {
        Self {
            ring: Mutex::new(ring),
            posted: Mutex::default(),
            has_posted: AtomicBool::new(false),
        }
    }

    /// Delivers a frame, waiting for room until `give_up` says so.
    ///
    /// # Errors
    /// The executor is gone, or the caller gave up.
    pub fn send(
        &self,
        header: &Header,
        parts: [&[u8]; 2],
        mut give_up: impl FnMut() -> bool,
    ) -> Result<(), Undelivered> {
        let encoded = header.encode();
        while !self.try_send(&[&encoded, parts[0], parts[1]])? {
            if give_up() {
                return Err(Undelivered::GaveUp);
            }
            std::thread::sleep(FULL_WAIT);
        }
        self.flush().map(drop)
    }

    fn try_send(&self, parts: &[&[u8]]) -> Result<bool, Undelivered> {
        let mut ring = self.ring.lock();
        // What was posted is older.
        Ok(self.flush_into(&mut ring)? && ring.try_push(parts)?)
    }

    /// Delivers a frame of the daemon's own as soon as there is room. Never waits.
    ///
    /// # Errors
    /// The executor is gone, or takes nothing.
    pub fn post(&self, header: Header, payload: Vec<u8>) -> Result<(), Undelivered> {
        {
            let mut posted = self.posted.lock();
            let too_large =
                payload.len() > SMALL_BYTES && posted.bytes + payload.len() > POSTED_BYTES_MAX;
            if posted.frames.len() >= POSTED_MAX || too_large {
                return Err(Undelivered::Overrun(posted.frames.len()));
            }
            posted.bytes += payload.len();
            posted
                .frames
                .push_back((header.with_payload(payload.len()), payload));
            self.has_posted.store(true, Ordering::SeqCst);
        }
        self.flush().map(drop)
    }

    /// Delivers what was posted. True when nothing is left waiting.
    ///
    /// # Errors
    /// The executor is gone.
    pub fn flush(&self) -> Result<bool, Undelivered> {
        while self.has_posted.load(Ordering::SeqCst) {
            // Its holder looks again after giving it up.
            let Some(mut ring) = self.ring.try_lock() else {
                return Ok(false);
            };
            if !self.flush_into(&mut ring)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn flush_into(&self, ring: &mut RingProducer) -> Result<bool, Undelivered> {
        if !self.has_posted.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let mut posted = self.posted.lock();
        while let Some((header, payload)) = posted.frames.front() {
            if !ring.try_push(&[&header.encode(), payload])? {
                return Ok(false);
            }
            let bytes = payload.len();
            posted.bytes -= bytes;
            posted.frames.pop_front();
        }
        self.has_posted.store(false, Ordering::SeqCst);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genie_session::frame::Kind;
    use genie_shm::{Mapping, RingConsumer, WaitPolicy};
    use std::sync::Arc;

    fn pair() -> (Inbox, RingConsumer) {
        with_ring(4096)
    }

    fn with_ring(bytes: u64) -> (Inbox, RingConsumer) {
        let producer = RingProducer::create(bytes).unwrap();
        let memory = Mapping::from_peer(producer.file().try_clone_to_owned().unwrap()).unwrap();
        let consumer = RingConsumer::open(Arc::new(memory), WaitPolicy::SLEEP).unwrap();
        (Inbox::new(producer), consumer)
    }

    fn fill(inbox: &Inbox) -> u64 {
        let mut sent = 0;
        while inbox
            .send(
                &Header::new(Kind::Records, sent, 0),
                [&[0; 512], &[]],
                || true,
            )
            .is_ok()
        {
            sent += 1;
        }
        sent
    }

    #[test]
    fn a_full_ring_holds_up_neither_posting_nor_giving_up() {
        let (inbox, mut consumer) = pair();
        let sent = fill(&inbox);
        assert!(sent > 0);
        inbox
            .post(Header::new(Kind::PlaceSent, 7, 0), vec![0; 512])
            .unwrap();
        assert!(!inbox.flush().unwrap());
        let mut frame = Vec::new();
        for _ in 0..sent {
            assert!(consumer.try_pop(&mut frame).unwrap());
        }
        assert!(inbox.flush().unwrap());
        assert!(consumer.try_pop(&mut frame).unwrap());
        assert_eq!(frame[0], Kind::PlaceSent as u8);
    }

    #[test]
    fn what_was_posted_goes_first() {
        let (inbox, mut consumer) = pair();
        let sent = fill(&inbox);
        inbox
            .post(Header::new(Kind::InstallPlan, 1, 0), vec![0; 512])
            .unwrap();
        let mut frame = Vec::new();
        for _ in 0..sent {
            assert!(consumer.try_pop(&mut frame).unwrap());
        }
        inbox
            .send(&Header::new(Kind::Records, sent, 0), [&[], &[]], || true)
            .unwrap();
        let mut kinds = Vec::new();
        while consumer.try_pop(&mut frame).unwrap() {
            kinds.push(frame[0]);
        }
        assert_eq!(kinds, [Kind::InstallPlan as u8, Kind::Records as u8]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_small_frames_are_not_held_up() {
        let (inbox, _consumer) = with_ring(4 << 20);
        fill(&inbox);
        let plan = || inbox.post(Header::new(Kind::InstallPlan, 1, 0), vec![0; 1 << 20]);
        let taken = (0..100).take_while(|_| plan().is_ok()).count();
        assert_eq!(taken, POSTED_BYTES_MAX >> 20);
        inbox
            .post(Header::new(Kind::PlaceSent, 7, 0), Vec::new())
            .unwrap();
    }

    #[test]
    fn a_gone_executor_is_an_error() {
        let (inbox, consumer) = pair();
        drop(consumer);
        let frame = Header::new(Kind::Records, 0, 0);
        assert!(matches!(
            inbox.send(&frame, [&[], &[]], || false),
            Err(Undelivered::Ring(RingError::Closed))
        ));
    }
}
