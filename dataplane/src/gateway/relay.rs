//! Bytes between a client and its node.

use std::io;

use genie_server::server::Socket;
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

/// Connects to the node by the best way there is.
///
/// # Errors
/// Neither way is configured, or the node does not answer.
pub async fn upstream(
    config: &GatewayConfig,
    state: &State,
    carries: Carries,
) -> io::Result<Socket> {
    if let (Some(poll), Some(node), Carries::Control) = (&state.poll, config.node_dpdk, carries) {
        let stream = poll
            .connect(node)
            .map_err(|error| io::Error::other(error.to_string()))?;
        return Ok(Socket::Other(Box::new(stream)));
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
    Ok(Socket::Tcp(stream))
}

/// Passes bytes both ways until either side is done.
///
/// # Errors
/// A side broke off.
pub async fn run(mut client: UnixStream, mut node: Socket) -> io::Result<()> {
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut node, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .map(drop)
}
