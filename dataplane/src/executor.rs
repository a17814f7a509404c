//! Executors as the data path sees them: two rings and two memories, and a process that may die.

use std::sync::Arc;

use genie_gpudev::{Arena, Mapping, RingConsumer, RingProducer};

/// A running executor.
pub struct Executor {
    /// Its process id, for logs.
    pub pid: u32,
    /// Frames to it.
    pub to: RingProducer,
    /// Frames from it. What comes is not trusted.
    pub from: RingConsumer,
    /// Where uploads are placed. The daemon allocates.
    pub inbound: Arena,
    /// Where it puts replies.
    pub outbound: Arc<Mapping>,
    /// The process.
    pub process: Box<dyn Process>,
}

/// A process that may be ended.
pub trait Process: Send + Sync {
    /// Ends it. Does not wait.
    fn kill(&self);
}

/// Starts executors. Tells of each exit, by the session's id, to whom it was made for.
pub trait Launcher: Send + Sync {
    /// An executor for a session whose tensors may take `memory_bytes`.
    ///
    /// # Errors
    /// Why there is none, for a person.
    fn launch(&self, session: u64, memory_bytes: u64) -> Result<Executor, String>;
}
