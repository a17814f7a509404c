//! Every bound and every time of this crate.

use std::time::Duration;

/// TCP connections when the configuration doesn't say.
pub const CONNECTIONS_DEFAULT: usize = 64;
/// The most TCP connections that may be configured: smoltcp looks through all of them for a frame.
pub const CONNECTIONS_MAX: usize = 1024;
/// Listening ports of a host.
pub(crate) const LISTENERS_MAX: usize = 16;
/// The least IP MTU, in bytes (RFC 791: what every host must take).
pub const MTU_MIN_BYTES: usize = 576;
/// The greatest IP MTU, in bytes.
pub const MTU_MAX_BYTES: usize = 16_384;

/// Bytes between the application and the loop, each way.
pub const PIPE_BYTES: usize = 64 * 1024;
/// Bytes in a TCP buffer, each way. One below 64 KiB: from there on smoltcp scales its window, and
/// takes the unscaled window of its SYN for a scaled one until its next frame.
pub(crate) const TCP_BUFFER_BYTES: usize = 65_535;
/// Packets beyond one a connection that may wait for the port.
pub(crate) const REPLIES_MAX: usize = 32;
/// ARP answers that may wait for the port.
pub(crate) const ARP_REPLIES_MAX: usize = 32;

/// How long an acknowledgement waits for data to ride on.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(1);
/// A peer that was silent so long is asked whether it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A peer that was silent so long is dead.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(6);
/// What was sent and not acknowledged for so long is sent again: above the time for which peers
/// delay acknowledgements. smoltcp itself waits for a second, and for up to a minute after losses.
pub(crate) const RESEND_AFTER: Duration = Duration::from_millis(200);
/// How often that time doubles while nothing is acknowledged.
pub(crate) const RESEND_DOUBLINGS_MAX: u32 = 3;
/// How long a handshake that we began may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a handshake that a peer began may take.
pub(crate) const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(6);
/// A half-open connection older than this makes room for a new one when the backlog is full.
pub(crate) const HALF_OPEN_GRACE: Duration = Duration::from_millis(500);
/// How long a connection whose application has gone may take to send what is left.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long such a connection waits for the peer's end once ours was acknowledged.
pub(crate) const FIN_WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an aborted connection may take to send its reset.
pub(crate) const ABORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest wait that [`crate::Host::timeout`] gives when smoltcp wants to be asked again at
/// once, yet had nothing to send.
pub(crate) const POLL_AGAIN: Duration = Duration::from_millis(1);

/// Neighbors whose hardware address is remembered.
pub const NEIGHBORS_MAX: usize = 256;
/// Neighbors that are being asked for at one time.
pub(crate) const NEIGHBORS_ASKED_MAX: usize = 64;
/// A neighbor that was not heard of for so long is forgotten.
pub const NEIGHBOR_AGE_MAX: Duration = Duration::from_secs(60);
/// A neighbor that is in use is asked again from this age on.
pub(crate) const NEIGHBOR_AGE_REFRESH: Duration = Duration::from_secs(45);
/// The shortest time between two requests for one neighbor.
pub(crate) const ARP_INTERVAL: Duration = Duration::from_secs(1);
/// A neighbor keeps its hardware address for so long whatever others claim.
pub(crate) const NEIGHBOR_LOCK: Duration = Duration::from_secs(1);
/// Packets that wait for their neighbor's hardware address.
pub(crate) const PARKED_MAX: usize = 32;
/// How long one waits.
pub(crate) const PARKED_TIMEOUT: Duration = Duration::from_secs(2);

/// The ports of connections that we begin (RFC 6335).
pub(crate) const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
