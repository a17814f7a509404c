//! What the host needs to know of a TCP segment, to find its connection and to keep it alive.

use std::net::SocketAddrV4;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// The head of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    /// Asks for a connection: SYN alone.
    pub(crate) opens: bool,
    pub(crate) syn: bool,
    pub(crate) resets: bool,
    pub(crate) seq: u32,
    /// Sequence numbers that it takes: its bytes, SYN and FIN.
    pub(crate) len: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) window: u16,
}

impl Segment {
    /// Reads a received IPv4 packet that says it holds TCP; none if it doesn't, or was damaged.
    pub(crate) fn receive(packet: &[u8]) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        tcp.verify_checksum(&from, &to)
            .then(|| Self::read(&ip, &tcp))
    }

    /// Reads an IPv4 packet of our own; none if it isn't TCP.
    pub(crate) fn of_ours(packet: &[u8]) -> Option<Self> {
        let ip = Ipv4Packet::new_unchecked(packet);
        if ip.next_header() != IpProtocol::Tcp {
            return None;
        }
        Some(Self::read(&ip, &TcpPacket::new_checked(ip.payload()).ok()?))
    }

    /// Gives the packet that this was read from another sequence number.
    pub(crate) fn renumber(&mut self, seq: u32, packet: &mut [u8]) {
        self.seq = seq;
        let mut ip = Ipv4Packet::new_unchecked(packet);
        let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
        tcp.set_seq_number(TcpSeqNumber(seq.cast_signed()));
        let (from, to) = (*self.source.ip(), *self.destination.ip());
        tcp.fill_checksum(&from.into(), &to.into());
    }

    fn read(ip: &Ipv4Packet<&[u8]>, tcp: &TcpPacket<&[u8]>) -> Self {
        Self {
            source: SocketAddrV4::new(ip.src_addr(), tcp.src_port()),
            destination: SocketAddrV4::new(ip.dst_addr(), tcp.dst_port()),
            opens: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
            syn: tcp.syn(),
            resets: tcp.rst(),
            seq: tcp.seq_number().0.cast_unsigned(),
            len: u32::try_from(tcp.segment_len()).unwrap_or(0),
            ack: tcp.ack().then(|| tcp.ack_number().0.cast_unsigned()),
            window: tcp.window_len(),
        }
    }
}

/// Bytes of an [`Empty`] segment's packet.
pub(crate) const EMPTY_BYTES: usize = 40;

/// A segment without data or flags: it acknowledges, and can carry nothing into a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Empty {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
}

impl Empty {
    /// Writes it as an IPv4 packet of [`EMPTY_BYTES`].
    pub(crate) fn write(&self, out: &mut [u8]) {
        let checksums = ChecksumCapabilities::default();
        let tcp = TcpRepr {
            src_port: self.from.port(),
            dst_port: self.to.port(),
            control: TcpControl::None,
            seq_number: TcpSeqNumber(self.seq.cast_signed()),
            ack_number: Some(TcpSeqNumber(self.ack.cast_signed())),
            window_len: self.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let ip = Ipv4Repr {
            src_addr: *self.from.ip(),
            dst_addr: *self.to.ip(),
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut out[..]), &checksums);
        let mut packet = TcpPacket::new_unchecked(&mut out[ip.buffer_len()..]);
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        tcp.emit(&mut packet, &from, &to, &checksums);
    }
}
