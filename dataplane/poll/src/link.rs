//! A DPDK port, opened and ready for a loop.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use genie_dpdk::{
    Eal, Granted, Mempool, MempoolConfig, MempoolError, Port, PortAddress, PortConfig, PortError,
    Vdev,
};
use genie_netstack::HostError;

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
}

/// Opens a port and makes an engine over it.
///
/// # Errors
/// [`LinkError`]
pub fn open(
    eal: &Eal,
    config: &LinkConfig,
    wake: Arc<dyn Fn() + Send + Sync>,
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
    let pool = pool(name, data_bytes)?;
    let asked = PortConfig {
        rx_descriptors: DESCRIPTORS,
        tx_descriptors: DESCRIPTORS,
        mtu: config.port.sets_mtu.then_some(mtu),
        ..PortConfig::default()
    };
    let mut opened = Port::open(eal, &config.port.address, &asked, &pool)?;
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
    Ok(Link {
        engine: Engine::new(wire, &engine, wake)?,
        granted,
        port: opened.port,
        mtu,
    })
}
