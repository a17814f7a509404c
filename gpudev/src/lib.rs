//! The hands: device memory, and the zygote that forks the daemon's executors. No torch and no CUDA
//! is linked here; CUDA is opened at run time. What two processes share is `genie-shm`.
//!
//! - [`zygote`]: the daemon's side of starting executors; [`message`]: what both sides say.
//! - [`sandbox`]: what holds executors in.
//! - [`device`]: accelerators: memory and queues; [`pool`]: blocks of their memory; [`pools`]: those
//!   of a session, which two processes map; [`receive`]: from a network card's buffers to places
//!   there.

#![warn(missing_docs)]

pub mod device;
pub mod message;
pub mod pool;
pub mod pools;
pub mod receive;
pub mod sandbox;
pub mod zygote;

pub use device::{Device, DeviceKind};
pub use message::{Exit, Limits};
pub use pool::{Pool, PoolConfig, PoolError, PoolStats};
pub use pools::{AttachedPools, Pools, PoolsStats};
pub use receive::Receiver;
pub use sandbox::{Sandbox, SandboxMode};
pub use zygote::{ExecutorHandle, Life, Zygote, ZygoteError, ZygoteInfo, ZygoteProgram};
