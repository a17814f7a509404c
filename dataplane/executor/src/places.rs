//! The memory that this process and the daemon both use: where uploads lie, and where results are
//! sent from. On the host device both are arenas in shared memory; else pools of the device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use genie_gpudev::pools::AttachError;
use genie_gpudev::{AttachedPools, Device, Pool};
use genie_shm::arena::WARM_BYTES;
use genie_shm::{Arena, Mapping, MemoryError};

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// Shared memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A pool.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The pools' socket.
    #[error("the socket for pools: {0}")]
    Socket(#[from] std::io::Error),
}

/// Where uploads lie. The daemon has the books.
#[derive(Debug)]
pub enum Inbound {
    /// Shared memory.
    Shared(Arc<Mapping>),
    /// Pools of the device.
    Pools(AttachedPools),
}

impl Inbound {
    /// The device's address of an upload.
    ///
    /// # Errors
    /// It lies outside, or its pool can't be mapped.
    pub fn address(&mut self, place: u64, bytes: u64) -> Result<u64, PlacesError> {
        match self {
            Self::Shared(mapping) => Ok(mapping.address(place, bytes)?.as_ptr() as u64),
            Self::Pools(pools) => Ok(pools.address(place, bytes)?),
        }
    }

    /// A pool is gone.
    pub fn forget(&mut self, base: u64) {
        let known = match self {
            Self::Shared(_) => false,
            Self::Pools(pools) => pools.forget(base),
        };
        if !known {
            // It may have come and gone before anything of it was named here.
            tracing::debug!(base, "a pool went that was never used");
        }
    }
}

/// Where results are sent from. This process has the books.
#[derive(Debug)]
pub enum Outbound {
    /// Shared memory.
    Shared(Arena),
    /// A pool of the device.
    Pool(Pool),
}

/// How full the outbound memory is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutboundStats {
    /// Its size.
    pub capacity: u64,
    /// Taken.
    pub taken: u64,
    /// How many places are taken.
    pub places: u64,
}

impl Outbound {
    /// A place of `len` bytes, aligned to 64.
    pub fn allocate(&mut self, len: u64) -> Option<u64> {
        match self {
            Self::Shared(arena) => arena.allocate(len),
            Self::Pool(pool) => pool.allocate(len).ok(),
        }
    }

    /// Gives a place back. False where nothing is allocated there.
    pub fn free(&mut self, place: u64) -> bool {
        match self {
            Self::Shared(arena) => arena.free(place).is_ok(),
            Self::Pool(pool) => pool.free(place).is_ok(),
        }
    }

    /// The device's address of `len` bytes at a place, if they lie inside.
    pub fn address(&self, place: u64, len: u64) -> Option<u64> {
        match self {
            Self::Shared(arena) => {
                let address = arena.memory().address(place, len).ok()?;
                Some(address.as_ptr() as u64)
            }
            Self::Pool(pool) => pool.memory().at(place, len).ok(),
        }
    }

    /// Where an address lies in it, if it does.
    pub fn place_of(&self, address: u64) -> Option<u64> {
        let place = address.checked_sub(self.address(0, 0)?)?;
        (place < self.stats().capacity).then_some(place)
    }

    /// Whether the CPU can use it, so that libtorch's own blocks may lie there.
    pub fn is_cpu(&self) -> bool {
        match self {
            Self::Shared(_) => true,
            Self::Pool(pool) => pool.memory().host().is_some(),
        }
    }

    /// How full it is.
    pub fn stats(&self) -> OutboundStats {
        match self {
            Self::Shared(arena) => {
                let stats = arena.stats();
                OutboundStats {
                    capacity: stats.capacity,
                    taken: stats.taken,
                    places: stats.places,
                }
            }
            Self::Pool(pool) => {
                let stats = pool.stats();
                OutboundStats {
                    capacity: stats.capacity_bytes,
                    taken: stats.in_use_bytes,
                    places: stats.places,
                }
            }
        }
    }

    /// Gives free memory back to the system. A pool stays as it is.
    pub fn trim(&mut self) {
        if let Self::Shared(arena) = self {
            arena.trim(0);
        }
    }
}

/// Both, in shared memory.
///
/// # Errors
/// [`PlacesError`].
pub fn shared(inbound: OwnedFd, outbound: OwnedFd) -> Result<(Inbound, Outbound), PlacesError> {
    let map = |file| Mapping::from_peer(file).map(Arc::new);
    let (inbound, outbound) = (map(inbound)?, map(outbound)?);
    let outbound = Outbound::Shared(Arena::over(outbound, WARM_BYTES));
    Ok((Inbound::Shared(inbound), outbound))
}

/// Both, in pools of a device, the first of which is the outbound one.
///
/// # Errors
/// [`PlacesError`].
pub fn pools(device: Arc<dyn Device>, socket: OwnedFd) -> Result<(Inbound, Outbound), PlacesError> {
    let mut inbound = AttachedPools::new(device, socket)?;
    let (base, memory) = inbound.take()?;
    // It is mapped by its own handle from here on, and never named by the daemon.
    inbound.forget(base);
    Ok((Inbound::Pools(inbound), Outbound::Pool(Pool::over(memory))))
}
