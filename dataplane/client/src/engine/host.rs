//! What a session is given by the program that it serves.

use genie_session::fault::Code;

/// The program's own signal handlers ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// A program with a session.
pub trait Host: Send + Sync {
    /// Lets the program's signal handlers run, if this thread may. They may do anything, use this
    /// session too: so it is called only where the thread holds no lock, no loan and no half-sent
    /// frame ([`super::Session`] alone has the host; its parts don't).
    ///
    /// # Errors
    /// One of them wants the wait to end.
    fn look_at_signals(&self) -> Result<(), Interrupted>;

    /// Whether handlers could run on this thread, so that it should let go of what it holds.
    fn runs_handlers(&self) -> bool;

    /// Whether somebody asked for an end (Ctrl-C) and no handler has run yet.
    fn is_interrupt_waiting(&self) -> bool;

    /// The name of operator `op`.
    fn operator(&self, op: u32) -> String;

    /// The line of the program that is `site`; empty if it is not known.
    fn line(&self, site: u32) -> String;

    /// Where the user reads more of a fault that becomes an error of the program's own kind; a line, or empty.
    fn hint(&self, code: Code) -> &'static str {
        let _ = code;
        ""
    }

    /// Tells the user something that is no error.
    fn warn(&self, text: &str) {
        let _ = text;
    }

    /// Nothing was to be done for a while: memory that is kept for speed may go.
    fn rest(&self);
}
