//! What a connection tells the program.

use crate::block::Grant;
use crate::error::{ConnectionError, TransferError};
use crate::outbox::TransferId;

/// Something that the program waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every byte of the transfer is in its region.
    Sent(TransferId),
    /// It is not, and will not be.
    SendFailed(TransferId, TransferError),
    /// Every byte of the grant was written.
    Received(Grant),
    /// It was not, and nothing more will be written.
    ReceiveFailed(Grant, TransferError),
    /// The connection ended; comes last.
    Ended(ConnectionError),
}
