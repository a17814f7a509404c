//! The application's end of a TCP connection.

use std::io::{self, IoSlice, Read};
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::PIPE_BYTES;
use crate::pipe::Pipe;

/// The application's end of a TCP connection, for any thread and any runtime.
///
/// It behaves like tokio's `TcpStream`: bytes that came before a reset can still be read, shutdown
/// ends only the way out, and dropping it sends what was written and then closes. Reading and
/// writing wait for the handshake; a refused one, or a peer that fell silent, is an error of both.
pub struct PipeStream {
    pipe: Arc<Pipe>,
    local: SocketAddrV4,
    peer: SocketAddrV4,
}

impl PipeStream {
    pub(crate) fn new(pipe: Arc<Pipe>, local: SocketAddrV4, peer: SocketAddrV4) -> Self {
        Self { pipe, local, peer }
    }

    /// Our address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.local
    }

    /// The peer's address and port.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV4 {
        self.peer
    }

    fn write(&self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut shared = self.pipe.lock();
        if let Some(end) = shared.end {
            return Poll::Ready(Err(end.into()));
        }
        if shared.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if !shared.ready || shared.outbound_room() == 0 {
            shared.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        for part in parts {
            let fits = part.len().min(shared.outbound_room());
            shared.outbound.extend(&part[..fits]);
            written += fits;
        }
        drop(shared);
        self.pipe.call();
        Poll::Ready(Ok(written))
    }
}

impl std::fmt::Debug for PipeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PipeStream")
            .field("local", &self.local)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for PipeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut shared = self.pipe.lock();
        if shared.inbound.is_empty() {
            if shared.inbound_ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = shared.end {
                return Poll::Ready(Err(end.into()));
            }
            shared.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let read = shared.inbound.read(buffer.initialize_unfilled());
        let room = shared.inbound_starved && shared.inbound_room() >= PIPE_BYTES / 2;
        shared.inbound_starved &= !room;
        drop(shared);
        if room {
            self.pipe.call();
        }
        buffer.advance(read?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PipeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: the loop sends what it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.pipe.lock().end;
        Poll::Ready(end.map_or(Ok(()), |end| Err(end.into())))
    }

    /// The end follows what was written; nobody waits for it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.lock().shut = true;
        self.pipe.call();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeStream {
    fn drop(&mut self) {
        let mut shared = self.pipe.lock();
        shared.shut = true;
        shared.dropped = true;
        shared.inbound = Default::default();
        let wakers = (shared.reader.take(), shared.writer.take());
        drop(shared);
        drop(wakers);
        self.pipe.call();
    }
}
