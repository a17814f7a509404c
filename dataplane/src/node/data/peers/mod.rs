//! Values on their way between two devices of one client: within a node by a copy, between nodes over a
//! connection of the session's own. Each way has a thread at its sender, and between nodes one at its
//! receiver.

mod apart;
mod incoming;
mod outgoing;
mod within;

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_channel::{AppHalf, BULK_PART_MAX};
use genie_controlplane::sessions::Token;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HELLO_BYTES, Header, Kind, NO_PLACE, TOKEN_BYTES, decode_peer_hello};
use genie_session::transfer::Transfer;
use rustls::ServerConnection;

pub use self::apart::{Apart, Leaving};
use self::incoming::Incoming;
use super::channel;
use super::landing::{Source, land};
use super::link::Carrier;
use super::memory::SessionMemory;
use super::running::Running;
use super::session::{Session, spawn};
use super::socket::split;
use super::stream::{ReadHalf, WriteHalf};
use super::ways::{Parcel, Parcels, Unwanted};

/// How often one who waits for an executor to start looks.
const START_TICK: Duration = Duration::from_micros(200);
/// How long another node may take to come by the link.
const GREETING: Duration = Duration::from_secs(5);
/// How often one who reads looks whether its session is over.
const TICK: Duration = Duration::from_secs(1);
/// A node that is silent is asked so often whether it is there, and so many times.
const KEEP_ALIVE_SECONDS: libc::c_int = 5;
const KEEP_ALIVE_PROBES: libc::c_int = 5;

/// A connection between two nodes: blocking, and the kernel finds out if the other end is gone.
///
/// # Errors
/// The socket's.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TICK))?;
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEP_ALIVE_SECONDS),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEP_ALIVE_SECONDS),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEP_ALIVE_PROBES),
    ] {
        let bytes = size_of_val(&value) as libc::socklen_t;
        // SAFETY: an open socket, and as many bytes of a value as said.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                bytes,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Two logs of one client, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends.
    pub from: u16,
    /// Who receives.
    pub to: u16,
}

impl Ends {
    fn are_of(self, transfer: u64) -> bool {
        let transfer = Transfer(transfer);
        transfer.from() == self.from && transfer.to() == self.to
    }
}

/// Lets `from` send to `to`, a session of the same node.
///
/// # Errors
/// There is a way already; no threads left.
pub fn within(from: &Arc<Session>, to: &Arc<Session>, ends: Ends) -> io::Result<()> {
    let parcels = from
        .ways
        .open(ends.to)
        .ok_or(io::ErrorKind::AlreadyExists)?;
    let (from, to) = (Arc::clone(from), Arc::downgrade(to));
    spawn(format!("peer-{:x}", from.id()), move || {
        let carried = within::carry(&from, &to, ends, &parcels);
        if let Some(to) = to.upgrade() {
            tell_gone(&to, ends.from, &reason(carried));
        }
        drain(&from, &parcels);
    })
}

/// Lets `from` send over a connection that was opened and greeted.
///
/// # Errors
/// As [`within`].
pub fn send_over(
    from: &Arc<Session>,
    (answers, mut half): (ReadHalf, WriteHalf),
    ends: Ends,
    apart: Option<Apart>,
) -> io::Result<()> {
    let parcels = from
        .ways
        .open(ends.to)
        .ok_or(io::ErrorKind::AlreadyExists)?;
    let from = Arc::clone(from);
    let unwanted = Arc::<Unwanted>::default();
    let heard = Arc::clone(&unwanted);
    outgoing::hear(&from, answers, ends, heard, apart.clone())?;
    spawn(format!("peer-{:x}", from.id()), move || {
        if let Err(error) = outgoing::write(&from, &mut half, &parcels, &unwanted, apart.as_ref()) {
            tracing::info!(
                session = from.id(),
                "session {}: nothing more can be sent to log {} of its client: {error}",
                from.id(),
                ends.to
            );
        }
        half.finish();
        drain(&from, &parcels);
    })
}

/// Lets another node in, which has shown that it may send to `to`, and takes what it sends until the
/// connection ends.
///
/// # Errors
/// The socket's; no threads left.
pub fn accept(
    to: &Arc<Session>,
    socket: TcpStream,
    tls: Option<ServerConnection>,
    ends: Ends,
) -> io::Result<()> {
    prepare(&socket)?;
    let (half, answers, _) = split(socket, tls, to.host().lease);
    let (half, mut answers) = (ReadHalf::Socket(half), WriteHalf::Socket(answers));
    welcome(&mut answers)?;
    let to = Arc::clone(to);
    spawn(format!("from-{:x}", to.id()), move || {
        take_all(&to, half, answers, ends, None);
    })
}

/// Waits for another node on a connection of the transport, and takes what it sends once it has shown the
/// `token`, by which `take` lets it in.
///
/// # Errors
/// No threads left.
pub fn expect(
    to: &Arc<Session>,
    (app, carrier): (AppHalf, Carrier),
    token: Token,
    take: impl FnOnce(&[u8; TOKEN_BYTES]) -> Option<(Arc<Session>, Ends)> + Send + 'static,
) -> io::Result<()> {
    let lease = to.host().lease;
    spawn(format!("from-{:x}", to.id()), move || {
        let (mut half, answers, _) = channel::split(app, lease, Box::new(|_| {}));
        let mut hello = [0; HELLO_BYTES];
        let mut have = 0;
        while have < hello.len() {
            match half.read_within(&mut hello[have..], GREETING) {
                Ok(count) if count > 0 => have += count,
                // Nobody came: it goes by TCP, or nowhere.
                _ => return,
            }
        }
        let shown = decode_peer_hello(&hello).ok();
        let Some(shown) = shown.filter(|shown| token.matches(shown)) else {
            return;
        };
        if let Some((to, ends)) = take(&shown) {
            let mut answers = WriteHalf::Channel(answers);
            if welcome(&mut answers).is_ok() {
                let half = ReadHalf::Channel(Box::new(half));
                take_all(&to, half, answers, ends, Some(carrier));
            }
        }
    })
}

fn welcome(answers: &mut WriteHalf) -> io::Result<()> {
    answers.write(&mut [IoSlice::new(&Header::new(Kind::Welcome, 0, 0).encode())])
}

/// Takes what another node sends until its connection ends.
fn take_all(
    to: &Session,
    half: ReadHalf,
    answers: WriteHalf,
    ends: Ends,
    carrier: Option<Carrier>,
) {
    let mut half = Incoming {
        half,
        to,
        ends,
        part: None,
        answers,
        aborted: None,
        is_apart: false,
        carrier,
    };
    let error = loop {
        if let Err(error) = half.take() {
            break error;
        }
    };
    tell_gone(to, ends.from, &reason(Err(error)));
}

fn reason(ended: io::Result<()>) -> String {
    match ended {
        Ok(()) => "its session ended".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "its node closed the connection between the two".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// The client of `session` has lost log `log`, which may still be connected, but says nothing.
pub fn lost(session: &Session, log: u16) {
    tell_gone(session, log, "its node is silent");
}

/// Nothing more comes to `session` from log `log` of its client.
fn tell_gone(session: &Session, log: u16, why: &str) {
    let Some(running) = session.running() else {
        return;
    };
    let message = format!("remote_accelerator:{log}, which was to send a value, is gone: {why}");
    let fault = Fault::new(Code::SessionGone, 0, message).of_log(log);
    let header = Header::new(Kind::PeerGone, u64::from(log), 0);
    // An executor that is gone waits for nothing.
    let _ = tell(session, running, header, &fault.encode());
}

/// The executor of a session, once it has one.
fn executor(session: &Session) -> io::Result<&Running> {
    let deadline = Instant::now() + session.host().lease;
    loop {
        if let Some(running) = session.running() {
            return Ok(running);
        }
        if session.is_over() || Instant::now() > deadline {
            return Err(io::Error::other("its executor does not start"));
        }
        std::thread::sleep(START_TICK);
    }
}

/// Says that a transfer is here, or failed.
fn tell(session: &Session, running: &Running, header: Header, payload: &[u8]) -> io::Result<()> {
    let header = header.with_payload(payload.len());
    let sent = running
        .inbox
        .send(&header, [payload, &[]], || session.is_over());
    sent.map_err(io::Error::other)
}

/// A value without bytes has no place.
fn receive<S: Source>(
    session: &Session,
    running: &Running,
    total: u64,
    source: &mut S,
) -> Result<u64, S::Error> {
    match total {
        0 => Ok(NO_PLACE),
        _ => land(session, running, total, source),
    }
}

fn tell_here(
    session: &Session,
    running: &Running,
    transfer: u64,
    bytes: u64,
    place: u64,
) -> io::Result<()> {
    session.host().metrics.peer_bytes_received.add(bytes);
    let header = Header::new(Kind::Arrived, transfer, bytes);
    tell(session, running, header, &place.to_le_bytes())
}

fn tell_fault(
    session: &Session,
    running: &Running,
    transfer: u64,
    fault: Fault,
    from: u16,
) -> io::Result<()> {
    let header = Header::new(Kind::ArrivedFault, transfer, 0);
    tell(session, running, header, &fault.of_log(from).encode())
}

/// Shows what lies at a place that the executor has named, piece by piece.
fn read_place(
    session: &Session,
    running: &Running,
    place: u64,
    bytes: u64,
    mut show: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let staged = match &running.memory {
        SessionMemory::Shared(shared) => {
            // SAFETY: the bytes are only copied, or passed on to a system call or a cipher.
            let memory = unsafe { shared.outbound.bytes(place, bytes) };
            return show(memory.map_err(io::Error::other)?);
        }
        SessionMemory::Staged(staged) => staged,
    };
    if !staged.holds_reply(place, bytes) {
        return Err(io::Error::other("a value outside its memory"));
    }
    let host = session.host();
    let mut start = 0;
    while start < bytes {
        let len = (bytes - start).min(BULK_PART_MAX);
        let began = Instant::now();
        let give_up = || session.is_over() || began.elapsed() >= host.lease;
        let part = staged.fetch(place + start, len, &host.metrics.staged, give_up);
        let part = part.map_err(io::Error::other)?;
        let shown = staged
            .wait_fetched(&part)
            .map_err(io::Error::other)
            .and_then(|()| {
                // SAFETY: the copy into the slot is done, and the slot is this part's until it is
                // freed.
                let memory = unsafe { staged.outgoing.mapping().bytes(part.slot, part.len) };
                show(memory.map_err(io::Error::other)?)
            });
        staged.outgoing.free(part.slot);
        shown?;
        start += len;
    }
    Ok(())
}

/// What another end says is not what one may say.
fn hostile(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is said of a transfer that its receiver gave up.
fn not_wanted() -> Fault {
    Fault::new(Code::SessionGone, 0, "nobody wants it any more")
}

/// Nobody takes what still comes: its places go back.
fn drain(session: &Session, parcels: &Parcels) {
    while let Some(parcel) = parcels.next() {
        if let (Parcel::Part { place, bytes, .. }, Some(running)) = (parcel, session.running())
            && bytes > 0
        {
            let _ = running.place_sent(place);
        }
    }
}
