//! Why a port did not open.

use nix::errno::Errno as Known;

use super::vdev::VdevError;
use crate::Errno;

/// Which step of opening a port failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Finding the device and its driver.
    Probe,
    /// Asking what it can do.
    Information,
    /// Setting queues, MTU and offloads.
    Configure,
    /// Setting up a receive queue.
    RxQueue,
    /// Setting up a transmit queue.
    TxQueue,
    /// Starting it.
    Start,
    /// Letting it reach memory.
    Map,
    /// Changing its MTU.
    Mtu,
    /// Its receive interrupt.
    Interrupt,
}

/// Why a port did not open, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The parameters of a virtual device.
    #[error(transparent)]
    Vdev(#[from] VdevError),
    /// There is no such device, or no driver for it is installed or allowed.
    #[error("no device {address}, or no DPDK driver for it ({errno})")]
    NoDevice {
        /// The device.
        address: String,
        /// DPDK's answer.
        errno: Errno,
    },
    /// The device is in use.
    #[error("device {address} is in use")]
    InUse {
        /// The device.
        address: String,
    },
    /// The process may not use it.
    #[error("no permission for device {address} ({step:?}); run as root")]
    NoPermission {
        /// The device.
        address: String,
        /// What was tried.
        step: Step,
    },
    /// Memory can't be had.
    #[error("no memory for device {address} ({step:?}); start the EAL with more")]
    NoMemory {
        /// The device.
        address: String,
        /// What was tried.
        step: Step,
    },
    /// A number that must not be zero.
    #[error("{what} must be 1 or more")]
    Zero {
        /// Which.
        what: &'static str,
    },
    /// More queues than it has.
    #[error("{asked} {what} queues were asked for, the device has {max}")]
    Queues {
        /// Which kind.
        what: &'static str,
        /// How many were asked for.
        asked: u16,
        /// How many there are.
        max: u16,
    },
    /// A size of frame that it can't carry.
    #[error("an MTU of {asked} was asked for, the device takes {min} to {max}")]
    Mtu {
        /// Bytes asked for.
        asked: u16,
        /// The least.
        min: u16,
        /// The most.
        max: u16,
    },
    /// A packet of the link would not fit into one mbuf, which drivers do not bear.
    #[error(
        "mbufs of {data_bytes} bytes are too small for {address}, whose buffers have {buffer_bytes}"
    )]
    PoolTooSmall {
        /// The device.
        address: String,
        /// What an mbuf of the pool holds.
        data_bytes: u16,
        /// What it must hold.
        buffer_bytes: u16,
    },
    /// The device can't do what was asked, although it said nothing against it.
    #[error("device {address} refuses ({step:?}): {errno}")]
    Refused {
        /// The device.
        address: String,
        /// What was tried.
        step: Step,
        /// Its answer.
        errno: Errno,
    },
}

impl PortError {
    /// Sorts a negative result. <https://doc.dpdk.org/api/rte__ethdev_8h.html>
    pub(super) fn of_result(result: i32, step: Step, address: &str) -> Self {
        let (errno, address) = (Errno::of_result(result), address.to_owned());
        match errno.known() {
            Known::EEXIST | Known::EBUSY => Self::InUse { address },
            Known::EACCES => Self::NoPermission { address, step },
            Known::EPERM if step != Step::Probe => Self::NoPermission { address, step },
            Known::ENOMEM => Self::NoMemory { address, step },
            // Probing answers with a bare -1, EPERM's number, where a driver gives up.
            Known::ENODEV | Known::ENOENT | Known::ENXIO | Known::EPERM => {
                Self::NoDevice { address, errno }
            }
            _ if step == Step::Probe => Self::NoDevice { address, errno },
            _ => Self::Refused {
                address,
                step,
                errno,
            },
        }
    }
}
