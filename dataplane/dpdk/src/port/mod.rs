//! Ethernet devices.

pub(crate) mod address;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod error;
mod found;
pub(crate) mod gate;
mod identity;
pub(crate) mod interface;
pub(crate) mod interrupt;
mod memif;
pub(crate) mod open;
mod preflight;
pub(crate) mod stats;
pub(crate) mod vdev;

use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_dpdk_sys::{rte_eth_stats, rte_ether_addr};

use self::address::PortAddress;
use self::config::{Granted, PortConfig};
use self::error::{PortError, Step};
use self::interrupt::Interrupt;
use self::open::Open;
use self::stats::PortStats;
use crate::{Eal, ExternalMemory, Mempool, RxQueue, TxQueue};

/// How long [`Port::wait_for_link`] sleeps between two looks.
const LINK_POLL: Duration = Duration::from_millis(2);

/// An open, started port. Clones are handles of the same one; it is stopped, closed and its device
/// removed when the last handle and the last queue are gone.
///
/// <https://doc.dpdk.org/guides/prog_guide/poll_mode_drv.html>
#[derive(Debug, Clone)]
pub struct Port(Arc<Open>);

/// A port with all of its queues.
#[derive(Debug)]
pub struct OpenPort {
    /// The port itself: counters, link, addresses.
    pub port: Port,
    /// As many as were asked for.
    pub rx: Vec<RxQueue>,
    /// As many as were asked for.
    pub tx: Vec<TxQueue>,
}

/// A device that was found, and is set up next.
#[derive(Debug)]
pub struct Attached(found::Found);

impl Attached {
    /// The NUMA node of a card, where its pools should be; none where nobody knows it, and for what
    /// is no card. Cards were not to be had in the tests, nor machines of more than one node.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.0.numa_node()
    }

    /// Sets it up and starts it. Packets are received into mbufs of `pool`.
    ///
    /// # Errors
    /// As [`Port::open`].
    pub fn open(self, config: &PortConfig, pool: &Mempool) -> Result<OpenPort, PortError> {
        let mut open = self.0.open(config, pool)?;
        let asked = open.granted.rx_interrupts;
        let interrupts = (0..config.rx_queues)
            .map(|queue| asked.then(|| Interrupt::of(&open, queue)).flatten())
            .collect::<Vec<_>>();
        open.granted.rx_interrupts = interrupts.iter().all(Option::is_some);
        let open = Arc::new(open);
        Ok(OpenPort {
            rx: (0..)
                .zip(interrupts)
                .map(|(queue, interrupt)| RxQueue::new(&open, queue, interrupt))
                .collect(),
            tx: (0..config.tx_queues)
                .map(|queue| TxQueue::new(&open, queue))
                .collect(),
            port: Port(open),
        })
    }
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether packets can pass.
    pub up: bool,
    /// Its speed; what software drivers say has no meaning.
    pub mbit_per_s: u32,
}

impl Port {
    /// Finds the device, sets it up and starts it. Packets are received into mbufs of `pool`.
    ///
    /// A memif client opens without a server, too; see [`Self::link`].
    pub fn open(
        eal: &Eal,
        address: &PortAddress,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<OpenPort, PortError> {
        Self::attach(eal, address)?.open(config, pool)
    }

    /// Finds the device: for who wants to know where it is before making its pool.
    ///
    /// # Errors
    /// There is no such device, no driver for it, or no permission.
    pub fn attach(eal: &Eal, address: &PortAddress) -> Result<Attached, PortError> {
        found::Found::new(eal, address).map(Attached)
    }

    /// Which of the offloads that were asked for are in effect.
    pub fn granted(&self) -> Granted {
        self.0.granted
    }

    /// DPDK's name of the device.
    pub fn name(&self) -> String {
        self.0.name.to_string_lossy().into_owned()
    }

    /// Bytes of payload of an Ethernet frame.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the port is open, and `mtu` lives through the call.
        let result = unsafe { self.0.api().rte_eth_dev_get_mtu(self.0.id(), &mut mtu) };
        self.0.ok(result, Step::Information).map(|()| mtu)
    }

    /// Changes [`Self::mtu`] while the port runs, where the driver can. Packets longer than the
    /// pool's mbufs need scatter.
    pub fn set_mtu(&self, bytes: u16) -> Result<(), PortError> {
        let info = self.0.information()?;
        if bytes < info.min_mtu || bytes > info.max_mtu {
            return Err(PortError::Mtu {
                asked: bytes,
                min: info.min_mtu,
                max: info.max_mtu,
            });
        }
        // SAFETY: the port is open; drivers that can't change it in flight refuse.
        let result = unsafe { self.0.api().rte_eth_dev_set_mtu(self.0.id(), bytes) };
        self.0.ok(result, Step::Mtu)
    }

    /// The Ethernet address.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = rte_ether_addr::default();
        // SAFETY: the port is open, and `mac` lives through the call.
        let result = unsafe { self.0.api().rte_eth_macaddr_get(self.0.id(), &mut mac) };
        self.0
            .ok(result, Step::Information)
            .map(|()| mac.addr_bytes)
    }

    /// The state of the link, without waiting for it.
    ///
    /// A memif client that has no link tries to connect in this call, so that one whose server came
    /// late, or went and came back, works again: whoever watches the link must repeat the call. It
    /// may take a millisecond then, and bursts on the port move nothing meanwhile.
    pub fn link(&self) -> Result<Link, PortError> {
        let link = self.state()?;
        if link.up || !self.0.reconnect() {
            return Ok(link);
        }
        self.state()
    }

    /// As [`Self::link`], but only looks.
    pub fn state(&self) -> Result<Link, PortError> {
        let (mut mbit_per_s, mut up) = (0, 0);
        // SAFETY: the port is open, and both numbers live through the call.
        let result = unsafe {
            self.0
                .api()
                .genie_dpdk_link(self.0.id(), &mut mbit_per_s, &mut up)
        };
        self.0.ok(result, Step::Information)?;
        Ok(Link {
            up: up != 0,
            mbit_per_s,
        })
    }

    /// Waits until the link is up, or for `limit`; says which.
    pub fn wait_for_link(&self, limit: Duration) -> Result<bool, PortError> {
        let end = Instant::now() + limit;
        loop {
            if self.link()?.up {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(LINK_POLL);
        }
    }

    /// Lets the device reach `memory` by DMA. Says whether it needed to be told; software drivers
    /// do not. The memory is kept, and stays reachable, until the port is closed.
    ///
    /// <https://doc.dpdk.org/api/rte__dev_8h.html>, `rte_dev_dma_map`
    pub fn map_memory(&self, memory: &ExternalMemory) -> Result<bool, PortError> {
        self.0.map_memory(memory)
    }

    /// The counters.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut raw = rte_eth_stats::default();
        // SAFETY: the port is open, and `raw` lives through the call.
        let result = unsafe { self.0.api().rte_eth_stats_get(self.0.id(), &mut raw) };
        self.0.ok(result, Step::Information).map(|()| raw.into())
    }
}
