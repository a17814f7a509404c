//! A data connection over a channel to the gateway.
//!
//! One thread reads at a time; others may write meanwhile. Whatever a writer waits for (room in the
//! ring, memory that the gateway gives back) is told in the direction that is read. So a writer
//! that waits while nobody reads takes in what comes by itself: the stream's bytes are kept for the
//! next reader.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use genie_channel::{
    AppCloser, AppHalf, AppSender, ChannelError, Command, FromLoop, STREAM_MAX, ended,
};
use parking_lot::Mutex;

use super::TICK;
use super::inbound::{Coming, Inbound, invalid};
use super::memory::Memory;
use super::unsent::Unsent;

/// How long a writer that waits keeps the others from the ring.
const ROOM_WAIT: Duration = Duration::from_millis(1);

pub(super) struct ChannelLink {
    /// Held for a moment, or for [`ROOM_WAIT`] while the ring is full.
    outbound: Mutex<Outbound>,
    /// Held by the thread that reads, also while it sleeps. Never taken by a thread that holds
    /// `outbound`.
    pub(super) inbound: Mutex<Inbound>,
    pub(super) memory: Memory,
    closer: AppCloser,
    descriptor: RawFd,
    over: OnceLock<End>,
    /// Parts of bulk that have left or come: signs of life, as the other end's transport has said
    /// that it has each byte.
    pub(super) moved: AtomicU64,
}

struct Outbound {
    sender: AppSender,
    /// Where the parts of a small frame become one message.
    scratch: Vec<u8>,
}

/// How the connection ended.
enum End {
    Finished,
    Lost(String),
}

/// What one try to write did.
enum Wrote {
    All,
    Some,
    Nothing,
}

/// Asks `go_on` once a tick, as long as nothing moves.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    fn is_over(&mut self) -> bool {
        let over = self.0.elapsed() >= TICK;
        if over {
            *self = Self::new();
        }
        over
    }
}

impl ChannelLink {
    pub(super) fn new(half: AppHalf) -> io::Result<Self> {
        let closer = half.closer();
        let mapping = half.arena.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the gateway shares no memory for bulk",
            )
        })?;
        Ok(Self {
            memory: Memory::new(mapping)?,
            closer,
            descriptor: half.receiver.fd().as_raw_fd(),
            outbound: Mutex::new(Outbound {
                sender: half.sender,
                scratch: Vec::with_capacity(STREAM_MAX),
            }),
            inbound: Mutex::new(Inbound {
                receiver: half.receiver,
                stash: Vec::new(),
                at: 0,
                coming: VecDeque::new(),
            }),
            over: OnceLock::new(),
            moved: AtomicU64::new(0),
        })
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if buffer.is_empty() {
            return Ok(Some(0));
        }
        let inbound = &mut *self.inbound.lock();
        let deadline = Instant::now() + TICK;
        loop {
            let stashed = inbound.unstash(buffer);
            if stashed > 0 {
                return Ok(Some(stashed));
            }
            self.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match inbound.receiver.next(left).map_err(|e| self.broken(e))? {
                // Past the stash: the most common case, copied once.
                Some(FromLoop::Stream(bytes)) => {
                    let n = bytes.len().min(buffer.len());
                    buffer[..n].copy_from_slice(&bytes[..n]);
                    inbound.stash.extend_from_slice(&bytes[n..]);
                    return Ok(Some(n));
                }
                Some(other) => self.note(other, &mut inbound.coming)?,
                None => return Ok(None),
            }
        }
    }

    pub(super) fn send(
        &self,
        unsent: &mut Unsent<'_>,
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        while unsent.stream_len() > 0 {
            let left = unsent.len();
            let parts = unsent.stream(STREAM_MAX);
            let mut at = 0;
            let written = self.until(&mut || go_on(left), |outbound| {
                let Outbound { sender, scratch } = outbound;
                scratch.clear();
                parts
                    .iter()
                    .for_each(|part| scratch.extend_from_slice(part));
                try_stream(sender, scratch, &mut at)
            });
            unsent.stream_left(at);
            written?;
        }
        self.send_apart(unsent, go_on)
    }

    pub(super) fn put(
        &self,
        command: Command,
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        self.until(go_on, |outbound| {
            Ok(match outbound.sender.try_put(command)? {
                true => Wrote::All,
                false => Wrote::Nothing,
            })
        })
    }

    /// Tries until all is written.
    fn until(
        &self,
        go_on: &mut dyn FnMut() -> io::Result<()>,
        mut try_once: impl FnMut(&mut Outbound) -> Result<Wrote, ChannelError>,
    ) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            let wrote = try_once(&mut self.outbound.lock());
            match wrote.map_err(|error| self.broken(error))? {
                Wrote::All => return Ok(()),
                Wrote::Some => patience = Patience::new(),
                Wrote::Nothing => {}
            }
            // A loop that can tell nothing may take nothing.
            if let Some(mut inbound) = self.inbound.try_lock() {
                self.take_in(&mut inbound, Duration::ZERO)?;
            }
            self.outbound.lock().sender.wait_room(ROOM_WAIT);
            self.tick(&mut patience, go_on)?;
        }
    }

    pub(super) fn tick(
        &self,
        patience: &mut Patience,
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        self.check()?;
        if patience.is_over() {
            if self.outbound.lock().sender.is_gone() {
                return Err(self.broken(ChannelError::Closed));
            }
            go_on()?;
        }
        Ok(())
    }

    /// Takes in what has come, waiting at most `timeout` for the first of it.
    pub(super) fn take_in(&self, inbound: &mut Inbound, timeout: Duration) -> io::Result<bool> {
        let mut wait = timeout;
        let mut came = false;
        loop {
            let message = match wait {
                Duration::ZERO => inbound.receiver.try_next(),
                wait => inbound.receiver.next(wait),
            };
            match message.map_err(|error| self.broken(error))? {
                None => return Ok(came),
                Some(FromLoop::Stream(bytes)) => {
                    Inbound::keep(&mut inbound.stash, &mut inbound.at, bytes)?;
                }
                Some(other) => self.note(other, &mut inbound.coming)?,
            }
            (wait, came) = (Duration::ZERO, true);
        }
    }

    /// Anything but the stream.
    fn note(&self, message: FromLoop<'_>, coming: &mut VecDeque<Coming>) -> io::Result<()> {
        let (place, outcome) = match message {
            FromLoop::Stream(_) => return Ok(()),
            FromLoop::Ended { code, text } => {
                let _ = self.over.set(match code {
                    ended::FINISHED => End::Finished,
                    _ => End::Lost(text.to_owned()),
                });
                return Ok(());
            }
            FromLoop::Sent { place } => {
                self.moved.fetch_add(1, Ordering::Relaxed);
                return match self.memory.left(place) {
                    true => Ok(()),
                    false => Err(invalid("the gateway gave back what it never had")),
                };
            }
            FromLoop::Received { place } => {
                self.moved.fetch_add(1, Ordering::Relaxed);
                (place, Ok(()))
            }
            FromLoop::BulkFailed { place, text, .. } => {
                // What a node does not want, or can't take, it says by itself in the stream.
                if self.memory.left(place) {
                    return Ok(());
                }
                (place, Err(text.to_owned()))
            }
        };
        let waiting = coming
            .iter_mut()
            .find(|part| part.place == place && part.outcome.is_none());
        match waiting {
            Some(part) => {
                part.outcome = Some(outcome);
                Ok(())
            }
            None => Err(invalid("the gateway delivered what nobody asked for")),
        }
    }

    pub(super) fn descriptor(&self) -> i32 {
        self.descriptor
    }

    pub(super) fn arm(&self) -> bool {
        match self.inbound.try_lock() {
            Some(mut inbound) => inbound.at == inbound.stash.len() && inbound.receiver.arm(),
            // Somebody reads, and looks after whatever comes.
            None => true,
        }
    }

    pub(super) fn wait_readable(&self, timeout: Duration) -> bool {
        let mut inbound = self.inbound.lock();
        inbound.at < inbound.stash.len() || inbound.receiver.wait_ready(timeout)
    }

    pub(super) fn trim(&self) {
        self.memory.trim();
    }

    pub(super) fn shutdown(&self) {
        // So that the node ends its side in good order; a full ring has no room for good manners.
        if let Some(mut outbound) = self.outbound.try_lock() {
            let _ = outbound.sender.try_put(Command::Finish);
        }
        self.closer.close();
        // A session that is over may be kept for long.
        self.memory.close();
    }

    /// Fails once the connection is over.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.over.get() {
            None => Ok(()),
            Some(End::Finished) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(End::Lost(text)) => Err(io::Error::other(text.clone())),
        }
    }

    fn broken(&self, error: ChannelError) -> io::Error {
        match (self.check(), error) {
            // The reason that was told says more.
            (Err(reason), _) => reason,
            (Ok(()), ChannelError::Closed) => {
                io::Error::new(io::ErrorKind::ConnectionAborted, "the gateway is gone")
            }
            (Ok(()), error) => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

fn try_stream(sender: &mut AppSender, bytes: &[u8], at: &mut usize) -> Result<Wrote, ChannelError> {
    let taken = sender.try_stream(&bytes[*at..])?;
    *at += taken;
    Ok(match (taken, *at == bytes.len()) {
        (_, true) => Wrote::All,
        (0, false) => Wrote::Nothing,
        (_, false) => Wrote::Some,
    })
}
