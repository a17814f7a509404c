//! Opening a port, step by step, and closing it.

use std::ffi::{CStr, CString};
use std::sync::{Mutex, PoisonError};

use genie_dpdk_sys::{
    self as sys, Api, rte_eth_conf, rte_eth_dev_info, rte_eth_rxseg, rte_eth_rxseg_split,
};

use super::address::PortAddress;
use super::config::{BufferSplit, Granted, PortConfig};
use super::error::{PortError, Step};
use super::gate::Pass;
use super::memif::MemifLink;
use crate::{Eal, Errno, ExternalMemory, Mempool};

/// DPDK's name of the bus of cards.
pub(super) const PCI: &CStr = c"pci";

/// A device that is ours.
///
/// Invariant: from `probe` to drop, the device `name` is attached and `id` is its port. After
/// `start` it is configured, with the queues that the configuration says, and started.
#[derive(Debug)]
pub(crate) struct Open {
    eal: Eal,
    pub(super) bus: &'static CStr,
    pub(super) name: CString,
    id: u16,
    address: String,
    pub(super) granted: Granted,
    rx_queues: u16,
    /// Where the device is a memif.
    pub(super) link: Option<MemifLink>,
    /// What the device was told of.
    mapped: Mutex<Vec<ExternalMemory>>,
    /// The driver takes mbufs from these until it is closed. Last: dropped after `drop` has run.
    pools: Vec<Mempool>,
}

impl Open {
    /// Sets it up, as a configuration that was checked says, and starts it.
    pub(super) fn start(mut self, config: &PortConfig, pool: &Mempool) -> Result<Self, PortError> {
        let info = self.information()?;
        config.check_against(&info)?;
        self.granted = config.grant(&info);
        let split = config.split.as_ref().filter(|_| self.granted.buffer_split);
        self.rx_queues = config.rx_queues;
        self.pools.push(pool.clone());
        self.pools
            .extend(split.map(|split| split.header_pool.clone()));
        self.granted.rx_interrupts = config.rx_interrupts;
        match self.set_up(config, &info, pool, split) {
            // Drivers say nothing beforehand of the interrupts that they lack, but fail with them.
            Err((Step::Configure | Step::Start, error)) if config.rx_interrupts => {
                tracing::debug!("without receive interrupts, after: {error}");
                self.granted.rx_interrupts = false;
                self.set_up(config, &info, pool, split)
            }
            done => done,
        }
        .map_err(|(_, error)| error)?;
        Ok(self)
    }

    /// Configures and starts it; says what failed.
    fn set_up(
        &self,
        config: &PortConfig,
        info: &rte_eth_dev_info,
        pool: &Mempool,
        split: Option<&BufferSplit>,
    ) -> Result<(), (Step, PortError)> {
        let at = |step| move |error| (step, error);
        self.configure(config, info).map_err(at(Step::Configure))?;
        self.queues(config, info, pool, split)
            .map_err(at(Step::RxQueue))?;
        if config.promiscuous {
            // SAFETY: the port is configured. A device that has no such mode takes every frame.
            unsafe { self.api().rte_eth_promiscuous_enable(self.id) };
        }
        if let Some(link) = &self.link {
            link.start(self.api(), self.id);
            return Ok(());
        }
        // SAFETY: the port is configured and has its queues.
        let result = unsafe { self.api().rte_eth_dev_start(self.id) };
        self.ok(result, Step::Start).map_err(at(Step::Start))
    }

    /// Tries to bring up a link that is down. Says whether there was anything to be tried.
    pub(super) fn reconnect(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.reconnect(self.api(), self.id))
    }

    /// The pass of a receive queue, or behind them all of a transmit queue, if it needs one.
    pub(crate) fn pass(&self, queue: u16) -> Option<Pass> {
        self.link.as_ref()?.gate.pass(queue.into())
    }

    /// How many receive queues come before the transmit queues in [`Self::pass`].
    pub(crate) fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    /// The longest packet that the driver can send, where it does not check that itself.
    pub(crate) fn packet_bytes_max(&self) -> Option<u16> {
        Some(self.link.as_ref()?.buffer_bytes)
    }

    #[inline]
    pub(crate) fn api(&self) -> &'static Api {
        self.eal.api()
    }

    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn ok(&self, result: i32, step: Step) -> Result<(), PortError> {
        match result {
            0.. => Ok(()),
            _ => Err(PortError::of_result(result, step, &self.address)),
        }
    }

    /// Attaches the device and finds its port.
    pub(super) fn probe(eal: &Eal, address: &PortAddress) -> Result<Self, PortError> {
        let (bus, name, arguments) = match address {
            PortAddress::Pci(pci) => (PCI, pci.to_string(), String::new()),
            PortAddress::Vdev(vdev) => {
                let name = format!("{}{}", vdev.driver(), eal.next_device());
                (c"vdev", name, vdev.arguments()?)
            }
        };
        let shown = match address {
            PortAddress::Pci(_) => name.clone(),
            PortAddress::Vdev(_) => format!("{name} ({arguments})"),
        };
        // Neither can have a NUL: the parts of both were checked.
        let invalid =
            |_| PortError::of_result(-(nix::errno::Errno::EINVAL as i32), Step::Probe, &shown);
        let name = CString::new(name).map_err(invalid)?;
        let arguments = CString::new(arguments).map_err(invalid)?;
        let hotplug = eal.hotplug();
        // SAFETY: three C strings that DPDK copies; the EAL runs, and nobody else adds a device.
        let result = unsafe {
            eal.api()
                .rte_eal_hotplug_add(bus.as_ptr(), name.as_ptr(), arguments.as_ptr())
        };
        if result < 0 {
            return Err(PortError::of_result(result, Step::Probe, &shown));
        }
        let mut id = 0;
        // SAFETY: the name is a C string, and `id` lives through the call.
        let found = unsafe {
            eal.api()
                .rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id)
        };
        if found < 0 {
            // SAFETY: two C strings; the device was attached just now, and has no port.
            unsafe {
                eal.api()
                    .rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr())
            };
            return Err(PortError::NoDevice {
                address: shown,
                errno: Errno::of_result(found),
            });
        }
        drop(hotplug);
        Ok(Self {
            eal: eal.clone(),
            bus,
            name,
            id,
            address: shown,
            granted: Granted::default(),
            rx_queues: 0,
            link: None,
            mapped: Mutex::default(),
            pools: Vec::new(),
        })
    }

    /// The NUMA node that DPDK knows the device on.
    pub(super) fn numa_node(&self) -> Option<u32> {
        // SAFETY: the port exists.
        u32::try_from(unsafe { self.api().rte_eth_dev_socket_id(self.id) }).ok()
    }

    pub(super) fn information(&self) -> Result<rte_eth_dev_info, PortError> {
        let mut info = rte_eth_dev_info::default();
        // SAFETY: the port exists, and `info` lives through the call.
        let result = unsafe { self.api().rte_eth_dev_info_get(self.id, &mut info) };
        self.ok(result, Step::Information).map(|()| info)
    }

    pub(super) fn map_memory(&self, memory: &ExternalMemory) -> Result<bool, PortError> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |other: &ExternalMemory| other.start() == memory.start();
        if mapped.iter().any(known) {
            return Ok(true);
        }
        let device = self.information()?.device;
        let start = memory.start();
        let address = ExternalMemory::device_address(start);
        // SAFETY: the device is the port's own, and the memory is registered and kept.
        let result = unsafe {
            let start = start.as_ptr().cast();
            self.api()
                .rte_dev_dma_map(device, start, address, memory.bytes())
        };
        if result < 0 && Errno::last(self.api()).known() == nix::errno::Errno::ENOTSUP {
            return Ok(false);
        }
        self.ok(result, Step::Map)?;
        mapped.push(memory.clone());
        Ok(true)
    }

    fn configure(&self, config: &PortConfig, info: &rte_eth_dev_info) -> Result<(), PortError> {
        let conf = configuration(config, info, self.granted);
        // SAFETY: the port exists and is stopped; DPDK copies `conf`.
        let result = unsafe {
            self.api()
                .rte_eth_dev_configure(self.id, config.rx_queues, config.tx_queues, &conf)
        };
        self.ok(result, Step::Configure)
    }

    fn queues(
        &self,
        config: &PortConfig,
        info: &rte_eth_dev_info,
        pool: &Mempool,
        split: Option<&BufferSplit>,
    ) -> Result<(), PortError> {
        let (mut rx_descriptors, mut tx_descriptors) =
            (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port is configured, and both numbers live through the call.
        let result = unsafe {
            let api = self.api();
            api.rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx_descriptors, &mut tx_descriptors)
        };
        self.ok(result, Step::Configure)?;
        // SAFETY: the port is configured and exists.
        let node = unsafe { self.api().rte_eth_dev_socket_id(self.id) } as u32;
        let mut parts = split.map(|split| split_of(split, pool));
        let mut rx_conf = info.default_rxconf;
        rx_conf.offloads = self.granted.rx_offloads(info);
        let mut single = pool.raw();
        if let Some(parts) = &mut parts {
            rx_conf.rx_seg = parts.as_mut_ptr();
            rx_conf.rx_nseg = parts.len() as u16;
            single = std::ptr::null_mut();
        }
        for queue in 0..config.rx_queues {
            // SAFETY: the port is configured with this queue; the pools are kept in `self.pools`;
            // DPDK copies `rx_conf` and the parts that it points to.
            let result = unsafe {
                let api = self.api();
                api.rte_eth_rx_queue_setup(self.id, queue, rx_descriptors, node, &rx_conf, single)
            };
            self.ok(result, Step::RxQueue)?;
        }
        let mut tx_conf = info.default_txconf;
        tx_conf.offloads = self.granted.tx_offloads();
        for queue in 0..config.tx_queues {
            // SAFETY: the port is configured with this queue; DPDK copies `tx_conf`.
            let result = unsafe {
                let api = self.api();
                api.rte_eth_tx_queue_setup(self.id, queue, tx_descriptors, node, &tx_conf)
            };
            self.ok(result, Step::TxQueue)?;
        }
        Ok(())
    }
}

/// What the device is told of what it granted.
fn configuration(config: &PortConfig, info: &rte_eth_dev_info, granted: Granted) -> rte_eth_conf {
    let mut conf = rte_eth_conf::default();
    conf.rxmode.mtu = config.mtu_for(info).map_or(0, u32::from);
    conf.rxmode.offloads = granted.rx_offloads(info);
    conf.txmode.offloads = granted.tx_offloads();
    conf.rxmode.mq_mode = sys::GENIE_MQ_RX_NONE;
    if granted.rss {
        conf.rxmode.mq_mode = sys::GENIE_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & sys::GENIE_RSS_IP_UDP;
    }
    // Without it a card gives no vectors to its queues, and arming them is refused.
    conf.intr_conf.set_rxq(granted.rx_interrupts.into());
    conf
}

/// The header's part, then the payload's, which takes the rest.
fn split_of(split: &BufferSplit, payload: &Mempool) -> [rte_eth_rxseg; 2] {
    let part = |pool: &Mempool, length| rte_eth_rxseg {
        split: rte_eth_rxseg_split {
            mp: pool.raw(),
            length,
            ..rte_eth_rxseg_split::default()
        },
    };
    [
        part(&split.header_pool, split.header_bytes),
        part(payload, 0),
    ]
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.link.take() {
            Some(link) => link.close(self.api(), || self.close()),
            None => self.close(),
        }
    }
}

impl Open {
    fn close(&mut self) {
        let _hotplug = self.eal.hotplug();
        let device = self.information().map(|info| info.device);
        let mapped = self
            .mapped
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the port is ours and no queue of it is left, so nobody sends or receives. Stopping
        // a port that was never started does nothing. What is unmapped was mapped with these very
        // numbers, and the device is there until it is removed.
        unsafe {
            let api = self.eal.api();
            api.rte_eth_dev_stop(self.id);
            for (memory, &device) in mapped.iter().zip(device.iter().cycle()) {
                let start = memory.start();
                let address = ExternalMemory::device_address(start);
                api.rte_dev_dma_unmap(device, start.as_ptr().cast(), address, memory.bytes());
            }
            api.rte_eth_dev_close(self.id);
            api.rte_eal_hotplug_remove(self.bus.as_ptr(), self.name.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use genie_dpdk_sys::rte_eth_dev_info;

    use super::configuration;
    use crate::{Granted, Mtu, PortConfig};

    #[test]
    fn the_device_is_told_of_interrupts_and_of_an_mtu_that_it_takes() {
        let config = PortConfig {
            mtu: Mtu::AtMost(9000),
            ..PortConfig::default()
        };
        let info = rte_eth_dev_info {
            max_mtu: 3000,
            max_rx_pktlen: 3018,
            ..rte_eth_dev_info::default()
        };
        let none = configuration(&config, &info, Granted::default());
        assert_eq!((none.intr_conf.rxq(), none.rxmode.mtu), (0, 3000));
        let granted = Granted {
            rx_interrupts: true,
            ..Granted::default()
        };
        let with = configuration(&config, &info, granted).intr_conf;
        assert_eq!((with.rxq(), with.lsc(), with.rmv()), (1, 0, 0));
    }
}
