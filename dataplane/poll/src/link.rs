//! A DPDK port, opened and ready for a loop.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use genie_dpdk::{
    Eal, Granted, Mempool, MempoolConfig, MempoolError, Port, PortAddress, PortConfig, PortError,
    Vdev,
};
use genie_gpudev::device::{Device, DeviceKind};
use genie_gpudev::receive::Way;
use genie_gpudev_dpdk::PayloadPool;
use genie_netstack::HostError;

use crate::direct::Direct;
use crate::engine::{Engine, EngineConfig};
use crate::packet::ETHERNET_BYTES;
use crate::port::{FromMemory, PortWire};
use crate::spec::PortSpec;

/// Packets of a pool: two full rings, and what is between them.
const MBUFS: u32 = 4095;
/// Bytes of an IP packet on an ordinary link.
const ETHERNET_MTU: u16 = 1500;
/// Bytes of a packet's buffer there, and where frames are jumbo.
const FRAME_BYTES: u16 = 2048;
const JUMBO_BYTES: u16 = 9216;
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

/// As [`open`], and packets arrive in the memory of `device` if they can; else [`Link::direct`] says
/// why not. An `Err` there is the reason not to try.
///
/// # Errors
/// [`LinkError`]
pub fn open_for(
    eal: &Eal,
    config: &LinkConfig,
    wake: Arc<dyn Fn() + Send + Sync>,
    device: &Result<Arc<dyn Device>, String>,
) -> Result<Link, LinkError> {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let mtu = config.port.mtu;
    let name = format!("genie{}", NAMES.fetch_add(1, Ordering::Relaxed));
    let data_bytes = match &config.port.address {
        PortAddress::Vdev(Vdev::Memif(memif)) => memif.data_bytes(),
        _ if mtu > ETHERNET_MTU => JUMBO_BYTES,
        _ => FRAME_BYTES,
    };
    let pool = |name: String, data_bytes| {
        let config = MempoolConfig {
            cache: CACHE,
            ..MempoolConfig::new(name, MBUFS, data_bytes)
        };
        Mempool::new(eal, config)
    };
    let carriers = pool(format!("{name}-carriers"), CARRIER_BYTES)?;
    let payload = device
        .clone()
        .and_then(|device| payload(eal, device, &name, data_bytes, &config.port));
    let pool = pool(name, data_bytes)?;
    let arriving = payload
        .as_ref()
        .map_or(&pool, |(_, payload)| payload.mempool());
    let asked = PortConfig {
        rx_descriptors: DESCRIPTORS,
        tx_descriptors: DESCRIPTORS,
        mtu: config.port.sets_mtu.then_some(mtu),
        ..PortConfig::default()
    };
    let mut opened = Port::open(eal, &config.port.address, &asked, arriving)?;
    if let Ok((_, payload)) = &payload {
        opened.port.map_memory(payload.external())?;
    }
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
    // Frames of an ordinary link hold too little for sending by reference to pay.
    let by_reference = granted.tx_segments && mtu > ETHERNET_MTU;
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
        mtu,
        direct,
    })
}

/// A pool of packets in a device's memory, or why there is none.
fn payload(
    eal: &Eal,
    device: Arc<dyn Device>,
    name: &str,
    data_bytes: u16,
    port: &PortSpec,
) -> Result<(Arc<dyn Device>, PayloadPool), String> {
    let kind = device.info().kind;
    if matches!(kind, DeviceKind::Cuda(_)) {
        let reason = match port.address {
            PortAddress::Vdev(_) => "its driver copies on the CPU, which does not reach",
            _ => "its packets are not split, and the CPU does not reach heads in",
        };
        return Err(format!("{port}: {reason} the memory of {kind}"));
    }
    let config = MempoolConfig {
        cache: CACHE,
        ..MempoolConfig::new(format!("{name}-payload"), MBUFS, data_bytes)
    };
    let pool = PayloadPool::new(eal, &*device, Way::Direct, config)
        .map_err(|error| format!("{kind} has no pool for packets: {error}"))?;
    Ok((device, pool))
}
