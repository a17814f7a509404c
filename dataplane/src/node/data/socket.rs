//! A data connection as two halves for two blocking threads, in the clear or under TLS.

use std::io::{self, IoSlice, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_tls::{TlsRead, TlsWrite};
use nix::sys::socket::{MsgFlags, recv};

/// Bytes that one system call waits for. The client's signs of life are counted between them.
const WHOLE_BYTES: usize = 4 << 20;
/// What a client takes of an answer in a second, at least and on average, beside the lease that each
/// answer has. One that takes less is not waited for.
const TAKEN_PER_SECOND_MIN: u64 = 256 << 10;

/// The half that reads.
pub struct SocketRead {
    socket: Arc<TcpStream>,
    tls: Option<TlsRead>,
}

/// The half that writes.
pub struct SocketWrite {
    socket: Arc<TcpStream>,
    tls: Option<TlsWrite>,
    patience: Duration,
}

/// A socket that is written to until a deadline: its own timeout bounds one call only, and a client
/// may take a byte in each.
struct Timed<'a> {
    socket: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn check(&self) -> io::Result<()> {
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(io::Error::other(
                "the client takes its answer too slowly, or not at all",
            )),
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.socket.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check()?;
        self.socket.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Splits a connection. A write may take `patience`, and longer the more it is.
#[must_use]
pub fn split(
    socket: TcpStream,
    tls: Option<impl Into<genie_tls::Connection>>,
    patience: Duration,
) -> (SocketRead, SocketWrite, Arc<TcpStream>) {
    let socket = Arc::new(socket);
    let (tls_read, tls_write) = tls.map(genie_tls::split).unzip();
    let read = SocketRead {
        socket: Arc::clone(&socket),
        tls: tls_read,
    };
    let write = SocketWrite {
        socket: Arc::clone(&socket),
        tls: tls_write,
        patience,
    };
    (read, write, socket)
}

impl SocketRead {
    /// Reads some bytes, at least one unless the peer is done.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` after the socket's read timeout; TLS violations, of which
    /// one is an end that was not announced (`UnexpectedEof`).
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => (&*self.socket).read(bytes),
            Some(tls) => tls.read(&mut &*self.socket, bytes),
        }
    }

    /// Reads until `bytes` is full, or something comes between; at least one byte unless the peer
    /// is done. For large buffers: a system call fills megabytes instead of waking for each piece.
    ///
    /// # Errors
    /// As [`SocketRead::read`].
    pub fn read_much(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.read(bytes);
        }
        let flags = MsgFlags::MSG_WAITALL;
        let whole = bytes.len().min(WHOLE_BYTES);
        Ok(recv(self.socket.as_raw_fd(), &mut bytes[..whole], flags)?)
    }

    /// Whether the peer closed the connection, asked while nothing is read from it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut polled = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one valid entry, and no waiting.
        let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
        ready > 0 && polled.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }
}

impl SocketWrite {
    /// Writes all of `parts`.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` after the socket's write timeout.
    pub fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let more = Duration::from_secs(bytes as u64 / TAKEN_PER_SECOND_MIN);
        let socket = &mut Timed {
            socket: &self.socket,
            deadline: Instant::now() + self.patience + more,
        };
        match &mut self.tls {
            None => genie_tls::write_all(socket, parts, &mut at_tick),
            Some(tls) => tls.write(socket, parts, &mut at_tick),
        }
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            // The connection ends in any case: what can't be said is left unsaid.
            let _ = tls.finish(&mut &*self.socket, &mut at_tick);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// A signal stops no write; the socket's timeout, which is the lease, does.
fn at_tick(tick: io::Error) -> io::Result<()> {
    match tick.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(tick),
    }
}
