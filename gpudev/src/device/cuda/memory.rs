//! Device memory by CUDA's virtual memory calls. Not run on a GPU yet (see [`super`]).

use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::sys;

use super::Driver;
use crate::device::memory::{check_shares, check_size, not_ours};
use crate::device::{DeviceError, DeviceKind, DeviceMemory, Residence, Share};

/// Memory is made in parts of at most this size, so that shrinking can give some back.
const PART_BYTES: u64 = 64 << 20;

/// A range of device addresses with memory behind its first part.
pub(super) struct CudaMemory {
    driver: Driver,
    address: sys::CUdeviceptr,
    /// Of the range of addresses: whole pages.
    reserved: u64,
    bytes_max: u64,
    bytes: AtomicU64,
    parts: Mutex<Vec<Part>>,
    attached: bool,
}

struct Part {
    handle: sys::CUmemGenericAllocationHandle,
    offset: u64,
    bytes: u64,
}

fn properties(index: u8, nic_reach: bool) -> sys::CUmemAllocationProp {
    // SAFETY: all-zero bytes are a valid value: numbers, and a null pointer that only Windows uses.
    let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes =
        sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    properties.location = location(index);
    properties.allocFlags.gpuDirectRDMACapable = nic_reach.into();
    properties
}

fn location(index: u8) -> sys::CUmemLocation {
    sys::CUmemLocation {
        type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        id: index.into(),
    }
}

/// Device memory comes in multiples of this.
pub(super) fn granularity(index: u8, nic_reach: bool) -> Result<u64, DriverError> {
    let mut bytes = 0_usize;
    let flag = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
    // SAFETY: both pointers are to locals that live through the call.
    unsafe {
        sys::cuMemGetAllocationGranularity(&mut bytes, &properties(index, nic_reach), flag)
            .result()?;
    }
    Ok(bytes.max(1) as u64)
}

impl CudaMemory {
    pub(super) fn new(driver: Driver, bytes: u64, bytes_max: u64) -> Result<Self, DeviceError> {
        check_size(bytes, bytes_max, driver.page_bytes)?;
        let memory = Self::reserve(driver, bytes_max, false)?;
        // Where this fails, dropping `memory` gives everything back.
        memory.resize(bytes)?;
        Ok(memory)
    }

    /// Memory that another process exported.
    pub(super) fn attach(driver: Driver, shares: Vec<Share>) -> Result<Self, DeviceError> {
        let bytes = check_shares(driver.kind, &shares)?;
        let is_whole = |share: &Share| share.bytes.is_multiple_of(driver.page_bytes);
        if !shares.iter().all(is_whole) {
            return Err(DeviceError::Failed {
                device: driver.kind,
                what: "attaching memory",
                reason: format!("its parts are not whole pages of {}", driver.page_bytes),
            });
        }
        let mut memory = Self::reserve(driver, bytes, true)?;
        for share in shares {
            let driver = &memory.driver;
            let kind = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
            let mut handle = 0;
            // SAFETY: for this type of handle the driver takes the descriptor's number in place of
            // a pointer; `handle` lives through the call.
            let answer = unsafe {
                let descriptor = share.file.as_raw_fd() as usize as *mut c_void;
                sys::cuMemImportFromShareableHandle(&mut handle, descriptor, kind)
            };
            driver.told("cuMemImportFromShareableHandle", answer.result())?;
            let part = memory.map(handle, share.offset, share.bytes)?;
            let parts = memory.parts.get_mut();
            parts.unwrap_or_else(PoisonError::into_inner).push(part);
        }
        memory.bytes.store(bytes, Ordering::Release);
        Ok(memory)
    }

    /// A range of addresses without memory.
    fn reserve(driver: Driver, bytes_max: u64, attached: bool) -> Result<Self, DeviceError> {
        driver.bind()?;
        let reserved = bytes_max.next_multiple_of(driver.page_bytes);
        let mut address = 0;
        // SAFETY: reserves addresses of the driver's choice; `address` lives through the call.
        let answer = unsafe { sys::cuMemAddressReserve(&mut address, reserved as usize, 0, 0, 0) };
        driver.told("cuMemAddressReserve", answer.result())?;
        Ok(Self {
            driver,
            address,
            reserved,
            bytes_max,
            bytes: AtomicU64::new(0),
            parts: Mutex::default(),
            attached,
        })
    }

    /// Puts new memory behind `bytes` bytes of addresses from `offset`, both whole pages.
    fn create(&self, offset: u64, bytes: u64) -> Result<Part, DeviceError> {
        let driver = &self.driver;
        let mut handle = 0;
        // SAFETY: both pointers are to values that live through the call.
        let created = unsafe {
            sys::cuMemCreate(
                &mut handle,
                bytes as usize,
                &properties(driver.kind.index(), driver.nic_reach),
                0,
            )
        };
        if created == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let device = driver.kind;
            return Err(DeviceError::OutOfMemory { device, bytes });
        }
        driver.told("cuMemCreate", created.result())?;
        self.map(handle, offset, bytes)
    }

    /// Puts the memory of a handle, which is taken, behind `bytes` bytes of addresses from `offset`.
    fn map(
        &self,
        handle: sys::CUmemGenericAllocationHandle,
        offset: u64,
        bytes: u64,
    ) -> Result<Part, DeviceError> {
        let driver = &self.driver;
        let access = sys::CUmemAccessDesc {
            location: location(driver.kind.index()),
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        let (at, len) = (self.address + offset, bytes as usize);
        // SAFETY: the range was reserved and has nothing behind it yet; the driver refuses a handle
        // that is shorter than the range.
        let mapped = unsafe { sys::cuMemMap(at, len, 0, handle, 0) }.result();
        let allowed = mapped.and_then(|()| {
            // SAFETY: the range was just mapped; `access` lives through the call.
            unsafe { sys::cuMemSetAccess(at, len, &access, 1) }.result()
        });
        if let Err(error) = allowed {
            if mapped.is_ok() {
                // SAFETY: the range was mapped above, and nobody uses it yet.
                let _undone = unsafe { sys::cuMemUnmap(at, len) };
            }
            // SAFETY: the handle is this function's, and is forgotten here.
            let _undone = unsafe { sys::cuMemRelease(handle) };
            return driver.told("cuMemMap", Err(error));
        }
        Ok(Part {
            handle,
            offset,
            bytes,
        })
    }

    /// What can't be given back is kept: a device that failed may still use it.
    fn warn(&self, gone: Result<(), DeviceError>) {
        if let Err(error) = gone {
            tracing::warn!(memory = ?self, %error, "device memory is not given back");
        }
    }

    /// Takes the memory away that begins at `from` or later, if the driver lets it; what it refuses
    /// stays a part. The device has finished with it, and the caller has bound the context.
    fn give_back(&self, parts: &mut Vec<Part>, from: u64) -> Result<(), DeviceError> {
        while let Some(part) = parts.last().filter(|part| part.offset >= from) {
            let at = self.address + part.offset;
            // SAFETY: the part was mapped by `map`, and nobody uses it any more.
            let unmapped = unsafe { sys::cuMemUnmap(at, part.bytes as usize) }.result();
            self.driver.told("cuMemUnmap", unmapped)?;
            let handle = part.handle;
            parts.pop();
            // SAFETY: the handle was the part's own, which is forgotten: it is released once.
            let released = unsafe { sys::cuMemRelease(handle) }.result();
            if let Err(error) = self.driver.told("cuMemRelease", released) {
                tracing::warn!(%error, "device memory is not given back");
            }
        }
        Ok(())
    }
}

impl DeviceMemory for CudaMemory {
    fn device(&self) -> DeviceKind {
        self.driver.kind
    }

    fn residence(&self) -> Residence {
        Residence::Device
    }

    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn host(&self) -> Option<NonNull<u8>> {
        None
    }

    /// Memory is given back in the parts that it was taken in.
    fn resize(&self, bytes: u64) -> Result<(), DeviceError> {
        if self.attached {
            return Err(not_ours(self.bytes_max, bytes));
        }
        check_size(bytes, self.bytes_max, self.driver.page_bytes)?;
        self.driver.bind()?;
        let wanted = bytes.next_multiple_of(self.driver.page_bytes);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = parts.last().map_or(0, |part| part.offset + part.bytes);
        let mut end = before;
        while end < wanted {
            let len = (wanted - end).min(PART_BYTES);
            match self.create(end, len) {
                Ok(part) => parts.push(part),
                Err(error) => {
                    self.warn(self.give_back(&mut parts, before));
                    return Err(match error {
                        DeviceError::OutOfMemory { device, .. } => {
                            DeviceError::OutOfMemory { device, bytes }
                        }
                        other => other,
                    });
                }
            }
            end += len;
        }
        let had = self.bytes.swap(bytes, Ordering::AcqRel);
        if parts.last().is_some_and(|part| part.offset >= wanted) {
            if let Err(error) = self.driver.settle() {
                self.bytes.store(had, Ordering::Release);
                return Err(error);
            }
            self.warn(self.give_back(&mut parts, wanted));
        }
        Ok(())
    }

    fn share(&self) -> Result<Vec<Share>, DeviceError> {
        self.driver.bind()?;
        let kind = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let share = |part: &Part| {
            let mut raw: RawFd = -1;
            // SAFETY: for this type of handle the driver writes a descriptor, an int, to `raw`.
            let answer = unsafe {
                sys::cuMemExportToShareableHandle((&raw mut raw).cast(), part.handle, kind, 0)
            };
            self.driver
                .told("cuMemExportToShareableHandle", answer.result())?;
            // SAFETY: the driver has just made this descriptor for the caller.
            let file = unsafe { OwnedFd::from_raw_fd(raw) };
            let (offset, bytes) = (part.offset, part.bytes);
            Ok(Share {
                file,
                offset,
                bytes,
            })
        };
        parts.iter().map(share).collect()
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        let mut parts =
            std::mem::take(self.parts.get_mut().unwrap_or_else(PoisonError::into_inner));
        let gone = self.driver.settle();
        let gone = gone.and_then(|()| self.give_back(&mut parts, 0));
        let gone = gone.and_then(|()| {
            // SAFETY: the range was reserved by `reserve`, and nothing is mapped in it any more.
            let freed = unsafe { sys::cuMemAddressFree(self.address, self.reserved as usize) };
            self.driver.told("cuMemAddressFree", freed.result())
        });
        self.warn(gone);
    }
}

impl std::fmt::Debug for CudaMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "CudaMemory({} bytes at {:#x})",
            self.bytes(),
            self.address
        )
    }
}
