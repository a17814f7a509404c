//! Every bound of the crate in one place, so that its memory can be added up.
//!
//! A connection takes about 6 MiB when it is opened and allocates nothing afterwards.

use std::time::Duration;

/// Connections of one endpoint.
pub const CONNECTIONS_MAX: usize = 64;
/// Packets whose fate is not known; a power of two, since the packet number indexes a ring.
pub const IN_FLIGHT_MAX: usize = 4096;
/// Slots of that ring that only probes may take, so that a full ring can still be probed.
pub const IN_FLIGHT_RESERVE: usize = 64;
/// Things (pieces of transfers, messages, resets) that one frame carries.
pub const CONTENTS_MAX: usize = 4;
/// Transfers that wait or are under way, and completions that were not yet polled.
pub const TRANSFERS_MAX: usize = 1024;
/// Grants that are open, and their completions that were not yet polled.
pub const GRANTS_MAX: usize = 1024;
/// Runs of received bytes in one grant; one more hole than these is dropped and sent again.
pub const HOLES_MAX: usize = 128;
/// Frames whose data lie in device memory and are not yet verified; more are dropped.
pub const UNVERIFIED_MAX: usize = 512;
/// Parts of regions that one of them fills: more than its pieces only where some bytes were here.
pub const PARTS_MAX: usize = 2 * CONTENTS_MAX;
/// Runs of received packet numbers that are remembered.
pub const RUNS_MAX: usize = 64;
/// Runs of packet numbers that one acknowledgement names.
pub const ACK_RANGES_MAX: usize = 32;
/// Bytes of one inline message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Messages that are not yet acknowledged, or not yet read at the other end.
pub const MESSAGES_MAX: usize = 64;
/// Pieces of transfers that wait to be sent again. New data waits while there are any, so they are
/// never more than the bytes of a full flight in pieces of the smallest frame.
pub const REPEATS_MAX: usize = 1 << 16;
/// Resets (of cancelled and refused transfers) that wait to be sent.
pub const RESETS_MAX: usize = TRANSFERS_MAX + GRANTS_MAX;
/// Of those, refusals of what a confused peer sent: it must not push out our own.
pub const REFUSALS_MAX: usize = 64;

/// The smallest link, in bytes of a frame: IPv6's least MTU less IPv6 and UDP headers.
pub const MTU_MIN: usize = 1232;
/// The largest frame in bytes, below the 16 bits of an mbuf's length.
pub const MTU_MAX: usize = 16 * 1024;
/// Where data may be made to begin in a frame: behind sealed tags, an acknowledgement and a block.
pub const DATA_AT: std::ops::RangeInclusive<usize> = 160..=512;
/// Tensor bytes in one frame: 64 KiB are eight frames.
pub const FRAME_DATA_MAX: usize = 8192;
/// Data shorter than this are copied into a frame even where they could be named: a second segment
/// costs a driver more than the copy.
pub const REFERENCE_MIN: usize = 1024;
/// A piece whose data came damaged so often is taken to change while it is sent.
pub const SOURCE_CHANGES_MAX: u8 = 16;
/// Damaged packets that are to be told to the peer; more are found lost by it.
pub const DAMAGED_MAX: usize = 32;
/// A piece of a transfer that only fills up a frame is not cut smaller than this.
pub const PIECE_MIN: usize = 512;

/// What a submission to the device gathers from small transfers while the link is busy.
pub const SUBMISSION_MIN: u64 = 1 << 20;
/// Spans of one submission.
pub const SPANS_MAX: usize = 512;

/// Bytes that a peer may send before its first acknowledgement tells it more.
pub const CREDIT_INITIAL: u64 = 128 << 10;
/// Packets after which an acknowledgement is due at once.
pub const ACK_EVERY: u32 = 4;
/// The longest wait between two probes of a silent peer.
pub const PROBE_INTERVAL_MAX: Duration = Duration::from_millis(200);
/// An idle connection asks after its peer this often.
pub const KEEPALIVE: Duration = Duration::from_millis(400);
/// After this long without a sign of life the peer is dead.
pub const PEER_TIMEOUT: Duration = Duration::from_millis(1800);
