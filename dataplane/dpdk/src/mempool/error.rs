//! Why a pool could not be made.

use crate::Errno;

/// Why a pool could not be made or has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// The name is empty, too long or has a NUL.
    #[error("mempool name {0:?} must have 1 to 25 bytes and no NUL")]
    Name(String),
    /// A pool of that name exists.
    #[error("a mempool named {0:?} exists already")]
    NameTaken(String),
    /// A number is out of bounds.
    #[error("mempool {what}: {value} must be {expected}")]
    Value {
        /// Which number.
        what: &'static str,
        /// What was given.
        value: u32,
        /// What is accepted.
        expected: &'static str,
    },
    /// The EAL has not that much memory.
    #[error("the EAL has no memory for mempool {0:?}; start it with more")]
    NoMemory(String),
    /// The external memory has not room for the mbufs' data.
    #[error(
        "{mbufs} mbufs of {element_bytes} bytes do not fit into {bytes} bytes of external memory"
    )]
    ExternalTooSmall {
        /// How many were asked for.
        mbufs: u32,
        /// What each takes, headroom and alignment included.
        element_bytes: u16,
        /// The memory's length.
        bytes: usize,
    },
    /// The pool can't give that many mbufs now.
    #[error("the mempool has no {asked} mbufs left")]
    Exhausted {
        /// How many were asked for.
        asked: usize,
    },
    /// The burst has no room for that many.
    #[error("the burst has room for {room} mbufs, not for {asked}")]
    BurstFull {
        /// How many were asked for.
        asked: usize,
        /// How many fit.
        room: usize,
    },
    /// DPDK is installed without what keeps mempools.
    #[error(
        "DPDK has loaded no mempool driver, so no mempool can be made: librte_mempool_ring.so is not \
         in its folder of drivers (Debian: install librte-meta-mempool)"
    )]
    NoDriver,
    /// Anything else.
    #[error("the mempool can't be made: {0}")]
    Other(Errno),
}
