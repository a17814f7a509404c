//! A byte stream to the node over a socket, plain or under TLS.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_tls::{TlsRead, TlsWrite, is_tick};
use parking_lot::Mutex;
use rustls::ClientConnection;

use super::TICK;
use super::socket::Socket;
use super::unsent::{Unsent, slices};
use crate::address::{Address, Tls};

/// Reads of at least so much wait until they are full.
const BULK_BYTES: usize = 256 << 10;
/// Writes that are cut short though so little time passed were cut short by a signal.
const SIGNALLED_WITHIN: Duration = Duration::from_millis(80);
/// How often a writer that gets on is asked all the same.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// And take at most so much at a time, so that the caller sees progress.
const BULK_BYTES_MAX: usize = 4 << 20;

/// One data connection over a socket.
pub(super) struct StreamLink {
    socket: Socket,
    tls: Option<Halves>,
}

/// Each is for one thread at a time, whose calls of the socket may block: a lock keeps to its
/// direction.
struct Halves {
    read: Mutex<TlsRead>,
    write: Mutex<TlsWrite>,
}

/// The socket addresses of a node.
///
/// # Errors
/// A name that does not resolve; a gateway, behind which only its socket is known.
pub fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    let Address::Node { host, port } = address else {
        let text = format!("{address} is a gateway, and no address of a node");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let found: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(found)
}

fn open(address: &Address, timeout: Duration) -> io::Result<Socket> {
    if let Address::Gateway { socket, .. } = address {
        let relayed = genie_channel::attach::relay_data(socket, timeout);
        return relayed.map(Socket::Relay).map_err(io::Error::other);
    }
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for candidate in resolve(address)? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(Socket::Tcp(socket));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl StreamLink {
    /// Connects within `timeout`.
    pub(super) fn connect(
        address: &Address,
        tls: Option<&Tls>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let socket = open(address, timeout)?;
        let Some(tls) = tls else {
            socket.set_timeout(TICK)?;
            return Ok(Self { socket, tls: None });
        };
        socket.set_timeout(timeout)?;
        let mut config = rustls::ClientConfig::clone(&tls.config);
        config.alpn_protocols = vec![b"genie-data/1".to_vec()];
        let name = rustls::pki_types::ServerName::try_from(address.server_name().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut &socket)?;
        }
        socket.set_timeout(TICK)?;
        let (read, write) = genie_tls::split(connection);
        let halves = Halves {
            read: Mutex::new(read),
            write: Mutex::new(write),
        };
        Ok(Self {
            socket,
            tls: Some(halves),
        })
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let n = match &self.tls {
            None if buffer.len() >= BULK_BYTES => self.read_bulk(buffer),
            None => (&self.socket).read(buffer),
            Some(tls) => tls.read.lock().read(&mut &self.socket, buffer),
        };
        match n {
            Ok(0) if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(Some(n)),
            Err(error) if is_tick(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fills as much of `buffer` as comes within a tick, up to a bound: one system call where there
    /// would be many.
    fn read_bulk(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(BULK_BYTES_MAX);
        // SAFETY: the buffer is valid for `len` bytes, and the socket outlives the call.
        let n = unsafe {
            libc::recv(
                self.descriptor(),
                buffer.as_mut_ptr().cast(),
                len,
                libc::MSG_WAITALL,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    pub(super) fn send(
        &self,
        unsent: &mut Unsent<'_>,
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut asked = Instant::now();
        loop {
            let left = unsent.len();
            let began = Instant::now();
            let (mut slices, len) = slices(&unsent.stream(BULK_BYTES_MAX));
            let (sent, result) = match &self.tls {
                None if len == 0 => (0, Ok(())),
                None => match (&self.socket).write_vectored(&slices) {
                    Ok(0) => (0, Err(io::ErrorKind::WriteZero.into())),
                    Ok(n) => (n, Ok(())),
                    Err(error) if is_tick(&error) => (0, go_on(left)),
                    Err(error) => (0, Err(error)),
                },
                Some(tls) => {
                    let mut half = tls.write.lock();
                    let mut parts = &mut slices[..];
                    let result =
                        half.write_from(&mut &self.socket, &mut parts, &mut |_| go_on(left));
                    (
                        len - parts.iter().map(|part| part.len()).sum::<usize>(),
                        result,
                    )
                }
            };
            unsent.stream_left(sent);
            result?;
            if unsent.is_empty() {
                return Ok(());
            }
            let is_signalled = (1..len).contains(&sent) && began.elapsed() < SIGNALLED_WITHIN;
            if is_signalled || asked.elapsed() > ASK_EVERY {
                asked = Instant::now();
                go_on(unsent.len())?;
            }
        }
    }

    /// Whether there is something to read that the socket does not tell of. Whoever reads just now
    /// will find it.
    pub(super) fn has_more(&self) -> bool {
        let half = self.tls.as_ref().and_then(|tls| tls.read.try_lock());
        half.is_some_and(|half| half.has_more())
    }

    pub(super) fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub(super) fn wait_readable(&self, timeout: Duration) -> bool {
        if self.has_more() {
            return true;
        }
        let mut poll = libc::pollfd {
            fd: self.descriptor(),
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd, and its socket outlives the call.
        unsafe { libc::poll(&mut poll, 1, millis) > 0 }
    }

    pub(super) fn shutdown(&self) {
        self.socket.shutdown();
    }
}

#[cfg(test)]
mod tests;
