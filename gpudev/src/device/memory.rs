//! Memory that a device can reach: its own, or the host's that is registered with it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{DeviceError, DeviceKind};

/// A handle; the memory goes with the last one.
pub type Memory = Arc<dyn DeviceMemory>;

/// Where memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// On the device.
    Device,
    /// In the host's memory, registered with the device.
    Host,
}

/// A part of some memory, for another process to map.
#[derive(Debug)]
pub struct Share {
    /// A memfd, or what CUDA exports.
    pub file: OwnedFd,
    /// Where the part begins in the memory, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Memory that a device can reach.
///
/// Only raw addresses are handed out, never slices: a device, a network card or another process may
/// change the bytes at any time.
pub trait DeviceMemory: Send + Sync + fmt::Debug {
    /// Who can reach it.
    fn device(&self) -> DeviceKind;

    /// Where it lies.
    fn residence(&self) -> Residence;

    /// Its address, as the device sees it. Never changes.
    fn address(&self) -> u64;

    /// Its size at the moment, in bytes.
    fn bytes(&self) -> u64;

    /// The size that it was reserved for.
    fn bytes_max(&self) -> u64;

    /// Its address, as the CPU sees it, if it does.
    fn host(&self) -> Option<NonNull<u8>>;

    /// Grows or shrinks it at its end. New bytes are uninitialised; on CUDA shrinking waits for
    /// all that the device still does.
    ///
    /// # Errors
    /// Beyond what was reserved; no memory left; memory of somebody else can't be resized.
    fn resize(&self, bytes: u64) -> Result<(), DeviceError>;

    /// Its parts, for another process to map in their order.
    ///
    /// # Errors
    /// It belongs to somebody else, or the driver refuses.
    fn share(&self) -> Result<Vec<Share>, DeviceError>;
}

impl dyn DeviceMemory + '_ {
    /// The device's address of `offset`, if `len` bytes from it are inside.
    ///
    /// # Errors
    /// They are not.
    pub fn at(&self, offset: u64, len: u64) -> Result<u64, DeviceError> {
        let bytes = self.bytes();
        match offset.checked_add(len) {
            Some(end) if end <= bytes => Ok(self.address() + offset),
            _ => Err(DeviceError::Bounds { offset, len, bytes }),
        }
    }

    /// The CPU's address of `offset`, if `len` bytes from it are inside.
    ///
    /// # Errors
    /// They are not, or the CPU can't reach them.
    pub fn host_at(&self, offset: u64, len: u64) -> Result<NonNull<u8>, DeviceError> {
        self.at(offset, len)?;
        let base = self.host().ok_or(DeviceError::NotHost(self.device()))?;
        // SAFETY: `at` found `offset` inside the memory, or at its end.
        Ok(unsafe { base.add(offset as usize) })
    }

    /// Copies `into.len()` bytes from `offset`, by the CPU.
    ///
    /// # Errors
    /// As [`Self::host_at`].
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.host_at(offset, into.len() as u64)?;
        // SAFETY: the source is inside the memory, the target a slice of the caller's.
        unsafe { std::ptr::copy(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`, by the CPU.
    ///
    /// # Errors
    /// As [`Self::host_at`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let to = self.host_at(offset, bytes.len() as u64)?;
        // SAFETY: the target is inside the memory, the source a slice of the caller's.
        unsafe { std::ptr::copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }
}

/// The most that is reserved or attached: 16 TiB.
const BYTES_MAX: u64 = 1 << 44;

/// Refuses a size beyond what was reserved, or one that is no multiple of `page_bytes`.
pub(crate) fn check_size(bytes: u64, bytes_max: u64, page_bytes: u64) -> Result<(), DeviceError> {
    let refuse = |rule| {
        Err(DeviceError::Size {
            bytes,
            bytes_max,
            rule,
        })
    };
    if bytes == 0 || bytes > bytes_max {
        refuse("1 byte up to that")
    } else if bytes_max > BYTES_MAX {
        refuse("16 TiB at most")
    } else if bytes < bytes_max && !bytes.is_multiple_of(page_bytes) {
        refuse("whole pages below that")
    } else {
        Ok(())
    }
}

/// Refuses memory that a device can't reach.
pub(crate) fn check_reach(device: DeviceKind, memory: &Memory) -> Result<(), DeviceError> {
    let owner = memory.device();
    if owner == device {
        Ok(())
    } else {
        Err(DeviceError::Unreachable { device, owner })
    }
}

/// Refuses to resize what somebody else owns.
pub(crate) fn not_ours(bytes_max: u64, bytes: u64) -> DeviceError {
    DeviceError::Size {
        bytes,
        bytes_max,
        rule: "only that, since somebody else owns it",
    }
}

/// Refuses parts that don't follow one another; says how long they are together.
pub(crate) fn check_shares(device: DeviceKind, parts: &[Share]) -> Result<u64, DeviceError> {
    let mut end = 0_u64;
    for part in parts {
        let next = end.checked_add(part.bytes);
        match next.filter(|&next| part.offset == end && part.bytes > 0 && next <= BYTES_MAX) {
            Some(next) => end = next,
            // No later part begins there and still fits.
            None => end = BYTES_MAX + 1,
        }
    }
    if end == 0 || end > BYTES_MAX {
        return Err(DeviceError::Failed {
            device,
            what: "attaching memory",
            reason: "its parts don't follow one another".into(),
        });
    }
    Ok(end)
}
