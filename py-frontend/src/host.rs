//! What Python gives to a session.

use std::sync::atomic::{AtomicI32, Ordering};

use genie_client::engine::{Host, Interrupted};
use genie_recorder::{host_cache, names};
use genie_session::fault::Code;
use pyo3::ffi;

use crate::{fork, sites};

/// The thread that Python runs signal handlers on, by the kernel's number; 0 until it is known.
static MAIN_THREAD: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" {
    fn genie_backend_outside(look: extern "C" fn() -> i32) -> i32;
}

/// Tells which thread is Python's main one.
pub fn set_main_thread(native_id: i32) {
    MAIN_THREAD.store(native_id, Ordering::Relaxed);
}

/// The interpreter of this process.
pub struct Python;

/// Runs `body` with the GIL. `None` where there is no interpreter (any more).
fn with_gil<R>(body: impl FnOnce() -> R) -> Option<R> {
    // SAFETY: takes no pointers.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        return None;
    }
    // SAFETY: the interpreter is running; Ensure and Release pair up.
    let state = unsafe { ffi::PyGILState_Ensure() };
    let result = body();
    // SAFETY: as above.
    unsafe { ffi::PyGILState_Release(state) };
    Some(result)
}

extern "C" fn check_signals() -> i32 {
    // SAFETY: the GIL is held.
    unsafe { ffi::PyErr_CheckSignals() }
}

impl Host for Python {
    fn look_at_signals(&self) -> Result<(), Interrupted> {
        if !self.runs_handlers() {
            return Ok(());
        }
        // SAFETY: the backend is registered, and calls the function with this thread's GIL held.
        let looked = with_gil(|| unsafe { genie_backend_outside(check_signals) });
        // A handler that forked has come back in the child, too.
        if looked.unwrap_or(0) != 0 || fork::is_forked() {
            return Err(Interrupted);
        }
        Ok(())
    }

    fn runs_handlers(&self) -> bool {
        // SAFETY: takes no pointers.
        unsafe { libc::gettid() == MAIN_THREAD.load(Ordering::Relaxed) }
    }

    fn is_interrupt_waiting(&self) -> bool {
        self.runs_handlers()
            && with_gil(|| {
                // SAFETY: the GIL is held. Asking takes the interrupt off, so it is put back.
                unsafe {
                    let waiting = ffi::PyOS_InterruptOccurred() != 0;
                    if waiting {
                        ffi::PyErr_SetInterrupt();
                    }
                    waiting
                }
            })
            .unwrap_or(false)
    }

    fn operator(&self, op: u32) -> String {
        names::name(op).to_owned()
    }

    fn line(&self, site: u32) -> String {
        sites::text(site)
    }

    fn hint(&self, code: Code) -> &'static str {
        match code {
            Code::OutOfMemory => "(python -m genie errors out-of-memory)",
            Code::Index | Code::NotImplemented | Code::Value | Code::Type | Code::LinAlg => {
                "(python -m genie errors of-pytorch)"
            }
            // Genie's own classes name their pages themselves.
            _ => "",
        }
    }

    fn warn(&self, text: &str) {
        let Ok(text) = std::ffi::CString::new(text) else {
            return;
        };
        with_gil(|| {
            // SAFETY: the GIL is held; the text outlives the call. Where warnings are errors there is
            // nobody here to raise it to.
            unsafe {
                if ffi::PyErr_WarnEx(ffi::PyExc_UserWarning, text.as_ptr(), 1) < 0 {
                    ffi::PyErr_WriteUnraisable(std::ptr::null_mut());
                }
            }
        });
    }

    fn rest(&self) {
        host_cache::CACHE.lock().trim();
    }
}
