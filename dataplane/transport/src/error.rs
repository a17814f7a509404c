//! Why a connection ended, or refuses what the program asks for.

use crate::limits::{GRANTS_MAX, MESSAGE_BYTES_MAX, MESSAGES_MAX, TRANSFERS_MAX};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing came from the peer for too long.
    #[error("the peer is silent: it died, or the link is down")]
    PeerSilent,
    /// The peer sends, but acknowledges nothing.
    #[error("the peer no longer acknowledges: our frames do not reach it")]
    PeerStalled,
    /// The peer said goodbye.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// This end closed it.
    #[error("the connection was closed here")]
    Closed,
}

/// Why a transfer failed; the connection lives, except with the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This end took it back.
    #[error("the transfer was cancelled here")]
    Cancelled,
    /// The other end took it back.
    #[error("the transfer was cancelled by the peer")]
    PeerCancelled,
    /// The source could not be read.
    #[error("the source of the transfer is gone")]
    SourceGone,
    /// The peer got bytes that differ from those that were summed, again and again.
    #[error("the source of the transfer changes while it is sent: leave it alone until it is sent")]
    SourceChanged,
    /// The region could not be written.
    #[error("the region of the grant is gone")]
    RegionGone,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Connection(ConnectionError),
}

/// Why a transfer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing to send.
    #[error("a transfer of zero bytes")]
    Empty,
    /// Its end is beyond 64 bits.
    #[error("the transfer's end is beyond 64 bits")]
    TooLong,
    /// Try again after an event.
    #[error("{TRANSFERS_MAX} transfers are under way or not yet polled")]
    Full,
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] ConnectionError),
}

/// Why a grant was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Nothing to receive.
    #[error("a grant of zero bytes")]
    Empty,
    /// Try again after an event.
    #[error("{GRANTS_MAX} grants are open or not yet polled")]
    Full,
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] ConnectionError),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Make it a transfer.
    #[error("a message of {0} bytes; {MESSAGE_BYTES_MAX} is the most")]
    TooLong(usize),
    /// Try again when the peer has read some.
    #[error("{MESSAGES_MAX} messages are on their way")]
    Full,
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] ConnectionError),
}
