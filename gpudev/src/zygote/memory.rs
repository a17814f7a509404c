//! A session's memory, as the daemon makes it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::ZygoteError;
use crate::device::{Device, Memory};
use crate::pool::{POOL_BYTES_MIN, Pool, PoolConfig};
use crate::pools::Pools;
use crate::pools::handover::{HandoverError, announce, bound_waits};
use genie_shm::arena::Arena;
use genie_shm::mapping::{Mapping, MemoryError};
use genie_shm::seqpacket;
use genie_shm::space::BLOCK_BYTES;

/// The pool from which results are sent has at most so many bytes. What finds no room in it is
/// copied there on its way, in parts.
const OUTBOUND_BYTES: u64 = 64 << 20;
/// Of what a session may use, the outbound pool is at most this part.
const OUTBOUND_PART: u64 = 4;

/// Memory that both processes use, on the host device.
#[derive(Debug)]
pub struct SharedArenas {
    /// This side allocates and fills.
    pub inbound: Arena,
    /// The executor allocates and fills.
    pub outbound: Arc<Mapping>,
}

impl SharedArenas {
    pub(super) fn create(bytes: u64) -> Result<Self, MemoryError> {
        Ok(Self {
            inbound: Arena::create(bytes)?,
            outbound: Arc::new(Mapping::create(bytes.next_multiple_of(BLOCK_BYTES))?),
        })
    }
}

/// Pools of a device, which this process makes and the executor maps.
#[derive(Debug)]
pub struct DevicePools {
    /// This side allocates, and copies uploads there.
    pub inbound: Pools,
    /// The executor allocates; this side copies from it. Its places begin at zero.
    pub outbound: Memory,
    socket: OwnedFd,
}

impl DevicePools {
    /// The pools of a session that may use `bytes_max` bytes, and the executor's end of the socket.
    pub(super) fn create(
        device: &Arc<dyn Device>,
        bytes_max: u64,
    ) -> Result<(Self, OwnedFd), ZygoteError> {
        let (socket, theirs) = seqpacket::pair()?;
        bound_waits(socket.as_fd())?;
        let bytes = OUTBOUND_BYTES.min(bytes_max / OUTBOUND_PART);
        // Its books are the executor's.
        let config = PoolConfig::new(bytes.max(POOL_BYTES_MIN));
        let outbound = Pool::new(&**device, config)?.memory().clone();
        announce(socket.as_fd(), 0, &outbound)?;
        let inbound = Pools::new(Arc::clone(device), outbound.bytes(), bytes_max);
        let pools = Self {
            inbound,
            outbound,
            socket,
        };
        Ok((pools, theirs))
    }

    /// Takes it apart: the books, the outbound pool, and what tells the executor of new pools.
    #[must_use]
    pub fn into_parts(self) -> (Pools, Memory, Announcer) {
        (self.inbound, self.outbound, Announcer(self.socket))
    }
}

/// Tells an executor of its pools.
#[derive(Debug)]
pub struct Announcer(OwnedFd);

impl Announcer {
    /// The pool of `memory`, whose places begin at `base`. Before any place of it is named.
    ///
    /// # Errors
    /// The executor is gone or does not read; the device does not share the pool.
    pub fn announce(&self, base: u64, memory: &Memory) -> Result<(), HandoverError> {
        announce(self.0.as_fd(), base, memory)
    }
}
