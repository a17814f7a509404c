//! IP, ICMP echo and TCP: smoltcp's interface, what peers may connect to, and the connections.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

use crate::connection::{Due, Stage};
use crate::limits::{EPHEMERAL_PORTS, POLL_AGAIN};
use crate::listeners::{Admission, Listeners};
use crate::packets::{PacketQueue, Phy};
use crate::pipe::Signal;
use crate::ports::Ports;
use crate::segment::{EMPTY_BYTES, Empty, Segment};
use crate::settings::{HostConfig, HostError};
use crate::stream::PipeStream;
use crate::table::{Table, new_socket};

/// smoltcp and the connections.
pub(crate) struct Stack {
    address: Ipv4Addr,
    interface: Interface,
    capabilities: DeviceCapabilities,
    pub(crate) table: Table,
    listeners: Listeners,
    ports: Ports,
}

impl Stack {
    pub(crate) fn new(config: &HostConfig, network: Ipv4Cidr, signal: Arc<Signal>) -> Self {
        // Checksums are computed in software, and those of IP and ICMP verified, by smoltcp; those
        // of TCP we verify. A port that does it itself says so here and in `Segment::receive`.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = config.mtu;
        capabilities.checksum.tcp = Checksum::Tx;
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = config.seed;
        let mut nowhere = PacketQueue::new(1, 0);
        let mut phy = Phy {
            received: None,
            queue: &mut nowhere,
            capabilities: &capabilities,
        };
        let mut interface = Interface::new(settings, &mut phy, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list is empty, and holds two.
            let _ = addresses.push(IpCidr::Ipv4(network));
        });
        Self {
            address: config.address,
            interface,
            capabilities,
            table: Table::new(config.tcp_connections_max, signal),
            listeners: Listeners::default(),
            // Not smoltcp's own sequence.
            ports: Ports::new(EPHEMERAL_PORTS, config.seed.rotate_left(32)),
        }
    }

    /// Lets peers connect to a port.
    pub(crate) fn listen(&mut self, port: u16, backlog: usize) -> Result<(), HostError> {
        self.listeners.listen(port, backlog, &self.table)
    }

    /// The connection that has waited longest.
    pub(crate) fn accept(&mut self) -> Option<(PipeStream, SocketAddrV4, u16)> {
        let one = self.table.accept()?;
        let local = SocketAddrV4::new(self.address, one.local_port);
        let stream = PipeStream::new(Arc::clone(&one.pipe), local, one.peer);
        Some((stream, one.peer, one.local_port))
    }

    /// Begins a connection.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddrV4,
        now: Duration,
    ) -> Result<PipeStream, HostError> {
        if !self.table.make_room(now) {
            return Err(HostError::Full {
                max: self.table.max,
            });
        }
        let (table, listeners) = (&self.table, &self.listeners);
        let in_use = |port| table.uses(port) || listeners.has(port);
        let port = self.ports.pick(in_use).ok_or(HostError::NoPort)?;
        let mut socket = new_socket();
        socket
            .connect(self.interface.context(), to, (self.address, port))
            .map_err(|_| HostError::Peer { to })?;
        let at = self.table.add(socket, Stage::Connecting, port, to);
        let local = SocketAddrV4::new(self.address, port);
        Ok(PipeStream::new(
            Arc::clone(&self.table.connections[at].pipe),
            local,
            to,
        ))
    }

    /// Takes a TCP packet for us. False if the queue had no room for an answer.
    pub(crate) fn handle(
        &mut self,
        packet: &[u8],
        segment: &Segment,
        now: Duration,
        queue: &mut PacketQueue,
    ) -> bool {
        let port = segment.destination.port();
        if segment.opens
            && let Some(at) = self.table.find(segment.source, port)
            && self.table.only_waits(at)
        {
            // The peer begins anew (RFC 1122, 4.2.2.13).
            self.table.forget_ended(at, now);
        }
        let Some(at) = self.table.find(segment.source, port) else {
            return if segment.opens {
                self.admit(packet, segment, now, queue)
            } else {
                self.feed(packet, now, queue)
            };
        };
        let one = &mut self.table.connections[at];
        // Nobody can answer what we did not say yet, and peers that begin both at once are none of
        // ours; smoltcp would miscount its window.
        if one.stage == Stage::Connecting && (one.sent.first.is_none() || segment.opens) {
            self.table.counters.unexpected += 1;
            return true;
        }
        one.heard(segment, now);
        let taken = self.feed(packet, now, queue);
        let one = &mut self.table.connections[at];
        one.note_progress(self.table.sockets.get::<Socket<'_>>(one.handle), now);
        self.table.serve(at, now);
        taken
    }

    /// A peer asks for a new connection. False if the queue had no room for an answer.
    fn admit(
        &mut self,
        packet: &[u8],
        segment: &Segment,
        now: Duration,
        queue: &mut PacketQueue,
    ) -> bool {
        let (address, table) = (self.address, &mut self.table);
        let at = match self.listeners.admit(address, segment, now, table) {
            Admission::Silence => return true,
            // smoltcp refuses it.
            Admission::Refused => return self.feed(packet, now, queue),
            Admission::At(at) => at,
        };
        let taken = self.feed(packet, now, queue);
        let one = &mut self.table.connections[at];
        one.heard(segment, now);
        let state = self.table.sockets.get::<Socket<'_>>(one.handle).state();
        if state != State::SynReceived {
            // Not sound after all, or no room for it.
            self.table.remove(at);
        }
        taken
    }

    /// Gives smoltcp a packet. False if the queue had no room for an answer.
    pub(crate) fn feed(&mut self, packet: &[u8], now: Duration, queue: &mut PacketQueue) -> bool {
        let mut phy = Phy {
            received: Some(packet),
            queue,
            capabilities: &self.capabilities,
        };
        let sockets = &mut self.table.sockets;
        let _ = self
            .interface
            .poll_ingress_single(instant(now), &mut phy, sockets);
        phy.received.is_none()
    }

    /// Notes what a packet of ours says, and mends one thing in it. When smoltcp's timer has fired
    /// it numbers bare acknowledgements as if nothing beyond the oldest byte had been sent. A peer
    /// that has received more ignores them (RFC 9293, 3.10.7.4), and two hosts that do so to each
    /// other are stuck; so they get the number that RFC 9293, 3.4 wants, that of the next byte.
    pub(crate) fn spoke(&mut self, packet: &mut [u8], now: Duration) {
        let Some(mut segment) = Segment::of_ours(packet) else {
            return;
        };
        let Some(at) = self.table.find(segment.destination, segment.source.port()) else {
            return;
        };
        let one = &mut self.table.connections[at];
        let socket = self.table.sockets.get::<Socket<'_>>(one.handle);
        if let Some(next) = one.next_number(&segment, socket) {
            segment.renumber(next, packet);
        }
        one.spoke(&segment, now);
    }

    /// Lets each connection queue a segment, if it has one.
    pub(crate) fn send(&mut self, now: Duration, queue: &mut PacketQueue) {
        let mut phy = Phy {
            received: None,
            queue,
            capabilities: &self.capabilities,
        };
        let sockets = &mut self.table.sockets;
        let _ = self.interface.poll_egress(instant(now), &mut phy, sockets);
        // Sockets end here too: resets that were sent, and the end of TIME-WAIT.
        for at in (0..self.table.connections.len()).rev() {
            let handle = self.table.connections[at].handle;
            if self.table.sockets.get::<Socket<'_>>(handle).state() == State::Closed {
                self.table.serve(at, now);
            }
        }
    }

    /// Does what the clock asks for. `reachable` says whether a peer's next hop is known.
    pub(crate) fn tick(
        &mut self,
        now: Duration,
        queue: &mut PacketQueue,
        reachable: impl Fn(Ipv4Addr) -> bool,
    ) {
        for at in (0..self.table.connections.len()).rev() {
            let one = &mut self.table.connections[at];
            let socket = self.table.sockets.get_mut::<Socket<'_>>(one.handle);
            if one.tick_at(socket).is_none_or(|due| due > now) {
                continue;
            }
            match one.tick(socket, reachable(*one.peer.ip()), now) {
                Due::Nothing => {}
                Due::Probe => self.probe(at, queue),
                Due::Resend => self.resend(at, now, queue),
                Due::PeerTimedOut => self.table.counters.timed_out += 1,
                Due::ConnectTimedOut => {
                    self.table.counters.timed_out += 1;
                    self.table.remove(at);
                }
                Due::HalfOpenExpired => {
                    self.table.counters.half_open_expired += 1;
                    self.table.remove(at);
                }
                Due::Gone => self.table.remove(at),
            }
        }
    }

    /// When to look again though nothing happens.
    pub(crate) fn timeout(&mut self, now: Duration) -> Option<Duration> {
        if self.table.connections.is_empty() {
            return None;
        }
        let polled = self.interface.poll_at(instant(now), &self.table.sockets);
        let polled = polled.map(|at| {
            let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
            at.max(now + POLL_AGAIN)
        });
        let ticks = self.table.connections.iter().filter_map(|one| {
            let socket = self.table.sockets.get::<Socket<'_>>(one.handle);
            one.tick_at(socket)
        });
        polled.into_iter().chain(ticks).min()
    }

    /// Asks a peer whether it lives (RFC 9293, 3.8.4), with a segment from just before what it has
    /// acknowledged. smoltcp would too, but not while data waits or a window is closed.
    fn probe(&mut self, at: usize, queue: &mut PacketQueue) {
        let one = &self.table.connections[at];
        let socket = self.table.sockets.get::<Socket<'_>>(one.handle);
        let (Some(acknowledged), Some(ack)) = (one.acknowledged(socket), one.sent.ack) else {
            return;
        };
        let question = Empty {
            from: SocketAddrV4::new(self.address, one.local_port),
            to: one.peer,
            seq: acknowledged.wrapping_sub(1),
            ack,
            window: one.sent.window,
        };
        if let Some(out) = queue.push(EMPTY_BYTES) {
            question.write(out);
            self.table.counters.probes += 1;
        }
    }

    /// Has smoltcp send the oldest segment again, by the one thing that moves it to: three
    /// acknowledgements that repeat one. The first of the four differs in its window, which starts
    /// the count anew. None says more than the peer's last did.
    fn resend(&mut self, at: usize, now: Duration, queue: &mut PacketQueue) {
        let one = &self.table.connections[at];
        let socket = self.table.sockets.get::<Socket<'_>>(one.handle);
        let (Some(acknowledged), Some(ack)) = (one.acknowledged(socket), one.sent.ack) else {
            return;
        };
        let window = one.peer_window.unwrap_or(0);
        let mut repeated = Empty {
            from: one.peer,
            to: SocketAddrV4::new(self.address, one.local_port),
            seq: ack,
            ack: acknowledged,
            window: window.max(1),
        };
        let mut packet = [0; EMPTY_BYTES];
        for round in 0..4 {
            repeated.write(&mut packet);
            self.feed(&packet, now, queue);
            if round == 0 {
                repeated.window ^= 1;
            }
        }
        self.table.counters.resends += 1;
    }
}

/// smoltcp's clock counts microseconds.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
