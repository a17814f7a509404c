//! Takes frames off the link. Bytes of a fetch go straight to the memory that waits for them.
//!
//! A reader may stop in the midst of anything, after a tick at most, and whoever comes next goes on.

use std::io;
use std::time::Instant;

use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, PAYLOAD_MAX};

use super::counters::Counters;
use super::heartbeat::Heartbeat;
use super::slots::{Key, Slots};
use crate::link::{Bulk, Link, Part, TICK};

const BUFFER_BYTES: usize = 64 << 10;

/// What was read and not yet handled.
pub(super) struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    incoming: Option<Incoming>,
}

/// Raw bytes that follow the frame which was read last.
struct Incoming {
    key: Key,
    /// They are what was asked for, as far as they go.
    is_wanted: bool,
    way: Way,
}

enum Way {
    /// Inside the stream: bytes that are still to come.
    Stream(u64),
    Apart(Bulk),
}

/// What a reader is read for.
pub(super) struct Desk<'a> {
    pub(super) link: &'a Link,
    pub(super) slots: &'a Slots,
    pub(super) counters: &'a Counters,
    pub(super) heart: &'a Heartbeat,
    /// Takes a frame without raw bytes.
    pub(super) handle: &'a dyn Fn(&Header, &[u8]) -> io::Result<()>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            incoming: None,
        }
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Reader {
    /// True if a header lies in the buffer already.
    #[must_use]
    pub(super) fn has_frame(&self) -> bool {
        self.end - self.start >= HEADER_BYTES
    }

    /// Makes `len` bytes available; false after a tick without them.
    fn need(&mut self, desk: &Desk<'_>, len: usize) -> io::Result<bool> {
        while self.end - self.start < len {
            if self.start > 0 && self.buffer.len() - self.start < len {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() < len {
                // At most a header and PAYLOAD_MAX.
                self.buffer.resize(len, 0);
            }
            match desk.link.read(&mut self.buffer[self.end..])? {
                Some(n) => {
                    desk.heart.heard();
                    self.end += n;
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) {
        self.start += len;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Reads and handles one frame; false after a tick, be it in the midst of one.
    ///
    /// # Errors
    /// The link's, and bytes that no node sends.
    pub(super) fn frame(&mut self, desk: &Desk<'_>) -> io::Result<bool> {
        if self.incoming.is_some() {
            return self.raw(desk);
        }
        if !self.need(desk, HEADER_BYTES)? {
            return Ok(false);
        }
        let mut raw = [0; HEADER_BYTES];
        raw.copy_from_slice(&self.buffer[self.start..self.start + HEADER_BYTES]);
        let header = Header::decode(&raw).map_err(|error| invalid(error.to_string()))?;
        if !header.kind.is_from_node() {
            return Err(invalid("a frame that a node never sends"));
        }
        let whole = HEADER_BYTES + header.payload_len as usize;
        debug_assert!(whole <= HEADER_BYTES + PAYLOAD_MAX);
        if !self.need(desk, whole)? {
            return Ok(false);
        }
        desk.counters.received(whole as u64);
        if header.kind == Kind::Data {
            self.take(whole);
            self.incoming = Some(announced(desk, &header));
            return self.raw(desk);
        }
        let payload = self.start + HEADER_BYTES..self.start + whole;
        let handled = (desk.handle)(&header, &self.buffer[payload]);
        self.take(whole);
        handled.map(|()| true)
    }

    /// Goes on with raw bytes; false if they are not all here after a tick.
    fn raw(&mut self, desk: &Desk<'_>) -> io::Result<bool> {
        let Some(mut incoming) = self.incoming.take() else {
            return Ok(true);
        };
        let over = match &mut incoming.way {
            Way::Stream(left) => self.stream(desk, incoming.key, &mut incoming.is_wanted, left)?,
            Way::Apart(bulk) => apart(desk, incoming.key, &mut incoming.is_wanted, bulk)?,
        };
        if !over {
            self.incoming = Some(incoming);
            return Ok(false);
        }
        if incoming.is_wanted && desk.slots.room(incoming.key) == Some(0) {
            desk.slots.answer(incoming.key, Ok(Vec::new()));
        }
        Ok(true)
    }

    /// Bytes that come inside the stream, to their place or nowhere.
    fn stream(
        &mut self,
        desk: &Desk<'_>,
        key: Key,
        is_wanted: &mut bool,
        left: &mut u64,
    ) -> io::Result<bool> {
        let began = Instant::now();
        let mut scrap = Vec::new();
        while *left > 0 {
            let mut loan = match *is_wanted {
                true => desk.slots.lend(key),
                false => None,
            };
            *is_wanted = loan.is_some();
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            let target = match &mut loan {
                Some(loan) => loan.memory(),
                None => {
                    scrap.resize(BUFFER_BYTES, 0);
                    &mut scrap[..]
                }
            };
            let len = target.len().min(most);
            let target = &mut target[..len];
            let buffered = (self.end - self.start).min(len);
            let n = if buffered > 0 {
                target[..buffered].copy_from_slice(&self.buffer[self.start..self.start + buffered]);
                self.take(buffered);
                Some(buffered)
            } else {
                let n = desk.link.read(target)?;
                if n.is_some() {
                    desk.heart.heard();
                }
                n
            };
            let came = n.unwrap_or(0);
            if let Some(loan) = &mut loan {
                loan.filled(came);
            }
            *left -= came as u64;
            desk.counters.received_raw(came as u64);
            // Whoever reads has to look up once in a while.
            if *left > 0 && (n.is_none() || began.elapsed() > TICK) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What raw bytes were announced for.
fn announced(desk: &Desk<'_>, header: &Header) -> Incoming {
    let key = Key::Wait(header.seq);
    let room = desk.slots.room(key);
    let fits = room.is_some_and(|room| header.aux <= room && (header.aux > 0 || room == 0));
    if room.is_some() && !fits {
        let message = "the node sent more bytes than were asked for";
        let fault = Fault::new(Code::Protocol, u64::MAX, message);
        desk.slots.answer(key, Err(fault));
    }
    Incoming {
        key,
        is_wanted: fits,
        way: match desk.link.takes_apart(header.aux) {
            true => Way::Apart(Bulk::new(header.aux)),
            false => Way::Stream(header.aux),
        },
    }
}

/// Bytes that come apart from the stream.
fn apart(desk: &Desk<'_>, key: Key, is_wanted: &mut bool, bulk: &mut Bulk) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        *is_wanted = *is_wanted && desk.slots.room(key).is_some();
        match desk.link.bulk_part(bulk, *is_wanted)? {
            Part::Here(n) => {
                desk.heart.heard();
                let mut loan = match *is_wanted {
                    true => desk.slots.lend(key),
                    false => None,
                };
                let target = loan.as_mut().map(|loan| &mut loan.memory()[..n]);
                desk.link.land(bulk, target)?;
                if let Some(loan) = &mut loan {
                    loan.filled(n);
                }
                desk.counters.received_raw(n as u64);
            }
            Part::Nothing { heard } => {
                if heard {
                    desk.heart.heard();
                } else {
                    return Ok(false);
                }
            }
            Part::Over(Ok(())) => return Ok(true),
            Part::Over(Err(why)) => {
                let message = format!("the bytes of this tensor were lost on their way: {why}");
                let fault = Fault::new(Code::Protocol, u64::MAX, message);
                desk.slots.answer(key, Err(fault));
                *is_wanted = false;
                return Ok(true);
            }
        }
        if began.elapsed() > TICK {
            return Ok(false);
        }
    }
}
