//! Frames in and out, as an engine sees them: a DPDK port, or a queue in a test.

use std::os::fd::RawFd;
use std::sync::Arc;

use genie_shm::Mapping;
use genie_transport::SplitTransmit;

use crate::memory::MemoryId;

/// A frame that was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes that were written.
    pub len: usize,
    /// Whose data follow, from where they lie.
    pub data: Option<SplitTransmit>,
}

impl Written {
    /// One that lies whole where it was written.
    #[must_use]
    pub fn whole(len: usize) -> Self {
        Self { len, data: None }
    }
}

/// A frame that arrived, with its buffer.
pub trait Packet {
    /// Its bytes.
    fn bytes(&mut self) -> &mut [u8];
}

impl Packet for Vec<u8> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

/// Frames that pass at a time.
pub const BURST: usize = 32;

/// What a link dropped by itself, since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireDrops {
    /// Frames that arrived in more than one part, which a port is not asked for.
    pub segmented: u64,
    /// Times that there was no packet to write a frame to.
    pub exhausted: u64,
    /// Frames that were written, and that the link did not take for long.
    pub stuck: u64,
}

/// A link. Every frame has its Ethernet header.
pub trait Wire {
    /// What arrives.
    type Packet: Packet;

    /// Hands each frame that has arrived to `take`, at most [`BURST`] of them, and returns how many.
    /// Never waits.
    fn receive(&mut self, take: impl FnMut(&mut [u8])) -> usize;

    /// As [`Wire::receive`], and `take` keeps each packet for as long as it needs its bytes.
    fn receive_kept(&mut self, take: impl FnMut(Self::Packet)) -> usize;

    /// Lets `write` fill frames until it says `None` or the link takes no more; returns how many
    /// left. `write` gets room for [`Wire::frame_max`] bytes and says how many it used.
    fn transmit(&mut self, write: impl FnMut(&mut [u8]) -> Option<Written>) -> usize;

    /// From now on frames may have data from this memory, which is not copied. False: they may not.
    fn share(&mut self, _id: MemoryId, _memory: &Arc<Mapping>) -> bool {
        false
    }

    /// No more frames will have data from this memory.
    fn forget(&mut self, _id: MemoryId) {}

    /// What it dropped.
    fn drops(&self) -> WireDrops {
        WireDrops::default()
    }

    /// Whether frames wait here because the link took no more, which will be over in a moment.
    fn is_backlogged(&self) -> bool;

    /// Whether the link took nothing when it was offered something last: what is due can't be sent,
    /// however late it is.
    fn takes_nothing(&self) -> bool {
        false
    }

    /// Whether the port wakes who waits for it.
    fn has_interrupt(&self) -> bool {
        false
    }

    /// Switches the receive interrupt on; gives what to wait for, where there is one. After it one
    /// must look once more before waiting.
    fn arm(&mut self) -> Option<RawFd> {
        None
    }

    /// Switches it off.
    fn disarm(&mut self) {}

    /// Bytes of the longest frame, Ethernet header included.
    fn frame_max(&self) -> usize;
}
