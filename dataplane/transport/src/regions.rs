//! The only way to tensor bytes: the driver's, by copy, DMA or mbuf.

use crate::block::RegionId;

/// Memory at the sender, as the driver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(pub u64);

/// A part of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which source.
    pub source: SourceId,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// The memory is gone, or changed while it was to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of a transfer is gone")]
pub struct RegionGone;

/// Reads sources and writes regions for the state machine.
pub trait Regions {
    /// These spans will be read next, in this order: a driver may gather them from a device in one
    /// submission.
    fn submit(&mut self, _spans: &[Span]) {}

    /// Fills `into` from a source. A repeat reads the same bytes again.
    ///
    /// # Errors
    /// [`RegionGone`] fails the transfer, not the connection.
    fn read(&mut self, source: SourceId, offset: u64, into: &mut [u8]) -> Result<(), RegionGone>;

    /// Puts bytes that arrived at `offset` of a region. Each byte of a grant is written once, and
    /// none after the grant ended.
    ///
    /// # Errors
    /// [`RegionGone`] fails the grant, not the connection.
    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone>;
}
