//! Executors as the data path sees them: two rings and a memory, and a process that may die.

use std::sync::Arc;

use genie_shm::{RingConsumer, RingProducer, Word};

use super::memory::SessionMemory;

/// A running executor.
pub struct Executor {
    /// Its process id, for logs.
    pub pid: u32,
    /// Frames to it.
    pub to: RingProducer,
    /// Frames from it. What comes is not trusted.
    pub from: RingConsumer,
    /// Where its tensors are.
    pub memory: SessionMemory,
    /// What its tensors may come to: it reads it, and counts there what operators it has begun.
    pub allowance: Arc<Word>,
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
    /// An executor for a session of `tenant` on the node's device `device`, whose tensors may take
    /// `memory_bytes`.
    ///
    /// # Errors
    /// Why there is none, for a person.
    fn launch(
        &self,
        session: u64,
        tenant: &str,
        device: usize,
        memory_bytes: u64,
    ) -> Result<Executor, String>;

    /// Processes that executors are started from.
    fn zygotes(&self) -> u64;

    /// Mends what it starts executors with, if that is stopped. Called again and again.
    fn look_after(&self) {}
}
