//! A data connection over the transport: two halves of a channel to the poll loop.
//!
//! The stream's bytes pass through the channel's rings. Longer bulk does not: the loop reads it
//! from the session's outbound memory and writes it to its inbound memory, or to staging memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genie_channel::{
    AppHalf, AppReceiver, AppSender, ChannelError, Command, FromLoop, ended, parts,
};
use parking_lot::Mutex;

use super::staging::Land;

/// How often a thread that waits looks whether the connection was cut.
const TICK: Duration = Duration::from_millis(100);
/// Parts of one bulk that are asked for ahead.
const AHEAD: usize = 8;
/// Stream bytes that may come while bulk is waited for; a client's window is far below.
const PENDING_MAX: usize = 64 << 20;

/// Bulk in the session's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Where it begins.
    pub place: u64,
    /// How long it is.
    pub len: u64,
}

/// Told of places whose bytes have left.
pub type OnSent = Box<dyn FnMut(u64) + Send>;

/// What both halves share.
struct Common {
    sender: Mutex<AppSender>,
    cut: AtomicBool,
    lease: Duration,
    /// Bulk that leaves, and how many of its parts have not.
    leaving: Mutex<Vec<(Bulk, usize)>>,
}

/// The half that reads.
pub struct ChannelRead {
    receiver: AppReceiver,
    common: Arc<Common>,
    on_sent: OnSent,
    pending: Vec<u8>,
    taken: usize,
    /// Where parts of the bulk under way have come, or the reason why one did not.
    arrived: VecDeque<u64>,
    failed: Option<String>,
    /// How it ended: `None` in it is the peer's wish.
    over: Option<Option<String>>,
}

/// The half that writes.
pub struct ChannelWrite(Arc<Common>);

/// Cuts a channel.
pub struct ChannelCut(Arc<Common>);

/// The halves of `channel`. `on_sent` is called on the thread that reads.
#[must_use]
pub fn split(
    channel: AppHalf,
    lease: Duration,
    on_sent: OnSent,
) -> (ChannelRead, ChannelWrite, ChannelCut) {
    let common = Arc::new(Common {
        sender: Mutex::new(channel.sender),
        cut: AtomicBool::new(false),
        lease,
        leaving: Mutex::new(Vec::new()),
    });
    let read = ChannelRead {
        receiver: channel.receiver,
        common: Arc::clone(&common),
        on_sent,
        pending: Vec::new(),
        taken: 0,
        arrived: VecDeque::new(),
        failed: None,
        over: None,
    };
    (read, ChannelWrite(Arc::clone(&common)), ChannelCut(common))
}

fn broken(error: ChannelError) -> io::Error {
    match error {
        ChannelError::Closed => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::other(other.to_string()),
    }
}

impl Common {
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Does `put` until it says that it was done, giving way between two tries.
    fn until(&self, mut put: impl FnMut(&mut AppSender) -> io::Result<bool>) -> io::Result<()> {
        let started = Instant::now();
        while !put(&mut self.sender.lock())? {
            if self.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if started.elapsed() >= self.lease {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // Not under the lock for long: the other half may have something to say.
            self.sender.lock().wait_room(Duration::from_millis(1));
        }
        Ok(())
    }

    fn put(&self, command: Command) -> io::Result<()> {
        self.until(|sender| sender.try_put(command).map_err(broken))
    }

    fn stream(&self, mut bytes: &[u8]) -> io::Result<()> {
        self.until(|sender| {
            let taken = sender.try_stream(bytes).map_err(broken)?;
            bytes = &bytes[taken..];
            Ok(bytes.is_empty())
        })
    }

    /// A part that began at `place` has left. The bulk's place, when it was the last.
    fn part_left(&self, place: u64) -> Option<u64> {
        let mut leaving = self.leaving.lock();
        let at = leaving.iter().position(|(bulk, _)| {
            (bulk.place..bulk.place.saturating_add(bulk.len)).contains(&place)
        })?;
        leaving[at].1 -= 1;
        (leaving[at].1 == 0).then(|| leaving.swap_remove(at).0.place)
    }
}

impl ChannelRead {
    /// Reads some bytes, at least one unless the peer is done.
    ///
    /// # Errors
    /// The connection is gone; `WouldBlock` when nothing came for the lease.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_within(bytes, self.common.lease)
    }

    /// The same, with this patience instead of the lease.
    ///
    /// # Errors
    /// As [`ChannelRead::read`].
    pub fn read_within(&mut self, bytes: &mut [u8], patience: Duration) -> io::Result<usize> {
        let started = Instant::now();
        while self.taken == self.pending.len() {
            if let Some(over) = &self.over {
                return match over {
                    None => Ok(0),
                    Some(reason) => Err(io::Error::other(reason.clone())),
                };
            }
            if self.common.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if started.elapsed() >= patience {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.step(TICK.min(patience))?;
        }
        let rest = &self.pending[self.taken..];
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }

    /// Has bulk put where it is to land, part by part, and waits for all of it.
    ///
    /// # Errors
    /// As [`ChannelRead::read`]; a part that failed.
    pub fn take(&mut self, len: u64, land: Option<&mut dyn Land>) -> io::Result<()> {
        self.arrived.clear();
        self.failed = None;
        let mut wanted: VecDeque<_> = parts(len).collect();
        let Some(land) = land else {
            return wanted.into_iter().try_for_each(|part| {
                self.common.put(Command::Refuse {
                    len: part.end - part.start,
                })
            });
        };
        let mut heard_at = Instant::now();
        // Parts that were asked for and have not come.
        let mut asked = 0;
        while asked > 0 || !wanted.is_empty() {
            while asked < AHEAD
                && let Some(part) = wanted.front()
                && let Some(place) = land.place(part)?
            {
                let len = part.end - part.start;
                self.common.put(Command::Receive { place, len })?;
                wanted.pop_front();
                asked += 1;
            }
            if self.step(TICK)? {
                heard_at = Instant::now();
            }
            while let Some(place) = self.arrived.pop_front() {
                land.arrived(place)?;
                asked = asked.saturating_sub(1);
            }
            if let Some(reason) = self.failed.take() {
                return Err(io::Error::other(format!("bulk did not arrive: {reason}")));
            }
            if let Some(over) = &self.over {
                let reason = over
                    .clone()
                    .unwrap_or_else(|| "in the middle of bulk".into());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            if self.common.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if heard_at.elapsed() >= self.common.lease {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(())
    }

    /// Takes what has come, without waiting. True once the peer is gone.
    pub fn pump(&mut self) -> bool {
        loop {
            match self.step(Duration::ZERO) {
                Ok(true) => {}
                Ok(false) => return self.over.is_some(),
                Err(_) => return true,
            }
        }
    }

    /// Takes one thing, if it comes within `timeout`.
    fn step(&mut self, timeout: Duration) -> io::Result<bool> {
        if self.over.is_some() {
            return Ok(false);
        }
        let Some(message) = self.receiver.next(timeout).map_err(broken)? else {
            return Ok(false);
        };
        match message {
            FromLoop::Stream(bytes) => {
                if self.taken == self.pending.len() {
                    self.pending.clear();
                    self.taken = 0;
                }
                if self.pending.len() + bytes.len() > PENDING_MAX {
                    let what = "the client sends far more than its window";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                self.pending.extend_from_slice(bytes);
            }
            FromLoop::Sent { place } => {
                if let Some(whole) = self.common.part_left(place) {
                    (self.on_sent)(whole);
                }
            }
            FromLoop::Received { place } => self.arrived.push_back(place),
            FromLoop::BulkFailed { place, text, .. } => {
                // A reply that could not be sent is the connection's end, or the client's wish.
                match self.common.part_left(place) {
                    Some(whole) => (self.on_sent)(whole),
                    None => self.failed = Some(text.to_owned()),
                }
            }
            FromLoop::Ended { code, text } => {
                self.over = Some((code != ended::FINISHED).then(|| text.to_owned()));
            }
        }
        Ok(true)
    }
}

impl ChannelWrite {
    /// Writes all of `parts`.
    ///
    /// # Errors
    /// The connection is gone; `WouldBlock` when the peer took nothing for the lease.
    pub fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        parts.iter().try_for_each(|part| self.0.stream(part))
    }

    /// Writes `front`, and has the bulk at `bulk` follow it.
    ///
    /// # Errors
    /// As [`ChannelWrite::write`].
    pub fn write_bulk(&mut self, front: &[u8], bulk: Bulk) -> io::Result<()> {
        self.0.stream(front)?;
        self.0.leaving.lock().push((bulk, parts(bulk.len).count()));
        parts(bulk.len).try_for_each(|part| {
            self.0.put(Command::Send {
                place: bulk.place + part.start,
                len: part.end - part.start,
            })
        })
    }

    /// Has one part of a bulk follow, which is at `part`.
    ///
    /// # Errors
    /// As [`ChannelWrite::write`].
    pub fn write_part(&mut self, part: Bulk) -> io::Result<()> {
        self.0.leaving.lock().push((part, 1));
        self.0.put(Command::Send {
            place: part.place,
            len: part.len,
        })
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        // The connection ends in any case.
        let _ = self.0.put(Command::Finish);
    }
}

impl ChannelCut {
    /// Ends both directions.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
    }
}
