//! Errors of the frontend and the Python exceptions they become.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};

use genie_session::fault::{Code, Fault};
use parking_lot::Mutex;
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

/// Which exception of the `genie` package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Exception {
    /// No session could be opened.
    Connect = 0,
    /// Another protocol, torch or set of operators.
    VersionMismatch = 1,
    /// The session is over.
    NodeLost = 2,
    /// An operator failed on the node.
    RemoteOperator = 3,
    /// A tensor of an earlier session.
    StaleTensor = 4,
    /// Used in a forked child.
    Fork = 5,
    /// There is no session.
    NotConnected = 6,
}

/// An error on its way to Python.
#[derive(Clone, Debug)]
pub enum Error {
    /// An exception of the package.
    Genie(Exception, String),
    /// `torch.OutOfMemoryError`.
    OutOfMemory(String),
    /// `IndexError`.
    Index(String),
    /// `NotImplementedError`.
    NotImplemented(String),
    /// `ValueError`.
    Value(String),
    /// `RuntimeError`.
    Runtime(String),
    /// A signal handler raised while waiting; the exception is set in the interpreter.
    Interrupted,
}

impl Error {
    /// From a fault of the node; `place` names the operator and the user's line.
    #[must_use]
    pub fn from_fault(fault: &Fault, place: &str) -> Self {
        let text = if place.is_empty() {
            fault.message.clone()
        } else {
            format!("{}\n  {place}", fault.message)
        };
        match fault.code {
            Code::OutOfMemory => Self::OutOfMemory(text),
            Code::Index => Self::Index(text),
            Code::NotImplemented => Self::NotImplemented(text),
            Code::Operator | Code::NotAllowed | Code::Value | Code::Protocol => {
                Self::Genie(Exception::RemoteOperator, text)
            }
            Code::ExecutorDied | Code::Draining | Code::SessionGone | Code::Busy => {
                Self::Genie(Exception::NodeLost, text)
            }
        }
    }

    /// Its message.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Genie(_, text)
            | Self::OutOfMemory(text)
            | Self::Index(text)
            | Self::NotImplemented(text)
            | Self::Value(text)
            | Self::Runtime(text) => text,
            Self::Interrupted => "interrupted",
        }
    }
}

static CLASSES: Mutex<Vec<Py<PyAny>>> = Mutex::new(Vec::new());

/// Takes the exception classes from the Python package.
///
/// # Errors
/// A class that is missing.
pub fn load_classes(module: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut classes = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        classes.push(module.getattr(name)?.unbind());
    }
    *CLASSES.lock() = classes;
    Ok(())
}

fn class_pointer(which: Exception) -> *mut c_void {
    CLASSES
        .lock()
        .get(which as usize)
        .map_or(std::ptr::null_mut(), |class| class.as_ptr().cast())
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        use pyo3::exceptions::{
            PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyNotImplementedError,
            PyRuntimeError, PyValueError,
        };
        match error {
            Error::Genie(which, text) => Python::attach(|py| {
                let class = CLASSES
                    .lock()
                    .get(which as usize)
                    .map(|class| class.clone_ref(py));
                match class.map(|class| class.call1(py, (text.clone(),))) {
                    Some(Ok(instance)) => PyErr::from_value(instance.into_bound(py)),
                    _ => PyRuntimeError::new_err(text),
                }
            }),
            Error::OutOfMemory(text) => Python::attach(|py| {
                let class = py
                    .import("torch")
                    .and_then(|t| t.getattr("OutOfMemoryError"));
                match class.and_then(|class| class.call1((text.clone(),))) {
                    Ok(instance) => PyErr::from_value(instance),
                    Err(_) => PyMemoryError::new_err(text),
                }
            }),
            Error::Index(text) => PyIndexError::new_err(text),
            Error::NotImplemented(text) => PyNotImplementedError::new_err(text),
            Error::Value(text) => PyValueError::new_err(text),
            Error::Runtime(text) => PyRuntimeError::new_err(text),
            Error::Interrupted => Python::attach(|py| {
                PyErr::take(py).unwrap_or_else(|| PyKeyboardInterrupt::new_err(()))
            }),
        }
    }
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
        Error::Genie(which, _) => (5, class_pointer(*which) as usize),
        Error::Interrupted => {
            // The handler's own exception gives way to one that C++ can carry.
            let pointer = Python::attach(|py| {
                let taken = PyErr::take(py);
                drop(taken);
                py.get_type::<pyo3::exceptions::PyKeyboardInterrupt>()
                    .as_ptr() as usize
            });
            (5, pointer)
        }
    };
    let message = CString::new(error.message().replace('\0', " ")).unwrap_or_default();
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
