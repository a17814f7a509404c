//! How a transport frame travels: Ethernet, IPv4 without options, UDP.
//!
//! UDP's checksum is left out, as RFC 768 allows over IPv4: a frame of the transport has a tag of
//! its own over every byte. The header of IPv4 is checked, since routers rewrite it.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes before the transport's frame.
pub const HEADERS_BYTES: usize = ETHERNET_BYTES + IP_BYTES + UDP_BYTES;
/// Bytes of Ethernet's header.
pub const ETHERNET_BYTES: usize = 14;
/// Of those, what counts against a port's MTU.
pub const IP_AND_UDP_BYTES: usize = IP_BYTES + UDP_BYTES;
/// The UDP port of the transport, unless another is chosen: that of the control channel.
pub const TRANSPORT_PORT: u16 = 7700;

const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;
const HOPS: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where a frame comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the next hop.
    pub mac: Mac,
    /// Of the host, and its UDP port.
    pub address: SocketAddrV4,
}

/// What a received frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// For the transport: from where, and where its bytes start and end.
    Transport(Place, std::ops::Range<usize>),
    /// For the host's own stack: ARP, ping, TCP, and what it is to refuse.
    Host,
    /// Damaged.
    Damaged,
}

/// Sorts a received frame. `me` is this host's address and UDP port.
#[must_use]
pub fn sort(frame: &[u8], me: SocketAddrV4) -> Received {
    let Some(headers) = frame.first_chunk::<HEADERS_BYTES>() else {
        return Received::Host;
    };
    let (ip, udp) = headers[ETHERNET_BYTES..].split_at(IP_BYTES);
    let is_udp = headers[12..14] == ETHERTYPE_IPV4 && ip[0] == 0x45 && ip[9] == PROTOCOL_UDP;
    let port = u16::from_be_bytes([udp[2], udp[3]]);
    if !is_udp || ip[16..20] != me.ip().octets() || port != me.port() {
        return Received::Host;
    }
    let fragment = u16::from_be_bytes([ip[6] & 0x3f, ip[7]]) != 0;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let datagram = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if fragment
        || sum(ip) != 0
        || total != IP_BYTES + datagram
        || datagram < UDP_BYTES
        || frame.len() < ETHERNET_BYTES + total
    {
        return Received::Damaged;
    }
    let mut mac = [0; 6];
    mac.copy_from_slice(&headers[6..12]);
    let from = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    let from = SocketAddrV4::new(from, u16::from_be_bytes([udp[0], udp[1]]));
    Received::Transport(
        Place { mac, address: from },
        HEADERS_BYTES..ETHERNET_BYTES + total,
    )
}

/// Writes the headers of a frame of `len` bytes.
pub fn write(headers: &mut [u8; HEADERS_BYTES], from: Place, to: Place, len: usize) {
    // An Ethernet frame is shorter than 64 KiB.
    let datagram = (UDP_BYTES + len) as u16;
    let total = (IP_BYTES + UDP_BYTES + len) as u16;
    headers[..6].copy_from_slice(&to.mac);
    headers[6..12].copy_from_slice(&from.mac);
    headers[12..14].copy_from_slice(&ETHERTYPE_IPV4);
    let (ip, udp) = headers[ETHERNET_BYTES..].split_at_mut(IP_BYTES);
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6] = DONT_FRAGMENT;
    ip[8] = HOPS;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&from.address.ip().octets());
    ip[16..20].copy_from_slice(&to.address.ip().octets());
    let checksum = sum(ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    udp[..2].copy_from_slice(&from.address.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.address.port().to_be_bytes());
    udp[4..6].copy_from_slice(&datagram.to_be_bytes());
    udp[6..8].fill(0);
}

/// The Internet checksum (RFC 1071): zero over a header that holds its own.
fn sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place {
        mac: [2, 0, 0, 0, 0, 1],
        address: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 40000),
    };
    const B: Place = Place {
        mac: [2, 0, 0, 0, 0, 2],
        address: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 7700),
    };

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![7; HEADERS_BYTES + len];
        write(frame.first_chunk_mut().unwrap(), A, B, len);
        frame
    }

    #[test]
    fn what_is_written_is_sorted_to_the_transport() {
        for len in [0, 1, 1200, 8900] {
            let mut frame = frame(len);
            let expected = Received::Transport(A, HEADERS_BYTES..HEADERS_BYTES + len);
            assert_eq!(sort(&frame, B.address), expected);
            // A link may pad short frames.
            frame.resize(frame.len() + 30, 0);
            assert_eq!(sort(&frame, B.address), expected);
        }
    }

    #[test]
    fn what_is_for_others_is_the_hosts() {
        assert_eq!(sort(&frame(10), A.address), Received::Host);
        let other = SocketAddrV4::new(*B.address.ip(), 7701);
        assert_eq!(sort(&frame(10), other), Received::Host);
        assert_eq!(sort(&[0; 20], B.address), Received::Host);
    }

    #[test]
    fn a_damaged_header_is_dropped() {
        let good = frame(10);
        // Length, flags, hops, checksum and source of IPv4, length of UDP.
        for at in [16, 17, 20, 21, 22, 24, 25, 26, 29, 38, 39] {
            let mut bad = good.clone();
            bad[at] ^= 0x24;
            assert_eq!(sort(&bad, B.address), Received::Damaged, "byte {at}");
        }
        assert_eq!(sort(&good[..good.len() - 1], B.address), Received::Damaged);
    }
}
