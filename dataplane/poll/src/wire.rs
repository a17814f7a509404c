//! Frames in and out, as an engine sees them: a DPDK port, or a queue in a test.

/// A link. Every frame has its Ethernet header.
pub trait Wire {
    /// Hands each frame that has arrived to `take`, at most a burst of them, and returns how many.
    /// Never waits.
    fn receive(&mut self, take: impl FnMut(&mut [u8])) -> usize;

    /// Lets `write` fill frames until it says `None` or the link takes no more; returns how many
    /// left. `write` gets room for [`Wire::frame_max`] bytes and says how many it used.
    fn transmit(&mut self, write: impl FnMut(&mut [u8]) -> Option<usize>) -> usize;

    /// Whether frames wait here because the link took no more.
    fn is_backlogged(&self) -> bool;

    /// Bytes of the longest frame, Ethernet header included.
    fn frame_max(&self) -> usize;
}
