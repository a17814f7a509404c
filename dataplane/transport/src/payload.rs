//! Data that arrived apart from their frame's head, and are not verified yet.

use crate::header::Epoch;

/// Data of a frame that arrived apart from its head, in memory that the CPU does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceData {
    /// The buffer, as the driver names it.
    pub handle: u64,
    /// Bytes in it; more than the frame has where a link padded it.
    pub len: usize,
}

/// Names data that are not yet verified; of no other connection or epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadToken {
    pub(crate) epoch: Epoch,
    pub(crate) serial: u32,
    pub(crate) slot: u16,
}

/// A part of such data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRef {
    /// The verification that must come first.
    pub token: PayloadToken,
    /// [`DeviceData::handle`].
    pub handle: u64,
    /// Bytes from the start of the data.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What the driver is to verify before any part of the data reaches a region: that the CRC32C
/// ([`crc32c`](crate::crc32c) with seed zero) of the first `len` bytes is `crc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the data are never acknowledged if nobody calls `verified`"]
pub struct Unverified {
    /// For `verified`.
    pub token: PayloadToken,
    /// Bytes of data.
    pub len: usize,
    /// Their sum.
    pub crc: u32,
}
