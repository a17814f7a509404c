//! Registered host memory together with what keeps it mapped.

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Device, DeviceError, DeviceKind, DeviceMemory, Memory, Residence, Share};
use genie_shm::mapping::Mapping;

/// Registers host memory with a device, and keeps its owner until the last handle has gone.
///
/// # Errors
/// As [`Device::register`].
///
/// # Safety
/// `bytes` bytes from `start` stay mapped and writable while `owner` lives.
pub unsafe fn register_owned(
    device: &dyn Device,
    start: NonNull<u8>,
    bytes: u64,
    owner: Box<dyn Any + Send + Sync>,
) -> Result<Memory, DeviceError> {
    // SAFETY: `Owned` keeps the owner until after the registration has gone, and nobody gets the
    // registration without it.
    let registered = unsafe { device.register(start, bytes) }?;
    Ok(Arc::new(Owned {
        registered,
        _owner: owner,
    }))
}

/// Registers memory that is shared with another process.
///
/// # Errors
/// As [`Device::register`].
pub fn register_mapping(
    device: &dyn Device,
    mapping: &Arc<Mapping>,
) -> Result<Memory, DeviceError> {
    let bytes = mapping.capacity();
    let start = mapping
        .address(0, bytes)
        .map_err(|_| DeviceError::NotHost(device.info().kind))?;
    // SAFETY: a mapping is mapped and writable as a whole while it lives.
    unsafe { register_owned(device, start, bytes, Box::new(Arc::clone(mapping))) }
}

/// The registration goes first.
struct Owned {
    registered: Memory,
    _owner: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registered.fmt(f)
    }
}

impl DeviceMemory for Owned {
    fn device(&self) -> DeviceKind {
        self.registered.device()
    }

    fn residence(&self) -> Residence {
        self.registered.residence()
    }

    fn address(&self) -> u64 {
        self.registered.address()
    }

    fn bytes(&self) -> u64 {
        self.registered.bytes()
    }

    fn bytes_max(&self) -> u64 {
        self.registered.bytes_max()
    }

    fn host(&self) -> Option<NonNull<u8>> {
        self.registered.host()
    }

    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        self.registered.resize(bytes)
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        self.registered.share()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::HostDevice;

    #[test]
    fn a_mapping_stays_while_it_is_registered_and_is_free_afterwards() {
        let device = HostDevice::new(0);
        let mapping = Arc::new(Mapping::create(8192).unwrap());
        let memory = register_mapping(&device, &mapping).unwrap();
        assert_eq!(Arc::strong_count(&mapping), 2);
        memory.write(100, b"abc").unwrap();
        let mut read = [0; 3];
        mapping.read(100, &mut read).unwrap();
        assert_eq!(&read, b"abc");
        let twice = register_mapping(&device, &mapping);
        assert!(matches!(twice, Err(DeviceError::Registered { .. })));
        drop(memory);
        assert_eq!(Arc::strong_count(&mapping), 1);
        register_mapping(&device, &mapping).unwrap();
    }
}
