//! The reliable tensor transport, as a pure state machine.
//!
//! No sockets, no clock, no threads: a driver calls [`Endpoint::handle`] with each frame that
//! arrives, [`Endpoint::poll_transmit`] until it says `None`, and comes back at
//! [`Endpoint::timeout`]. Tensor bytes pass only through [`Regions`], so a driver may place them by
//! copy, DMA or mbuf. After a connection is opened nothing is allocated.
//!
//! A driver that need not copy takes frames by [`Endpoint::poll_transmit_split`], which names the data
//! where they lie, and one whose NIC puts data into device memory gives them by
//! [`Endpoint::handle_split`]: there the CPU never touches them.
//!
//! The receiver grants a region ([`Connection::grant`]) and tells the sender so, in a message or
//! over the control channel. The sender fills it ([`Connection::send`]). Each byte of a grant is
//! written once, the grant ends with the last, and a late duplicate is dropped and counted.
//!
//! Loss recovery follows RFC 9002, probing of the path's MTU RFC 8899, congestion control Swift
//! ([`Delay`]), sealing RFC 9001. All bounds are in [`limits`].

#![forbid(unsafe_code)]

mod ack;
mod block;
mod checksum;
mod congestion;
mod connection;
mod content;
mod drops;
mod endpoint;
mod error;
mod grants;
mod header;
pub mod limits;
mod messages;
mod mtu;
mod outbox;
mod pacing;
mod payload;
mod pending;
mod protect;
mod ranges;
mod regions;
mod rtt;
mod sent;
mod split;
mod time;
mod wire;

pub use ack::Ack;
pub use block::{Block, Blocks, Grant, RegionId, ResetBy};
pub use checksum::{CHECKSUM_BYTES, crc32c};
pub use congestion::{Controller, Delay};
pub use connection::{Config, ConfigError, Connection, Counters, Credit, Event, PeerId, Status};
pub use drops::{DropCounters, DropReason};
pub use endpoint::{Endpoint, OpenError, Transmit};
pub use error::{ConnectionError, GrantError, MessageError, SendError, TransferError};
pub use header::{ConnectionId, Epoch, HEADER_BYTES, Header, Role, VERSION};
pub use outbox::{Priority, Transfer, TransferId};
pub use payload::{DeviceData, PayloadRef, PayloadToken, Unverified};
pub use protect::{Protection, SEAL_TAG_BYTES, Secret};
pub use regions::{RegionGone, Regions, SourceId, Span};
pub use rtt::Rtt;
pub use split::SplitTransmit;
pub use time::Time;
