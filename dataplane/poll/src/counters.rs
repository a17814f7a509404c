//! What a loop did, written by it alone and read by anybody, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use genie_netstack::HostCounters;
use genie_transport::{DropCounters, DropReason, Status};

use crate::wire::WireDrops;

const REASONS: usize = DropReason::ALL.len();

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the loop began.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($name: AtomicU64,)*
            drops: [AtomicU64; REASONS],
        }

        /// [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Of the frames that the transport dropped, how many for which reason.
            pub drops: DropCounters,
        }

        impl Counters {
            /// All of them, each at nearly the same moment.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    drops: std::array::from_fn(|at| self.drops[at].load(Ordering::Relaxed)).into(),
                }
            }
        }
    };
}

counters! {
    /// Times around the loop.
    turns,
    /// Of those, times when there was something to do.
    busy_turns,
    /// Times that the loop slept.
    sleeps,
    /// Connections that are open or about to be: not a count since the beginning.
    connections,
    /// Frames of every kind that arrived.
    frames_received,
    /// Frames of every kind that left.
    frames_sent,
    /// Frames for the transport that it dropped, for whatever reason.
    frames_dropped,
    /// Frames whose data a device checked and placed.
    frames_gathered,
    /// Frames whose headers were damaged.
    frames_damaged,
    /// Frames in more than one part, which a port is not asked for.
    frames_segmented,
    /// Times that there was no packet to write a frame to.
    pool_exhausted,
    /// Frames that were written, and that the link did not take for long: it was down.
    frames_stuck,
    /// Frames sent whose data were not copied.
    frames_by_reference,
    /// Frames that the host's own stack dropped: malformed, for others, of no host, floods.
    host_dropped,
    /// Handshakes and connections of TCP that the host's own stack refused or gave up.
    host_refused,
    /// Batches of transfers, on connections that ended.
    submissions,
    /// Tensor bytes in them.
    submitted_bytes,
    /// Frames to peers whose place on the link was not known.
    frames_unroutable,
    /// Tensor bytes that were sent again, on connections that ended.
    bytes_repeated,
    /// Frames taken for lost, on connections that ended.
    frames_lost,
}

impl Counters {
    /// Only the loop writes, so adding needs no locked instruction.
    fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            let before = counter.load(Ordering::Relaxed);
            counter.store(before.wrapping_add(count), Ordering::Relaxed);
        }
    }

    pub(crate) fn count_turn(&self, received: usize, sent: usize) {
        Self::add(&self.turns, 1);
        Self::add(&self.busy_turns, u64::from(received + sent > 0));
        Self::add(&self.frames_received, received as u64);
        Self::add(&self.frames_sent, sent as u64);
    }

    pub(crate) fn open(&self, connections: usize) {
        self.connections
            .store(connections as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped_by_wire(&self, drops: WireDrops) {
        self.frames_segmented
            .store(drops.segmented, Ordering::Relaxed);
        self.frames_stuck.store(drops.stuck, Ordering::Relaxed);
        self.pool_exhausted
            .store(drops.exhausted, Ordering::Relaxed);
    }

    pub(crate) fn slept(&self) {
        Self::add(&self.sleeps, 1);
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        Self::add(&self.frames_dropped, 1);
        Self::add(&self.drops[reason as usize], 1);
    }

    /// A frame that found no room with its device.
    pub(crate) fn refused_by_device(&self) {
        Self::add(&self.frames_dropped, 1);
    }

    pub(crate) fn by_reference(&self) {
        Self::add(&self.frames_by_reference, 1);
    }

    pub(crate) fn host(&self, host: &HostCounters) {
        let dropped = host.malformed
            + host.not_ours
            + host.bad_source
            + host.fragments
            + host.queue_full
            + host.no_route
            + host.neighbors.refused
            + host.neighbors.unresolved
            + host.tcp.unexpected;
        let refused = host.tcp.over_limit + host.tcp.over_backlog + host.tcp.half_open_expired;
        self.host_dropped.store(dropped, Ordering::Relaxed);
        self.host_refused.store(refused, Ordering::Relaxed);
    }

    pub(crate) fn gathered(&self, placed: u64, corrupt: u64) {
        Self::add(&self.frames_gathered, placed);
        Self::add(&self.frames_dropped, corrupt);
        Self::add(&self.drops[DropReason::BadDataTag as usize], corrupt);
    }

    pub(crate) fn damaged(&self) {
        Self::add(&self.frames_damaged, 1);
    }

    pub(crate) fn unroutable(&self) {
        Self::add(&self.frames_unroutable, 1);
    }

    pub(crate) fn ended(&self, connection: &genie_transport::Counters, status: &Status) {
        Self::add(&self.submissions, status.submissions);
        Self::add(&self.submitted_bytes, status.submitted_bytes);
        Self::add(&self.bytes_repeated, connection.bytes_repeated);
        Self::add(&self.frames_lost, connection.frames_lost);
    }
}
