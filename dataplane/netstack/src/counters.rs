//! What a host counted.

/// Frames of a host, and what became of them. They only grow, except where said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Frames given to [`crate::Host::handle`].
    pub received: u64,
    /// Frames that [`crate::Host::poll_transmit`] gave.
    pub sent: u64,
    /// Dropped: too short, or with a length or header that is not sound.
    pub malformed: u64,
    /// Dropped: for another host, or of a protocol that is not served here.
    pub not_ours: u64,
    /// Dropped: with a source that no host can have, or our own.
    pub bad_source: u64,
    /// Dropped: a fragment of an IP packet.
    pub fragments: u64,
    /// Dropped: answers were waiting, as many as may; or the buffer for a frame was too short.
    pub queue_full: u64,
    /// Packets dropped, and hosts not resolved: off the link without a router, or no host at all.
    pub no_route: u64,
    /// Pings that were let through to be answered.
    pub pings: u64,
    /// What ARP did.
    pub neighbors: NeighborCounters,
    /// What TCP did.
    pub tcp: TcpCounters,
}

/// What ARP did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborCounters {
    /// Neighbors known now; not a sum.
    pub known: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests of others that were answered.
    pub replies: u64,
    /// ARP frames that were refused: malformed, off the link, or with an address no host can have.
    pub refused: u64,
    /// Claims to a known neighbor's address with another hardware address, taken or not.
    pub changed: u64,
    /// Packets dropped since their neighbor did not answer, or too many waited.
    pub unresolved: u64,
}

/// What TCP did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Connections that hold memory now, those that only wait out their end too; not a sum.
    pub open: u64,
    /// Connections that a peer began and that were established.
    pub accepted: u64,
    /// Connections that we began and that were established.
    pub connected: u64,
    /// Refused, with a reset, or a [`crate::HostError::Full`]: the limit of connections was reached.
    pub over_limit: u64,
    /// Handshakes not begun, or given up for newer ones, since the listener's backlog was full.
    pub over_backlog: u64,
    /// Handshakes of peers that did not end in time.
    pub half_open_expired: u64,
    /// Connections that ended with a peer's reset; a refused connect too.
    pub reset: u64,
    /// Connections given up since the peer was silent.
    pub timed_out: u64,
    /// Questions sent to silent peers.
    pub probes: u64,
    /// Times that a connection was made to send again what was not acknowledged.
    pub resends: u64,
    /// Segments dropped since the connection's state forbids them.
    pub unexpected: u64,
}
