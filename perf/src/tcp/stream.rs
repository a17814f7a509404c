//! The bytes of a TCP data path, as its two ends have them.

use std::io::{self, IoSlice, Read as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use genie_client::link::Link;
use genie_tls::{is_tick, write_all};

/// A peer that takes nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// How long one system call waits.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that one system call waits for at most.
const WHOLE_BYTES_MAX: usize = 4 << 20;

/// One end's socket.
pub trait Stream {
    /// Reads at least a byte, or `None` after a tick without any. The end of the stream is an
    /// error.
    fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>>;
    /// The same, for bytes that are sure to come: may wait until `into` is full, or for a tick.
    fn read_sure(&self, into: &mut [u8]) -> io::Result<Option<usize>>;
    /// Writes everything.
    fn write(&self, parts: &[&[u8]]) -> io::Result<()>;
    /// To wait on, and to ask.
    fn descriptor(&self) -> RawFd;
    /// Whether it is encrypted.
    fn is_sealed(&self) -> bool;
}

/// The connecting end: Genie's own link.
pub struct Connected {
    /// As a client has it.
    pub link: Link,
    /// Whether it speaks TLS.
    pub sealed: bool,
}

impl Stream for Connected {
    fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.link.read(into)
    }

    fn read_sure(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        // It waits by itself when the buffer is large.
        self.link.read(into)
    }

    fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let began = Instant::now();
        self.link.write_all(parts, &mut || in_time(began))
    }

    fn descriptor(&self) -> RawFd {
        self.link.descriptor()
    }

    fn is_sealed(&self) -> bool {
        self.sealed
    }
}

/// The accepting end, which reads and writes as a node does.
pub struct Accepted {
    socket: TcpStream,
}

impl Accepted {
    /// Over a connection that said its token.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(TICK))?;
        Ok(Self { socket })
    }
}

impl Stream for Accepted {
    fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        some((&self.socket).read(into))
    }

    fn read_sure(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let whole = into.len().min(WHOLE_BYTES_MAX);
        // One system call where there would be many.
        // SAFETY: the buffer is valid for `whole` bytes, and the socket outlives the call.
        let n = unsafe {
            libc::recv(
                self.descriptor(),
                into.as_mut_ptr().cast(),
                whole,
                libc::MSG_WAITALL,
            )
        };
        some(usize::try_from(n).map_err(|_| io::Error::last_os_error()))
    }

    fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let began = Instant::now();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        write_all(&mut &self.socket, &mut slices, &mut |_| in_time(began))
    }

    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn is_sealed(&self) -> bool {
        false
    }
}

fn some(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(error) if is_tick(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn in_time(began: Instant) -> io::Result<()> {
    if began.elapsed() < SILENCE {
        Ok(())
    } else {
        Err(io::ErrorKind::TimedOut.into())
    }
}
