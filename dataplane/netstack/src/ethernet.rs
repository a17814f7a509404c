//! Ethernet frames: written to the port's buffers.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
};

/// Bytes of the Ethernet header.
pub(crate) const HEADER_BYTES: usize = 14;
/// The shortest frame without its check sequence (IEEE 802.3); not every port pads by itself.
pub(crate) const FRAME_MIN_BYTES: usize = 60;

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
}

/// Writes an IP packet as a frame. None if `out` is too short.
pub(crate) fn write_ip(from: Station, to: [u8; 6], packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = write_header(from, to, EthernetProtocol::Ipv4, packet.len(), out)?;
    out[HEADER_BYTES..HEADER_BYTES + packet.len()].copy_from_slice(packet);
    Some(len)
}

/// Writes an ARP request for `wanted`. None if `out` is too short.
pub(crate) fn write_arp_request(from: Station, wanted: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let everybody = EthernetAddress::BROADCAST.0;
    write_arp(from, ArpOperation::Request, everybody, [0; 6], wanted, out)
}

/// Writes an ARP answer. None if `out` is too short.
pub(crate) fn write_arp_reply(
    from: Station,
    to: ([u8; 6], Ipv4Addr),
    out: &mut [u8],
) -> Option<usize> {
    write_arp(from, ArpOperation::Reply, to.0, to.0, to.1, out)
}

fn write_arp(
    from: Station,
    operation: ArpOperation,
    destination: [u8; 6],
    target_mac: [u8; 6],
    target: Ipv4Addr,
    out: &mut [u8],
) -> Option<usize> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.mac),
        source_protocol_addr: from.address,
        target_hardware_addr: EthernetAddress(target_mac),
        target_protocol_addr: target,
    };
    let protocol = EthernetProtocol::Arp;
    let len = write_header(from, destination, protocol, arp.buffer_len(), out)?;
    let payload = &mut out[HEADER_BYTES..HEADER_BYTES + arp.buffer_len()];
    arp.emit(&mut ArpPacket::new_unchecked(payload));
    Some(len)
}

/// Writes header and padding.
fn write_header(
    from: Station,
    to: [u8; 6],
    protocol: EthernetProtocol,
    payload: usize,
    out: &mut [u8],
) -> Option<usize> {
    let len = (HEADER_BYTES + payload).max(FRAME_MIN_BYTES);
    let out = out.get_mut(..len)?;
    let mut frame = EthernetFrame::new_unchecked(&mut *out);
    frame.set_src_addr(EthernetAddress(from.mac));
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_ethertype(protocol);
    out[HEADER_BYTES + payload..].fill(0);
    Some(len)
}
