//! A data connection's two halves, whatever carries it: a socket, or a channel to the poll loop.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::channel::{Bulk, ChannelCut, ChannelRead, ChannelWrite};
use super::socket::{SocketRead, SocketWrite};
use super::staging::Land;
use std::net::{Shutdown, TcpStream};

/// The half that reads.
pub enum ReadHalf {
    /// From a socket.
    Socket(SocketRead),
    /// From the poll loop.
    Channel(Box<ChannelRead>),
}

/// The half that writes.
pub enum WriteHalf {
    /// To a socket.
    Socket(SocketWrite),
    /// To the poll loop.
    Channel(ChannelWrite),
}

/// Cuts a connection from anywhere.
pub enum Cut {
    /// A socket.
    Socket(Arc<TcpStream>),
    /// A channel.
    Channel(ChannelCut),
}

impl ReadHalf {
    /// Reads some bytes, at least one unless the peer is done.
    ///
    /// # Errors
    /// Those of what carries it; `WouldBlock` when nothing came for the lease.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(half) => half.read(bytes),
            Self::Channel(half) => half.read(bytes),
        }
    }

    /// Reads until `bytes` is full, or something comes between; at least one byte unless the peer
    /// is done.
    ///
    /// # Errors
    /// As [`ReadHalf::read`].
    pub fn read_much(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(half) => half.read_much(bytes),
            Self::Channel(half) => half.read(bytes),
        }
    }

    /// Whether bulk of this length travels apart from the stream, straight into memory.
    #[must_use]
    pub fn takes_apart(&self, len: u64) -> bool {
        matches!(self, Self::Channel(_)) && len > genie_channel::INLINE_MAX
    }

    /// Has bulk that travels apart put where it is to land, and waits for it. `None`: it is not
    /// wanted, and none of it travels.
    ///
    /// # Errors
    /// As [`ReadHalf::read`]; `Unsupported` where bulk is in the stream.
    pub fn take(&mut self, len: u64, land: Option<&mut dyn Land>) -> io::Result<()> {
        match self {
            Self::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Channel(half) => half.take(len, land),
        }
    }

    /// Does what must not wait for the next read. True once the peer is gone.
    pub fn pump(&mut self) -> bool {
        match self {
            Self::Socket(half) => half.is_gone(),
            Self::Channel(half) => half.pump(),
        }
    }
}

impl WriteHalf {
    /// Writes all of `parts`.
    ///
    /// # Errors
    /// Those of what carries it; `WouldBlock` when the peer took nothing for the lease.
    pub fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        match self {
            Self::Socket(half) => half.write(parts),
            Self::Channel(half) => half.write(parts),
        }
    }

    /// Writes `front`, then `bytes`, which are what is at `bulk`. True once they have left; false
    /// when that will be told later, and the place is to stay as it is.
    ///
    /// # Errors
    /// As [`WriteHalf::write`].
    pub fn write_bulk(&mut self, front: &[u8], bytes: &[u8], bulk: Bulk) -> io::Result<bool> {
        match self {
            Self::Channel(half) if bulk.len > genie_channel::INLINE_MAX => {
                half.write_bulk(front, bulk)?;
                Ok(false)
            }
            other => {
                other.write(&mut [IoSlice::new(front), IoSlice::new(bytes)])?;
                Ok(true)
            }
        }
    }

    /// Writes one part of a bulk of `whole` bytes: `bytes`, which are what is at `part`. As
    /// [`WriteHalf::write_bulk`] otherwise.
    ///
    /// # Errors
    /// As [`WriteHalf::write`].
    pub fn write_part(&mut self, bytes: &[u8], part: Bulk, whole: u64) -> io::Result<bool> {
        match self {
            Self::Channel(half) if whole > genie_channel::INLINE_MAX => {
                half.write_part(part)?;
                Ok(false)
            }
            other => {
                other.write(&mut [IoSlice::new(bytes)])?;
                Ok(true)
            }
        }
    }

    /// Has what is at `part` follow, apart from the stream.
    ///
    /// # Errors
    /// As [`WriteHalf::write`]; `Unsupported` where nothing travels apart.
    pub fn have_follow(&mut self, part: Bulk) -> io::Result<()> {
        match self {
            Self::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Channel(half) => half.write_part(part),
        }
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        match self {
            Self::Socket(half) => half.finish(),
            Self::Channel(half) => half.finish(),
        }
    }
}

impl Cut {
    /// Ends both directions; a thread that waits on the connection returns.
    pub fn cut(&self) {
        match self {
            // It may be closed already.
            Self::Socket(socket) => {
                let _ = socket.shutdown(Shutdown::Both);
            }
            Self::Channel(channel) => channel.cut(),
        }
    }
}
