//! The fake executor's side of a session's memory: shared, or in pools of the device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use genie_gpudev::device::HostDevice;
use genie_gpudev::message::Tensors;
use genie_gpudev::{AttachedPools, Pool};
use genie_shm::{Arena, Mapping};

pub enum Places {
    Shared {
        inbound: Arc<Mapping>,
        outbound: Arena,
    },
    Pools {
        inbound: AttachedPools,
        outbound: Pool,
    },
}

impl Places {
    pub fn new(tensors: Tensors, mut files: impl Iterator<Item = OwnedFd>) -> Self {
        let mut file = || files.next().unwrap();
        match tensors {
            Tensors::Shared => {
                let mut map = || Arc::new(Mapping::from_peer(file()).unwrap());
                let (inbound, outbound) = (map(), Arena::over(map(), 0));
                Self::Shared { inbound, outbound }
            }
            Tensors::Pools => {
                let device = Arc::new(HostDevice::new(0));
                let mut inbound = AttachedPools::new(device, file()).unwrap();
                let outbound = Pool::over(inbound.take().unwrap().1);
                Self::Pools { inbound, outbound }
            }
        }
    }

    pub fn read(&mut self, place: u64, into: &mut [u8]) {
        match self {
            Self::Shared { inbound, .. } => inbound.read(place, into).unwrap(),
            Self::Pools { inbound, .. } => {
                let from = inbound.address(place, into.len() as u64).unwrap();
                // SAFETY: the pool is mapped, and nobody writes what the daemon has handed over.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, into.len()) };
                into.copy_from_slice(bytes);
            }
        }
    }

    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let len = bytes.len() as u64;
        match self {
            Self::Shared { outbound, .. } => {
                let place = outbound.allocate(len).unwrap();
                outbound.memory().write(place, bytes).unwrap();
                place
            }
            Self::Pools { outbound, .. } => {
                let place = outbound.allocate(len).unwrap();
                outbound.memory().write(place, bytes).unwrap();
                place
            }
        }
    }

    pub fn sent(&mut self, place: u64) {
        match self {
            Self::Shared { outbound, .. } => outbound.free(place).unwrap(),
            Self::Pools { outbound, .. } => outbound.free(place).unwrap(),
        }
    }

    pub fn pool_gone(&mut self, base: u64) {
        if let Self::Pools { inbound, .. } = self {
            assert!(inbound.forget(base));
        }
    }
}
