//! What a session is given by the program that it serves.

/// The program's own signal handlers ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// A program with a session.
pub trait Host: Send + Sync {
    /// Lets the program's signal handlers run, if this thread may.
    ///
    /// # Errors
    /// One of them wants the wait to end.
    fn look_at_signals(&self) -> Result<(), Interrupted>;

    /// The name of operator `op`.
    fn operator(&self, op: u32) -> String;

    /// The line of the program that is `site`; empty if it is not known.
    fn line(&self, site: u32) -> String;

    /// Nothing was to be done for a while: memory that is kept for speed may go.
    fn rest(&self);
}
