//! Memory that two processes share, and what is built in it. Knows no device and no protocol.
//!
//! - [`mapping`]: memory that two processes share, sealed against shrinking.
//! - [`arena`]: places in such memory; [`space`]: their books.
//! - [`ring`]: a bounded queue of frames in such memory.
//! - [`clock`]: the time, as all of them have it.
//! - [`word`]: one number in such memory, and its reader's count.
//! - [`seqpacket`]: messages with open files between processes of one machine.

#![warn(missing_docs)]

pub mod arena;
pub mod clock;
pub mod mapping;
pub mod ranges;
pub mod ring;
pub mod seqpacket;
pub mod space;
pub mod word;

pub use arena::Arena;
pub use mapping::{Mapping, MemoryError};
pub use ring::{Bell, RingCloser, RingConsumer, RingError, RingProducer, RingStats, WaitPolicy};
pub use word::Word;
