//! A frame before it is made.

use crate::content::Contents;
use crate::limits::CONTENTS_MAX;
use crate::outbox::{Piece, Transfer};

/// What goes into a frame.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) control_len: usize,
    pub(super) data_len: usize,
    pub(super) acks: bool,
    pub(super) asks: bool,
    pub(super) tries_mtu: bool,
    pub(super) contents: Contents,
    pub(super) pieces: [Option<(Piece, Transfer)>; CONTENTS_MAX],
}
