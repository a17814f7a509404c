//! A session that runs no operator: to measure and to test. It needs no torch of its own.

use std::io;
use std::time::Duration;

use genie_control_api::v1::{OpenSessionReply, OpenSessionRequest};
use genie_session::frame::PROTOCOL_VERSION;

use crate::address::{Address, Tls};
use crate::control::{self, Control, ControlError};
use crate::engine::Opened;
use crate::link::Link;
use crate::opening::{self, Why};

/// A session that was opened and welcomed.
pub struct Bare {
    /// The data path.
    pub link: Link,
    /// The control channel.
    pub control: Control,
    /// What the node answered.
    pub opened: OpenSessionReply,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// The control channel.
    #[error("no node answers at {address}: {source}")]
    Control {
        /// Where it was looked for.
        address: Address,
        /// Why not.
        source: ControlError,
    },
    /// The data path.
    #[error("the data path: {0}")]
    Link(#[from] io::Error),
    /// The node turned the data connection away.
    #[error("{0}")]
    Refused(String),
}

/// Opens a session with the node's own torch, which never comes to be compared with another.
///
/// # Errors
/// Nobody there, or refused.
pub fn open(
    address: &Address,
    tls: Option<&Tls>,
    client_version: &str,
    timeout: Duration,
) -> Result<Bare, BareError> {
    let failed = |source| BareError::Control {
        address: address.clone(),
        source,
    };
    let node = control::status(address, tls, timeout).map_err(failed)?;
    let libtorch = node.libtorch.unwrap_or_default();
    let request = OpenSessionRequest {
        protocol_version: PROTOCOL_VERSION,
        client_version: client_version.to_owned(),
        torch_version: libtorch.version,
        schema_hash: libtorch.schema_hash,
        pid: std::process::id(),
        transport_wanted: address.is_gateway(),
        ..OpenSessionRequest::default()
    };
    match opening::device(address, tls, request, timeout) {
        Ok(Opened {
            reply,
            link,
            control,
            ..
        }) => Ok(Bare {
            link,
            control,
            opened: reply,
        }),
        Err(Why::Control(source)) => Err(failed(source)),
        Err(Why::Link(error)) => Err(error.into()),
        Err(why) => Err(BareError::Refused(why.to_string())),
    }
}
