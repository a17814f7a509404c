//! The first bytes of a connection, which tell what it speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use genie_session::frame::{DATA_MAGIC, HELLO_BYTES, PEER_MAGIC};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a connection speaks.
pub enum First {
    /// The data path; this is its whole opening.
    Data([u8; HELLO_BYTES]),
    /// Another node, which brings values; this is its whole opening.
    Peer([u8; HELLO_BYTES]),
    /// Nothing: it closed. Somebody looked whether the port is open.
    Nothing,
    /// Anything else: HTTP will say whether it is its own. These bytes were read already.
    Http(Vec<u8>),
}

/// Reads as little as tells.
///
/// # Errors
/// The peer left in the middle.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<First> {
    let mut hello = [0; HELLO_BYTES];
    let mut have = 0;
    while have < DATA_MAGIC.len() {
        let n = stream.read(&mut hello[have..DATA_MAGIC.len()]).await?;
        if n == 0 && have == 0 {
            return Ok(First::Nothing);
        }
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += n;
        if [DATA_MAGIC, PEER_MAGIC]
            .iter()
            .all(|magic| hello[..have] != magic[..have])
        {
            return Ok(First::Http(hello[..have].to_vec()));
        }
    }
    stream.read_exact(&mut hello[have..]).await?;
    Ok(match hello.starts_with(&PEER_MAGIC) {
        true => First::Peer(hello),
        false => First::Data(hello),
    })
}

/// A stream that gives back what was read ahead.
pub struct Prefixed<S> {
    prefix: Vec<u8>,
    taken: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// `prefix`, then `stream`.
    pub fn new(prefix: Vec<u8>, stream: S) -> Self {
        Self {
            prefix,
            taken: 0,
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken < self.prefix.len() {
            let n = buf.remaining().min(self.prefix.len() - self.taken);
            buf.put_slice(&self.prefix[self.taken..self.taken + n]);
            self.taken += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
