//! A byte stream to the node over a socket, plain or under TLS.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConnection;

use super::TICK;
use super::socket::Socket;
use crate::address::{Address, Tls};

/// Reads of at least so much wait until they are full.
const BULK_BYTES: usize = 256 << 10;
/// And take at most so much at a time, so that the caller sees progress.
const BULK_BYTES_MAX: usize = 4 << 20;
/// Ciphertext taken from the socket at a time.
const CIPHER_BYTES: usize = 64 << 10;

struct TlsState {
    connection: ClientConnection,
    /// Ciphertext that is ready for the socket.
    outgoing: Vec<u8>,
    /// Ciphertext from the socket: what lies from `at` on was not taken yet, since rustls holds
    /// a bounded amount of plaintext.
    incoming: Vec<u8>,
    at: usize,
}

/// One data connection over a socket.
pub(super) struct StreamLink {
    socket: Socket,
    /// Held for cryptography only, never while a socket call blocks.
    tls: Option<Mutex<TlsState>>,
}

/// A failed socket call that is only a tick of the clock.
fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
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
        let state = TlsState {
            connection,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            at: 0,
        };
        Ok(Self {
            socket,
            tls: Some(Mutex::new(state)),
        })
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let n = match &self.tls {
            None if buffer.len() >= BULK_BYTES => self.read_bulk(buffer),
            None => (&self.socket).read(buffer),
            Some(tls) => self.read_tls(tls, buffer),
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

    fn read_tls(&self, tls: &Mutex<TlsState>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            {
                let state = &mut *tls.lock();
                loop {
                    match state.connection.reader().read(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        other => return other,
                    }
                    let mut rest = &state.incoming[state.at..];
                    if rest.is_empty() {
                        break;
                    }
                    state.at += state.connection.read_tls(&mut rest)?;
                    state
                        .connection
                        .process_new_packets()
                        .map_err(io::Error::other)?;
                }
            }
            let mut cipher = [0_u8; CIPHER_BYTES];
            let n = (&self.socket).read(&mut cipher)?;
            let mut state = tls.lock();
            if n == 0 {
                let mut end: &[u8] = &[];
                state.connection.read_tls(&mut end)?;
                return Ok(0);
            }
            state.incoming.clear();
            state.incoming.extend_from_slice(&cipher[..n]);
            state.at = 0;
        }
    }

    pub(super) fn write_all(
        &self,
        parts: &[&[u8]],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return self.write_plain(parts, go_on);
        };
        // Records of 16 KiB: bounded ciphertext whatever the size of the tensor.
        for part in parts {
            for piece in part.chunks(256 << 10) {
                let cipher = {
                    let mut state = tls.lock();
                    let mut cipher = std::mem::take(&mut state.outgoing);
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let n = state.connection.writer().write(rest)?;
                        rest = &rest[n..];
                        while state.connection.wants_write() {
                            state.connection.write_tls(&mut cipher)?;
                        }
                    }
                    cipher
                };
                self.write_plain(&[&cipher], go_on)?;
                let mut cipher = cipher;
                cipher.clear();
                tls.lock().outgoing = cipher;
            }
        }
        Ok(())
    }

    fn write_plain(
        &self,
        parts: &[&[u8]],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| IoSlice::new(part))
            .collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            match (&self.socket).write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut slices, n),
                Err(error) if is_tick(&error) => go_on()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub(super) fn wait_readable(&self, timeout: Duration) -> bool {
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
