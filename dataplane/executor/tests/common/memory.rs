//! A session's memory, as the daemon has it: shared arenas, or pools of the device.

use genie_gpudev::Pools;
use genie_gpudev::device::Memory;
use genie_gpudev::zygote::{Announcer, DevicePools, SharedArenas};

pub enum Tensors {
    Shared(Box<SharedArenas>),
    Pools {
        inbound: Pools,
        outbound: Memory,
        announcer: Announcer,
    },
}

impl From<SharedArenas> for Tensors {
    fn from(arenas: SharedArenas) -> Self {
        Self::Shared(Box::new(arenas))
    }
}

impl From<DevicePools> for Tensors {
    fn from(pools: DevicePools) -> Self {
        let (inbound, outbound, announcer) = pools.into_parts();
        Self::Pools {
            inbound,
            outbound,
            announcer,
        }
    }
}

impl Tensors {
    /// A place of these bytes, if there is room.
    pub fn put(&mut self, bytes: &[u8]) -> Option<u64> {
        let len = bytes.len() as u64;
        match self {
            Self::Shared(arenas) => {
                let place = arenas.inbound.allocate(len)?;
                arenas.inbound.memory().write(place, bytes).unwrap();
                Some(place)
            }
            Self::Pools {
                inbound, announcer, ..
            } => {
                let got = inbound.allocate(len).ok()?;
                if let Some((base, memory)) = got.made {
                    announcer.announce(base, &memory).unwrap();
                }
                let (memory, offset) = inbound.memory(got.place, len).unwrap();
                memory.write(offset, bytes).unwrap();
                Some(got.place)
            }
        }
    }

    /// Reads what the executor left.
    pub fn read(&self, place: u64, into: &mut [u8]) {
        match self {
            Self::Shared(arenas) => arenas.outbound.read(place, into).unwrap(),
            Self::Pools { outbound, .. } => outbound.read(place, into).unwrap(),
        }
    }

    /// Takes an upload's place back; the pool that went with it.
    pub fn free(&mut self, place: u64) -> Option<u64> {
        match self {
            Self::Shared(arenas) => {
                arenas.inbound.free(place).unwrap();
                None
            }
            Self::Pools { inbound, .. } => inbound.free(place).unwrap(),
        }
    }

    /// Uploads that are held.
    pub fn places(&self) -> u64 {
        match self {
            Self::Shared(arenas) => arenas.inbound.stats().places,
            Self::Pools { inbound, .. } => inbound.stats().places,
        }
    }
}
