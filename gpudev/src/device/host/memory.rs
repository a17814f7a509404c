//! Memory of the host: a sealed memfd, so that another process can map it too.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Registry, host_memory};
use crate::device::memory::{check_shares, check_size, not_ours};
use crate::device::{DeviceError, DeviceKind, DeviceMemory, Residence, Share};
use genie_shm::mapping::Mapping;

/// Memory is resized by pages of this size.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Memory of the host that this process allocated. All of what was reserved stays mapped, so no
/// access can fault; pages beyond its size are given back.
#[derive(Debug)]
pub(crate) struct HostMemory {
    device: DeviceKind,
    residence: Residence,
    mapping: Mapping,
    bytes: AtomicU64,
    bytes_max: u64,
    attached: bool,
}

impl HostMemory {
    pub(crate) fn new(
        device: DeviceKind,
        residence: Residence,
        bytes: u64,
        bytes_max: u64,
    ) -> Result<Self, DeviceError> {
        check_size(bytes, bytes_max, PAGE_BYTES)?;
        let refused = DeviceError::OutOfMemory { device, bytes };
        // The kernel would give it, and kill a process when the pages are touched.
        if host_memory().1 < bytes {
            return Err(refused);
        }
        let mapping = Mapping::create(bytes_max).map_err(|_| refused)?;
        mapping.populate(0, bytes);
        Ok(Self {
            device,
            residence,
            mapping,
            bytes: AtomicU64::new(bytes),
            bytes_max,
            attached: false,
        })
    }

    /// Memory that another process made. Its pages are the other's to give back.
    pub(super) fn attach(device: DeviceKind, mut parts: Vec<Share>) -> Result<Self, DeviceError> {
        check_shares(device, &parts)?;
        let refused = |reason: String| DeviceError::Failed {
            device,
            what: "attaching memory",
            reason,
        };
        let (Some(part), true) = (parts.pop(), parts.is_empty()) else {
            return Err(refused("host memory is shared in one part".into()));
        };
        let mapping = Mapping::from_peer(part.file).map_err(|error| refused(error.to_string()))?;
        if mapping.capacity() < part.bytes {
            let (has, bytes) = (mapping.capacity(), part.bytes);
            return Err(refused(format!("it has {has} bytes, not {bytes}")));
        }
        Ok(Self {
            device,
            residence: Residence::Device,
            mapping,
            bytes: AtomicU64::new(part.bytes),
            bytes_max: part.bytes,
            attached: true,
        })
    }

    fn base(&self) -> NonNull<u8> {
        // Offset zero is inside every mapping.
        self.mapping.address(0, 0).unwrap_or(NonNull::dangling())
    }
}

impl DeviceMemory for HostMemory {
    fn device(&self) -> DeviceKind {
        self.device
    }

    fn residence(&self) -> Residence {
        self.residence
    }

    fn address(&self) -> u64 {
        self.base().as_ptr() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn host(&self) -> Option<NonNull<u8>> {
        Some(self.base())
    }

    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        if self.attached {
            return Err(not_ours(self.bytes_max, bytes));
        }
        check_size(bytes, self.bytes_max, PAGE_BYTES)?;
        let had = self.bytes.swap(bytes, Ordering::AcqRel);
        if bytes > had {
            self.mapping.populate(had, bytes - had);
        } else if let Err(error) = self
            .mapping
            .discard(bytes.next_multiple_of(PAGE_BYTES), had - bytes)
        {
            tracing::warn!(%error, "pages of a device's memory are not given back");
        }
        Ok(())
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        let file = self.mapping.file().try_clone_to_owned();
        let file = file.map_err(|error| DeviceError::Failed {
            device: self.device,
            what: "sharing memory",
            reason: error.to_string(),
        })?;
        Ok(vec![Share {
            file,
            offset: 0,
            bytes: self.bytes_max,
        }])
    }
}

/// Memory of the host that somebody else owns.
#[derive(Debug)]
pub(crate) struct Registered {
    device: DeviceKind,
    registry: Arc<Registry>,
    address: NonNull<u8>,
    bytes: u64,
}

// SAFETY: only the address is kept; who dereferences it answers for races.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    pub(super) fn new(
        device: DeviceKind,
        registry: Arc<Registry>,
        address: NonNull<u8>,
        bytes: u64,
    ) -> Result<Self, DeviceError> {
        check_size(bytes, bytes, 1)?;
        let start = address.as_ptr() as u64;
        if !registry.add(start, bytes) {
            let address = start;
            return Err(DeviceError::Registered { device, address });
        }
        Ok(Self {
            device,
            registry,
            address,
            bytes,
        })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.remove(self.address.as_ptr() as u64);
    }
}

impl DeviceMemory for Registered {
    fn device(&self) -> DeviceKind {
        self.device
    }

    fn residence(&self) -> Residence {
        Residence::Host
    }

    fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn bytes_max(&self) -> u64 {
        self.bytes
    }

    fn host(&self) -> Option<NonNull<u8>> {
        Some(self.address)
    }

    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        Err(not_ours(self.bytes, bytes))
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        Err(DeviceError::Failed {
            device: self.device,
            what: "sharing memory",
            reason: "it was registered, not allocated: ask its owner".into(),
        })
    }
}
