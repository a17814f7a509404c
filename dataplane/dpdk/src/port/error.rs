//! Why a port did not open.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno as Known;

use super::address::PciAddress;
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

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "finding its driver",
            Self::Information => "asking what it can do",
            Self::Configure => "setting queues, MTU and offloads",
            Self::RxQueue => "setting up a receive queue",
            Self::TxQueue => "setting up a transmit queue",
            Self::Start => "starting it",
            Self::Map => "letting it reach memory",
            Self::Mtu => "changing its MTU",
            Self::Interrupt => "switching its receive interrupt",
        })
    }
}

/// Why a port did not open, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The parameters of a virtual device.
    #[error(transparent)]
    Vdev(#[from] VdevError),
    /// The kernel has no such interface.
    #[error("there is no network interface {interface:?}; `ip link` lists those that there are")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The kernel does not say what an interface is.
    #[error("the kernel does not say what network interface {interface} is: {errno}")]
    NoAnswer {
        /// Its name.
        interface: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The socket of a memif can't be where it is to be.
    #[error("the folder {} of the memif's socket can't be used: {errno}; make it, writable", .folder.display())]
    SocketFolder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// An interface's packets are longer than the driver's.
    #[error(
        "network interface {interface} has an MTU of {mtu}, and {driver} takes {max} at most: \
         `ip link set {interface} mtu {max}`, at its other end too"
    )]
    InterfaceMtu {
        /// The driver.
        driver: &'static str,
        /// The interface.
        interface: String,
        /// Bytes of its longest IP packet.
        mtu: u16,
        /// Of the driver's.
        max: u16,
    },
    /// The process may not open sockets of this kind.
    #[error(
        "{driver} on {interface} needs {missing}, which this process does not have; run as root, or \
         grant that (systemd: AmbientCapabilities=, containers: --cap-add)"
    )]
    NoCapability {
        /// The driver.
        driver: &'static str,
        /// The interface.
        interface: String,
        /// What is missing, as capabilities(7) calls it.
        missing: String,
    },
    /// The bus has no such device.
    #[error("there is no PCI device {address}; `lspci -D` lists those that there are")]
    NoPciDevice {
        /// Where it was looked for.
        address: PciAddress,
    },
    /// The kernel has not handed the device to user space.
    #[error(
        "PCI device {address} is bound to {bound}, from which DPDK can't take it; hand it over with \
         `dpdk-devbind.py --bind=vfio-pci {address}` (the kernel's own interface of it goes away)"
    )]
    NotBound {
        /// The device.
        address: PciAddress,
        /// The kernel's driver.
        bound: String,
    },
    /// The process may not open what hands over the device.
    #[error(
        "no permission for PCI device {address}: {} can't be opened for reading and writing; run as \
         root, or make that file the user's",
        .file.display()
    )]
    NoAccess {
        /// The device.
        address: PciAddress,
        /// The file of its IOMMU group.
        file: PathBuf,
    },
    /// DPDK is installed without this driver.
    #[error(
        "DPDK has not loaded its driver {driver}: librte_{driver}.so is not in its folder of drivers \
         (Debian: install librte-meta-net and librte-meta-bus)"
    )]
    NoDriver {
        /// The driver.
        driver: &'static str,
    },
    /// The driver gave up on the device, or none is for it.
    #[error("no DPDK driver takes device {address}: {errno}; DPDK's own lines may say more")]
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
    #[error("no permission for device {address}, {step}; run as root")]
    NoPermission {
        /// The device.
        address: String,
        /// What was tried.
        step: Step,
    },
    /// Memory can't be had.
    #[error("no memory for device {address}, {step}; start the EAL with more")]
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
    #[error("device {address} refuses, {step}: {errno}")]
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
            Known::EPERM => Self::NoDevice {
                address,
                errno: Errno::of_result(0),
            },
            Known::ENODEV | Known::ENOENT | Known::ENXIO => Self::NoDevice { address, errno },
            _ if step == Step::Probe => Self::NoDevice { address, errno },
            _ => Self::Refused {
                address,
                step,
                errno,
            },
        }
    }
}
