//! This thread's Python frames, read without the GIL.
//!
//! PyTorch lets go of the GIL before an operator is dispatched. To take it again only to see which line
//! runs would cost more than recording the operator. A frame that waits for a call of its own thread
//! changes nothing but by that thread, so what it runs can be read in place. Where that lies is Python's
//! own matter: it is known for 3.11, and compared with what Python says before it is believed.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;

/// Whether frames lie as it says here.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// Frames looked at before giving up.
pub const DEPTH_MAX: usize = 256;

/// Of CPython 3.11 (Include/cpython/pystate.h, Include/internal/pycore_frame.h), in bytes.
const CFRAME_OF_THREAD: usize = 56;
const FRAME_OF_CFRAME: usize = 8;
const CODE_OF_FRAME: usize = 32;
const BACK_OF_FRAME: usize = 48;
const INSTRUCTION_OF_FRAME: usize = 56;

/// A frame of this thread, below those that are running.
#[derive(Clone, Copy)]
pub struct Frame(*const u8);

/// # Safety
/// A pointer lies at `offset`.
unsafe fn pointer_at(base: *const u8, offset: usize) -> *const u8 {
    // SAFETY: as the caller says.
    unsafe { base.add(offset).cast::<*const u8>().read() }
}

impl Frame {
    /// The innermost one. `None`: it is not known how to find it. `Some(None)`: there is none.
    pub fn innermost() -> Option<Option<Self>> {
        if !KNOWN.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: takes nothing; may be called by any thread.
        let thread = unsafe { ffi::PyGILState_GetThisThreadState() };
        if thread.is_null() {
            return Some(None);
        }
        // SAFETY: the layout was compared, and the state is this thread's.
        Some(unsafe { first(thread.cast()) })
    }

    /// The one that called it.
    pub fn back(self) -> Option<Self> {
        // SAFETY: the layout was compared; frames of this thread stay while it is in this call.
        let back = unsafe { pointer_at(self.0, BACK_OF_FRAME) };
        (!back.is_null()).then_some(Self(back))
    }

    /// The address of its code object, which lives as long as the frame.
    pub fn code(self) -> usize {
        // SAFETY: as in `back`.
        unsafe { pointer_at(self.0, CODE_OF_FRAME) as usize }
    }

    /// Where in its code it is: an address that no other place of any living code has.
    pub fn instruction(self) -> usize {
        // SAFETY: as in `back`.
        unsafe { pointer_at(self.0, INSTRUCTION_OF_FRAME) as usize }
    }
}

/// # Safety
/// `thread` is the state of this thread, and lies as it says here.
unsafe fn first(thread: *const u8) -> Option<Frame> {
    // SAFETY: as the caller says.
    let frame = unsafe { pointer_at(pointer_at(thread, CFRAME_OF_THREAD), FRAME_OF_CFRAME) };
    (!frame.is_null()).then_some(Frame(frame))
}

/// Finds out whether frames can be read. Called by Python code, with the GIL.
pub fn compare() {
    KNOWN.store(is_3_11() && lie_as_said(), Ordering::Relaxed);
}

/// Whether they can.
pub fn are_read() -> bool {
    KNOWN.load(Ordering::Relaxed)
}

fn is_3_11() -> bool {
    // SAFETY: a string that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(ffi::Py_GetVersion()) };
    version.to_bytes().starts_with(b"3.11.")
}

/// Shows the frames of this thread as Python tells of them, from the innermost one on, until `see` has seen
/// enough.
///
/// # Safety
/// The caller holds the GIL.
pub unsafe fn walk(mut see: impl FnMut(*mut ffi::PyFrameObject) -> bool) {
    // SAFETY: with the GIL held, the current frame is borrowed and valid; every other reference taken is
    // released.
    unsafe {
        let mut frame = ffi::PyEval_GetFrame();
        if frame.is_null() {
            return;
        }
        ffi::Py_INCREF(frame.cast());
        for _ in 0..DEPTH_MAX {
            if !see(frame) {
                break;
            }
            let back = ffi::PyObject_GetAttrString(frame.cast(), c"f_back".as_ptr());
            ffi::Py_DECREF(frame.cast());
            frame = back.cast();
            if back.is_null() {
                ffi::PyErr_Clear();
                return;
            }
            if back == ffi::Py_None() {
                break;
            }
        }
        ffi::Py_DECREF(frame.cast());
    }
}

/// Whether all frames have the code that Python says they have.
fn lie_as_said() -> bool {
    let mut alike = false;
    // SAFETY: with the GIL; this is 3.11, so the fields are there; the code is released.
    unsafe {
        let mut ours = first(ffi::PyGILState_GetThisThreadState().cast());
        walk(|theirs| {
            let code = ffi::PyFrame_GetCode(theirs);
            alike = ours.is_some_and(|frame| {
                // Instructions are at the end of their code object, and as many as its size says.
                let count = ffi::Py_SIZE(code.cast()).unsigned_abs();
                let begin = frame.code();
                let place = frame.instruction().wrapping_sub(begin);
                begin == code as usize && place < 1024 + 2 * count
            });
            ffi::Py_DECREF(code.cast());
            ours = ours.and_then(Frame::back);
            alike
        });
    }
    alike
}
