//! The only way to tensor bytes: the driver's, by copy, DMA or mbuf.

use crate::block::RegionId;
use crate::payload::PayloadRef;

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

    /// The bytes that [`read`](Self::read) would copy, where they lie, for sealing them on their way
    /// into a frame. `None`, the default, where they can't be seen there: they are then copied first.
    /// Others may change them meanwhile: they are only given to the cipher, which reads them once,
    /// and whatever it read is what is sent.
    ///
    /// # Errors
    /// [`RegionGone`] fails the transfer, not the connection.
    fn bytes(
        &mut self,
        _source: SourceId,
        _offset: u64,
        _len: usize,
    ) -> Result<Option<&[u8]>, RegionGone> {
        Ok(None)
    }

    /// CRC32C of `len` bytes of a source, after others whose sum is `seed` ([`crc32c`]), for
    /// [`poll_transmit_split`]. `None`, the default, where the driver can't tell: the bytes are then
    /// copied. The bytes may change before they are sent; then the peer drops them, and in the end
    /// the transfer fails.
    ///
    /// [`crc32c`]: crate::crc32c
    /// [`poll_transmit_split`]: crate::Connection::poll_transmit_split
    ///
    /// # Errors
    /// [`RegionGone`] fails the transfer, not the connection.
    fn crc(
        &mut self,
        _source: SourceId,
        _offset: u64,
        _len: u64,
        _seed: u32,
    ) -> Result<Option<u32>, RegionGone> {
        Ok(None)
    }

    /// Puts bytes that arrived at `offset` of a region. Each byte of a grant is written once, and
    /// none after the grant ended.
    ///
    /// # Errors
    /// [`RegionGone`] fails the grant, not the connection.
    fn write(&mut self, region: RegionId, offset: u64, bytes: &[u8]) -> Result<(), RegionGone>;

    /// As `write`, for data in device memory ([`handle_split`]): the driver remembers the order and
    /// carries it out once it has verified the data, or forgets it if they don't fit. In the same
    /// breath it says so by [`verified`]: when that returns, nothing is written any more.
    ///
    /// [`handle_split`]: crate::Connection::handle_split
    /// [`verified`]: crate::Connection::verified
    ///
    /// # Errors
    /// [`RegionGone`] fails the grant, not the connection. So does the default.
    fn place_remote(
        &mut self,
        _region: RegionId,
        _offset: u64,
        _from: PayloadRef,
    ) -> Result<(), RegionGone> {
        Err(RegionGone)
    }
}
