//! DPDK as owned types. What must hold is in the types; nothing here asks its caller for `unsafe`
//! but [`ExternalMemory::register`], since only its caller knows whose memory that is, and
//! [`Mempool::discard`], since only its caller knows that nobody has a packet of it.
//!
//! | Type | What it is |
//! |---|---|
//! | [`Eal`] | the environment, one a process, on a thread of its own |
//! | [`Mempool`], [`Mbuf`], [`Burst`] | packet memory: a pool, one packet, up to 64 packets |
//! | [`ExternalMemory`], [`ExternalSlab`] | packet data elsewhere: received there, or sent from there |
//! | [`Port`], [`RxQueue`], [`TxQueue`] | an open device and its queues, each used by one thread |
//! | [`Lcore`] | the calling thread, pinned to a core and known to DPDK |
//!
//! # Who owns a packet
//! An [`Mbuf`] is owned by exactly one of: the program (dropping it gives it back to its pool), or
//! a driver. [`TxQueue::send`] moves the head of a [`Burst`] to the driver and leaves the tail that
//! was not taken in the burst; only that tail can be sent again or freed. [`RxQueue::receive`]
//! moves packets from the driver into a burst.
//!
//! # Lifetimes
//! Queues keep their port, a port keeps its pools, and all keep the [`Eal`]; whichever is dropped
//! last shuts down what it holds. A pool whose packets are not all home when its last handle goes
//! is left in place, with a warning, and so is the EAL below it: no packet can outlive its memory.
//!
//! DPDK is loaded when [`Eal::start`] is first called (see [`genie_dpdk_sys`]); without it every
//! program that uses this crate still builds and starts.

mod burst;
mod eal;
mod errno;
mod external;
mod lcore;
mod libraries;
mod mbuf;
mod mempool;
mod port;
mod queue;

pub use burst::Burst;
pub use eal::args::{EalArgs, EalArgsError, EalOptions, IovaMode, PciAccess};
pub use eal::{Eal, EalError};
pub use errno::Errno;
pub use external::memory::{ExternalMemory, ExternalMemoryError};
pub use external::slab::{ExternalSlab, SlabError};
pub use genie_dpdk_sys::{GENIE_LCORE_MAX as LCORES_MAX, LoadError, is_built};
pub use lcore::{CoreId, Lcore, LcoreError, allowed_cores};
pub use mbuf::{Checksum, Mbuf, MbufError};
pub use mempool::{Mempool, MempoolConfig, MempoolError};
pub use port::address::{PciAddress, PciAddressError, PortAddress};
pub use port::config::{BufferSplit, Granted, Mtu, Offloads, PortConfig};
pub use port::error::{PortError, Step};
pub use port::interface::mtu as interface_mtu;
pub use port::stats::PortStats;
pub use port::vdev::{AfPacket, AfXdp, Memif, MemifRole, Null, Vdev, VdevError};
pub use port::{Attached, Link, OpenPort, Port};
pub use queue::{RxQueue, TxQueue};

/// Loads DPDK, if that has not been done: [`Eal::start`] does, too, and it takes a while.
///
/// # Errors
/// [`LoadError`]
pub fn load() -> Result<(), LoadError> {
    genie_dpdk_sys::load().map(drop)
}
