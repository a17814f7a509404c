//! Bytes between a client and its node.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use genie_netstack::PipeStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::GatewayConfig;
use crate::fallback::State;

/// Bytes that lie between the two, in each direction.
const BUFFER_BYTES: usize = 64 << 10;

/// What a pipe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Control, which any way will do for.
    Control,
    /// Data, for which TCP on the link would be the worst of both.
    Data,
}

/// A connection to the node.
pub enum Upstream {
    /// By the link's own host.
    Link(PipeStream),
    /// By the kernel's.
    Tcp(TcpStream),
}

impl Upstream {
    /// Connects by the best way there is.
    ///
    /// # Errors
    /// Neither way is configured, or the node does not answer.
    pub async fn connect(
        config: &GatewayConfig,
        state: &State,
        carries: Carries,
    ) -> io::Result<Self> {
        if let (Some(poll), Some(node), Carries::Control) = (&state.poll, config.node_dpdk, carries)
        {
            let stream = poll
                .connect(node)
                .map_err(|error| io::Error::other(error.to_string()))?;
            return Ok(Self::Link(stream));
        }
        let Some(node) = &config.node else {
            return Err(io::Error::other(format!(
                "{}; and `node`, its address by TCP, is not set",
                state.reason
            )));
        };
        let address = node.to_string();
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }
}

/// Passes bytes both ways until either side is done.
///
/// # Errors
/// A side broke off.
pub async fn run(mut client: UnixStream, mut node: Upstream) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut node, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .map(drop)
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Link(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Link(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Link(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Link(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
