//! Accelerators: their names, and the little that Genie asks of their memory so far.

use std::fmt;
use std::ptr::NonNull;
use std::str::FromStr;

/// Alignment of device memory, in bytes.
const ALIGNMENT_BYTES: usize = 4096;

/// An accelerator by kind and index: `host:0`, `cuda:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The machine's own memory and cores. Several are the same hardware.
    Host(u8),
    /// A CUDA device.
    Cuda(u8),
}

impl DeviceKind {
    /// Its number among its kind.
    #[must_use]
    pub fn index(self) -> u8 {
        match self {
            Self::Host(index) | Self::Cuda(index) => index,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(index) => write!(f, "host:{index}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A name that is no device's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: write host:N or cuda:N, N from 0 to 127")]
pub struct DeviceNameError(pub String);

impl FromStr for DeviceKind {
    type Err = DeviceNameError;

    /// Parses `host`, `host:N`, `cuda` and `cuda:N`; without N it is 0.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let wrong = || DeviceNameError(name.to_owned());
        let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
        let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index
            .parse::<u8>()
            .ok()
            .filter(|&index| digits && index < 128);
        match (kind, index) {
            ("host", Some(index)) => Ok(Self::Host(index)),
            ("cuda", Some(index)) => Ok(Self::Cuda(index)),
            _ => Err(wrong()),
        }
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Which one.
    pub kind: DeviceKind,
    /// Its name, for a person.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Of it, free at the moment.
    pub free_bytes: u64,
}

/// Why a device did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No memory left.
    #[error("{device} has no {bytes} bytes left")]
    OutOfMemory {
        /// Which device.
        device: DeviceKind,
        /// What was asked for.
        bytes: u64,
    },
}

/// Memory on a device. Freed when dropped.
pub trait DeviceMemory: Send {
    /// Its address, as the device sees it.
    fn address(&self) -> u64;
    /// Its size.
    fn bytes(&self) -> u64;
}

/// An accelerator's memory.
pub trait Device: Send + Sync {
    /// What it is, and how full.
    fn info(&self) -> DeviceInfo;

    /// New memory, uninitialised, aligned to a page. Freed when dropped.
    ///
    /// # Errors
    /// No memory left.
    fn allocate(&self, bytes: u64) -> Result<Box<dyn DeviceMemory>, DeviceError>;
}

/// The machine's own memory and cores.
#[derive(Clone, Copy, Debug)]
pub struct HostDevice {
    index: u8,
}

impl HostDevice {
    /// The host as device `host:index`.
    #[must_use]
    pub fn new(index: u8) -> Self {
        Self { index }
    }
}

impl Device for HostDevice {
    fn info(&self) -> DeviceInfo {
        let (memory_bytes, free_bytes) = host_memory();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        DeviceInfo {
            kind: DeviceKind::Host(self.index),
            name: format!("{} cores of {}", cores, std::env::consts::ARCH),
            memory_bytes,
            free_bytes,
        }
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn DeviceMemory>, DeviceError> {
        let refused = DeviceError::OutOfMemory {
            device: DeviceKind::Host(self.index),
            bytes,
        };
        let layout = usize::try_from(bytes.max(1))
            .ok()
            .and_then(|len| std::alloc::Layout::from_size_align(len, ALIGNMENT_BYTES).ok())
            .ok_or(refused.clone())?;
        // SAFETY: the layout has a size above zero.
        let address = NonNull::new(unsafe { std::alloc::alloc(layout) }).ok_or(refused)?;
        Ok(Box::new(HostMemory {
            address,
            layout,
            bytes,
        }))
    }
}

#[derive(Debug)]
struct HostMemory {
    address: NonNull<u8>,
    layout: std::alloc::Layout,
    bytes: u64,
}

// SAFETY: the memory belongs to this value alone and is only handed out as a number.
unsafe impl Send for HostMemory {}

impl DeviceMemory for HostMemory {
    fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `HostDevice::allocate` with this layout, freed only here.
        unsafe { std::alloc::dealloc(self.address.as_ptr(), self.layout) };
    }
}

/// The machine's memory and how much of it can be had, in bytes; zeroes where unknown.
fn host_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    };
    (
        value("MemTotal:").unwrap_or(0),
        value("MemAvailable:").unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_printed() {
        assert_eq!("host:0".parse(), Ok(DeviceKind::Host(0)));
        assert_eq!("cuda".parse(), Ok(DeviceKind::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceKind::Cuda(3)));
        assert_eq!(DeviceKind::Cuda(3).to_string(), "cuda:3");
        for wrong in [
            "", "gpu:0", "host:", "host:-1", "host:128", "host:+1", "host:0:0", "cuda:x",
        ] {
            assert!(wrong.parse::<DeviceKind>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_host_has_memory() {
        let host = HostDevice::new(0);
        assert!(host.info().memory_bytes > 0);
        let memory = host.allocate(10_000).unwrap();
        assert_eq!((memory.address() % 4096, memory.bytes()), (0, 10_000));
        assert!(host.allocate(u64::MAX).is_err());
    }
}
