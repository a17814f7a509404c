//! Errors of the frontend and the Python exceptions they become.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use genie_client::engine::{Error, Exception};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Exception classes of the `genie` package, in the order of [`Exception`].
pub const NAMES: [&str; 7] = [
    "ConnectError",
    "VersionMismatchError",
    "NodeLostError",
    "RemoteOperatorError",
    "StaleTensorError",
    "ForkError",
    "NotConnectedError",
];

/// Not behind a lock: a forked child reads them too.
static CLASSES: OnceLock<Vec<Py<PyAny>>> = OnceLock::new();

/// Takes the exception classes from the Python package.
///
/// # Errors
/// A class that is missing.
pub fn load_classes(module: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut classes = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        classes.push(module.getattr(name)?.unbind());
    }
    let _ = CLASSES.set(classes);
    Ok(())
}

fn class_pointer(which: Exception) -> *mut c_void {
    CLASSES
        .get()
        .and_then(|classes| classes.get(which as usize))
        .map_or(std::ptr::null_mut(), |class| class.as_ptr().cast())
}

/// The Python exception that `error` is.
pub fn raised(error: Error) -> PyErr {
    use pyo3::exceptions::{
        PyIndexError, PyKeyboardInterrupt, PyNotImplementedError, PyTypeError, PyValueError,
    };
    match error {
        Error::Genie(which, text) => Python::attach(|py| {
            let class = CLASSES
                .get()
                .and_then(|classes| classes.get(which as usize))
                .map(|class| class.clone_ref(py));
            match class.map(|class| class.call1(py, (text.clone(),))) {
                Some(Ok(instance)) => PyErr::from_value(instance.into_bound(py)),
                _ => PyRuntimeError::new_err(text),
            }
        }),
        Error::OutOfMemory(text) => of_torch("torch", "OutOfMemoryError", text),
        Error::Index(text) => PyIndexError::new_err(text),
        Error::NotImplemented(text) => PyNotImplementedError::new_err(text),
        Error::Value(text) => PyValueError::new_err(text),
        Error::Type(text) => PyTypeError::new_err(text),
        Error::LinAlg(text) => of_torch("torch.linalg", "LinAlgError", text),
        Error::Runtime(text) => PyRuntimeError::new_err(text),
        Error::Interrupted => {
            Python::attach(|py| PyErr::take(py).unwrap_or_else(|| PyKeyboardInterrupt::new_err(())))
        }
    }
}

/// An exception of torch's own.
fn of_torch(module: &str, class: &str, text: String) -> PyErr {
    Python::attach(|py| {
        let class = py.import(module).and_then(|module| module.getattr(class));
        match class.and_then(|class| class.call1((text.clone(),))) {
            Ok(instance) => PyErr::from_value(instance),
            Err(_) => PyRuntimeError::new_err(text),
        }
    })
}

/// `GenieError` of recorder.h.
#[repr(C)]
pub struct RawError {
    class: u32,
    python_class: *mut c_void,
    message: *const c_char,
}

thread_local! {
    static LAST: RefCell<(u32, usize, CString)> = RefCell::new((0, 0, CString::default()));
}

/// Keeps `error` for the backend to throw on this thread.
pub fn set_last(error: &Error) {
    let (class, pointer) = match error {
        Error::Runtime(_) => (0, 0),
        Error::OutOfMemory(_) => (1, 0),
        Error::Index(_) => (2, 0),
        Error::NotImplemented(_) => (3, 0),
        Error::Value(_) => (4, 0),
        Error::Type(_) => (6, 0),
        Error::LinAlg(_) => (7, 0),
        Error::Genie(which, _) => (5, class_pointer(*which) as usize),
        Error::Interrupted => {
            // What C++ can carry of the handler's own exception is its class and its text.
            let (pointer, text) = Python::attach(|py| match PyErr::take(py) {
                Some(raised) => {
                    let text = raised.value(py).to_string();
                    // Kept for good: a borrowed class has to outlive its way through C++.
                    (raised.get_type(py).into_ptr() as usize, text)
                }
                None => {
                    let class = py.get_type::<pyo3::exceptions::PyKeyboardInterrupt>();
                    (class.as_ptr() as usize, error.to_string())
                }
            });
            LAST.with(|last| {
                let message = CString::new(text.replace('\0', " ")).unwrap_or_default();
                *last.borrow_mut() = (5, pointer, message);
            });
            return;
        }
    };
    let message = CString::new(error.to_string().replace('\0', " ")).unwrap_or_default();
    LAST.with(|last| *last.borrow_mut() = (class, pointer, message));
}

/// Reads the error that this thread kept.
#[unsafe(no_mangle)]
extern "C" fn genie_last_error(out: *mut RawError) {
    LAST.with(|last| {
        let last = last.borrow();
        let raw = RawError {
            class: last.0,
            python_class: last.1 as *mut c_void,
            message: last.2.as_ptr(),
        };
        // SAFETY: the backend passes a valid GenieError; the message lives until this thread's
        // next error, as recorder.h says.
        unsafe { out.write(raw) };
    });
}
