//! A data connection as two halves for two blocking threads, in the clear or under TLS.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use parking_lot::Mutex;
use rustls::ServerConnection;

/// Ciphertext that one system call takes, and plaintext that is sealed at a time.
const TLS_CHUNK: usize = 64 << 10;

/// Bytes that one system call waits for. The client's signs of life are counted between them.
const WHOLE_BYTES: usize = 4 << 20;

/// The half that reads.
pub struct SocketRead {
    socket: Arc<TcpStream>,
    tls: Option<TlsRead>,
}

struct TlsRead {
    session: Arc<Mutex<ServerConnection>>,
    sealed: Box<[u8]>,
    start: usize,
    end: usize,
}

/// The half that writes.
pub struct SocketWrite {
    socket: Arc<TcpStream>,
    tls: Option<TlsWrite>,
}

struct TlsWrite {
    session: Arc<Mutex<ServerConnection>>,
    sealed: Vec<u8>,
}

/// Splits a connection. The TLS session is shared by both halves and locked for crypto only, never
/// while a thread waits for the socket.
#[must_use]
pub fn split(
    socket: TcpStream,
    tls: Option<ServerConnection>,
) -> (SocketRead, SocketWrite, Arc<TcpStream>) {
    let socket = Arc::new(socket);
    let session = tls.map(|session| Arc::new(Mutex::new(session)));
    let read = SocketRead {
        socket: Arc::clone(&socket),
        tls: session.clone().map(|session| TlsRead {
            session,
            sealed: vec![0; TLS_CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
        }),
    };
    let write = SocketWrite {
        socket: Arc::clone(&socket),
        tls: session.map(|session| TlsWrite {
            session,
            sealed: Vec::new(),
        }),
    };
    (read, write, socket)
}

impl SocketRead {
    /// Reads some bytes, at least one unless the peer is done.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` after the socket's read timeout; TLS violations.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return (&*self.socket).read(bytes);
        };
        loop {
            {
                let mut session = tls.session.lock();
                match session.reader().read(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
                if tls.start < tls.end {
                    let mut sealed = &tls.sealed[tls.start..tls.end];
                    tls.start += session.read_tls(&mut sealed)?;
                    session
                        .process_new_packets()
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    continue;
                }
            }
            (tls.start, tls.end) = (0, (&*self.socket).read(&mut tls.sealed)?);
            if tls.end == 0 {
                return Ok(0);
            }
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
        let Some(tls) = &mut self.tls else {
            return write_all(&self.socket, parts);
        };
        for chunk in parts.iter().flat_map(|part| part.chunks(TLS_CHUNK)) {
            {
                let mut session = tls.session.lock();
                session.writer().write_all(chunk)?;
                while session.wants_write() {
                    session.write_tls(&mut tls.sealed)?;
                }
            }
            (&*self.socket).write_all(&tls.sealed)?;
            tls.sealed.clear();
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            let mut session = tls.session.lock();
            session.send_close_notify();
            // The connection ends in any case: what can't be said is left unsaid.
            while session.wants_write() && session.write_tls(&mut tls.sealed).is_ok() {}
            drop(session);
            let _ = (&*self.socket).write_all(&tls.sealed);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// `write_all` for several buffers, which the standard library does not offer yet.
fn write_all(mut socket: &TcpStream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match socket.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
