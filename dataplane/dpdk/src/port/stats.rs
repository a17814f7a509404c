//! A port's counters.

use genie_dpdk_sys::rte_eth_stats;

/// A port's counters since it was opened. What each driver counts differs; software drivers count
/// frames and bytes.
///
/// <https://doc.dpdk.org/api/structrte__eth__stats.html>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that the device dropped because nobody fetched them in time.
    pub rx_missed: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets for which the pool had no mbuf.
    pub rx_no_mbuf: u64,
}

impl From<rte_eth_stats> for PortStats {
    fn from(raw: rte_eth_stats) -> Self {
        Self {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_mbuf: raw.rx_nombuf,
        }
    }
}
