//! The session log of Genie: the ordered records of one client session, both ends, as a pure
//! state machine. No torch, no sockets, no clock.
//!
//! - [`frame`]: what travels on a data connection and in the rings to an executor.
//! - [`skeleton`]: how an operator call is split into structure and numbers.
//! - [`record`]: one entry of the log in its normal form.
//! - [`plan`]: a repeated segment, and the prediction of its numbers.
//! - [`client`] and [`node`]: the two ends.
//! - [`times`]: when records ran, for whoever profiles.
//! - [`transfer`]: what passes between the devices of a session.
//! - [`limits`]: every bound, once.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod client;
pub mod fault;
pub mod frame;
pub mod limits;
pub mod machine;
pub mod node;
pub mod outline;
pub mod places;
pub mod plan;
pub mod record;
pub mod replies;
pub mod segment;
pub mod skeleton;
pub mod times;
pub mod transfer;
pub mod varint;

/// Why bytes from a peer were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end in the middle of something.
    #[error("the message is truncated")]
    Truncated,
    /// An integer has more than 64 bits.
    #[error("an integer is longer than 64 bits")]
    Overlong,
    /// A count is past its bound.
    #[error("{got} {what} are too many: at most {max} are allowed")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many came.
        got: u64,
        /// How many may.
        max: usize,
    },
    /// The bytes are not of the documented layout.
    #[error("the message is malformed: {0}")]
    Malformed(&'static str),
    /// The first bytes are not Genie's.
    #[error("the peer does not speak Genie's data protocol")]
    NotGenie,
    /// The peer speaks another version.
    #[error("the peer speaks protocol version {theirs}, this side speaks {ours}: update the older")]
    Version {
        /// The peer's version.
        theirs: u32,
        /// This side's version.
        ours: u32,
    },
}
