//! What a program's half sleeps on, and what tells that the other process died.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use genie_shm::Bell;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::doorbell::Doorbell;

/// Where a program's half is rung.
#[derive(Clone, Debug)]
pub(crate) enum Ear {
    /// In one process.
    Local(Doorbell),
    /// Over the socket to the gateway. Its end is heard, too; and neither side can make the other
    /// block on it, since each call on a socket says for itself that it must not.
    Socket(Arc<UnixStream>),
}

impl Ear {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(doorbell) => doorbell.fd(),
            Self::Socket(stream) => stream.as_fd(),
        }
    }

    /// Sleeps until it is rung or for `timeout` (rounded up to milliseconds). False if a signal
    /// came.
    pub(crate) fn sleep(&self, timeout: Duration) -> bool {
        let millis = timeout.as_micros().div_ceil(1000);
        let timeout = i32::try_from(millis)
            .ok()
            .and_then(|millis| PollTimeout::try_from(millis).ok())
            .unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout) != Err(nix::errno::Errno::EINTR)
    }

    /// Wakes this side's own thread.
    pub(crate) fn ring_own(&self) {
        match self {
            Self::Local(doorbell) => doorbell.ring(),
            Self::Socket(stream) => drop(stream.shutdown(std::net::Shutdown::Both)),
        }
    }

    /// Takes all rings so far. False if the other process is gone.
    pub(crate) fn clear(&self) -> bool {
        match self {
            Self::Local(doorbell) => {
                doorbell.clear();
                true
            }
            Self::Socket(stream) => {
                let mut rings = [0; 256];
                match recv(stream.as_raw_fd(), &mut rings, MsgFlags::MSG_DONTWAIT) {
                    Ok(0) => false,
                    Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => true,
                    Err(_) => false,
                }
            }
        }
    }
}

/// Rings the process at the other end of a socket.
#[derive(Debug)]
pub(crate) struct SocketBell(pub(crate) Arc<UnixStream>);

impl Bell for SocketBell {
    fn ring(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // A full socket has rung already, and a closed one has nobody to wake.
        let _ = send(self.0.as_raw_fd(), &[1], flags);
    }
}

/// True once the other end of a socket was closed, whatever may lie in it unread.
pub(crate) fn is_hung_up(stream: &UnixStream) -> bool {
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0].revents().is_some_and(|seen| seen.intersects(gone)),
        Err(_) => false,
    }
}
