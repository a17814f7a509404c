//! Takes frames off the link. Bytes of a fetch go straight to the memory that waits for them.

use std::io;

use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, PAYLOAD_MAX};

use super::{Destination, Key, Session, Slot};

const BUFFER_BYTES: usize = 64 << 10;

/// What was read and not yet handled.
pub struct ReadState {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for ReadState {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }
}

impl ReadState {
    /// True if a header lies in the buffer already.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        self.end - self.start >= HEADER_BYTES
    }

    /// Makes `len` bytes available; false after a tick without them.
    fn need(&mut self, session: &Session, len: usize) -> io::Result<bool> {
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
            match session.link.read(&mut self.buffer[self.end..])? {
                Some(n) => {
                    session.heard();
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

    /// Reads and handles one frame; false after a tick without one.
    ///
    /// # Errors
    /// The link's, and bytes that no node sends.
    pub fn frame(&mut self, session: &Session) -> io::Result<bool> {
        if !self.need(session, HEADER_BYTES)? {
            return Ok(false);
        }
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut raw = [0; HEADER_BYTES];
        raw.copy_from_slice(&self.buffer[self.start..self.start + HEADER_BYTES]);
        let header = Header::decode(&raw).map_err(|error| invalid(error.to_string()))?;
        if !header.kind.is_from_node() {
            return Err(invalid("a frame that a node never sends".to_owned()));
        }
        let whole = HEADER_BYTES + header.payload_len as usize;
        debug_assert!(whole <= HEADER_BYTES + PAYLOAD_MAX);
        if !self.need(session, whole)? {
            return Ok(false);
        }
        session.counters.received(whole as u64);
        if header.kind == Kind::Data {
            self.take(whole);
            self.data(session, &header)?;
            return Ok(true);
        }
        let payload = self.start + HEADER_BYTES..self.start + whole;
        let handled = session.handle(&header, &self.buffer[payload]);
        self.take(whole);
        handled.map(|()| true)
    }

    fn data(&mut self, session: &Session, header: &Header) -> io::Result<()> {
        let key = Key::Wait(header.seq);
        let wanted = {
            let mut slots = session.slots.lock();
            match slots.get_mut(&key) {
                Some(slot @ Slot::Pending(_)) => {
                    let Slot::Pending(place) = std::mem::replace(slot, Slot::Receiving) else {
                        return Ok(());
                    };
                    Some(place)
                }
                _ => None,
            }
        };
        let fits = wanted.filter(|place| {
            let left = (place.len - place.at) as u64;
            header.aux <= left && (header.aux > 0 || left == 0)
        });
        let came = if session.link.takes_apart(header.aux) {
            bulk(session, header.aux, fits)?
        } else {
            self.raw_bytes(session, header.aux, fits)?;
            Ok(())
        };
        session.counters.received_raw(header.aux);
        match fits {
            Some(_) if came.is_err() => {
                let message = format!(
                    "the bytes of this tensor were lost on their way: {}",
                    came.err().unwrap_or_default()
                );
                session.answer(key, Err(Fault::new(Code::Protocol, u64::MAX, message)));
            }
            Some(place) => {
                let at = place.at + header.aux as usize;
                if at < place.len {
                    session.part(key, Destination { at, ..place });
                } else {
                    session.answer(key, Ok(Vec::new()));
                }
            }
            None if wanted.is_some() => {
                let message = "the node sent more bytes than were asked for";
                session.answer(key, Err(Fault::new(Code::Protocol, u64::MAX, message)));
            }
            None => {}
        }
        Ok(())
    }

    /// Reads `len` bytes to `place`, or drops them.
    fn raw_bytes(
        &mut self,
        session: &Session,
        len: u64,
        place: Option<Destination>,
    ) -> io::Result<()> {
        let mut left = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "too many bytes"))?;
        let mut at = place.map_or(0, |place| place.at);
        let mut scrap = if place.is_none() {
            vec![0_u8; BUFFER_BYTES]
        } else {
            Vec::new()
        };
        while left > 0 {
            let target: &mut [u8] = match place {
                // SAFETY: the memory is valid for `place.len` bytes while its slot says Receiving
                // (its owner waits), and `at + left` is at most that.
                Some(place) => unsafe {
                    std::slice::from_raw_parts_mut(place.pointer.add(at), left)
                },
                None => {
                    let n = left.min(scrap.len());
                    &mut scrap[..n]
                }
            };
            let buffered = (self.end - self.start).min(target.len());
            let n = if buffered > 0 {
                target[..buffered].copy_from_slice(&self.buffer[self.start..self.start + buffered]);
                self.take(buffered);
                buffered
            } else {
                match session.link.read(target)? {
                    Some(n) => {
                        session.heard();
                        n
                    }
                    None => {
                        session
                            .check()
                            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
                        session.node_answers()?;
                        0
                    }
                }
            };
            at += n;
            left -= n;
        }
        Ok(())
    }
}

/// Gets bytes that do not come inside the stream to `place`, or has them dropped. `Ok(Err(_))` if
/// they will never come.
fn bulk(session: &Session, len: u64, place: Option<Destination>) -> io::Result<Result<(), String>> {
    let target = place.map(|place| {
        // SAFETY: the memory is valid for `place.len` bytes while its slot says Receiving (its owner
        // waits), and `place.at + len` is at most that.
        unsafe { std::slice::from_raw_parts_mut(place.pointer.add(place.at), len as usize) }
    });
    session.link.take_bulk(len, target, &mut |heard| {
        if heard {
            session.heard();
            return Ok(());
        }
        session
            .check()
            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
        session.node_answers()
    })
}
