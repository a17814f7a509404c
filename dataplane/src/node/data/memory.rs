//! A session's memory, as its two threads use it: shared with the executor, or on a device and
//! reached through staging memory.

use std::sync::Arc;

use genie_gpudev::zygote::{DevicePools, SharedArenas};
use genie_gpudev::{Device, PoolsStats};
use genie_shm::space::PlaceError;
use genie_shm::{Arena, Mapping};
use parking_lot::Mutex;

use super::staging::{SessionMemoryError, Staged};

/// Where a session's tensors are.
pub enum SessionMemory {
    /// In arenas that the executor maps too.
    Shared(Box<Shared>),
    /// On a device.
    Staged(Box<Staged>),
}

/// Arenas that the executor maps too.
pub struct Shared {
    /// Who has which place of the memory for uploads.
    pub inbound: Mutex<Arena>,
    /// That memory.
    pub inbound_memory: Arc<Mapping>,
    /// The memory for replies.
    pub outbound: Arc<Mapping>,
}

impl From<SharedArenas> for SessionMemory {
    fn from(arenas: SharedArenas) -> Self {
        Self::Shared(Box::new(Shared {
            inbound_memory: Arc::clone(arenas.inbound.memory()),
            inbound: Mutex::new(arenas.inbound),
            outbound: arenas.outbound,
        }))
    }
}

impl SessionMemory {
    /// Pools of a device, with staging memory before them.
    ///
    /// # Errors
    /// [`SessionMemoryError`].
    pub fn on_device(device: &dyn Device, pools: DevicePools) -> Result<Self, SessionMemoryError> {
        Ok(Self::Staged(Box::new(Staged::new(device, pools)?)))
    }

    /// What a poll loop sends from.
    #[must_use]
    pub fn source(&self) -> &Arc<Mapping> {
        match self {
            Self::Shared(shared) => &shared.outbound,
            Self::Staged(staged) => staged.outgoing.mapping(),
        }
    }

    /// What a poll loop receives into.
    #[must_use]
    pub fn sink(&self) -> &Arc<Mapping> {
        match self {
            Self::Shared(shared) => &shared.inbound_memory,
            Self::Staged(staged) => staged.incoming.mapping(),
        }
    }

    /// Bytes that uploads have, until the executor gives their places back.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        match self {
            Self::Shared(shared) => shared.inbound.lock().taken_bytes(),
            Self::Staged(staged) => staged.stats().in_use_bytes,
        }
    }

    /// How full its pools are; without any, none.
    #[must_use]
    pub fn pools(&self) -> PoolsStats {
        match self {
            Self::Shared(_) => PoolsStats::default(),
            Self::Staged(staged) => staged.stats(),
        }
    }

    /// An upload's place is free again. The pool that went with it, if one did.
    ///
    /// # Errors
    /// Nothing was there.
    pub fn free(&self, place: u64) -> Result<Option<u64>, PlaceError> {
        match self {
            Self::Shared(shared) => shared.inbound.lock().free(place).map(|()| None),
            Self::Staged(staged) => staged.free(place),
        }
    }
}
