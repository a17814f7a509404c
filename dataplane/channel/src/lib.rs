//! A channel between a program and a poll loop, in shared memory: the Python client and its
//! gateway (two processes), or a node's session threads and the node's loop (one process).
//!
//! The program's half ([`AppHalf`]) may block; the loop's half ([`LoopHalf`]) never does, and makes
//! no system call while the other side is awake. Two rings carry messages; bulk lies in memory that
//! both reach: an arena that is shared with the ring, or, in one process, whatever the program and
//! the loop agreed upon.
//!
//! A session's byte stream passes as [`Command`]s and [`ToApp`]s of its bytes. A bulk of at most
//! [`INLINE_MAX`] bytes travels inside it. A longer one does not: where it would stand in the stream
//! its sender puts [`Command::Send`] and its receiver, once it has read of it in the stream,
//! [`Command::Receive`] (or [`Command::Refuse`]), one of each for every part that [`parts`] names.
//!
//! - [`local`]: both halves in one process; [`attach`]: a client's, over a gateway's unix socket.
//! - [`Doorbell`]: what a loop sleeps on.

#![warn(missing_docs)]

mod app;
pub mod attach;
mod bulk;
mod codes;
mod doorbell;
mod error;
mod looping;
mod message;
mod offer;
mod wait;

pub use app::{AppCloser, AppHalf, AppReceiver, AppSender, local};
pub use bulk::{BULK_PART_MAX, INLINE_MAX, parts};
pub use codes::{ended, failed};
pub use doorbell::Doorbell;
pub use error::ChannelError;
pub use looping::LoopHalf;
pub use message::{Command, FromApp, FromLoop, STREAM_MAX, TEXT_MAX, ToApp};
pub use offer::{MTU_MAX, MTU_MIN, Offer};

/// How large a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of each of the two rings; rounded up to a power of two, at least
    /// [`Sizes::RING_BYTES_MIN`].
    pub ring_bytes: u64,
    /// Bytes of the arena for bulk. 0: none.
    pub arena_bytes: u64,
}

impl Sizes {
    /// The smallest ring: room for two of the longest messages.
    pub const RING_BYTES_MIN: u64 = 128 << 10;
    /// What a gateway gives a client: rings of 1 MiB and an arena of 256 MiB. Its pages are huge and
    /// there from the start, or ordinary and only taken when they are used.
    pub const GATEWAY: Self = Self {
        ring_bytes: 1 << 20,
        arena_bytes: 256 << 20,
    };
    /// What a node's session needs: rings of 1 MiB, no arena.
    pub const LOCAL: Self = Self {
        ring_bytes: 1 << 20,
        arena_bytes: 0,
    };

    fn ring(&self) -> u64 {
        self.ring_bytes.max(Self::RING_BYTES_MIN)
    }
}
