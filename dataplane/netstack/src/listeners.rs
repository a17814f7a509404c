//! Listening: a backlog, which smoltcp lacks.
//!
//! smoltcp's listener is a socket, buffers and all, and serves one peer. So none listens until a
//! SYN comes that may be let in; then one is made for it.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use crate::connection::{Connection, Stage};
use crate::limits::{HALF_OPEN_GRACE, LISTENERS_MAX};
use crate::packets::PacketQueue;
use crate::segment::Segment;
use crate::settings::HostError;
use crate::stack::{Stack, new_socket};
use crate::stream::PipeStream;

/// A port that peers may connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) port: u16,
    /// Connections that may be half-open or wait to be accepted.
    backlog: usize,
}

impl Stack {
    /// Lets peers connect to a port.
    pub(crate) fn listen(&mut self, port: u16, backlog: usize) -> Result<(), HostError> {
        if port == 0 || backlog == 0 {
            return Err(HostError::Listen { port, backlog });
        }
        let used_by_us = |one: &Connection| one.local_port == port;
        if self.listeners.iter().any(|one| one.port == port)
            || self.connections.iter().any(used_by_us)
        {
            return Err(HostError::PortTaken { port });
        }
        if self.listeners.len() == LISTENERS_MAX {
            return Err(HostError::Listeners);
        }
        self.listeners.push(Listener { port, backlog });
        Ok(())
    }

    /// The connection that has waited longest.
    pub(crate) fn accept(&mut self) -> Option<(PipeStream, SocketAddrV4, u16)> {
        let handle = self.ready.pop_front()?;
        let one = self.connections.iter().find(|one| one.handle == handle)?;
        let local = SocketAddrV4::new(self.address, one.local_port);
        let stream = PipeStream::new(Arc::clone(&one.pipe), local, one.peer);
        Some((stream, one.peer, one.local_port))
    }

    /// A peer asks for a new connection. False if the queue had no room for an answer.
    pub(crate) fn admit(
        &mut self,
        packet: &[u8],
        segment: &Segment,
        now: Duration,
        queue: &mut PacketQueue,
    ) -> bool {
        let port = segment.destination.port();
        let Some(listener) = self.listeners.iter().find(|one| one.port == port).copied() else {
            // smoltcp refuses it.
            return self.feed(packet, now, queue);
        };
        let waits = |one: &&Connection| one.local_port == port && self.waits(one);
        if self.connections.iter().filter(waits).count() >= listener.backlog {
            // Silence, so that an honest peer tries again.
            self.counters.over_backlog += 1;
            if !self.evict_half_open(port, now) {
                return true;
            }
        }
        if self.connections.len() >= self.connections_max && !self.evict_ended(now) {
            self.counters.over_limit += 1;
            return self.feed(packet, now, queue);
        }
        let mut socket = new_socket();
        let local = IpListenEndpoint {
            addr: Some(IpAddress::Ipv4(self.address)),
            port,
        };
        if socket.listen(local).is_err() {
            return true;
        }
        let at = self.add(socket, Stage::HalfOpen, port, segment.source);
        let taken = self.feed(packet, now, queue);
        let one = &mut self.connections[at];
        one.heard(segment, now);
        let state = self.sockets.get::<Socket<'_>>(one.handle).state();
        if state != State::SynReceived {
            // Not sound after all, or no room for it.
            self.remove(at);
        }
        taken
    }

    /// Whether nobody has accepted it yet.
    fn waits(&self, one: &Connection) -> bool {
        one.stage == Stage::HalfOpen || self.ready.contains(&one.handle)
    }

    /// Gives up the oldest handshake of a port's peers, if it is old enough that an honest peer
    /// would have ended it.
    fn evict_half_open(&mut self, port: u16, now: Duration) -> bool {
        let half_open = |(_, one): &(usize, &Connection)| {
            one.stage == Stage::HalfOpen && one.local_port == port
        };
        let all = self.connections.iter().enumerate().filter(half_open);
        let oldest = all.max_by_key(|(_, one)| one.age(now));
        let Some((at, _)) = oldest.filter(|(_, one)| one.age(now) >= HALF_OPEN_GRACE) else {
            return false;
        };
        self.remove(at);
        true
    }
}
