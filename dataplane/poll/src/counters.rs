//! What a loop did, written by it alone and read by anybody, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::WireDrops;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the loop began.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($name: AtomicU64,)*
        }

        /// [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All of them, each at nearly the same moment.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
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
        self.pool_exhausted
            .store(drops.exhausted, Ordering::Relaxed);
    }

    pub(crate) fn slept(&self) {
        Self::add(&self.sleeps, 1);
    }

    pub(crate) fn dropped(&self) {
        Self::add(&self.frames_dropped, 1);
    }

    pub(crate) fn gathered(&self, placed: u64, corrupt: u64) {
        Self::add(&self.frames_gathered, placed);
        Self::add(&self.frames_dropped, corrupt);
    }

    pub(crate) fn damaged(&self) {
        Self::add(&self.frames_damaged, 1);
    }

    pub(crate) fn unroutable(&self) {
        Self::add(&self.frames_unroutable, 1);
    }

    pub(crate) fn ended(&self, connection: &genie_transport::Counters) {
        Self::add(&self.bytes_repeated, connection.bytes_repeated);
        Self::add(&self.frames_lost, connection.frames_lost);
    }
}
