//! IP, ICMP echo and TCP: smoltcp's interface and sockets, and what we know of each connection.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

use crate::connection::{Connection, Due, Outcome, Stage};
use crate::counters::TcpCounters;
use crate::limits::{ACK_DELAY, EPHEMERAL_PORTS, POLL_AGAIN, TCP_BUFFER_BYTES};
use crate::listeners::Listener;
use crate::packets::{PacketQueue, Phy};
use crate::pipe::{End, Pipe, Signal};
use crate::ports::Ports;
use crate::segment::{EMPTY_BYTES, Empty, Segment};
use crate::settings::{HostConfig, HostError};
use crate::stream::PipeStream;

/// smoltcp and the connections.
pub(crate) struct Stack {
    pub(crate) address: Ipv4Addr,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    capabilities: DeviceCapabilities,
    pub(crate) connections: Vec<Connection>,
    pub(crate) connections_max: usize,
    pub(crate) listeners: Vec<Listener>,
    /// Established, and waiting for [`Stack::accept`].
    pub(crate) ready: VecDeque<smoltcp::iface::SocketHandle>,
    ports: Ports,
    pub(crate) signal: Arc<Signal>,
    pub(crate) counters: TcpCounters,
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
            sockets: SocketSet::new(Vec::with_capacity(config.tcp_connections_max)),
            capabilities,
            connections: Vec::with_capacity(config.tcp_connections_max),
            connections_max: config.tcp_connections_max,
            listeners: Vec::new(),
            ready: VecDeque::new(),
            // Not smoltcp's own sequence.
            ports: Ports::new(EPHEMERAL_PORTS, config.seed.rotate_left(32)),
            signal,
            counters: TcpCounters::default(),
        }
    }

    /// Begins a connection.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddrV4,
        now: Duration,
    ) -> Result<PipeStream, HostError> {
        if self.connections.len() >= self.connections_max && !self.evict_ended(now) {
            self.counters.over_limit += 1;
            return Err(HostError::Full {
                max: self.connections_max,
            });
        }
        let (connections, listeners) = (&self.connections, &self.listeners);
        let in_use = |port| {
            connections.iter().any(|one| one.local_port == port)
                || listeners.iter().any(|one| one.port == port)
        };
        let port = self.ports.pick(in_use).ok_or(HostError::NoPort)?;
        let mut socket = new_socket();
        socket
            .connect(self.interface.context(), to, (self.address, port))
            .map_err(|_| HostError::Peer { to })?;
        let at = self.add(socket, Stage::Connecting, port, to);
        let local = SocketAddrV4::new(self.address, port);
        Ok(PipeStream::new(
            Arc::clone(&self.connections[at].pipe),
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
            && let Some(at) = self.find(segment.source, port)
            && self.only_waits(&self.connections[at])
        {
            // The peer begins anew (RFC 1122, 4.2.2.13).
            self.forget_ended(at, now);
        }
        let Some(at) = self.find(segment.source, port) else {
            return if segment.opens {
                self.admit(packet, segment, now, queue)
            } else {
                self.feed(packet, now, queue)
            };
        };
        let one = &mut self.connections[at];
        // Nobody can answer what we did not say yet, and peers that begin both at once are none of
        // ours; smoltcp would miscount its window.
        if one.stage == Stage::Connecting && (one.sent.first.is_none() || segment.opens) {
            self.counters.unexpected += 1;
            return true;
        }
        one.heard(segment, now);
        let taken = self.feed(packet, now, queue);
        let one = &mut self.connections[at];
        one.note_progress(self.sockets.get::<Socket<'_>>(one.handle), now);
        self.serve(at, now);
        taken
    }

    /// Gives smoltcp a packet. False if the queue had no room for an answer.
    pub(crate) fn feed(&mut self, packet: &[u8], now: Duration, queue: &mut PacketQueue) -> bool {
        let mut phy = Phy {
            received: Some(packet),
            queue,
            capabilities: &self.capabilities,
        };
        let sockets = &mut self.sockets;
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
        let Some(at) = self.find(segment.destination, segment.source.port()) else {
            return;
        };
        let one = &mut self.connections[at];
        let socket = self.sockets.get::<Socket<'_>>(one.handle);
        if let Some(next) = one.next_number(&segment, socket) {
            segment.renumber(next, packet);
        }
        one.spoke(&segment, now);
    }

    /// Looks at every connection whose application called.
    pub(crate) fn serve_called(&mut self, now: Duration) {
        for at in (0..self.connections.len()).rev() {
            if self.connections[at].pipe.called() {
                self.serve(at, now);
            }
        }
    }

    /// Lets each connection queue a segment, if it has one.
    pub(crate) fn send(&mut self, now: Duration, queue: &mut PacketQueue) {
        let mut phy = Phy {
            received: None,
            queue,
            capabilities: &self.capabilities,
        };
        let sockets = &mut self.sockets;
        let _ = self.interface.poll_egress(instant(now), &mut phy, sockets);
        // Sockets end here too: resets that were sent, and the end of TIME-WAIT.
        for at in (0..self.connections.len()).rev() {
            let handle = self.connections[at].handle;
            if self.sockets.get::<Socket<'_>>(handle).state() == State::Closed {
                self.serve(at, now);
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
        for at in (0..self.connections.len()).rev() {
            let one = &mut self.connections[at];
            let socket = self.sockets.get_mut::<Socket<'_>>(one.handle);
            if one.tick_at(socket).is_none_or(|due| due > now) {
                continue;
            }
            match one.tick(socket, reachable(*one.peer.ip()), now) {
                Due::Nothing => {}
                Due::Probe => self.probe(at, queue),
                Due::Resend => self.resend(at, now, queue),
                Due::PeerTimedOut => self.counters.timed_out += 1,
                Due::ConnectTimedOut => {
                    self.counters.timed_out += 1;
                    self.remove(at);
                }
                Due::HalfOpenExpired => {
                    self.counters.half_open_expired += 1;
                    self.remove(at);
                }
                Due::Gone => self.remove(at),
            }
        }
    }

    /// When to look again though nothing happens.
    pub(crate) fn timeout(&mut self, now: Duration) -> Option<Duration> {
        if self.connections.is_empty() {
            return None;
        }
        let polled = self.interface.poll_at(instant(now), &self.sockets);
        let polled = polled.map(|at| {
            let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
            at.max(now + POLL_AGAIN)
        });
        let ticks = self.connections.iter().filter_map(|one| {
            let socket = self.sockets.get::<Socket<'_>>(one.handle);
            one.tick_at(socket)
        });
        polled.into_iter().chain(ticks).min()
    }

    /// Looks at a connection, and removes it if it is over. The last one takes its place.
    pub(crate) fn serve(&mut self, at: usize, now: Duration) {
        let one = &mut self.connections[at];
        let connecting = one.stage == Stage::Connecting;
        let socket = self.sockets.get_mut::<Socket<'_>>(one.handle);
        match one.serve(socket, now) {
            Outcome::Stays => {}
            Outcome::Established if connecting => self.counters.connected += 1,
            Outcome::Established => {
                self.counters.accepted += 1;
                self.ready.push_back(self.connections[at].handle);
            }
            Outcome::Abandoned | Outcome::Ended => self.remove(at),
            Outcome::Reset => {
                self.counters.reset += 1;
                self.remove(at);
            }
        }
    }

    /// Adds a socket, and says where.
    pub(crate) fn add(
        &mut self,
        socket: Socket<'static>,
        stage: Stage,
        port: u16,
        peer: SocketAddrV4,
    ) -> usize {
        let handle = self.sockets.add(socket);
        let pipe = Pipe::new(Arc::clone(&self.signal));
        let one = Connection::new(handle, stage, port, peer, pipe);
        self.connections.push(one);
        self.connections.len() - 1
    }

    /// Forgets a connection and its socket. The last one takes its place.
    pub(crate) fn remove(&mut self, at: usize) {
        let one = self.connections.swap_remove(at);
        self.sockets.remove(one.handle);
        self.ready.retain(|waiting| *waiting != one.handle);
    }

    /// Where a connection is.
    pub(crate) fn find(&self, peer: SocketAddrV4, port: u16) -> Option<usize> {
        self.connections
            .iter()
            .position(|one| one.local_port == port && one.peer == peer)
    }

    /// Makes room by forgetting a connection that only waits out its end.
    pub(crate) fn evict_ended(&mut self, now: Duration) -> bool {
        let found = self.connections.iter().position(|one| self.only_waits(one));
        if let Some(at) = found {
            self.forget_ended(at, now);
        }
        found.is_some()
    }

    /// Whether a connection is over but for late segments of its own (TIME-WAIT).
    fn only_waits(&self, one: &Connection) -> bool {
        self.sockets.get::<Socket<'_>>(one.handle).state() == State::TimeWait
    }

    /// Forgets such a connection, once what it received has reached the application.
    fn forget_ended(&mut self, at: usize, now: Duration) {
        let before = self.connections.len();
        self.serve(at, now);
        if self.connections.len() == before {
            self.remove(at);
        }
    }

    /// Asks a peer whether it lives (RFC 9293, 3.8.4), with a segment from just before what it has
    /// acknowledged. smoltcp would too, but not while data waits or a window is closed.
    fn probe(&mut self, at: usize, queue: &mut PacketQueue) {
        let one = &self.connections[at];
        let socket = self.sockets.get::<Socket<'_>>(one.handle);
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
            self.counters.probes += 1;
        }
    }

    /// Has smoltcp send the oldest segment again, by the one thing that moves it to: three
    /// acknowledgements that repeat one. The first of the four differs in its window, which starts
    /// the count anew. None says more than the peer's last did.
    fn resend(&mut self, at: usize, now: Duration, queue: &mut PacketQueue) {
        let one = &self.connections[at];
        let socket = self.sockets.get::<Socket<'_>>(one.handle);
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
        self.counters.resends += 1;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for one in &self.connections {
            one.pipe.fail(End::PortGone(one.peer));
        }
    }
}

/// A socket with its buffers.
pub(crate) fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; TCP_BUFFER_BYTES]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(Some(ACK_DELAY.into()));
    socket.set_congestion_control(CongestionControl::Reno);
    socket
}

/// smoltcp's clock counts microseconds.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
