//! What a program says of the tensors that it makes: a context variable of Python's says it, and a
//! number beside each tensor (shim/annotations.h) remembers it.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::fork;

unsafe extern "C" {
    // recorder.h
    fn genie_backend_annotation_new(number: u64) -> *mut c_void;
    fn genie_backend_annotation_drop(annotation: *mut c_void);
    fn genie_backend_annotation_note(tensor: *mut c_void, annotation: *mut c_void);

    // CPython's. It isn't in the stable interface, but in each release since 3.7, and as it is here.
    fn PyContextVar_Get(
        variable: *mut ffi::PyObject,
        default: *mut ffi::PyObject,
        value: *mut *mut ffi::PyObject,
    ) -> c_int;
}

/// What the annotations say that a tensor or a task has.
static SAID: Mutex<Option<HashMap<u64, Py<PyAny>>>> = Mutex::new(None);

/// The variable by which a task says what it makes.
static VARIABLE: OnceLock<Py<PyAny>> = OnceLock::new();

/// What a task says, as a value of the context variable.
#[pyclass(frozen, module = "genie._native")]
pub struct Annotating {
    number: u64,
    annotation: NonNull<c_void>,
    /// What it says, and what it said before.
    #[pyo3(get)]
    said: Py<PyAny>,
}

// SAFETY: the annotation is counted with atomics, and has one number that never changes.
unsafe impl Send for Annotating {}
// SAFETY: as above.
unsafe impl Sync for Annotating {}

#[pymethods]
impl Annotating {
    /// A task that says `said`; of its tensors `remembered` is.
    #[new]
    fn new(said: Py<PyAny>, remembered: Py<PyAny>) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        SAID.lock()
            .get_or_insert_with(HashMap::new)
            .insert(number, remembered);
        // SAFETY: takes any number; it comes from `new` in C++, so it is somewhere.
        let annotation = unsafe { NonNull::new_unchecked(genie_backend_annotation_new(number)) };
        Self {
            number,
            annotation,
            said,
        }
    }
}

impl Drop for Annotating {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and dropped once.
        unsafe { genie_backend_annotation_drop(self.annotation.as_ptr()) };
    }
}

/// From now on tasks say by this context variable what they make.
#[pyfunction]
pub fn annotate_by(variable: Py<PyAny>) {
    // Whoever imports the package a second time has the same.
    drop(VARIABLE.set(variable));
}

/// What was said under this number.
#[pyfunction]
pub fn annotation(py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
    let said = SAID.lock();
    Some(said.as_ref()?.get(&number)?.clone_ref(py))
}

/// What is remembered, for as long as a tensor or a task has it.
#[pyfunction]
pub fn annotations() -> usize {
    SAID.lock().as_ref().map_or(0, HashMap::len)
}

/// Gives `use_it` what the running task says, if it says anything. Takes the GIL.
fn with_current<R>(use_it: impl FnOnce(&Bound<'_, Annotating>) -> R) -> Option<R> {
    let variable = VARIABLE.get()?;
    // SAFETY: the interpreter is running (somebody annotates), and Ensure and Release pair up; the value
    // is a new reference, or null, and is let go of before the GIL is.
    unsafe {
        if ffi::Py_IsInitialized() == 0 {
            return None;
        }
        let state = ffi::PyGILState_Ensure();
        let mut value = std::ptr::null_mut();
        let found = match PyContextVar_Get(variable.as_ptr(), ffi::Py_None(), &raw mut value) {
            0 => Bound::from_owned_ptr_or_opt(Python::assume_attached(), value),
            _ => {
                ffi::PyErr_Clear();
                None
            }
        };
        let used = (found.as_ref())
            .and_then(|value| value.cast::<Annotating>().ok())
            .map(use_it);
        drop(found);
        ffi::PyGILState_Release(state);
        used
    }
}

/// The number of what the running task says, and what that is.
pub fn here() -> (u64, Option<Py<PyAny>>) {
    let found = with_current(|annotating| {
        let number = annotating.get().number;
        (number, annotation(annotating.py(), number))
    });
    found.unwrap_or_default()
}

/// # Safety
/// `tensor` is a new `TensorImpl`.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_annotate(tensor: *mut c_void) {
    // SAFETY: as the caller says; the annotation lives as long as what has it.
    with_current(|annotating| unsafe {
        genie_backend_annotation_note(tensor, annotating.get().annotation.as_ptr());
    });
}

#[unsafe(no_mangle)]
extern "C" fn genie_annotation_gone(number: u64) {
    // The lock may be held for ever in a child that was forked.
    if fork::is_forked() {
        return;
    }
    let mut said = SAID.lock();
    let gone = said.as_mut().and_then(|said| said.remove(&number));
    drop(said);
    // May run finalizers: not under the lock. Without the GIL it waits for somebody who has it.
    drop(gone);
}
