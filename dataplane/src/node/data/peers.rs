//! Values on their way between two devices of one client: within a node by a copy, between nodes over a
//! connection of the session's own. Each way has a thread at its sender, and between nodes one at its
//! receiver.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use genie_channel::BULK_PART_MAX;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, NO_PLACE, PAYLOAD_MAX};
use genie_session::transfer::Transfer;
use rustls::ServerConnection;

use super::landing::{Source, land};
use super::memory::SessionMemory;
use super::running::Running;
use super::session::{Session, spawn};
use super::socket::{SocketRead, SocketWrite, split};
use super::ways::Parcel;

/// How often one who waits for an executor to start looks.
const START_TICK: Duration = Duration::from_micros(200);
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
        let carried = carry(&from, &to, ends, &parcels);
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
pub fn send_over(from: &Arc<Session>, mut half: SocketWrite, ends: Ends) -> io::Result<()> {
    let parcels = from
        .ways
        .open(ends.to)
        .ok_or(io::ErrorKind::AlreadyExists)?;
    let from = Arc::clone(from);
    spawn(format!("peer-{:x}", from.id()), move || {
        if let Err(error) = write(&from, &mut half, &parcels) {
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
    let (half, mut answers, _) = split(socket, tls, to.host().lease);
    answers.write(&mut [IoSlice::new(&Header::new(Kind::Welcome, 0, 0).encode())])?;
    let to = Arc::clone(to);
    spawn(format!("from-{:x}", to.id()), move || {
        let mut half = Incoming {
            half,
            to: &to,
            ends,
            part: None,
        };
        let error = loop {
            if let Err(error) = half.take() {
                break error;
            }
        };
        tell_gone(&to, ends.from, &reason(Err(error)));
    })
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

// ---- within a node ------------------------------------------------------------------------------

fn carry(
    from: &Arc<Session>,
    to: &Weak<Session>,
    ends: Ends,
    parcels: &Receiver<Parcel>,
) -> io::Result<()> {
    while let Ok(parcel) = parcels.recv() {
        let to = to.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        if to.is_over() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let here = executor(&to)?;
        let (Parcel::Fault(transfer, _) | Parcel::Part { transfer, .. }) = &parcel;
        if !ends.are_of(*transfer) {
            return Err(hostile("a value of other devices"));
        }
        match parcel {
            Parcel::Fault(transfer, fault) => tell_fault(&to, here, transfer, fault, ends.from)?,
            Parcel::Part {
                transfer,
                place,
                bytes,
                total,
            } => {
                let mut source = Copied {
                    session: from,
                    running: executor(from)?,
                    parcels,
                    transfer,
                    part: (place, bytes),
                    done: 0,
                };
                let landed = receive(&to, here, total, &mut source);
                source.give_back();
                tell_here(&to, here, transfer, total, landed?)?;
            }
        }
    }
    Ok(())
}

/// The bytes of one transfer, where they lie in the sender's memory.
struct Copied<'a> {
    session: &'a Session,
    running: &'a Running,
    parcels: &'a Receiver<Parcel>,
    transfer: u64,
    part: (u64, u64),
    done: u64,
}

impl Copied<'_> {
    /// The part at hand is not needed any more.
    fn give_back(&self) {
        if self.part.1 > 0 {
            let _ = self.running.place_sent(self.part.0);
        }
    }
}

impl Source for Copied<'_> {
    type Error = io::Error;

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if self.done == self.part.1 {
                self.give_back();
                self.part = (0, 0);
                match self.parcels.recv() {
                    Ok(Parcel::Part {
                        transfer,
                        place,
                        bytes,
                        ..
                    }) if transfer == self.transfer => {
                        (self.part, self.done) = ((place, bytes), 0);
                    }
                    _ => return Err(io::Error::other("a transfer that ends in its midst")),
                }
                continue;
            }
            let n = (self.part.1 - self.done).min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            let mut at = 0;
            read_place(
                self.session,
                self.running,
                self.part.0 + self.done,
                n,
                |bytes| {
                    target[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                    Ok(())
                },
            )?;
            self.done += n;
            into = rest;
        }
        Ok(())
    }
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

/// Nobody takes what still comes: its places go back.
fn drain(session: &Session, parcels: &Receiver<Parcel>) {
    while let Ok(parcel) = parcels.recv() {
        if let (Parcel::Part { place, bytes, .. }, Some(running)) = (parcel, session.running())
            && bytes > 0
        {
            let _ = running.place_sent(place);
        }
    }
}

// ---- between nodes ------------------------------------------------------------------------------

fn write(session: &Session, half: &mut SocketWrite, parcels: &Receiver<Parcel>) -> io::Result<()> {
    while let Ok(parcel) = parcels.recv() {
        match parcel {
            Parcel::Fault(transfer, fault) => {
                let fault = fault.encode();
                let header = Header::new(Kind::TransferFault, transfer, 0);
                let header = header.with_payload(fault.len()).encode();
                half.write(&mut [IoSlice::new(&header), IoSlice::new(&fault)])?;
            }
            Parcel::Part {
                transfer,
                place,
                bytes,
                total,
            } => {
                let header = Header::new(Kind::Transfer, transfer, bytes).with_payload(8);
                let (header, total) = (header.encode(), total.to_le_bytes());
                let mut front: &[&[u8]] = &[&header, &total];
                if bytes == 0 {
                    half.write(&mut [IoSlice::new(&header), IoSlice::new(&total)])?;
                    continue;
                }
                let running = executor(session)?;
                let written = read_place(session, running, place, bytes, |bytes| {
                    let mut parts: Vec<_> = front.iter().map(|part| IoSlice::new(part)).collect();
                    parts.push(IoSlice::new(bytes));
                    front = &[];
                    half.write(&mut parts)
                });
                let _ = running.place_sent(place);
                written?;
                session.host().metrics.peer_bytes_sent.add(bytes);
            }
        }
    }
    Ok(())
}

/// What another node sends, which is not trusted.
struct Incoming<'a> {
    half: SocketRead,
    to: &'a Session,
    ends: Ends,
    /// Of the transfer at hand: its name, its bytes in all, those that were announced and not read,
    /// those that were not announced.
    part: Option<(u64, u64, u64, u64)>,
}

fn hostile(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Incoming<'_> {
    fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.half.read_much(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => into = &mut into[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A node that has nothing to send is silent; the kernel asks whether it is there.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.to.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<Header> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header)?;
        let header = Header::decode(&header).map_err(|_| hostile("a frame header that is none"))?;
        match header.kind {
            Kind::Transfer | Kind::TransferFault if self.ends.are_of(header.seq) => Ok(header),
            Kind::Transfer | Kind::TransferFault => Err(hostile("a value of other devices")),
            _ => Err(hostile("a frame that a node never sends to another")),
        }
    }

    /// The bytes of a transfer in all.
    fn total(&mut self, header: &Header) -> io::Result<u64> {
        let mut total = [0; 8];
        if header.payload_len as usize != total.len() {
            return Err(hostile("a transfer that does not tell how long it is"));
        }
        self.read(&mut total)?;
        Ok(u64::from_le_bytes(total))
    }

    /// Takes one transfer.
    fn take(&mut self) -> io::Result<()> {
        let to = self.to;
        let header = self.header()?;
        if header.kind == Kind::TransferFault {
            let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
            self.read(&mut fault)?;
            let fault = Fault::decode(&fault).map_err(|_| hostile("a fault that is none"))?;
            let running = executor(to)?;
            return tell_fault(to, running, header.seq, fault, self.ends.from);
        }
        let total = self.total(&header)?;
        let left = total.checked_sub(header.aux);
        let left = left.ok_or_else(|| hostile("more bytes than were announced"))?;
        if header.aux == 0 && total > 0 {
            return Err(hostile("a part without bytes"));
        }
        self.part = Some((header.seq, total, header.aux, left));
        let running = executor(to)?;
        let place = receive(to, running, total, self)?;
        tell_here(to, running, header.seq, total, place)
    }
}

impl Source for Incoming<'_> {
    type Error = io::Error;

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let (transfer, total, here, left) =
                self.part.ok_or_else(|| hostile("bytes of no transfer"))?;
            if here == 0 {
                let header = self.header()?;
                let same = header.kind == Kind::Transfer
                    && header.seq == transfer
                    && self.total(&header)? == total;
                let left = left.checked_sub(header.aux);
                let (true, Some(left), 1..) = (same, left, header.aux) else {
                    return Err(hostile("a transfer that is not the one at hand"));
                };
                self.part = Some((transfer, total, header.aux, left));
                continue;
            }
            let n = here.min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            self.read(target)?;
            self.part = Some((transfer, total, here - n, left));
            into = rest;
        }
        Ok(())
    }
}
