//! Bytes on a gateway's socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use genie_shm::seqpacket;

use super::{ArenaCounts, AttachError, Info, Request, Status};
use crate::message::TEXT_MAX;
use crate::offer::Offer;

pub(super) const MAGIC: [u8; 8] = *b"GENIEGW1";
pub(super) const VERSION: u8 = 2;
/// Magic, kind, version, body length.
pub(super) const HELLO_BYTES: usize = 8 + 1 + 1 + 2;
/// Status, text length.
const ANSWER_BYTES: usize = 1 + 2;
const RELAY: u8 = 1;
const ATTACH: u8 = 2;
const INFO: u8 = 3;
const RELAY_DATA: u8 = 4;
pub(super) const OK: u8 = 0;
/// A program's word that it has mapped what came with an answer.
pub(super) const MAPPED: u8 = 0x4d;

/// When a conversation has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    pub(super) fn left(self) -> io::Result<Duration> {
        match self.0.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the other side does not go on",
            )),
            left => Ok(left),
        }
    }

    /// Fills `bytes`, whatever the pace of the other side.
    pub(super) fn read_exact(self, stream: &UnixStream, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            stream.set_read_timeout(Some(self.left()?))?;
            match (&*stream).read(&mut bytes[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => at += n,
                Err(error) if is_tick(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn write_all(self, stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            stream.set_write_timeout(Some(self.left()?))?;
            match (&*stream).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => rest = &rest[n..],
                Err(error) if is_tick(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Relay => (RELAY, Vec::new()),
            Self::RelayData => (RELAY_DATA, Vec::new()),
            Self::Attach(offer) => (ATTACH, offer.encode().to_vec()),
            Self::Info => (INFO, Vec::new()),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend([kind, VERSION]);
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    pub(super) fn read(stream: &UnixStream, deadline: Deadline) -> Result<Self, AttachError> {
        let mut asking = Asking::new();
        loop {
            let room = asking.room();
            let count = room.len();
            deadline.read_exact(stream, room)?;
            if let Some(request) = asking.filled(count)? {
                return Ok(request);
            }
        }
    }
}

/// A request that arrives piece by piece, for who reads the socket himself. It may hold an offer's
/// secret.
pub struct Asking {
    bytes: [u8; HELLO_BYTES + Offer::BYTES],
    have: usize,
    /// As far as is known, no more belongs to it.
    wanted: usize,
}

impl Default for Asking {
    fn default() -> Self {
        Self::new()
    }
}

impl Asking {
    /// Nothing of it is here.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: [0; HELLO_BYTES + Offer::BYTES],
            have: 0,
            wanted: HELLO_BYTES,
        }
    }

    /// Where its next bytes go; never empty. What is beyond is not to be read: it is not the
    /// request's.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.have..self.wanted]
    }

    /// The first `count` bytes of the room were filled. The request, once it is whole.
    ///
    /// # Errors
    /// Bytes that no program of this release sends.
    pub fn filled(&mut self, count: usize) -> Result<Option<Request>, AttachError> {
        self.have = (self.have + count).min(self.wanted);
        if self.have < self.wanted {
            return Ok(None);
        }
        let (hello, body) = self.bytes.split_at(HELLO_BYTES);
        if hello[..8] != MAGIC {
            return Err(AttachError::Malformed("it is no request to a gateway"));
        }
        if hello[9] != VERSION {
            return Err(AttachError::Version {
                theirs: hello[9],
                ours: VERSION,
            });
        }
        let body_len = usize::from(u16::from_le_bytes([hello[10], hello[11]]));
        let request = match (hello[8], body_len) {
            (RELAY, 0) => Request::Relay,
            (RELAY_DATA, 0) => Request::RelayData,
            (INFO, 0) => Request::Info,
            (ATTACH, Offer::BYTES) if self.have < self.bytes.len() => {
                self.wanted = self.bytes.len();
                return Ok(None);
            }
            (ATTACH, Offer::BYTES) => {
                let mut offer = [0; Offer::BYTES];
                offer.copy_from_slice(body);
                Request::Attach(Offer::decode(&offer)?)
            }
            (RELAY | RELAY_DATA | INFO | ATTACH, _) => {
                return Err(AttachError::Malformed("a request's length"));
            }
            _ => return Err(AttachError::Malformed("an unknown kind of request")),
        };
        Ok(Some(request))
    }
}

/// Sends an answer, with open files if there are any.
pub(super) fn write_answer(
    stream: &UnixStream,
    status: u8,
    text: &str,
    files: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> io::Result<()> {
    let text = crate::message::cut(text);
    let mut bytes = vec![status];
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    if files.is_empty() {
        return deadline.write_all(stream, &bytes);
    }
    stream.set_write_timeout(Some(deadline.left()?))?;
    // Short and the first on this socket: the kernel takes it whole.
    seqpacket::send(stream.as_fd(), &bytes, files)
}

/// Reads an answer: its text, and the files with it.
pub(super) fn read_answer(
    stream: &UnixStream,
    deadline: Deadline,
) -> Result<(String, Vec<OwnedFd>), AttachError> {
    let mut head = [0; ANSWER_BYTES];
    let mut files = Vec::new();
    let mut at = 0;
    // Files come with the first byte; nothing is read past the answer, since a relay's bytes
    // follow.
    while at < head.len() {
        stream.set_read_timeout(Some(deadline.left()?))?;
        match seqpacket::receive(stream.as_fd(), &mut head[at..]) {
            Ok((0, _)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok((n, more)) => {
                at += n;
                files.extend(more);
            }
            Err(error) if is_tick(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text_len = usize::from(u16::from_le_bytes([head[1], head[2]]));
    if text_len > TEXT_MAX {
        return Err(AttachError::Malformed("an answer is too long"));
    }
    let mut text = vec![0; text_len];
    deadline.read_exact(stream, &mut text)?;
    let text =
        String::from_utf8(text).map_err(|_| AttachError::Malformed("an answer is not UTF-8"))?;
    match head[0] {
        OK => Ok((text, files)),
        status if status == Status::Fallback as u8 => Err(AttachError::Fallback(text)),
        status if status == Status::Refused as u8 => Err(AttachError::Refused(text)),
        _ => Err(AttachError::Malformed("an unknown status")),
    }
}

impl Info {
    pub(super) fn encode(&self) -> String {
        let line = |value: &str| value.replace(['\n', '\r'], " ");
        format!(
            "transport={}\nnode={}\narenas={},{},{}\nreason={}\n",
            line(&self.transport),
            line(&self.node),
            self.arenas.huge,
            self.arenas.ordinary,
            self.arenas.failed,
            line(&self.reason)
        )
    }

    pub(super) fn decode(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "transport" => info.transport = value.to_owned(),
                "node" => info.node = value.to_owned(),
                "reason" => info.reason = value.to_owned(),
                "arenas" => {
                    let mut counts = value.split(',').map_while(|count| count.parse().ok());
                    let mut next = || counts.next().unwrap_or_default();
                    info.arenas = ArenaCounts {
                        huge: next(),
                        ordinary: next(),
                        failed: next(),
                    };
                }
                // A later gateway may tell more.
                _ => {}
            }
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    #[test]
    fn a_request_in_pieces_of_any_length_is_the_request_and_no_byte_more_is_asked_for() {
        let offer = Offer {
            connection: 7,
            epoch: 9,
            secret: [0xa7; 32],
            sealed: true,
            peer: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 7), 7700),
            mtu_max: 8900,
        };
        let requests = [
            Request::Relay,
            Request::RelayData,
            Request::Info,
            Request::Attach(offer),
        ];
        for (request, piece) in requests
            .iter()
            .flat_map(|one| [(one, 1), (one, 7), (one, 999)])
        {
            let bytes = request.encode();
            let (mut asking, mut at) = (Asking::new(), 0);
            let found = loop {
                let room = asking.room();
                let count = room.len().min(piece);
                assert!(
                    count > 0 && count <= bytes.len() - at,
                    "{request:?} at {at}"
                );
                room[..count].copy_from_slice(&bytes[at..at + count]);
                at += count;
                if let Some(found) = asking.filled(count).unwrap() {
                    break found;
                }
            };
            assert_eq!((&found, at), (request, bytes.len()));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_once_its_head_is_there() {
        let refused = |head: &[u8; HELLO_BYTES]| {
            let mut asking = Asking::new();
            asking.room().copy_from_slice(head);
            asking.filled(HELLO_BYTES)
        };
        for head in [
            b"GET / HTTP/1",
            b"GENIEGW1\x09\x02\0\0",
            b"GENIEGW1\x01\x02\x01\0",
        ] {
            assert!(matches!(refused(head), Err(AttachError::Malformed(_))));
        }
        let other = refused(b"GENIEGW1\x01\x07\0\0");
        assert!(matches!(other, Err(AttachError::Version { theirs: 7, .. })));
    }
}
