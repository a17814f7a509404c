//! Ctrl-C: the first one asks for an end with what was measured so far, a second one kills.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Listens for Ctrl-C and SIGTERM. System calls that wait return early (no `SA_RESTART`).
///
/// # Errors
/// The kernel's.
pub fn listen() -> nix::Result<()> {
    let flags = SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::Handler(ask), flags, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which a signal handler may do.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Leaves Ctrl-C to the end that measures: it says when to stop.
///
/// # Errors
/// The kernel's.
pub fn ignore() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed, the signal is only ignored.
    unsafe { sigaction(Signal::SIGINT, &action) }?;
    Ok(())
}

/// Whether somebody asked.
#[must_use]
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
