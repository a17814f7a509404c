//! Accelerators: their names, their memory, and the queues that copy and gather.
//!
//! A [`Device`] is the machine's own memory and cores (`host:0`) or a CUDA device (`cuda:0`). Code
//! above this module treats them alike, so all of it runs in tests without an accelerator.
//!
//! - [`memory`]: what a device can reach; [`queue`]: what a device does, in order.
//! - [`gather`]: pieces of received frames, checked and put in their places by the device.
//! - [`host`], [`cuda`]: the two kinds; [`check`]: whether one does what is asked of it.

use std::fmt;
use std::ptr::NonNull;
use std::str::FromStr;
use std::sync::Arc;

pub mod check;
pub mod cuda;
mod error;
pub mod gather;
pub mod host;
pub mod memory;
mod owned;
pub mod queue;

pub use cuda::CudaDevice;
pub use error::DeviceError;
pub use host::HostDevice;
pub use memory::{DeviceMemory, Memory, Residence, Share};
pub use owned::{register_mapping, register_owned};
pub use queue::{CopyOrder, CopyPiece, Event, Queue};

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
    /// Its memory comes in multiples of this.
    pub page_bytes: u64,
    /// Cores, or streaming multiprocessors.
    pub processors: u32,
    /// Whether a network card may reach its memory.
    pub nic_reach: bool,
}

/// An accelerator's memory, and the way to its queues.
pub trait Device: Send + Sync {
    /// What it is, and how full.
    fn info(&self) -> DeviceInfo;

    /// New memory on the device, uninitialised, aligned to a page. Freed when the last handle goes.
    ///
    /// # Errors
    /// No memory left.
    fn allocate(&self, bytes: u64) -> Result<Memory, DeviceError> {
        self.reserve(bytes, bytes)
    }

    /// New memory on the device that can be resized up to `bytes_max` without moving.
    ///
    /// # Errors
    /// No memory left.
    fn reserve(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError>;

    /// New memory of the host, registered with the device as it is allocated; resizable likewise.
    ///
    /// # Errors
    /// No memory left; the device can't register it.
    fn reserve_host(&self, bytes: u64, bytes_max: u64) -> Result<Memory, DeviceError>;

    /// Registers host memory that somebody else owns, until the last handle goes.
    ///
    /// # Errors
    /// It is registered already, in part at least; the device refuses.
    ///
    /// # Safety
    /// `bytes` bytes from `address` stay mapped and writable until the last handle has gone.
    unsafe fn register(&self, address: NonNull<u8>, bytes: u64) -> Result<Memory, DeviceError>;

    /// Memory that another process made with this kind of device and shares, such as a pool's in an
    /// executor. It can't be resized here: a pool that grew is attached anew.
    ///
    /// # Errors
    /// The parts don't follow one another, or can't be mapped.
    fn attach(&self, parts: Vec<Share>) -> Result<Memory, DeviceError>;

    /// A new queue. What is submitted to one runs in order; queues run beside one another.
    ///
    /// # Errors
    /// What the device says.
    fn queue(&self) -> Result<Box<dyn Queue>, DeviceError>;
}

/// Opens a device by its name.
///
/// # Errors
/// There is no such device here, with the reason.
pub fn open(kind: DeviceKind) -> Result<Arc<dyn Device>, DeviceError> {
    Ok(match kind {
        DeviceKind::Host(index) => Arc::new(HostDevice::new(index)),
        DeviceKind::Cuda(index) => Arc::new(CudaDevice::open(index)?),
    })
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
    fn a_device_that_is_not_there_says_why() {
        assert!(open(DeviceKind::Host(3)).is_ok());
        if let Err(error) = open(DeviceKind::Cuda(127)) {
            let text = error.to_string();
            assert!(text.starts_with("cuda:127"), "{text}");
        } else {
            panic!("nobody has 128 GPUs");
        }
    }
}
