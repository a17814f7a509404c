//! A host on a port: frames in, frames out.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Cidr, Ipv4Packet};

use crate::counters::HostCounters;
use crate::ethernet::{Station, write_arp_reply, write_arp_request, write_ip};
use crate::limits::{ARP_REPLIES_MAX, REPLIES_MAX};
use crate::neighbors::{Heard, Neighbors};
use crate::packets::PacketQueue;
use crate::parked::Parked;
use crate::pipe::Signal;
use crate::segment::Segment;
use crate::settings::{HostConfig, HostError, is_hardware_address, is_host};
use crate::stack::Stack;
use crate::stream::PipeStream;

/// RFC 792.
const ICMP_ECHO_REQUEST: u8 = 8;

/// A host on a port that the kernel can't see.
///
/// The loop that owns it gives it every frame that is ARP, ICMP or TCP, and then asks for frames
/// until there are none. Before it sleeps it asks for [`Host::timeout`]; `wake` ends that sleep, so
/// a call of `wake` just before the sleep must not be lost (an eventfd does that).
///
/// No call takes a lock that an application may hold for long, and none at all while no application
/// and no peer did anything. Nothing is allocated but for a connection that opens, and for packets
/// whose neighbor is unknown.
pub struct Host {
    station: Station,
    network: Ipv4Cidr,
    mtu: usize,
    neighbors: Neighbors,
    stack: Stack,
    /// IP packets for the port.
    queue: PacketQueue,
    /// IP packets whose neighbor is unknown.
    parked: Parked,
    /// A neighbor became known: parked packets may leave.
    learned: bool,
    /// Who asked for our hardware address.
    questions: VecDeque<([u8; 6], Ipv4Addr)>,
    signal: Arc<Signal>,
    now: Duration,
    /// When the stack wants to be looked at again.
    next_at: Option<Duration>,
    /// The stack has something to do now.
    busy: bool,
    counters: HostCounters,
}

impl Host {
    /// A host without connections. `wake` is called, from any thread, when an application wrote,
    /// read or closed and the loop might sleep.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: HostConfig, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Self, HostError> {
        let network = config.check()?;
        let signal = Arc::new(Signal::new(wake));
        Ok(Self {
            station: Station {
                mac: config.mac,
                address: config.address,
            },
            network,
            mtu: config.mtu,
            neighbors: Neighbors::new(config.mac, network, config.router),
            stack: Stack::new(&config, network, Arc::clone(&signal)),
            queue: PacketQueue::new(config.tcp_connections_max + REPLIES_MAX, config.mtu),
            parked: Parked::default(),
            learned: false,
            questions: VecDeque::with_capacity(ARP_REPLIES_MAX),
            signal,
            now: Duration::ZERO,
            next_at: None,
            busy: false,
            counters: HostCounters::default(),
        })
    }

    /// Takes a received Ethernet frame: ARP, or IPv4 with ICMP or TCP; others are counted and
    /// dropped. `now` counts from any start, and does not go back.
    pub fn handle(&mut self, frame: &[u8], now: Duration) {
        self.advance(now);
        self.counters.received += 1;
        let Ok(frame) = EthernetFrame::new_checked(frame) else {
            self.counters.malformed += 1;
            return;
        };
        let to = frame.dst_addr();
        let to_us = to.0 == self.station.mac;
        match frame.ethertype() {
            EthernetProtocol::Arp if to_us || to.is_broadcast() => self.handle_arp(frame.payload()),
            EthernetProtocol::Ipv4 if to_us => self.handle_ip(frame.src_addr().0, frame.payload()),
            _ => self.counters.not_ours += 1,
        }
    }

    /// Writes the next frame to the front of `out`, and says how long it is: up to 14 bytes more
    /// than the MTU, 60 at least. None: nothing is to be sent now.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut [u8]) -> Option<usize> {
        self.advance(now);
        if let Some(len) = self.write_next(out) {
            return Some(len);
        }
        if !self.is_due() {
            return None;
        }
        self.work();
        self.write_next(out)
    }

    /// When to call [`Host::poll_transmit`] again though nothing happens, on `now`'s clock; not
    /// after `now` if there is something to do already.
    #[must_use]
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        let waiting = !self.queue.is_empty()
            || !self.questions.is_empty()
            || self.neighbors.has_requests()
            || self.learned
            || self.busy
            || self.signal.is_raised();
        if waiting { Some(now) } else { self.next_at }
    }

    /// Lets peers connect to a port; `backlog` of them may be half-open or wait to be accepted.
    ///
    /// # Errors
    /// The port is taken, or there are too many.
    pub fn listen(&mut self, port: u16, backlog: usize) -> Result<(), HostError> {
        self.stack.listen(port, backlog)
    }

    /// A connection that a peer began: the application's end, the peer, and our port.
    pub fn accept(&mut self) -> Option<(PipeStream, SocketAddrV4, u16)> {
        self.stack.accept()
    }

    /// Begins a connection. The stream is there at once, and ready when the handshake has ended.
    ///
    /// # Errors
    /// There is no room, no port, or no way to get there.
    pub fn connect(&mut self, to: SocketAddrV4) -> Result<PipeStream, HostError> {
        if to.port() == 0 || *to.ip() == self.station.address || !is_host(*to.ip(), self.network) {
            return Err(HostError::Peer { to });
        }
        if self.neighbors.next_hop(*to.ip()).is_none() {
            return Err(HostError::NoRoute { to: *to.ip() });
        }
        let stream = self.stack.connect(to, self.now)?;
        self.busy = true;
        Ok(stream)
    }

    /// The hardware address to which frames for `address` go: its own on the link, the router's
    /// else. None: a request is on its way, ask again; or there is no way to get there.
    pub fn resolve(&mut self, address: Ipv4Addr, now: Duration) -> Option<[u8; 6]> {
        self.advance(now);
        let Some(hop) = self.neighbors.next_hop(address) else {
            self.counters.no_route += 1;
            return None;
        };
        self.neighbors.lookup(hop, self.now)
    }

    /// The link came up: forgets its neighbors, whose hardware addresses may have changed, and
    /// tells them of this host.
    pub fn link_up(&mut self) {
        self.neighbors.start_over();
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        let mut counters = self.counters;
        counters.neighbors = self.neighbors.counters;
        counters.neighbors.known = self.neighbors.known(self.now);
        counters.neighbors.unresolved = self.counters.neighbors.unresolved;
        counters.neighbors.replies = self.counters.neighbors.replies;
        counters.neighbors.requests = self.counters.neighbors.requests;
        counters.tcp = self.stack.table.counters;
        counters.tcp.open = self.stack.table.connections.len() as u64;
        counters
    }

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn handle_arp(&mut self, arp: &[u8]) {
        match self.neighbors.handle(arp, self.now) {
            Heard::Nothing => {}
            Heard::Question(..) if self.questions.len() == ARP_REPLIES_MAX => {
                self.counters.queue_full += 1;
            }
            Heard::Question(mac, address) => self.questions.push_back((mac, address)),
        }
        self.learned = true;
    }

    fn handle_ip(&mut self, mac: [u8; 6], packet: &[u8]) {
        let Ok(ip) = Ipv4Packet::new_checked(packet) else {
            self.counters.malformed += 1;
            return;
        };
        if usize::from(ip.total_len()) > self.mtu {
            self.counters.malformed += 1;
            return;
        }
        // What pads a short frame is no part of the packet.
        let packet = &packet[..usize::from(ip.total_len())];
        let (from, protocol) = (ip.src_addr(), ip.next_header());
        if ip.dst_addr() != self.station.address
            || !matches!(protocol, IpProtocol::Icmp | IpProtocol::Tcp)
        {
            self.counters.not_ours += 1;
        } else if !is_hardware_address(&mac)
            || from == self.station.address
            || !is_host(from, self.network)
        {
            self.counters.bad_source += 1;
        } else if ip.more_frags() || ip.frag_offset() != 0 {
            self.counters.fragments += 1;
        } else {
            self.neighbors.heard(from, mac, self.now);
            let taken = if protocol == IpProtocol::Icmp {
                if ip.payload().first() != Some(&ICMP_ECHO_REQUEST) {
                    self.counters.not_ours += 1;
                    return;
                }
                self.counters.pings += 1;
                self.stack.feed(packet, self.now, &mut self.queue)
            } else if let Some(segment) = Segment::receive(packet) {
                self.busy = true;
                self.stack
                    .handle(packet, &segment, self.now, &mut self.queue)
            } else {
                self.counters.malformed += 1;
                true
            };
            self.counters.queue_full += u64::from(!taken);
        }
    }

    fn is_due(&self) -> bool {
        self.busy || self.signal.is_raised() || self.next_at.is_some_and(|at| at <= self.now)
    }

    /// Lets the stack do what it has to.
    fn work(&mut self) {
        let now = self.now;
        if self.signal.take() {
            self.stack.table.serve_called(now);
        }
        let neighbors = &self.neighbors;
        let reachable = |to| {
            let hop = neighbors.next_hop(to);
            hop.is_some_and(|hop| neighbors.peek(hop, now).is_some())
        };
        self.stack.tick(now, &mut self.queue, reachable);
        self.stack.send(now, &mut self.queue);
        // It may have more once this is sent.
        self.busy = !self.queue.is_empty();
        self.next_at = self.stack.timeout(now);
    }

    /// Writes what waits, oldest kinds first. None if nothing waits.
    fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        loop {
            let written = if let Some(to) = self.questions.pop_front() {
                self.counters.neighbors.replies += 1;
                write_arp_reply(self.station, to, out)
            } else if let Some(wanted) = self.neighbors.next_request() {
                self.counters.neighbors.requests += 1;
                write_arp_request(self.station, wanted, out)
            } else if let Some((mac, packet)) = self.release() {
                write_ip(self.station, mac, &packet, out)
            } else if let Some(mac) = self.next_mac()? {
                let packet = self.queue.front_mut()?;
                let written = write_ip(self.station, mac, packet, out);
                self.queue.pop();
                written
            } else {
                continue;
            };
            if written.is_some() {
                self.counters.sent += 1;
                return written;
            }
            self.counters.queue_full += 1;
        }
    }

    /// A parked packet whose neighbor became known.
    fn release(&mut self) -> Option<([u8; 6], Vec<u8>)> {
        if !self.learned {
            return None;
        }
        self.counters.neighbors.unresolved += self.parked.expire(self.now);
        let (neighbors, now) = (&self.neighbors, self.now);
        let released = self.parked.release(|hop| neighbors.peek(hop, now));
        self.learned = released.is_some();
        released
    }

    /// Where the oldest packet goes. None: there is none; none inside: it was parked or dropped.
    fn next_mac(&mut self) -> Option<Option<[u8; 6]>> {
        let packet = self.queue.front_mut()?;
        self.stack.spoke(packet, self.now);
        let to = Ipv4Packet::new_unchecked(&*packet).dst_addr();
        let Some(hop) = self.neighbors.next_hop(to) else {
            self.counters.no_route += 1;
            self.queue.pop();
            return Some(None);
        };
        let mac = self.neighbors.lookup(hop, self.now);
        if mac.is_none() {
            let dropped = self.parked.park(hop, packet, self.now);
            self.counters.neighbors.unresolved += dropped;
            self.queue.pop();
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes frames from one host to another until none are left.
    fn shuttle(hosts: &mut [Host; 2], now: Duration) {
        let mut out = [0; 2000];
        let mut quiet = 0;
        while quiet < 2 {
            for from in 0..2 {
                quiet += 1;
                while let Some(len) = hosts[from].poll_transmit(now, &mut out) {
                    hosts[1 - from].handle(&out[..len], now);
                    quiet = 0;
                }
            }
        }
    }

    fn connected() -> ([Host; 2], PipeStream) {
        let mut hosts = [1, 2].map(|last| {
            let mac = [2, 0, 0, 0, 0, last];
            let address = Ipv4Addr::new(10, 0, 0, last);
            let config = HostConfig::new(mac, address, 24, u64::from(last));
            Host::new(config, Arc::new(|| {})).unwrap()
        });
        hosts[1].listen(80, 1).unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80);
        let stream = hosts[0].connect(to).unwrap();
        shuttle(&mut hosts, Duration::from_secs(1));
        shuttle(&mut hosts, Duration::from_secs(1));
        assert_eq!(hosts[0].counters().tcp.connected, 1);
        (hosts, stream)
    }

    /// A try for a lock that is taken leaves the signal raised: there was none.
    #[test]
    fn idle_connections_are_not_locked() {
        let (mut hosts, _stream) = connected();
        let host = &mut hosts[0];
        let pipe = Arc::clone(&host.stack.table.connections[0].pipe);
        let held = pipe.lock();
        let mut out = [0; 2000];
        for step in 0..900 {
            let now = Duration::from_secs(1) + Duration::from_millis(step);
            assert_eq!(host.poll_transmit(now, &mut out), None);
            assert!(!host.signal.is_raised());
        }
        drop(held);
    }

    /// The loop does not wait for an application that holds the lock, and comes back.
    #[test]
    fn a_taken_lock_is_tried_again() {
        let (mut hosts, _stream) = connected();
        let host = &mut hosts[0];
        let now = Duration::from_secs(1);
        let pipe = Arc::clone(&host.stack.table.connections[0].pipe);
        let mut held = pipe.lock();
        held.outbound.extend(b"words");
        pipe.call();
        let mut out = [0; 2000];
        for _ in 0..3 {
            assert_eq!(host.poll_transmit(now, &mut out), None);
            assert_eq!(host.timeout(now), Some(now));
        }
        drop(held);
        let len = host.poll_transmit(now, &mut out).unwrap();
        assert!(out[..len].windows(5).any(|bytes| bytes == b"words"));
    }
}
