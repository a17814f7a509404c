//! Memory of the host: a sealed memfd, so that another process can map it too.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Registry, host_memory};
use crate::device::memory::check_size;
use crate::device::{DeviceError, DeviceKind, DeviceMemory, Residence, Share};
use crate::mapping::Mapping;

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
        Err(DeviceError::Size {
            bytes,
            bytes_max: self.bytes,
            rule: "only that, since somebody else owns it",
        })
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        Err(DeviceError::Failed {
            device: self.device,
            what: "sharing memory",
            reason: "it was registered, not allocated: ask its owner".into(),
        })
    }
}
