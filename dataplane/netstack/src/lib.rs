//! The host stack of a port that the kernel can't see: ARP, ping, and TCP for the control channel.
//!
//! A port that DPDK owns is invisible to the kernel, so somebody else must answer for it. [`Host`]
//! does: it takes Ethernet frames and gives Ethernet frames, and knows no port, no socket and no
//! clock. The poll loop drives it ([`Host::handle`], [`Host::poll_transmit`], [`Host::timeout`]);
//! an application holds the other end of a TCP connection, [`PipeStream`], in any thread.
//!
//! smoltcp does IP, ICMP echo and TCP. It runs on an IP medium, so that there is one ARP table and
//! it is ours: the frames of the transport need it too ([`Host::resolve`]), and smoltcp's own asks
//! for one neighbor a second in all, so that one dead host would starve the others.
//!
//! What smoltcp 0.14 lacks is here: a backlog for listeners, limits, finding dead peers in every
//! state (it stops looking while a peer's window is closed), sending again after 200 ms (its timer
//! starts at a second and, after losses, goes to a minute), and the sequence numbers of bare
//! acknowledgements after a timer has fired (two smoltcp hosts could get stuck).

mod connection;
mod counters;
mod ethernet;
mod host;
mod limits;
mod listeners;
mod neighbors;
mod packets;
mod parked;
mod pipe;
mod ports;
mod segment;
mod settings;
mod stack;
mod stream;
mod table;

pub use counters::{HostCounters, NeighborCounters, TcpCounters};
pub use host::Host;
pub use limits::{
    CONNECT_TIMEOUT, CONNECTIONS_DEFAULT, CONNECTIONS_MAX, KEEP_ALIVE, MTU_MAX_BYTES,
    MTU_MIN_BYTES, NEIGHBOR_AGE_MAX, NEIGHBORS_MAX, PEER_TIMEOUT, PIPE_BYTES,
};
pub use settings::{HostConfig, HostError};
pub use stream::PipeStream;
