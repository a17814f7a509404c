//! A connection's bytes, in the clear or under TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Any bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Wire for S {}

/// What somebody connected by.
pub enum Socket {
    /// The kernel's TCP.
    Tcp(TcpStream),
    /// Something that is no socket of the kernel's.
    Other(Box<dyn Wire>),
}

impl Socket {
    /// Waits until it says something, where that can be seen without taking it.
    pub(crate) async fn wait_readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Other(_) => Ok(()),
        }
    }

    /// Whether blocking threads can use it.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// The socket, to be used by blocking threads.
    ///
    /// # Errors
    /// It is none.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self {
            Self::Tcp(socket) => socket.into_std(),
            Self::Other(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A connection of somebody who was let in.
pub enum Stream {
    /// In the clear.
    Plain(Socket),
    /// Under TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// What it came by.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The socket, and what was agreed on it.
    #[must_use]
    pub fn into_parts(self) -> (Socket, Option<ServerConnection>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Tls(stream) => {
                let (socket, tls) = stream.into_inner();
                (socket, Some(tls))
            }
        }
    }
}

macro_rules! delegate {
    ($name:ident { $($variant:ident),* }) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_read(cx, buf),)*
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write(cx, buf),)*
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write_vectored(cx, parts),)*
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_shutdown(cx),)*
                }
            }
        }
    };
}

delegate!(Socket { Tcp, Other });
delegate!(Stream { Plain, Tls });
