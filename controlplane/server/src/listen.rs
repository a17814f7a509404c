//! Where a daemon listens.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::values::Address;

/// It can't.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {reason}")]
pub struct ListenError {
    /// Where.
    pub address: String,
    /// Why, and what to do.
    pub reason: String,
}

/// The first of the addresses that `listen` names.
///
/// # Errors
/// It names none.
pub fn resolve(listen: &Address) -> Result<SocketAddr, ListenError> {
    let wrong = |reason: String| ListenError {
        address: listen.to_string(),
        reason,
    };
    let resolved = listen.resolve().map_err(|error| wrong(error.to_string()))?;
    let first = resolved.first().copied();
    first.ok_or_else(|| wrong("the host has no address".to_owned()))
}

/// Whether others than this machine reach it.
#[must_use]
pub fn is_open(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Binds the listener.
///
/// # Errors
/// The port is busy, the address is not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    // SO_REUSEADDR is set, so that a restart need not wait for old connections.
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| ListenError {
        address: address.to_string(),
        reason: match error.kind() {
            ErrorKind::AddrInUse => {
                "the port is taken by another process: stop it, or choose another by `--listen`"
                    .to_owned()
            }
            _ => error.to_string(),
        },
    })
}
