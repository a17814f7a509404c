//! The executor's two rings: frames from the daemon and to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_shm::{RingConsumer, RingError, RingProducer};

/// Bytes of frames that are set aside while the executor waits for a place to be sent.
const BACKLOG_BYTES: usize = 32 << 20;
/// How long a wait without an end sleeps at a time.
const TICK: Duration = Duration::from_secs(1);

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
        let frame = self.wait_for(&[Kind::PlaceSent], Some(deadline))?;
        Ok(frame.and_then(|frame| header(&frame).map(|header| header.seq)))
    }

    /// Waits until the daemon tells of a transfer, for as long as it takes: the daemon says so when
    /// none will come. Other frames are kept for later; `None` when too many came.
    ///
    /// # Errors
    /// As [`RingConsumer::pop_timeout`].
    pub fn wait_transfer(&mut self) -> Result<Option<Vec<u8>>, RingError> {
        const NEWS: [Kind; 3] = [Kind::Arrived, Kind::ArrivedFault, Kind::PeerGone];
        self.wait_for(&NEWS, None)
    }

    fn wait_for(
        &mut self,
        kinds: &[Kind],
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<u8>>, RingError> {
        let is_wanted =
            |frame: &[u8]| header(frame).is_some_and(|header| kinds.contains(&header.kind));
        if let Some(at) = self.backlog.iter().position(|frame| is_wanted(frame)) {
            let frame = self.backlog.remove(at).unwrap_or_default();
            self.backlog_bytes -= frame.len();
            return Ok(Some(frame));
        }
        let mut frame = Vec::new();
        while self.backlog_bytes <= BACKLOG_BYTES {
            let left = deadline.map_or(TICK, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(None);
            }
            if !self.inbox.pop_timeout(&mut frame, left)? {
                continue;
            }
            if is_wanted(&frame) {
                return Ok(Some(frame));
            }
            self.backlog_bytes += frame.len();
            self.backlog.push_back(std::mem::take(&mut frame));
        }
        Ok(None)
    }
}

fn header(frame: &[u8]) -> Option<Header> {
    Header::decode(frame.first_chunk::<HEADER_BYTES>()?).ok()
}
