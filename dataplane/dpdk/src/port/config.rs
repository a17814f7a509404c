//! What a port is asked for, and what it granted.

use std::fmt;

use genie_dpdk_sys::{self as sys, rte_eth_dev_info};

use super::error::PortError;
use crate::Mempool;

/// Ethernet's header and checksum.
const AROUND_BYTES: u16 = 14 + 4;

/// What a port is asked for.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of a receive queue; the driver may round it.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue; the driver may round it.
    pub tx_descriptors: u16,
    /// Bytes of payload of an Ethernet frame.
    pub mtu: Mtu,
    /// Work that the device should take over, if it can.
    pub offloads: Offloads,
    /// Where the two parts of a split packet go. Asked for by [`Offloads::buffer_split`].
    pub split: Option<BufferSplit>,
    /// Take frames for any address.
    pub promiscuous: bool,
    /// Receive interrupts, if the driver has them: see [`crate::RxQueue::arm`]. Those of PCI cards
    /// have, by vfio. None of the virtual devices here has, so that this was never seen to wake
    /// anybody: what was tried is that they are asked for, and that a port without them works.
    pub rx_interrupts: bool,
}

/// Bytes of payload of an Ethernet frame: what is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mtu {
    /// The driver's own (1500).
    #[default]
    Default,
    /// This, or the port does not open.
    Exactly(u16),
    /// This, or the most that the device takes: [`crate::Port::mtu`] says which.
    AtMost(u16),
}

impl Default for PortConfig {
    /// A queue each way with 1024 descriptors, every offload but the split asked for.
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: Mtu::Default,
            offloads: Offloads {
                checksum: true,
                rss: true,
                scatter: true,
                buffer_split: false,
            },
            split: None,
            promiscuous: false,
            rx_interrupts: false,
        }
    }
}

/// Work that a device may take over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// IPv4 and UDP checksums, both ways.
    pub checksum: bool,
    /// Spreading packets over the receive queues by a hash of IP and UDP.
    pub rss: bool,
    /// Packets of more than one mbuf, both ways.
    pub scatter: bool,
    /// Header and payload of a received packet in different pools.
    pub buffer_split: bool,
}

/// Where the two parts of a split packet go.
///
/// <https://doc.dpdk.org/guides/nics/features.html#buffer-split-on-rx>
#[derive(Debug, Clone)]
pub struct BufferSplit {
    /// Bytes of the header.
    pub header_bytes: u16,
    /// Where headers go. Payloads go to the port's own pool.
    pub header_pool: Mempool,
}

/// What a port granted of the [`Offloads`] that were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    /// Checksums of received packets are checked.
    pub rx_checksum: bool,
    /// Checksums of sent packets are written.
    pub tx_checksum: bool,
    /// Packets are spread over the receive queues.
    pub rss: bool,
    /// Received packets may have more than one segment.
    pub rx_scatter: bool,
    /// Sent packets may have more than one segment.
    pub tx_segments: bool,
    /// Header and payload go to different pools.
    pub buffer_split: bool,
    /// A receive queue can be waited for ([`crate::RxQueue::arm`]).
    pub rx_interrupts: bool,
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.rx_checksum, "checks checksums"),
            (self.tx_checksum, "writes checksums"),
            (self.rss, "spreads by RSS"),
            (self.rx_scatter, "receives in segments"),
            (self.tx_segments, "sends from segments"),
            (self.buffer_split, "splits packets"),
            (self.rx_interrupts, "has receive interrupts"),
        ];
        let granted: Vec<_> = all
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, what)| *what)
            .collect();
        if granted.is_empty() {
            f.write_str("offloads nothing")
        } else {
            f.write_str(&granted.join(", "))
        }
    }
}

impl PortConfig {
    /// What the device can do of what is asked, and no more.
    pub(super) fn grant(&self, info: &rte_eth_dev_info) -> Granted {
        let rx = |mask| info.rx_offload_capa & mask == mask;
        let tx = |mask| info.tx_offload_capa & mask == mask;
        let asked = self.offloads;
        Granted {
            rx_checksum: asked.checksum && rx(sys::GENIE_RX_CHECKSUM),
            tx_checksum: asked.checksum && tx(sys::GENIE_TX_CHECKSUM),
            rss: asked.rss
                && self.rx_queues > 1
                && info.flow_type_rss_offloads & sys::GENIE_RSS_IP_UDP != 0,
            rx_scatter: asked.scatter && rx(sys::GENIE_RX_SCATTER),
            tx_segments: asked.scatter && tx(sys::GENIE_TX_MULTI_SEGS),
            buffer_split: asked.buffer_split
                && self.split.is_some()
                && rx(sys::GENIE_RX_BUFFER_SPLIT)
                && info.rx_seg_capa.max_nseg >= 2,
            // Found out once the port runs: drivers don't say so beforehand.
            rx_interrupts: false,
        }
    }

    /// Checks what can be known before the device is asked.
    pub(super) fn check(&self) -> Result<(), PortError> {
        for (what, value) in [
            ("rx_queues", self.rx_queues),
            ("tx_queues", self.tx_queues),
            ("rx_descriptors", self.rx_descriptors),
            ("tx_descriptors", self.tx_descriptors),
        ] {
            if value == 0 {
                return Err(PortError::Zero { what });
            }
        }
        Ok(())
    }

    /// Checks what the device has limits for.
    pub(super) fn check_against(&self, info: &rte_eth_dev_info) -> Result<(), PortError> {
        for (what, asked, max) in [
            ("receive", self.rx_queues, info.max_rx_queues),
            ("transmit", self.tx_queues, info.max_tx_queues),
        ] {
            if asked > max {
                return Err(PortError::Queues { what, asked, max });
            }
        }
        match self.mtu_for(info) {
            Some(asked) if asked < info.min_mtu || asked > mtu_max(info) => Err(PortError::Mtu {
                asked,
                min: info.min_mtu,
                max: mtu_max(info),
            }),
            _ => Ok(()),
        }
    }

    /// What the device is told, if anything.
    pub(super) fn mtu_for(&self, info: &rte_eth_dev_info) -> Option<u16> {
        match self.mtu {
            Mtu::Default => None,
            Mtu::Exactly(bytes) => Some(bytes),
            Mtu::AtMost(bytes) => Some(bytes.min(mtu_max(info))),
        }
    }
}

/// The longest payload of a frame that DPDK lets the device be told. Drivers may name that of the
/// frame alone, with Ethernet's header and checksum.
fn mtu_max(info: &rte_eth_dev_info) -> u16 {
    if info.max_rx_pktlen == 0 || info.max_rx_pktlen > info.max_mtu.into() {
        return info.max_mtu;
    }
    let frame = u16::try_from(info.max_rx_pktlen).unwrap_or(u16::MAX);
    info.max_mtu.min(frame.saturating_sub(AROUND_BYTES))
}

impl Granted {
    pub(super) fn rx_offloads(self, info: &rte_eth_dev_info) -> u64 {
        let hash = self.rss && info.rx_offload_capa & sys::GENIE_RX_RSS_HASH != 0;
        // A split packet has two segments.
        let scatter = self.rx_scatter
            || self.buffer_split && info.rx_offload_capa & sys::GENIE_RX_SCATTER != 0;
        mask(self.rx_checksum, sys::GENIE_RX_CHECKSUM)
            | mask(hash, sys::GENIE_RX_RSS_HASH)
            | mask(scatter, sys::GENIE_RX_SCATTER)
            | mask(self.buffer_split, sys::GENIE_RX_BUFFER_SPLIT)
    }

    pub(super) fn tx_offloads(self) -> u64 {
        mask(self.tx_checksum, sys::GENIE_TX_CHECKSUM)
            | mask(self.tx_segments, sys::GENIE_TX_MULTI_SEGS)
    }
}

fn mask(granted: bool, bits: u64) -> u64 {
    if granted { bits } else { 0 }
}

#[cfg(test)]
mod tests {
    use genie_dpdk_sys::{self as sys, rte_eth_dev_info};

    use super::{Granted, Mtu, Offloads, PortConfig};
    use crate::PortError;

    #[test]
    fn only_what_is_asked_and_offered_is_granted() {
        let config = PortConfig {
            rx_queues: 2,
            ..PortConfig::default()
        };
        let bare = rte_eth_dev_info::default();
        assert_eq!(config.grant(&bare), Granted::default());
        let rich = rte_eth_dev_info {
            rx_offload_capa: u64::MAX,
            tx_offload_capa: u64::MAX,
            flow_type_rss_offloads: sys::GENIE_RSS_IP_UDP,
            ..rte_eth_dev_info::default()
        };
        let granted = config.grant(&rich);
        assert!(granted.rx_checksum && granted.tx_checksum && granted.rss);
        assert!(granted.rx_scatter && granted.tx_segments && !granted.buffer_split);
        let half = rte_eth_dev_info {
            rx_offload_capa: sys::GENIE_RX_CHECKSUM & !1 & !2,
            ..rte_eth_dev_info::default()
        };
        assert!(
            !config.grant(&half).rx_checksum,
            "half of a checksum is none"
        );
        let modest = PortConfig {
            offloads: Offloads::default(),
            ..config
        };
        assert_eq!(modest.grant(&rich), Granted::default());
        assert_eq!(modest.grant(&rich).rx_offloads(&rich), 0);
    }

    #[test]
    fn an_mtu_is_clamped_to_what_the_device_takes() {
        let config = |mtu| PortConfig {
            mtu,
            ..PortConfig::default()
        };
        // The MTU, the frame, and what comes of 9000.
        for (max_mtu, max_rx_pktlen, told) in [
            (1500, 1518, 1500),
            (9710, 9728, 9000),
            (3498, 3520, 3498),
            (u16::MAX, 2048, 2030),
            (u16::MAX, 16 << 10, 9000),
            (4000, 0, 4000),
        ] {
            let info = rte_eth_dev_info {
                max_mtu,
                max_rx_pktlen,
                ..rte_eth_dev_info::default()
            };
            assert_eq!(config(Mtu::AtMost(9000)).mtu_for(&info), Some(told));
            assert_eq!(config(Mtu::Exactly(9000)).mtu_for(&info), Some(9000));
            assert_eq!(config(Mtu::Default).mtu_for(&info), None);
        }
    }

    #[test]
    fn limits_are_kept() {
        let info = rte_eth_dev_info {
            max_rx_queues: 1,
            max_tx_queues: 1,
            min_mtu: 68,
            max_mtu: 1500,
            ..rte_eth_dev_info::default()
        };
        let with = |change: fn(&mut PortConfig)| {
            let mut config = PortConfig::default();
            change(&mut config);
            config.check().and_then(|()| config.check_against(&info))
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert!(matches!(
            with(|c| c.rx_queues = 2),
            Err(PortError::Queues { max: 1, .. })
        ));
        assert!(matches!(
            with(|c| c.mtu = Mtu::Exactly(9000)),
            Err(PortError::Mtu { max: 1500, .. })
        ));
        assert_eq!(with(|c| c.mtu = Mtu::AtMost(9000)), Ok(()));
        assert!(matches!(
            with(|c| c.mtu = Mtu::AtMost(60)),
            Err(PortError::Mtu { min: 68, .. })
        ));
        assert_eq!(
            with(|c| c.tx_queues = 0),
            Err(PortError::Zero { what: "tx_queues" })
        );
    }
}
