//! Pools that another process made.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::POOLS_MAX;
use super::handover::{self, HandoverError};
use crate::device::{Device, DeviceError, Memory};

/// Why a place is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It did not come, or not as it should.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The device does not map it.
    #[error("a pool can't be mapped: {0}")]
    Device(#[from] DeviceError),
    /// It is in no pool that was announced.
    #[error("place {place} with {len} bytes is in no pool")]
    NoPool {
        /// Where.
        place: u64,
        /// How long.
        len: u64,
    },
    /// More pools than a session has.
    #[error("more than {POOLS_MAX} pools were announced")]
    Full,
}

/// The pools of a session, as its executor maps them.
pub struct AttachedPools {
    device: Arc<dyn Device>,
    socket: OwnedFd,
    pools: BTreeMap<u64, Memory>,
}

impl AttachedPools {
    /// Over the socket on which they are announced.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn new(device: Arc<dyn Device>, socket: OwnedFd) -> std::io::Result<Self> {
        handover::bound_waits(socket.as_fd())?;
        Ok(Self {
            device,
            socket,
            pools: BTreeMap::new(),
        })
    }

    /// Waits for the next pool and maps it; where it begins, and its memory.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn take(&mut self) -> Result<(u64, Memory), AttachError> {
        let pool = handover::receive(self.socket.as_fd())?;
        if self.pools.len() >= POOLS_MAX {
            return Err(AttachError::Full);
        }
        let memory = self.device.attach(pool.parts)?;
        self.pools.insert(pool.base, memory.clone());
        Ok((pool.base, memory))
    }

    /// The device's address of `len` bytes at `place`, waiting for the pool if it was not read yet.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn address(&mut self, place: u64, len: u64) -> Result<u64, AttachError> {
        loop {
            let pool = self.pools.range(..=place).next_back();
            if let Some((base, memory)) = pool
                && place - base < memory.bytes()
            {
                let inside = memory.at(place - base, len);
                return inside.map_err(|_| AttachError::NoPool { place, len });
            }
            // Pools are announced in the order of their places.
            let (base, _) = self.take()?;
            if base > place {
                return Err(AttachError::NoPool { place, len });
            }
        }
    }

    /// Lets go of the pool that begins at `base`; false if there is none. Nothing that the device
    /// still does may be using it.
    pub fn forget(&mut self, base: u64) -> bool {
        self.pools.remove(&base).is_some()
    }

    /// Pools that are mapped.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pools.len()
    }
}

impl std::fmt::Debug for AttachedPools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedPools")
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}
