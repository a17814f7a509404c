//! A device between being found and being set up: where it is can be asked, before it has memory.

use std::path::Path;

use super::address::PortAddress;
use super::config::PortConfig;
use super::error::PortError;
use super::memif::MemifLink;
use super::open::{Open, PCI};
use super::preflight;
use super::vdev::{Memif, Vdev};
use crate::{Eal, Mempool};

/// A device that is there, and not set up.
#[derive(Debug)]
pub(super) enum Found {
    /// It is attached.
    Attached(Open),
    /// A memif is attached when its packets' pool is known.
    Memif(Eal, Memif),
}

impl Found {
    pub(super) fn new(eal: &Eal, address: &PortAddress) -> Result<Self, PortError> {
        preflight::check(address, Path::new("/"))?;
        match address {
            PortAddress::Vdev(Vdev::Memif(memif)) => Ok(Self::Memif(eal.clone(), memif.clone())),
            _ => Ok(Self::Attached(Open::probe(eal, address)?)),
        }
    }

    /// Sets it up and starts it.
    pub(super) fn open(self, config: &PortConfig, pool: &Mempool) -> Result<Open, PortError> {
        config.check()?;
        let open = match self {
            Self::Memif(eal, memif) => {
                let queues = usize::from(config.rx_queues) + usize::from(config.tx_queues);
                let address = Vdev::Memif(memif.clone()).into();
                let add = || Open::probe(&eal, &address);
                let (mut open, link) = MemifLink::probe(&memif, queues, pool, add)?;
                open.link = Some(link);
                open
            }
            Self::Attached(open) => open,
        };
        open.start(config, pool)
    }

    /// The node of a card. A device of software is on none, whatever DPDK says of it: that is the
    /// node of whoever attached it.
    pub(super) fn numa_node(&self) -> Option<u32> {
        match self {
            Self::Attached(open) if open.bus == PCI => open.numa_node(),
            _ => None,
        }
    }
}
