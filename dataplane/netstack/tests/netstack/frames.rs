//! Frames made by hand.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpPacket, TcpRepr,
};

use crate::sim::mac;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;

fn frame(to: [u8; 6], from: [u8; 6], protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &protocol.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ARP frame to `to`: `sender` says it has `sender_mac`, about `target`.
pub fn arp(
    to: [u8; 6],
    operation: ArpOperation,
    (sender_mac, sender): ([u8; 6], Ipv4Addr),
    target: Ipv4Addr,
) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(sender_mac),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress(to),
        target_protocol_addr: target,
    };
    let mut payload = vec![0; arp.buffer_len()];
    arp.emit(&mut ArpPacket::new_unchecked(&mut payload));
    frame(to, sender_mac, ARP, &payload)
}

/// An IP packet in a frame to host `to`.
pub fn ip(
    to: usize,
    from_mac: [u8; 6],
    (from, target): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    body: &[u8],
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: target,
        next_header: protocol,
        payload_len: body.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(
        &mut Ipv4Packet::new_unchecked(&mut packet),
        &ChecksumCapabilities::default(),
    );
    packet.extend(body);
    frame(mac(to), from_mac, IPV4, &packet)
}

/// A ping to host `to`.
pub fn ping(
    to: usize,
    from_mac: [u8; 6],
    addresses: (Ipv4Addr, Ipv4Addr),
    sequence: u16,
    data: &[u8],
) -> Vec<u8> {
    let echo = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: sequence,
        data,
    };
    let mut body = vec![0; echo.buffer_len()];
    echo.emit(
        &mut Icmpv4Packet::new_unchecked(&mut body),
        &ChecksumCapabilities::default(),
    );
    ip(to, from_mac, addresses, IpProtocol::Icmp, &body)
}

/// A TCP segment to host `to`.
pub fn tcp(
    to: usize,
    from_mac: [u8; 6],
    addresses: (Ipv4Addr, Ipv4Addr),
    segment: &TcpRepr<'_>,
) -> Vec<u8> {
    let mut body = vec![0; segment.buffer_len()];
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut body),
        &addresses.0.into(),
        &addresses.1.into(),
        &ChecksumCapabilities::default(),
    );
    ip(to, from_mac, addresses, IpProtocol::Tcp, &body)
}
