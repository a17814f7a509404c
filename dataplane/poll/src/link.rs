//! A DPDK port, opened and ready for a loop.

mod near;
mod shape;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use genie_direct::PayloadPool;
use genie_dpdk::{
    Attached, Eal, Granted, Mempool, MempoolConfig, MempoolError, Mtu, OpenPort, Port, PortAddress,
    PortConfig, PortError, Vdev, interface_mtu,
};
use genie_gpudev::device::{self, Device, DeviceKind};
use genie_gpudev::receive::Way;
use genie_hugepages::{NodeId, Preferred, Root};
use genie_netstack::HostError;

use crate::direct::Direct;
use crate::engine::{Engine, EngineConfig};
use crate::packet::ETHERNET_BYTES;
use crate::port::{FromMemory, PortWire};
use crate::seat::node_of;
use crate::spec::PortSpec;
use near::Near;
use shape::{ETHERNET_MTU, Shape};

/// Packets of a pool: two full rings, and what is between them.
const MBUFS: u32 = 4095;
/// Bytes of a buffer that stays unused.
const CARRIER_BYTES: u16 = 64;
/// Packets that the loop keeps at hand.
const CACHE: u32 = 256;
/// Frames are found by bursts of a quarter of this.
const DESCRIPTORS: u16 = 1024;

/// Bytes of memory that a link takes from the EAL, for choosing how much the EAL takes.
pub const LINK_MEMORY_MIB: u32 = 96;

/// What a link is to be.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The device.
    pub port: PortSpec,
    /// This host's address on the link, and the UDP port of its transport.
    pub address: SocketAddrV4,
    /// Bits of the address that name the network.
    pub prefix: u8,
    /// Who knows the way to other networks.
    pub router: Option<Ipv4Addr>,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Packet memory.
    #[error(transparent)]
    Pool(#[from] MempoolError),
    /// The device.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The address.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No thread.
    #[error("the poll loop has no thread: {0}")]
    Thread(std::io::Error),
    /// Doorbells and clocks.
    #[error("the poll loop can't be set up: {0}")]
    System(std::io::Error),
    /// The thread died while it started.
    #[error("the poll loop ended while it started: {0}")]
    Ended(String),
}

/// An engine over a port, and the port.
pub struct Link {
    /// Everything that runs over it.
    pub engine: Engine<PortWire>,
    /// To ask how it is.
    pub port: Port,
    /// What it does for us.
    pub granted: Granted,
    /// The NUMA node that it is on, if that is known.
    pub node: Option<NodeId>,
    /// Bytes of the longest IP packet.
    pub mtu: u16,
    /// The device in whose memory packets arrive, or why they don't.
    pub direct: Result<DeviceKind, String>,
}

/// Opens a port and makes an engine over it. Packets arrive in the host's memory.
///
/// # Errors
/// [`LinkError`]
pub fn open(
    eal: &Eal,
    config: &LinkConfig,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Result<Link, LinkError> {
    open_for(eal, config, wake, &Err("nobody asked for it".to_owned()))
}

/// As [`open`], and packets arrive in the memory of `device`, which is opened, if they can; else
/// [`Link::direct`] says why not. An `Err` there is the reason not to try.
///
/// # Errors
/// [`LinkError`]
pub fn open_for(
    eal: &Eal,
    config: &LinkConfig,
    wake: Arc<dyn Fn() + Send + Sync>,
    device: &Result<DeviceKind, String>,
) -> Result<Link, LinkError> {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let shape = Shape::of(&config.port, interface_mtu)?;
    let name = format!("genie{}", NAMES.fetch_add(1, Ordering::Relaxed));
    let data_bytes = shape.data_bytes;
    let attached = Port::attach(eal, &shape.address)?;
    // A card's is DPDK's to say; the kernel's interfaces have cards, too.
    let node = match attached.numa_node().map(u16::try_from) {
        Some(number) => number.ok().and_then(NodeId::new),
        None => node_of(&Root::system(), &shape.address),
    };
    // What is no memory of DPDK's, and DPDK's where it has ordinary pages.
    let _preferred = node.and_then(Preferred::set);
    let near = Near::new(node);
    let pool = |name: &str, data_bytes| {
        near.make(|numa_node| {
            let config = MempoolConfig {
                cache: CACHE,
                numa_node,
                ..MempoolConfig::new(name, MBUFS, data_bytes)
            };
            Mempool::new(eal, config)
        })
    };
    let payload = device
        .clone()
        .and_then(|kind| payload(eal, kind, &name, data_bytes, &config.port, &near));
    let carriers = pool(&format!("{name}-carriers"), CARRIER_BYTES)?;
    let pool = pool(&name, data_bytes)?;
    let mut attached = Some(attached);
    let opened = prefer(payload, |payload| {
        let payload = payload.map(|(_, payload)| payload);
        let attached = match attached.take() {
            Some(attached) => attached,
            None => Port::attach(eal, &shape.address)?,
        };
        open_port(attached, &shape, &pool, payload)
    });
    let (mut opened, payload) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // SAFETY: the pool was made above, nobody has taken an mbuf of it but drivers, and every
            // port that was opened with it is closed.
            unsafe { pool.discard() };
            return Err(error.into());
        }
    };
    let mtu = match shape.asked {
        Mtu::Default => shape.mtu,
        // The card may take less than is wanted.
        Mtu::Exactly(_) | Mtu::AtMost(_) => opened.port.mtu()?.min(shape.mtu),
    };
    let mac = opened.port.mac()?;
    let (Some(rx), Some(tx)) = (opened.rx.pop(), opened.tx.pop()) else {
        return Err(LinkError::Ended("the port has no queues".to_owned()));
    };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| LinkError::System(std::io::Error::other(error.to_string())))?;
    let frame_max = usize::from(mtu) + ETHERNET_BYTES;
    let engine = EngineConfig {
        mac,
        address: config.address,
        prefix: config.prefix,
        router: config.router,
        mtu,
        seed: u64::from_ne_bytes(seed),
    };
    let granted = opened.port.granted();
    // Frames of an ordinary link hold too little for sending by reference to pay. A card has to be told
    // of each piece of memory, and to forget it: not done, so it sends from packets.
    let is_software = matches!(shape.address, PortAddress::Vdev(_));
    let by_reference = granted.tx_segments && mtu > ETHERNET_MTU && is_software;
    let from_memory = by_reference.then(|| FromMemory {
        eal: eal.clone(),
        carriers,
    });
    let wire = PortWire::new(rx, tx, pool, frame_max, from_memory);
    let mut engine = Engine::new(wire, &engine, wake)?;
    let direct = payload.map(|(device, payload)| {
        let kind = device.info().kind;
        engine.set_direct(Direct {
            device,
            payload: payload.memory().clone(),
        });
        kind
    });
    Ok(Link {
        engine,
        granted,
        port: opened.port,
        node,
        mtu,
        direct,
    })
}

/// Opens with `payload` if there is one, else without: also where the port does not take it.
fn prefer<P, T>(
    payload: Result<P, String>,
    mut open: impl FnMut(Option<&P>) -> Result<T, PortError>,
) -> Result<(T, Result<P, String>), PortError> {
    let reason = match payload {
        Ok(payload) => match open(Some(&payload)) {
            Ok(opened) => return Ok((opened, Ok(payload))),
            // The others are of the device, whatever the memory is.
            Err(
                error @ (PortError::Refused { .. }
                | PortError::NoMemory { .. }
                | PortError::PoolTooSmall { .. }),
            ) => format!("the port does not take packets there: {error}"),
            Err(error) => return Err(error),
        },
        Err(reason) => reason,
    };
    Ok((open(None)?, Err(reason)))
}

/// Opens a port whose packets arrive in `pool`, or in `payload`, which its device is told of.
fn open_port(
    attached: Attached,
    shape: &Shape,
    pool: &Mempool,
    payload: Option<&PayloadPool>,
) -> Result<OpenPort, PortError> {
    let asked = PortConfig {
        rx_descriptors: DESCRIPTORS,
        tx_descriptors: DESCRIPTORS,
        mtu: shape.asked,
        rx_interrupts: true,
        ..PortConfig::default()
    };
    let arriving = payload.map_or(pool, PayloadPool::mempool);
    let opened = attached.open(&asked, arriving)?;
    if let Some(payload) = payload {
        opened.port.map_memory(payload.external())?;
    }
    Ok(opened)
}

/// A pool of packets in a device's memory, or why there is none.
fn payload(
    eal: &Eal,
    kind: DeviceKind,
    name: &str,
    data_bytes: u16,
    port: &PortSpec,
    near: &Near,
) -> Result<(Arc<dyn Device>, PayloadPool), String> {
    if matches!(port.address, PortAddress::Vdev(Vdev::AfXdp(_))) {
        return Err(format!(
            "{port}: the kernel writes AF_XDP's packets into the port's own pool, not into the \
             memory of {kind}"
        ));
    }
    if matches!(kind, DeviceKind::Cuda(_)) {
        let reason = match port.address {
            PortAddress::Vdev(_) => "its driver copies on the CPU, which does not reach",
            _ => "its packets are not split, and the CPU does not reach heads in",
        };
        return Err(format!("{port}: {reason} the memory of {kind}"));
    }
    let device = device::open(kind).map_err(|error| error.to_string())?;
    let pool = near
        .make(|numa_node| {
            let config = MempoolConfig {
                cache: CACHE,
                numa_node,
                ..MempoolConfig::new(format!("{name}-payload"), MBUFS, data_bytes)
            };
            PayloadPool::new(eal, &*device, Way::Direct, config)
        })
        .map_err(|error| format!("{kind} has no pool for packets: {error}"))?;
    Ok((device, pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_does_not_take_the_payloads_pool_is_opened_without_and_says_why() {
        let small = || PortError::PoolTooSmall {
            address: "net_x0".to_owned(),
            data_bytes: 64,
            buffer_bytes: 2048,
        };
        let (opened, payload) = prefer(Ok("device"), |payload| match payload {
            Some(_) => Err(small()),
            None => Ok("plain"),
        })
        .unwrap();
        assert_eq!(opened, "plain");
        let reason = payload.unwrap_err();
        assert!(reason.contains(&small().to_string()), "{reason}");

        let taken = prefer(Ok("device"), |payload| Ok(payload.copied())).unwrap();
        assert_eq!(taken, (Some("device"), Ok("device")));
        let none = Err::<&str, _>("not asked for".to_owned());
        let (opened, payload) = prefer(none.clone(), |payload| Ok(payload.copied())).unwrap();
        assert_eq!((opened, payload), (None, none));
    }

    #[test]
    fn a_device_that_is_not_there_is_asked_for_once() {
        let mut tries = 0;
        let error = prefer(Ok("device"), |_| {
            tries += 1;
            Err::<(), _>(PortError::NoInterface {
                interface: "eth0".to_owned(),
            })
        });
        assert!(matches!(error, Err(PortError::NoInterface { .. })));
        assert_eq!(tries, 1);
        // Without the payload the port's own error counts.
        let error = prefer(Err::<(), _>(String::new()), |_| {
            Err::<(), _>(PortError::Zero { what: "rx_queues" })
        });
        assert!(matches!(error, Err(PortError::Zero { .. })));
    }
}
