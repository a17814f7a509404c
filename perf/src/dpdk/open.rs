//! How an end comes by a DPDK port: the EAL, the link, and a thread that is known to DPDK.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result};
use genie_dpdk::Lcore;
use genie_poll::link::{self, LINK_MEMORY_MIB};
use genie_poll::{LinkConfig, PeerPlace, PortSpec, eal};
use genie_transport::limits::MESSAGE_BYTES_MAX;
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role, Secret};

use super::Dpdk;
use crate::control::DpdkLink;
use crate::hex;
use crate::options::Seal;
use crate::spin::Spin;

/// The UDP port of the transport at both ends.
const UDP_PORT: u16 = 7700;
/// Bits of the link's network.
const PREFIX: u8 = 24;
/// What the EAL takes beside a link's packets.
const EAL_MEMORY_MIB: u32 = LINK_MEMORY_MIB + 64;

/// Which end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The one that measures.
    Here,
    /// The other one.
    There,
}

impl Ends {
    fn index(self) -> usize {
        usize::from(self == Self::There)
    }

    fn address(self) -> SocketAddrV4 {
        // Of a network for benchmarks (RFC 2544), on a link that only the two ends reach.
        let host = 1 + self.index() as u8;
        SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, host), UDP_PORT)
    }
}

/// Opens the port of an end. The connection follows with the first test.
pub fn open(link: &DpdkLink, end: Ends, seal: Option<Seal>) -> Result<Dpdk> {
    let text = &link.ports[end.index()];
    let port: PortSpec = text.parse()?;
    // Both ends are to find their pages, whichever starts first.
    let (eal, _ordinary_pages) = eal::start(&port.address, EAL_MEMORY_MIB, 2 * EAL_MEMORY_MIB)
        .context("no DPDK: --link tcp does without")?;
    // Pinned it is already, if it is to be. Without packets at hand it is slower, and right.
    let lcore = Lcore::join(&eal).ok();
    let config = LinkConfig {
        port,
        address: end.address(),
        prefix: PREFIX,
        router: None,
    };
    let opened = link::open(&eal, &config, Arc::new(|| ()))
        .with_context(|| format!("the port {text} does not open"))?;
    let protection = match seal {
        Some(Seal::On) => Protection::Sealed(Secret(hex::decode(&link.secret)?)),
        Some(Seal::Off) | None => Protection::Checksummed,
    };
    let (role, peer) = match end {
        Ends::Here => (Role::Initiator, PeerPlace::At(Ends::There.address())),
        Ends::There => (Role::Responder, PeerPlace::Learned),
    };
    let config = Config::new(ConnectionId(link.connection), Epoch(1), role, protection);
    let kind = text.split(':').next().unwrap_or("a port");
    Ok(Dpdk {
        what: format!(
            "{} by {kind}; frames are copied into their region by the polling thread",
            eal.version()
        ),
        engine: opened.engine,
        _port: opened.port,
        _lcore: lcore,
        _eal: eal,
        config,
        peer,
        is_open: false,
        spin: Spin::new(),
        test: 0,
        plan: None,
        sources: None,
        regions: None,
        granted: Vec::new(),
        untold: VecDeque::new(),
        under_way: VecDeque::new(),
        message: [0; MESSAGE_BYTES_MAX],
        message_len: 0,
    })
}
