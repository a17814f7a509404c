//! Whether this process is a child that was forked from one with a session.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use genie_client::engine::{Error, Exception};

/// A session was opened here, or is being opened: there are threads, locks and sockets that a
/// forked child can't use.
static IN_USE: AtomicBool = AtomicBool::new(false);
static FORKED: AtomicBool = AtomicBool::new(false);

/// From now on a forked child knows that it is one.
pub fn watch() {
    extern "C" fn in_child() {
        FORKED.store(IN_USE.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only uses atomics, which is safe in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// A session is being opened: from now on a forked child can't use what it inherits.
pub fn note_use() {
    IN_USE.store(true, Ordering::SeqCst);
}

/// True in a child that was forked from a process with a session: it inherits locks that other
/// threads may have held, and a connection that is not its own. It touches neither, so whatever
/// takes a lock or uses a session asks here first.
#[must_use]
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Fails in a forked child.
///
/// # Errors
/// What to do instead.
pub fn check() -> Result<(), Error> {
    if is_forked() {
        return Err(Error::Genie(
            Exception::Fork,
            "this process was forked from one that uses genie, and a session can't be shared: \
             start it with multiprocessing's \"spawn\" and connect there"
                .to_owned(),
        ));
    }
    Ok(())
}
