//! The unix socket of a gateway: how a program asks for a channel, for a plain pipe to the node, or
//! for what the gateway has.
//!
//! ```text
//! program: magic "GENIEGW1", kind u8, version u8, body length u16, body
//! gateway: status u8, text length u16, text
//! ```
//! After a relay's answer the socket is a pipe of bytes to the node's port.
//!
//! An attachment has a step more. With the answer come the rings, the client's own eventfd and the
//! arena as open files, in this order.
//! ```text
//! program: mapped u8
//! gateway: status u8, text length u16, text
//! ```
//! Between the two an arena of huge pages is frozen ([`genie_shm::Mapping::freeze`]): who has
//! mapped it goes on, but nobody takes a page out of it any more, whose return could fail and kill
//! the gateway. Only then does the loop touch it. The socket stays open as both sides' sign of life,
//! and the gateway rings the program through it.

mod client;
mod gateway;
mod wire;

pub use client::{attach, info, relay, relay_data};
pub use gateway::{
    Sent, answer_attach, answer_info, answer_nonsense, answer_relay, read_request, refuse,
};
pub use wire::Asking;

use std::io;
use std::path::PathBuf;

use crate::error::ChannelError;
use crate::offer::{Offer, OfferError};

/// What a program asks of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A pipe to the node's port, for a control connection.
    Relay,
    /// A pipe to the node's port for a data connection, which is never put on the DPDK link: there
    /// the data path is a channel.
    RelayData,
    /// A channel to the connection that a node offered.
    Attach(Offer),
    /// What the gateway has.
    Info,
}

/// What a gateway has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// What carries data now: "dpdk" or "tcp".
    pub transport: String,
    /// Why it is no better one.
    pub reason: String,
    /// The node behind it, such as "10.0.0.7:7700".
    pub node: String,
    /// What became of attachments.
    pub arenas: ArenaCounts,
}

/// How many attachments had which memory, since the gateway started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaCounts {
    /// In huge pages.
    pub huge: u64,
    /// In ordinary pages.
    pub ordinary: u64,
    /// Given up: the program did not map it in time, said something else, or went away.
    pub failed: u64,
}

/// How a gateway says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// No channel now, but data may go through a relay instead.
    Fallback = 1,
    /// A person must act.
    Refused = 2,
}

/// Why nothing came of a request.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The gateway has no channel now: send the data through a relay.
    #[error("the gateway has fallen back to TCP: {0}")]
    Fallback(String),
    /// The gateway said no.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// Nobody listens at the socket.
    #[error(
        "no gateway answers at {path}: {source}; is `genie-dataplane --gateway` running, and may \
         this user open its socket?"
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The other side does not speak this protocol.
    #[error("malformed bytes on the gateway's socket: {0}")]
    Malformed(&'static str),
    /// The other side is of another release.
    #[error(
        "a request of version {theirs}, and this gateway's is {ours}: gateway and client must be of \
         one release"
    )]
    Version {
        /// What it speaks.
        theirs: u8,
        /// What is spoken here.
        ours: u8,
    },
    /// The node's offer is none.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The other side did not go on in time, or went away.
    #[error("the gateway's socket: {0}")]
    Io(#[from] io::Error),
    /// A program did not say in time that it has mapped what it was sent.
    #[error("the memory that was sent to a program was not mapped within {0:?}")]
    NotMapped(std::time::Duration),
    /// The channel itself.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}
