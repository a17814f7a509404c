//! Where the loop and an application meet: bytes both ways, bounded, and a flag.
//!
//! The application locks; the loop only tries to, and comes back if the lock is taken, so it never
//! waits for a thread that was preempted. It doesn't even try before the flag says why.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use crate::limits::PIPE_BYTES;

/// "Something to do" for the whole host.
pub(crate) struct Signal {
    raised: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Signal {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            raised: AtomicBool::new(false),
            wake,
        }
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Lowers it, and says whether it was raised.
    pub(crate) fn take(&self) -> bool {
        self.is_raised() && self.raised.swap(false, Ordering::AcqRel)
    }

    /// Raises it, and wakes the loop if it wasn't up.
    fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

/// How a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    #[error("{0} refused the connection; is the service running there, and not full?")]
    Refused(SocketAddrV4),
    #[error("{0} reset the connection")]
    Reset(SocketAddrV4),
    #[error("{0} does not answer")]
    TimedOut(SocketAddrV4),
    #[error("nobody on the link answers for {0}; check the address, the prefix and the cable")]
    Unreachable(SocketAddrV4),
    #[error("the connection to {0} ended with the port that carried it")]
    PortGone(SocketAddrV4),
}

impl From<End> for std::io::Error {
    fn from(end: End) -> Self {
        let kind = match end {
            End::Refused(_) => std::io::ErrorKind::ConnectionRefused,
            End::Reset(_) => std::io::ErrorKind::ConnectionReset,
            End::TimedOut(_) => std::io::ErrorKind::TimedOut,
            End::Unreachable(_) => std::io::ErrorKind::HostUnreachable,
            End::PortGone(_) => std::io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, end)
    }
}

/// What both ends see, under the lock.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// From the peer to the application.
    pub(crate) inbound: VecDeque<u8>,
    /// From the application to the peer.
    pub(crate) outbound: VecDeque<u8>,
    /// The handshake has ended.
    pub(crate) ready: bool,
    /// The peer will send no more than what is in `inbound`.
    pub(crate) inbound_ended: bool,
    /// The loop had more than `inbound` could take.
    pub(crate) inbound_starved: bool,
    /// The application will write no more.
    pub(crate) shut: bool,
    /// The application dropped its end.
    pub(crate) dropped: bool,
    /// The connection is over, and why.
    pub(crate) end: Option<End>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Shared {
    /// Bytes that the application may still write.
    pub(crate) fn outbound_room(&self) -> usize {
        PIPE_BYTES.saturating_sub(self.outbound.len())
    }

    /// Bytes that the loop may still put in.
    pub(crate) fn inbound_room(&self) -> usize {
        PIPE_BYTES.saturating_sub(self.inbound.len())
    }

    /// Who is to be woken, given what is now true.
    pub(crate) fn wakers(&mut self) -> [Option<Waker>; 2] {
        let readable = !self.inbound.is_empty() || self.inbound_ended || self.end.is_some();
        // Half of it at a time, so that a writer isn't woken for every acknowledgement.
        let writable = self.ready && self.outbound_room() >= PIPE_BYTES / 2 || self.end.is_some();
        let reader = readable.then(|| self.reader.take()).flatten();
        let writer = writable.then(|| self.writer.take()).flatten();
        [reader, writer]
    }
}

/// One connection's pipe.
pub(crate) struct Pipe {
    shared: Mutex<Shared>,
    /// The application did something since the loop looked.
    attention: AtomicBool,
    signal: Arc<Signal>,
}

impl Pipe {
    pub(crate) fn new(signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self {
            shared: Mutex::default(),
            attention: AtomicBool::new(false),
            signal,
        })
    }

    /// The application's lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    /// The loop's lock. Without it the pipe asks for attention again.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Shared>> {
        let guard = self.shared.try_lock();
        if guard.is_none() {
            self.attention.store(true, Ordering::Release);
            // The loop itself is asking: nobody to wake.
            self.signal.raised.store(true, Ordering::Release);
        }
        guard
    }

    /// Tells the loop to look. Called without the lock.
    pub(crate) fn call(&self) {
        self.attention.store(true, Ordering::Release);
        self.signal.raise();
    }

    /// Whether the application called since the loop last asked.
    pub(crate) fn called(&self) -> bool {
        self.attention.load(Ordering::Relaxed) && self.attention.swap(false, Ordering::AcqRel)
    }

    /// Ends the connection for the application. It may wait for the lock, which is held for a copy
    /// of at most [`PIPE_BYTES`]; connections don't end often.
    pub(crate) fn fail(&self, end: End) {
        let mut shared = self.shared.lock();
        shared.end.get_or_insert(end);
        let wakers = shared.wakers();
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
