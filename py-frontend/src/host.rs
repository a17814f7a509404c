//! What Python gives to a session.

use genie_client::engine::{Host, Interrupted};
use genie_recorder::{host_cache, names};

use crate::sites;

/// The interpreter of this process.
pub struct Python;

impl Host for Python {
    /// Python's handlers; they only run on the main thread.
    fn look_at_signals(&self) -> Result<(), Interrupted> {
        // SAFETY: the interpreter is running; Ensure and Release pair up.
        unsafe {
            if pyo3::ffi::Py_IsInitialized() == 0 {
                return Ok(());
            }
            let state = pyo3::ffi::PyGILState_Ensure();
            let interrupted = pyo3::ffi::PyErr_CheckSignals() != 0;
            pyo3::ffi::PyGILState_Release(state);
            if interrupted {
                Err(Interrupted)
            } else {
                Ok(())
            }
        }
    }

    fn operator(&self, op: u32) -> String {
        names::name(op).to_owned()
    }

    fn line(&self, site: u32) -> String {
        sites::text(site)
    }

    fn rest(&self) {
        host_cache::CACHE.lock().trim();
    }
}
