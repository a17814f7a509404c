//! Socket to executor.
//!
//! One system call takes as many frames as have come. A frame's payload is copied once, into the
//! ring; the raw bytes of an upload are read straight into the session's memory, or into staging memory
//! where that is a device's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use genie_session::WireError;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, PAYLOAD_MAX};
use genie_shm::clock::now_ns;

use super::end::End;
use super::inbox::Undelivered;
use super::landing::{LandError, Source, land};
use super::link::Link;
use super::running::Running;
use super::session::Session;
use super::staging::Land;
use super::stream::ReadHalf;

/// Bytes that a read takes when nothing is known of what comes. Larger reads would only copy more
/// of an upload.
const READ_BYTES: usize = 64 << 10;
/// Room for the largest frame and a read after it. Pages are taken when they are used.
const BUFFER_BYTES: usize = HEADER_BYTES + PAYLOAD_MAX + READ_BYTES;
/// How long the news of an executor's death may take after its ring closed.
const NEWS_WAIT: Duration = Duration::from_secs(1);
/// A place, before the record of an upload.
const PLACE_BYTES: usize = 8;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client's bytes are not frames that it may send.
    #[error("the client broke the protocol: {0}")]
    Protocol(#[from] WireError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Socket(io::Error),
    /// Nothing came for as long as the lease.
    #[error("the client was silent for longer than its lease")]
    Silent,
    /// The client closed the connection without a goodbye.
    #[error("the client closed the connection")]
    Closed,
    /// The client said goodbye.
    #[error("the client said goodbye")]
    Goodbye,
    /// The session ended elsewhere.
    #[error("the session ended")]
    Ended,
    /// There is no memory for a session.
    #[error(
        "this node has no memory left for another session: wait, or start it with a larger \
         `--node-memory`"
    )]
    NoMemory,
    /// The executor can't be reached.
    #[error("{0}")]
    Executor(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Socket(error),
        }
    }
}

impl From<LandError> for ReadError {
    fn from(error: LandError) -> Self {
        Self::Executor(error.to_string())
    }
}

impl ReadError {
    /// How the session ends by it.
    #[must_use]
    pub fn into_end(self) -> End {
        let reason = self.to_string();
        match self {
            Self::Goodbye | Self::Ended => End::quiet(reason),
            Self::Protocol(_) => End::lost(Fault::new(Code::Protocol, 0, reason)),
            Self::Silent => End::lost(Fault::new(
                Code::SessionGone,
                0,
                format!("{reason}: its session ended; reconnect to go on"),
            )),
            Self::NoMemory => End::lost(Fault::new(Code::OutOfMemory, 0, reason)),
            Self::Executor(_) => End::lost(Fault::new(Code::ExecutorDied, 0, reason)),
            Self::Socket(_) | Self::Closed => End {
                reason,
                fault: None,
                lost: true,
            },
        }
    }
}

/// Bytes from the socket that were not consumed yet.
struct Buffer {
    half: ReadHalf,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// The client wants to know when its frames came.
    is_profiled: bool,
}

impl Buffer {
    /// Reads until `wanted` bytes are there. True when that took reading.
    fn fill(&mut self, wanted: usize) -> Result<bool, ReadError> {
        if self.end - self.start >= wanted {
            return Ok(false);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + wanted > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < wanted {
            let until = (self.start + wanted.max(READ_BYTES)).min(self.bytes.len());
            let n = read(&mut self.half, &mut self.bytes[self.end..until])?;
            self.end += n;
        }
        Ok(true)
    }

    fn have(&self) -> usize {
        self.end - self.start
    }
}

impl Source for Buffer {
    type Error = ReadError;

    /// What is here first, then from the socket.
    fn fill(&mut self, into: &mut [u8]) -> Result<(), ReadError> {
        let here = self.have().min(into.len());
        into[..here].copy_from_slice(&self.bytes[self.start..self.start + here]);
        self.start += here;
        let mut filled = here;
        while filled < into.len() {
            filled += retry(|| self.half.read_much(&mut into[filled..]))?;
        }
        Ok(())
    }

    fn takes_apart(&self, bytes: u64) -> bool {
        self.half.takes_apart(bytes)
    }

    fn take(&mut self, bytes: u64, land: Option<&mut dyn Land>) -> Result<(), ReadError> {
        Ok(self.half.take(bytes, land)?)
    }
}

fn read(half: &mut ReadHalf, into: &mut [u8]) -> Result<usize, ReadError> {
    retry(|| half.read(into))
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> Result<usize, ReadError> {
    loop {
        match read() {
            Ok(0) => return Err(ReadError::Closed),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts the session's executor.
pub type Start<'a> = &'a dyn Fn() -> Result<&'a Running, ReadError>;

/// Reads frames until the session ends, and ends it if nobody else did. `start` is called with the
/// first frame that needs an executor.
pub fn run<'a>(session: &Arc<Session>, link: &'a Link, half: ReadHalf, start: Start<'a>) {
    let mut buffer = Buffer {
        half,
        bytes: vec![0; BUFFER_BYTES].into_boxed_slice(),
        start: 0,
        end: 0,
        is_profiled: false,
    };
    let mut running = None;
    let error = loop {
        if let Err(error) = frame(session, link, &mut buffer, &mut running, start) {
            break error;
        }
    };
    let gone = matches!(error, ReadError::Closed | ReadError::Socket(_));
    if matches!(error, ReadError::Executor(_)) {
        // How it died comes from elsewhere, and says more.
        session.wait_over(NEWS_WAIT);
    }
    session.end(error.into_end());
    // The client may still be writing, and closing now would reset the connection under the last
    // frame to it. So what comes is dropped until the connection is cut.
    while !gone && read(&mut buffer.half, &mut buffer.bytes).is_ok() {}
}

/// Takes one frame.
fn frame<'a>(
    session: &Session,
    link: &Link,
    buffer: &mut Buffer,
    running: &mut Option<&'a Running>,
    start: Start<'a>,
) -> Result<(), ReadError> {
    buffer.fill(HEADER_BYTES)?;
    if session.is_over() {
        return Err(ReadError::Ended);
    }
    let mut raw = [0; HEADER_BYTES];
    raw.copy_from_slice(&buffer.bytes[buffer.start..buffer.start + HEADER_BYTES]);
    let header = Header::decode(&raw)?;
    let payload_len = header.payload_len as usize;
    buffer.fill(HEADER_BYTES + payload_len)?;
    let payload = buffer.start + HEADER_BYTES..buffer.start + HEADER_BYTES + payload_len;
    buffer.start = payload.end;
    session.received((HEADER_BYTES + payload_len) as u64);
    if header.kind != Kind::Ping {
        session.worked();
    }
    match header.kind {
        Kind::Ping => link
            .outgoing
            .send_urgent(
                &Header::new(Kind::Pong, header.seq, header.aux),
                &now_ns().to_le_bytes(),
            )
            .map_err(ReadError::Socket),
        Kind::Goodbye => Err(ReadError::Goodbye),
        Kind::Profile => {
            buffer.is_profiled = header.aux == 1;
            let running = started(running, start)?;
            deliver(session, buffer, running, &header, payload, None)
        }
        Kind::Records | Kind::Rewind => {
            let running = started(running, start)?;
            came(session, buffer, running, None)?;
            deliver(session, buffer, running, &header, payload, None)
        }
        Kind::Bulk => {
            let running = started(running, start)?;
            let began = buffer.is_profiled.then(now_ns);
            let place = place_bulk(session, buffer, running, &header)?;
            came(session, buffer, running, began)?;
            deliver(session, buffer, running, &header, payload, Some(place))
        }
        _ => Err(WireError::Malformed("a frame that only a node may send").into()),
    }
}

/// The executor starts with the first frame that needs it.
fn started<'a>(
    running: &mut Option<&'a Running>,
    start: Start<'a>,
) -> Result<&'a Running, ReadError> {
    match *running {
        Some(known) => Ok(known),
        None => {
            let started = start()?;
            *running = Some(started);
            Ok(started)
        }
    }
}

/// Reads an upload's raw bytes into the session's memory; gives their place.
fn place_bulk(
    session: &Session,
    buffer: &mut Buffer,
    running: &Running,
    header: &Header,
) -> Result<u64, ReadError> {
    session.received_raw(header.aux);
    let place = land(session, running, header.aux, buffer)?;
    // It may have taken a while.
    session.worked();
    Ok(place)
}

/// Tells the executor when the next frame came, if anybody wants to know: `began`, if its raw bytes
/// came after it.
fn came(
    session: &Session,
    buffer: &mut Buffer,
    running: &Running,
    began: Option<u64>,
) -> Result<(), ReadError> {
    if !buffer.is_profiled {
        return Ok(());
    }
    let now = now_ns();
    let header = Header::new(Kind::Came, began.unwrap_or(now), now);
    deliver(session, buffer, running, &header, 0..0, None)
}

/// Hands a frame to the executor, waiting for room while the client is there.
fn deliver(
    session: &Session,
    buffer: &mut Buffer,
    running: &Running,
    header: &Header,
    payload: std::ops::Range<usize>,
    place: Option<u64>,
) -> Result<(), ReadError> {
    let Buffer { half, bytes, .. } = buffer;
    let record = &bytes[payload];
    let place = place.map(u64::to_le_bytes);
    let front: &[u8] = place.as_ref().map_or(&[], |place| place);
    if front.len() + record.len() > PAYLOAD_MAX {
        return Err(WireError::TooMany {
            what: "payload bytes of an upload",
            got: record.len() as u64,
            max: PAYLOAD_MAX - PLACE_BYTES,
        }
        .into());
    }
    let header = header.with_payload(front.len() + record.len());
    let mut gone = false;
    let give_up = || {
        gone = half.pump();
        gone || session.is_over()
    };
    match running.inbox.send(&header, [front, record], give_up) {
        Ok(()) => Ok(()),
        Err(Undelivered::GaveUp) if gone => Err(ReadError::Closed),
        Err(Undelivered::GaveUp) => Err(ReadError::Ended),
        Err(error) => Err(ReadError::Executor(error.to_string())),
    }
}
