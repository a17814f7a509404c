//! The connections and their sockets, bounded.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use crate::connection::{Connection, Outcome, Stage};
use crate::counters::TcpCounters;
use crate::limits::{ACK_DELAY, HALF_OPEN_GRACE, TCP_BUFFER_BYTES};
use crate::pipe::{End, Pipe, Signal};

/// All connections. One that goes leaves its place to the last.
pub(crate) struct Table {
    pub(crate) connections: Vec<Connection>,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) counters: TcpCounters,
    pub(crate) max: usize,
    /// Established, and waiting for [`Table::accept`].
    ready: VecDeque<SocketHandle>,
    signal: Arc<Signal>,
}

impl Table {
    pub(crate) fn new(max: usize, signal: Arc<Signal>) -> Self {
        Self {
            connections: Vec::with_capacity(max),
            sockets: SocketSet::new(Vec::with_capacity(max)),
            counters: TcpCounters::default(),
            max,
            ready: VecDeque::new(),
            signal,
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

    /// Whether a connection has this port of ours.
    pub(crate) fn uses(&self, port: u16) -> bool {
        self.connections.iter().any(|one| one.local_port == port)
    }

    /// Peers of a port that nobody has accepted yet.
    pub(crate) fn waiting(&self, port: u16) -> usize {
        let waits = |one: &&Connection| {
            one.local_port == port
                && (one.stage == Stage::HalfOpen || self.ready.contains(&one.handle))
        };
        self.connections.iter().filter(waits).count()
    }

    /// The connection that has waited longest.
    pub(crate) fn accept(&mut self) -> Option<&Connection> {
        let handle = self.ready.pop_front()?;
        self.connections.iter().find(|one| one.handle == handle)
    }

    /// Looks at every connection whose application called.
    pub(crate) fn serve_called(&mut self, now: Duration) {
        for at in (0..self.connections.len()).rev() {
            if self.connections[at].pipe.called() {
                self.serve(at, now);
            }
        }
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

    /// Makes room for one more, if need be by forgetting a connection that only waits out its end.
    /// False, and counted, where there is none.
    pub(crate) fn make_room(&mut self, now: Duration) -> bool {
        if self.connections.len() < self.max {
            return true;
        }
        let found = (0..self.connections.len()).find(|&at| self.only_waits(at));
        match found {
            Some(at) => self.forget_ended(at, now),
            None => self.counters.over_limit += 1,
        }
        found.is_some()
    }

    /// Whether a connection is over but for late segments of its own (TIME-WAIT).
    pub(crate) fn only_waits(&self, at: usize) -> bool {
        let handle = self.connections[at].handle;
        self.sockets.get::<Socket<'_>>(handle).state() == State::TimeWait
    }

    /// Forgets such a connection, once what it received has reached the application.
    pub(crate) fn forget_ended(&mut self, at: usize, now: Duration) {
        let before = self.connections.len();
        self.serve(at, now);
        if self.connections.len() == before {
            self.remove(at);
        }
    }

    /// Gives up the oldest handshake of a port's peers, if it is old enough that an honest peer
    /// would have ended it.
    pub(crate) fn evict_half_open(&mut self, port: u16, now: Duration) -> bool {
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

impl Drop for Table {
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
