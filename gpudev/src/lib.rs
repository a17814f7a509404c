//! The hands: device memory, the rings and arenas between the daemon and its executors, and the
//! zygote that forks them. No torch and no CUDA is linked here.
//!
//! - [`mapping`]: memory that two processes share, sealed against shrinking.
//! - [`arena`]: places in such memory.
//! - [`ring`]: a bounded queue of frames in such memory.
//! - [`zygote`]: the daemon's side of starting executors; [`message`]: what both sides say.
//! - [`device`]: accelerators by name.

#![warn(missing_docs)]

pub mod arena;
pub mod device;
pub mod mapping;
pub mod message;
mod ranges;
pub mod ring;
pub mod seqpacket;
mod space;
pub mod zygote;

pub use arena::Arena;
pub use device::{Device, DeviceKind};
pub use mapping::{Mapping, MemoryError};
pub use message::{Exit, Limits};
pub use ring::{RingCloser, RingConsumer, RingError, RingProducer, RingStats, WaitPolicy};
pub use zygote::{ExecutorHandle, Life, Zygote, ZygoteError, ZygoteInfo};
