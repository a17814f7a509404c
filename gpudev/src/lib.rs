//! The hands: device memory, the rings and arenas between the daemon and its executors, and the
//! zygote that forks them. No torch and no CUDA is linked here; CUDA is opened at run time.
//!
//! - [`mapping`]: memory that two processes share, sealed against shrinking.
//! - [`arena`]: places in such memory.
//! - [`ring`]: a bounded queue of frames in such memory.
//! - [`zygote`]: the daemon's side of starting executors; [`message`]: what both sides say.
//! - [`device`]: accelerators: memory and queues; [`pool`]: blocks of their memory; [`pools`]: those
//!   of a session, which two processes map; [`receive`]: from a network card's buffers to places
//!   there.

#![warn(missing_docs)]

pub mod arena;
pub mod device;
pub mod mapping;
pub mod message;
pub mod pool;
pub mod pools;
mod ranges;
pub mod receive;
pub mod ring;
pub mod seqpacket;
mod space;
pub mod zygote;

pub use arena::Arena;
pub use device::{Device, DeviceKind};
pub use mapping::{Mapping, MemoryError};
pub use message::{Exit, Limits};
pub use pool::{Pool, PoolConfig, PoolError, PoolStats};
pub use pools::{AttachedPools, Pools, PoolsStats};
pub use receive::Receiver;
pub use ring::{Bell, RingCloser, RingConsumer, RingError, RingProducer, RingStats, WaitPolicy};
pub use zygote::{ExecutorHandle, Life, Zygote, ZygoteError, ZygoteInfo};
