//! What a device does, in order.

use super::gather::GatherTable;
use super::memory::check_reach;
use super::{DeviceError, DeviceKind, Memory};

/// Submissions that a queue takes before the first has to be waited for.
pub const QUEUE_DEPTH: usize = 64;

/// A part of a copy, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyPiece {
    /// Where from, in the source.
    pub from: u64,
    /// Where to, in the target.
    pub to: u64,
    /// How many.
    pub len: u64,
}

/// Whether the pieces of a copy may run in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOrder {
    /// One after the other: a piece may read what an earlier one wrote.
    InOrder,
    /// In any order, and at once: no piece touches what another writes.
    Any,
}

/// A point in a queue's work, which is reached when all that was submitted up to it is done.
/// Events of one queue grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event(pub u64);

/// A queue of a device. Each call that submits is one submission, however many pieces it has.
/// What was handed over stays alive until its event is reached.
pub trait Queue: Send {
    /// Whose queue it is.
    fn device(&self) -> DeviceKind;

    /// Copies each piece from one memory to another, or within one.
    ///
    /// # Errors
    /// A piece outside its memory or over itself, memory that the device can't reach: then nothing
    /// was done. A full queue. A failure of the device, which every later call repeats.
    fn copy(
        &mut self,
        from: &Memory,
        to: &Memory,
        pieces: &[CopyPiece],
        order: CopyOrder,
    ) -> Result<Event, DeviceError>;

    /// Checks and places the frames of a table, which stays with the device until then.
    ///
    /// # Errors
    /// As [`Queue::copy`].
    fn gather(&mut self, table: &mut GatherTable) -> Result<Event, DeviceError>;

    /// Whether an event was reached.
    ///
    /// # Errors
    /// The device failed.
    fn is_done(&mut self, event: Event) -> Result<bool, DeviceError>;

    /// Waits until an event is reached.
    ///
    /// # Errors
    /// The device failed.
    fn wait(&mut self, event: Event) -> Result<(), DeviceError>;

    /// Reads memory of any residence into the CPU's, after all that was submitted. Not for the hot
    /// path: it waits.
    ///
    /// # Errors
    /// As [`Queue::copy`].
    fn read(&mut self, from: &Memory, offset: u64, into: &mut [u8]) -> Result<(), DeviceError>;

    /// Writes memory of any residence from the CPU's, after all that was submitted. Waits.
    ///
    /// # Errors
    /// As [`Queue::copy`].
    fn write(&mut self, to: &Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;
}

/// Refuses what [`Queue::copy`] must refuse.
pub(crate) fn check_copy(
    device: DeviceKind,
    from: &Memory,
    to: &Memory,
    pieces: &[CopyPiece],
) -> Result<(), DeviceError> {
    check_reach(device, from)?;
    check_reach(device, to)?;
    for &CopyPiece {
        from: at,
        to: place,
        len,
    } in pieces
    {
        let (source, target) = (from.at(at, len)?, to.at(place, len)?);
        if source < target + len && target < source + len {
            let (from, to) = (at, place);
            return Err(DeviceError::Overlap { from, to, len });
        }
    }
    Ok(())
}
