//! Why a channel does not go on.

use std::io;

use genie_shm::{MemoryError, RingError};

/// Why a message could not pass.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other half is gone, and what it said before was taken.
    #[error("the other side of the channel is gone")]
    Closed,
    /// The other side wrote what it never could by following the rules. Only this channel ends.
    #[error("the channel is damaged: {0}")]
    Corrupt(&'static str),
    /// This side asked for what is not allowed; nothing was sent.
    #[error("{what} of {len} bytes is not allowed: {rule}")]
    Invalid {
        /// What was asked for.
        what: &'static str,
        /// How long it was.
        len: u64,
        /// What is allowed.
        rule: &'static str,
    },
    /// There is no memory for the channel.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no descriptor for its doorbell.
    #[error("the channel's doorbell: {0}")]
    Doorbell(#[from] io::Error),
}

impl From<RingError> for ChannelError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Closed => Self::Closed,
            RingError::Corrupt(what) => Self::Corrupt(what),
            RingError::TooLong { len, .. } => Self::Invalid {
                what: "a message",
                len,
                rule: "the ring is too small for it",
            },
            RingError::Memory(error) => Self::Memory(error),
        }
    }
}
