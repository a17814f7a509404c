//! Listening: a backlog, which smoltcp lacks.
//!
//! smoltcp's listener is a socket, buffers and all, and serves one peer. So none listens until a
//! SYN comes that may be let in; then one is made for it.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::wire::{IpAddress, IpListenEndpoint};

use crate::connection::Stage;
use crate::limits::LISTENERS_MAX;
use crate::segment::Segment;
use crate::settings::HostError;
use crate::table::{Table, new_socket};

/// A port that peers may connect to.
#[derive(Clone, Copy, Debug)]
struct Listener {
    port: u16,
    /// Connections that may be half-open or wait to be accepted.
    backlog: usize,
}

/// What a peer gets that asks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// No: nobody listens, or there is no room.
    Refused,
    /// Nothing, so that an honest peer tries again.
    Silence,
    /// A socket, which is here in the table.
    At(usize),
}

/// The ports that peers may connect to.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Listener>);

impl Listeners {
    /// Lets peers connect to a port.
    pub(crate) fn listen(
        &mut self,
        port: u16,
        backlog: usize,
        table: &Table,
    ) -> Result<(), HostError> {
        if port == 0 || backlog == 0 {
            return Err(HostError::Listen { port, backlog });
        }
        if self.has(port) || table.uses(port) {
            return Err(HostError::PortTaken { port });
        }
        if self.0.len() == LISTENERS_MAX {
            return Err(HostError::Listeners);
        }
        self.0.push(Listener { port, backlog });
        Ok(())
    }

    /// Whether peers may connect to a port.
    pub(crate) fn has(&self, port: u16) -> bool {
        self.0.iter().any(|one| one.port == port)
    }

    /// Decides on a peer that asks for a connection to `address`, and makes a socket for it.
    pub(crate) fn admit(
        &self,
        address: Ipv4Addr,
        segment: &Segment,
        now: Duration,
        table: &mut Table,
    ) -> Admission {
        let port = segment.destination.port();
        let Some(listener) = self.0.iter().find(|one| one.port == port) else {
            return Admission::Refused;
        };
        if table.waiting(port) >= listener.backlog {
            table.counters.over_backlog += 1;
            if !table.evict_half_open(port, now) {
                return Admission::Silence;
            }
        }
        if !table.make_room(now) {
            return Admission::Refused;
        }
        let mut socket = new_socket();
        let local = IpListenEndpoint {
            addr: Some(IpAddress::Ipv4(address)),
            port,
        };
        if socket.listen(local).is_err() {
            return Admission::Silence;
        }
        Admission::At(table.add(socket, Stage::HalfOpen, port, segment.source))
    }
}
