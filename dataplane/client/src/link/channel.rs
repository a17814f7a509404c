//! A data connection over a channel to the gateway.
//!
//! One thread reads at a time; others may write meanwhile. Whatever a writer waits for (room in the
//! ring, memory that the gateway gives back) is told in the direction that is read. So a writer
//! that waits while nobody reads takes in what comes by itself: the stream's bytes are kept for the
//! next reader.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use genie_channel::{
    AppCloser, AppHalf, AppReceiver, AppSender, ChannelError, Command, FromLoop, STREAM_MAX, parts,
};
use parking_lot::Mutex;

use super::TICK;
use super::memory::Memory;

/// Parts of a bulk that are asked for ahead.
const AHEAD: usize = 4;
/// How long a writer that waits keeps the others from the ring.
const ROOM_WAIT: Duration = Duration::from_millis(1);
/// How long it waits for the gateway before it looks who else reads.
const MEMORY_WAIT: Duration = Duration::from_millis(5);
/// Bytes of the stream that nobody has read. A session's window keeps a node far below this.
const STASH_MAX: usize = 16 << 20;

pub(super) struct ChannelLink {
    /// Held for a moment, or for [`ROOM_WAIT`] while the ring is full.
    outbound: Mutex<Outbound>,
    /// Held by the thread that reads, also while it sleeps. Never taken by a thread that holds
    /// `outbound`.
    inbound: Mutex<Inbound>,
    memory: Memory,
    closer: AppCloser,
    descriptor: RawFd,
    over: OnceLock<End>,
}

struct Outbound {
    sender: AppSender,
    /// Where the parts of a small frame become one message.
    scratch: Vec<u8>,
}

struct Inbound {
    receiver: AppReceiver,
    /// Bytes of the stream that came while nobody read, from `at` on.
    stash: Vec<u8>,
    at: usize,
    /// Parts that were asked for, and what became of them.
    coming: VecDeque<Coming>,
}

struct Coming {
    place: u64,
    outcome: Option<Result<(), String>>,
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
struct Patience(Instant);

impl Patience {
    fn new() -> Self {
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
                coming: VecDeque::with_capacity(AHEAD),
            }),
            over: OnceLock::new(),
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

    pub(super) fn write_all(
        &self,
        parts: &[&[u8]],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > STREAM_MAX {
            return parts.iter().try_for_each(|part| self.stream(part, go_on));
        }
        let mut at = 0;
        self.until(go_on, |outbound| {
            let Outbound { sender, scratch } = outbound;
            scratch.clear();
            parts
                .iter()
                .for_each(|part| scratch.extend_from_slice(part));
            try_stream(sender, scratch, &mut at)
        })
    }

    /// Bytes of the stream that need no gathering.
    fn stream(&self, bytes: &[u8], go_on: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut at = 0;
        self.until(go_on, |outbound| {
            try_stream(&mut outbound.sender, bytes, &mut at)
        })
    }

    fn put(&self, command: Command, go_on: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
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

    fn tick(
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

    /// Has `raw`, which is too long for the stream, follow what was written.
    pub(super) fn write_bulk(
        &self,
        raw: &[u8],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        for part in parts(raw.len() as u64) {
            let bytes = &raw[part.start as usize..part.end as usize];
            let place = self.room_for(bytes.len() as u64, go_on)?;
            self.memory
                .bytes()
                .write(place, bytes)
                .map_err(io::Error::other)?;
            let len = bytes.len() as u64;
            self.put(Command::Send { place, len }, go_on)?;
        }
        Ok(())
    }

    /// A place for a part that leaves, once there is one.
    fn room_for(&self, len: u64, go_on: &mut dyn FnMut() -> io::Result<()>) -> io::Result<u64> {
        let mut patience = Patience::new();
        loop {
            if let Some(place) = self.memory.for_leaving(len) {
                return Ok(place);
            }
            if let Some(mut inbound) = self.inbound.try_lock() {
                self.take_in(&mut inbound, MEMORY_WAIT)?;
            } else if let Some(place) = self.memory.wait_for_leaving(len, MEMORY_WAIT) {
                return Ok(place);
            }
            self.tick(&mut patience, go_on)?;
        }
    }

    /// Takes in what has come, waiting at most `timeout` for the first of it.
    fn take_in(&self, inbound: &mut Inbound, timeout: Duration) -> io::Result<bool> {
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
                    0 => End::Finished,
                    _ => End::Lost(text.to_owned()),
                });
                return Ok(());
            }
            FromLoop::Sent { place } => {
                return match self.memory.left(place) {
                    true => Ok(()),
                    false => Err(invalid("the gateway gave back what it never had")),
                };
            }
            FromLoop::Received { place } => (place, Ok(())),
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

    /// Gets bulk that the stream announced, part by part.
    pub(super) fn take_bulk(
        &self,
        into: &mut [u8],
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<Result<(), String>> {
        let mut wanted = parts(into.len() as u64).peekable();
        let mut asked: VecDeque<(u64, Range<u64>)> = VecDeque::with_capacity(AHEAD);
        let mut failed = None;
        loop {
            while asked.len() < AHEAD
                && let Some(part) = wanted.peek()
            {
                let len = part.end - part.start;
                if failed.is_some() {
                    self.put(Command::Refuse { len }, &mut || go_on(false))?;
                    wanted.next();
                    continue;
                }
                let Some(place) = self.memory.for_coming(len) else {
                    break;
                };
                self.inbound.lock().coming.push_back(Coming {
                    place,
                    outcome: None,
                });
                self.put(Command::Receive { place, len }, &mut || go_on(false))?;
                asked.extend(wanted.next().map(|part| (place, part)));
            }
            if asked.is_empty() && wanted.peek().is_none() {
                return Ok(failed.map_or(Ok(()), Err));
            }
            let Some(outcome) = self.outcome(asked.front(), go_on)? else {
                continue;
            };
            let Some((place, part)) = asked.pop_front() else {
                continue;
            };
            match outcome {
                Ok(()) => {
                    let target = &mut into[part.start as usize..part.end as usize];
                    let read = self.memory.bytes().read(place, target);
                    read.map_err(io::Error::other)?;
                }
                Err(text) => failed = Some(text),
            }
            self.memory.taken(place);
        }
    }

    /// What became of the part that was asked for first, if that is known after a wait.
    fn outcome(
        &self,
        first: Option<&(u64, Range<u64>)>,
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<Option<Result<(), String>>> {
        let came = {
            let inbound = &mut *self.inbound.lock();
            // Another thread may have taken it in.
            if let Some(outcome) = first.and_then(|(place, _)| inbound.outcome_of(*place)) {
                return Ok(Some(outcome));
            }
            self.check()?;
            self.take_in(inbound, TICK)?
        };
        // Not under the lock: it may write.
        go_on(came)?;
        Ok(None)
    }

    /// Has bulk that the stream announced not sent at all.
    pub(super) fn refuse_bulk(
        &self,
        len: u64,
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in parts(len) {
            let len = part.end - part.start;
            self.put(Command::Refuse { len }, &mut || go_on(false))?;
        }
        Ok(())
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
    }

    /// Fails once the connection is over.
    fn check(&self) -> io::Result<()> {
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

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Inbound {
    /// What became of the part at `place`, once.
    fn outcome_of(&mut self, place: u64) -> Option<Result<(), String>> {
        let is_done = |part: &Coming| part.place == place && part.outcome.is_some();
        let at = self.coming.iter().position(is_done)?;
        self.coming.remove(at)?.outcome
    }

    /// Keeps bytes for the next reader.
    fn keep(stash: &mut Vec<u8>, at: &mut usize, bytes: &[u8]) -> io::Result<()> {
        stash.drain(..std::mem::take(at));
        if stash.len() + bytes.len() > STASH_MAX {
            return Err(invalid("the node says far more than it was asked"));
        }
        stash.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes kept bytes; how many.
    fn unstash(&mut self, buffer: &mut [u8]) -> usize {
        let kept = &self.stash[self.at..];
        let n = kept.len().min(buffer.len());
        buffer[..n].copy_from_slice(&kept[..n]);
        self.at += n;
        if self.at == self.stash.len() {
            self.stash.clear();
            self.at = 0;
        }
        n
    }
}
