//! Why a pool did not do it.

use super::{POOL_BYTES_MAX, POOL_BYTES_MIN};
use crate::device::{DeviceError, DeviceKind};

/// Why a pool did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No run of blocks is long enough.
    #[error(
        "the pool of {device} has no {asked} bytes in a row: {free} are free, the longest run has \
         {largest}; {}", advice(*asked, *free, *room)
    )]
    Exhausted {
        /// Whose memory it is.
        device: DeviceKind,
        /// What was asked for.
        asked: u64,
        /// Bytes in free blocks.
        free: u64,
        /// Bytes of the longest run of free blocks.
        largest: u64,
        /// Bytes by which the pool may still grow.
        room: u64,
    },
    /// Nothing is allocated there.
    #[error("no memory is allocated at place {0}")]
    NoPlace(u64),
    /// A transfer, an alias or a graph names it.
    #[error("place {place} is pinned {pins} times: unpin it first")]
    Pinned {
        /// Which place.
        place: u64,
        /// How often.
        pins: u32,
    },
    /// It has no pin to take away.
    #[error("place {0} is not pinned")]
    NotPinned(u64),
    /// A size that no pool has.
    #[error("a pool of {0} bytes: it must have {POOL_BYTES_MIN} to {POOL_BYTES_MAX}")]
    Size(u64),
    /// More than was reserved when the pool was made.
    #[error("a pool of {bytes} bytes: {bytes_max} were reserved for it; make another pool")]
    BeyondReserve {
        /// What was asked for.
        bytes: u64,
        /// What was reserved.
        bytes_max: u64,
    },
    /// Places lie in the part that was to go.
    #[error(
        "the pool can't shrink to {bytes} bytes: places lie up to {taken_end}; compact it first"
    )]
    TailTaken {
        /// What was asked for.
        bytes: u64,
        /// The end of the last place.
        taken_end: u64,
    },
    /// The device refused.
    #[error(transparent)]
    Device(DeviceError),
}

fn advice(asked: u64, free: u64, room: u64) -> &'static str {
    if free >= asked {
        "compact it"
    } else if free.saturating_add(room) >= asked {
        "grow it"
    } else {
        "free some"
    }
}
