//! A program's side of a gateway's socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genie_shm::{Mapping, RingConsumer, RingProducer, WaitPolicy};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::wire::{Deadline, MAPPED, read_answer};
use super::{AttachError, Info, Request};
use crate::app::AppHalf;
use crate::doorbell::EventBell;
use crate::error::ChannelError;
use crate::offer::Offer;
use crate::wait::Ear;

/// How long to wait between tries at a socket whose queue is full.
const RETRY: Duration = Duration::from_millis(5);

/// A pipe of bytes to the node's port, through the gateway at `socket`.
///
/// # Errors
/// [`AttachError`].
pub fn relay(socket: &Path, timeout: Duration) -> Result<UnixStream, AttachError> {
    pipe(socket, &Request::Relay, timeout)
}

/// The same for a data connection, where there is no channel.
///
/// # Errors
/// [`AttachError`].
pub fn relay_data(socket: &Path, timeout: Duration) -> Result<UnixStream, AttachError> {
    pipe(socket, &Request::RelayData, timeout)
}

fn pipe(socket: &Path, request: &Request, timeout: Duration) -> Result<UnixStream, AttachError> {
    let (stream, ..) = ask(socket, request, Deadline::after(timeout))?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// A channel to the connection that a node offered, through the gateway at `socket`.
///
/// # Errors
/// [`AttachError`]; after [`AttachError::Fallback`] a relay may carry the data.
pub fn attach(socket: &Path, offer: &Offer, timeout: Duration) -> Result<AppHalf, AttachError> {
    let request = Request::Attach(offer.clone().checked()?);
    let deadline = Deadline::after(timeout);
    let (stream, _, files) = ask(socket, &request, deadline)?;
    let mut files = files.into_iter();
    let mut next = || {
        files
            .next()
            .ok_or(AttachError::Malformed("files are missing from the answer"))
    };
    let map = |file: OwnedFd| Mapping::from_peer(file).map(Arc::new);
    let commands = map(next()?).map_err(ChannelError::from)?;
    let answers = map(next()?).map_err(ChannelError::from)?;
    let event = next()?;
    let arena = next().ok().map(map).transpose();
    let arena = arena.map_err(ChannelError::from)?;
    let commands = RingProducer::open(commands).map_err(ChannelError::from)?;
    let answers = RingConsumer::open(answers, WaitPolicy::default()).map_err(ChannelError::from)?;
    // Now nobody else will map the arena, and the gateway dares to touch it.
    deadline.write_all(&stream, &[MAPPED])?;
    let (link, _) = read_answer(&stream, deadline)?;
    let bell = Arc::new(EventBell(event));
    let ear = Ear::Socket(Arc::new(stream));
    let mut half = AppHalf::new(commands, answers, bell, ear, arena);
    half.link = link;
    Ok(half)
}

/// What the gateway at `socket` has.
///
/// # Errors
/// [`AttachError`].
pub fn info(socket: &Path, timeout: Duration) -> Result<Info, AttachError> {
    let (_, text, _) = ask(socket, &Request::Info, Deadline::after(timeout))?;
    Ok(Info::decode(&text))
}

/// The gateway's answer, if it is yes: the socket, the text and the files that came with it.
fn ask(
    socket: &Path,
    request: &Request,
    deadline: Deadline,
) -> Result<(UnixStream, String, Vec<OwnedFd>), AttachError> {
    let stream = open(socket, deadline).map_err(|source| AttachError::Unreachable {
        path: socket.to_owned(),
        source,
    })?;
    deadline.write_all(&stream, &request.encode())?;
    let (text, files) = read_answer(&stream, deadline)?;
    Ok((stream, text, files))
}

/// Connects; a gateway whose queue is full is asked again until the deadline.
fn open(path: &Path, deadline: Deadline) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let file = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match connect(file.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EAGAIN | Errno::EINTR) => {
                std::thread::sleep(RETRY.min(deadline.left()?));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(file);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
