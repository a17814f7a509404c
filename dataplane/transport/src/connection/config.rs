//! How a connection is set up.

use std::time::Duration;

use crate::header::{ConnectionId, Epoch, Role};
use crate::limits::{CREDIT_INITIAL, DATA_AT, MTU_MAX, MTU_MIN};
use crate::protect::Protection;

/// The peer, as the driver addresses it; opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub u64);

/// When received bytes stop counting against the credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// As soon as they are written: the write is the end of it.
    WhenWritten,
    /// When the driver says so by `release`: they were staged, and are copied later.
    WhenReleased,
}

/// What both ends agreed on over the control channel, and this end's limits.
#[derive(Clone)]
pub struct Config {
    /// The name of the connection at both ends.
    pub id: ConnectionId,
    /// Whom `poll_transmit` is to name.
    pub peer: PeerId,
    /// Greater than in any connection of this name before.
    pub epoch: Epoch,
    /// Which end this is.
    pub role: Role,
    /// Sealed or checksummed; the same at both ends.
    pub protection: Protection,
    /// Bytes of a frame that surely pass.
    pub mtu: usize,
    /// Bytes of the largest frame to try.
    pub mtu_max: usize,
    /// Bytes that the peer may have in flight or unreleased here.
    pub credit: u64,
    /// When they are released.
    pub credit_when: Credit,
    /// Where the data begin in frames to this peer, in bytes from the start, if it has to be the
    /// same for all: the peer's NIC splits frames there. Control is padded up to it.
    pub data_at: Option<usize>,
    /// The longest that an acknowledgement waits for company.
    pub ack_delay: Duration,
    /// Bytes a second that this end may send at most.
    pub bandwidth_max: Option<u64>,
}

/// What is wrong with a [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Frames too small, too large, or the wrong way round.
    #[error("frames of {mtu} to {mtu_max} bytes: they must be within {MTU_MIN} and {MTU_MAX}")]
    Mtu {
        /// As configured.
        mtu: usize,
        /// As configured.
        mtu_max: usize,
    },
    /// Less than what a peer may take for granted.
    #[error("a credit of {0} bytes: it must be {CREDIT_INITIAL} at least")]
    Credit(u64),
    /// No room for control, or for data.
    #[error("data at byte {0} of a frame: it must be within {DATA_AT:?}")]
    DataAt(usize),
    /// Nothing could be sent.
    #[error("a bandwidth limit of zero")]
    Bandwidth,
}

impl Config {
    /// A sound start: jumbo frames are tried, 8 MiB of credit, acknowledgements within 25 us.
    #[must_use]
    pub fn new(id: ConnectionId, epoch: Epoch, role: Role, protection: Protection) -> Self {
        Self {
            id,
            peer: PeerId(0),
            epoch,
            role,
            protection,
            mtu: MTU_MIN,
            mtu_max: 8900,
            credit: 8 << 20,
            credit_when: Credit::WhenWritten,
            data_at: None,
            ack_delay: Duration::from_micros(25),
            bandwidth_max: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (mtu, mtu_max) = (self.mtu, self.mtu_max);
        if mtu < MTU_MIN || mtu_max < mtu || mtu_max > MTU_MAX {
            return Err(ConfigError::Mtu { mtu, mtu_max });
        }
        if self.credit < CREDIT_INITIAL {
            return Err(ConfigError::Credit(self.credit));
        }
        if let Some(at) = self.data_at.filter(|at| !DATA_AT.contains(at)) {
            return Err(ConfigError::DataAt(at));
        }
        if self.bandwidth_max == Some(0) {
            return Err(ConfigError::Bandwidth);
        }
        Ok(())
    }
}
