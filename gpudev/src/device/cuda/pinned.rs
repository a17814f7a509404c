//! Host memory that CUDA knows. Not run on a GPU yet (see [`super`]).

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys;

use super::Driver;
use crate::device::host::HostMemory;
use crate::device::memory::{check_size, not_ours};
use crate::device::{DeviceError, DeviceKind, DeviceMemory, Residence, Share};

/// For all contexts, and to be read by kernels.
const FLAGS: u32 = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;

/// A registered range of host memory. Unregistered when dropped.
struct Registration {
    driver: Driver,
    address: NonNull<u8>,
}

// SAFETY: the address is only handed to the driver.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    /// # Safety
    /// The range stays mapped for the value's life.
    unsafe fn new(driver: Driver, address: NonNull<u8>, bytes: u64) -> Result<Self, DeviceError> {
        driver.bind()?;
        // SAFETY: the caller vouches for the range.
        let answer =
            unsafe { sys::cuMemHostRegister_v2(address.as_ptr().cast(), bytes as usize, FLAGS) };
        match answer {
            sys::CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED => {
                Err(DeviceError::Registered {
                    device: driver.kind,
                    address: address.as_ptr() as u64,
                })
            }
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(DeviceError::OutOfMemory {
                device: driver.kind,
                bytes,
            }),
            answer => {
                driver.told("cuMemHostRegister", answer.result())?;
                Ok(Self { driver, address })
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let driver = &self.driver;
        // What still runs may read it.
        let waited = driver.settle();
        // SAFETY: the range was registered by `new` and is unregistered once.
        let answer = unsafe { sys::cuMemHostUnregister(self.address.as_ptr().cast()) };
        let undone = driver.told("cuMemHostUnregister", answer.result());
        if let Err(error) = waited.and(undone) {
            tracing::warn!(%error, "host memory stays registered");
        }
    }
}

/// Host memory that was allocated for the device. All that it may grow to is registered at once: a
/// copy must not cross from one registration into another, and pages that are registered can't be
/// given back. So resizing it only says how much of it is used.
pub(super) struct Pinned {
    /// Before the memory, so that it goes first.
    _registration: Registration,
    memory: HostMemory,
    bytes: AtomicU64,
}

impl Pinned {
    pub(super) fn new(driver: Driver, bytes: u64, bytes_max: u64) -> Result<Self, DeviceError> {
        check_size(bytes, bytes_max, 1)?;
        let memory = HostMemory::new(driver.kind, Residence::Host, bytes_max, bytes_max)?;
        let address = (&memory as &dyn DeviceMemory).host_at(0, bytes_max)?;
        // SAFETY: the range is `memory`, which stays mapped until it is dropped, after the
        // registration.
        let registration = unsafe { Registration::new(driver, address, bytes_max) }?;
        Ok(Self {
            _registration: registration,
            memory,
            bytes: AtomicU64::new(bytes),
        })
    }
}

impl DeviceMemory for Pinned {
    fn device(&self) -> DeviceKind {
        self.memory.device()
    }

    fn residence(&self) -> Residence {
        Residence::Host
    }

    /// The same for the device as for the CPU: the device was asked when it was opened.
    fn address(&self) -> u64 {
        self.memory.address()
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    fn bytes_max(&self) -> u64 {
        self.memory.bytes_max()
    }

    fn host(&self) -> Option<NonNull<u8>> {
        self.memory.host()
    }

    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        check_size(bytes, self.bytes_max(), 1)?;
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        self.memory.share()
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({:?})", self.memory)
    }
}

/// Host memory of somebody else, registered.
pub(super) struct Foreign {
    registration: Registration,
    bytes: u64,
}

impl Foreign {
    /// # Safety
    /// The range stays mapped for the value's life.
    pub(super) unsafe fn new(
        driver: Driver,
        address: NonNull<u8>,
        bytes: u64,
    ) -> Result<Self, DeviceError> {
        check_size(bytes, bytes, 1)?;
        // SAFETY: the caller's promise is the one that is asked for.
        let registration = unsafe { Registration::new(driver, address, bytes) }?;
        Ok(Self {
            registration,
            bytes,
        })
    }
}

impl DeviceMemory for Foreign {
    fn device(&self) -> DeviceKind {
        self.registration.driver.kind
    }

    fn residence(&self) -> Residence {
        Residence::Host
    }

    fn address(&self) -> u64 {
        self.registration.address.as_ptr() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn bytes_max(&self) -> u64 {
        self.bytes
    }

    fn host(&self) -> Option<NonNull<u8>> {
        Some(self.registration.address)
    }

    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        Err(not_ours(self.bytes, bytes))
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        Err(DeviceError::Failed {
            device: self.device(),
            what: "sharing memory",
            reason: "it was registered, not allocated: ask its owner".into(),
        })
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Foreign({} bytes at {:#x})", self.bytes, self.address())
    }
}
