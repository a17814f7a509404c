//! The executor's two rings: frames from the daemon and to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_shm::{RingConsumer, RingError, RingProducer};

/// Bytes of frames that are set aside while the executor waits for a place to be sent.
const BACKLOG_BYTES: usize = 16 << 20;

/// Frames in and out.
#[derive(Debug)]
pub struct Port {
    inbox: RingConsumer,
    outbox: RingProducer,
    backlog: VecDeque<Vec<u8>>,
    backlog_bytes: usize,
}

impl Port {
    /// Over the rings of a fork.
    pub fn new(inbox: RingConsumer, outbox: RingProducer) -> Self {
        Self {
            inbox,
            outbox,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        }
    }

    /// Replaces `frame` by the next frame, if there is one.
    ///
    /// # Errors
    /// As [`RingConsumer::try_pop`].
    pub fn try_next(&mut self, frame: &mut Vec<u8>) -> Result<bool, RingError> {
        if let Some(next) = self.backlog.pop_front() {
            self.backlog_bytes -= next.len();
            *frame = next;
            return Ok(true);
        }
        self.inbox.try_pop(frame)
    }

    /// The same, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`RingConsumer::pop_timeout`].
    pub fn next(&mut self, frame: &mut Vec<u8>, timeout: Duration) -> Result<bool, RingError> {
        if self.backlog.is_empty() {
            return self.inbox.pop_timeout(frame, timeout);
        }
        self.try_next(frame)
    }

    /// Sends one frame; waits while the ring is full.
    ///
    /// # Errors
    /// As [`RingProducer::push`].
    pub fn send(&mut self, header: Header, payload: &[u8]) -> Result<(), RingError> {
        let head = header.with_payload(payload.len()).encode();
        self.outbox.push(&[&head, payload])
    }

    /// Waits until the daemon says that a reply's bytes were sent, and gives their place. Other
    /// frames are kept for later; `None` when too many came or the deadline passed.
    ///
    /// # Errors
    /// As [`RingConsumer::pop_timeout`].
    pub fn wait_place_sent(&mut self, deadline: Instant) -> Result<Option<u64>, RingError> {
        if let Some(at) = self
            .backlog
            .iter()
            .position(|frame| place_sent(frame).is_some())
        {
            let frame = self.backlog.remove(at).unwrap_or_default();
            self.backlog_bytes -= frame.len();
            return Ok(place_sent(&frame));
        }
        let mut frame = Vec::new();
        while self.backlog_bytes <= BACKLOG_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.inbox.pop_timeout(&mut frame, left)? {
                return Ok(None);
            }
            if let Some(place) = place_sent(&frame) {
                return Ok(Some(place));
            }
            self.backlog_bytes += frame.len();
            self.backlog.push_back(std::mem::take(&mut frame));
        }
        Ok(None)
    }
}

fn place_sent(frame: &[u8]) -> Option<u64> {
    let header = Header::decode(frame.first_chunk::<HEADER_BYTES>()?).ok()?;
    (header.kind == Kind::PlaceSent).then_some(header.seq)
}
