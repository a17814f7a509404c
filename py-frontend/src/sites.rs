//! Which line of the user's program recorded an operator.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;

use genie_client::engine::SiteId;
use parking_lot::Mutex;
use pyo3::ffi;

use crate::{frames, seen_lines};

/// Code objects that are kept alive. Programs that make code as they run (exec, lambdas made anew) see
/// them again rarely; who has more lines than this looks some up twice.
const CODES_MAX: usize = 4096;
/// Lines whose text is kept.
const TEXTS_MAX: usize = 1 << 16;

#[derive(Default)]
struct Sites {
    /// Code objects that were seen (each kept alive, so that its address stays its name), and
    /// whether they are the user's.
    codes: HashMap<usize, bool>,
    by_line: HashMap<(usize, i32), SiteId>,
    texts: VecDeque<String>,
    /// Texts that were forgotten, the oldest ones.
    forgotten: SiteId,
    /// Folders whose frames are not the user's.
    inner: Vec<String>,
}

impl Sites {
    fn text(&self, site: SiteId) -> Option<&String> {
        let index = site.checked_sub(1)?.checked_sub(self.forgotten)?;
        self.texts.get(index as usize)
    }

    fn site(&self, code: usize, line: i32) -> Option<SiteId> {
        let site = *self.by_line.get(&(code, line))?;
        self.text(site).is_some().then_some(site)
    }

    fn keep(&mut self, text: String) -> SiteId {
        self.texts.push_back(text);
        if self.texts.len() > TEXTS_MAX {
            self.texts.pop_front();
            self.forgotten += 1;
            seen_lines::forget_all();
        }
        self.forgotten + self.texts.len() as SiteId
    }

    /// Remembers a line of a code object. Only of one that is kept alive: another's address may
    /// become a third one's.
    fn remember(&mut self, code: usize, line: i32, text: String) -> SiteId {
        let site = self.keep(text);
        if self.by_line.len() >= TEXTS_MAX {
            self.by_line.clear();
        }
        if self.codes.contains_key(&code) {
            self.by_line.insert((code, line), site);
        }
        site
    }

    /// Makes room for one more code object; gives those that need not be kept alive any longer.
    fn make_room(&mut self) -> Vec<usize> {
        if self.codes.len() < CODES_MAX {
            return Vec::new();
        }
        self.by_line.clear();
        seen_lines::forget_all();
        std::mem::take(&mut self.codes).into_keys().collect()
    }
}

static SITES: Mutex<Option<Sites>> = Mutex::new(None);

/// Frames of files under these folders are passed over.
pub fn set_inner_folders(folders: Vec<String>) {
    SITES.lock().get_or_insert_with(Sites::default).inner = folders;
    frames::compare();
}

/// `file:line, in function`, or nothing for an unknown site.
#[must_use]
pub fn text(site: SiteId) -> String {
    let sites = SITES.lock();
    let known = sites.as_ref().and_then(|sites| sites.text(site));
    known.cloned().unwrap_or_default()
}

thread_local! {
    static SAID: Cell<SiteId> = const { Cell::new(0) };
}

/// From now on this thread's operators are of this line; of 0: of the one that runs.
#[unsafe(no_mangle)]
extern "C" fn genie_set_site(site: u32) {
    SAID.set(site);
}

/// The line that this thread's operators are of.
#[must_use]
pub fn here() -> SiteId {
    match SAID.get() {
        0 => running(),
        said => said,
    }
}

fn described(file: &str, line: i64, name: &str) -> String {
    format!("File \"{file}\", line {line}, in {name}")
}

/// The number of a line, for [`genie_set_site`].
#[must_use]
pub fn number(file: &str, line: u32, name: &str) -> SiteId {
    let mut guard = SITES.lock();
    let sites = guard.get_or_insert_with(Sites::default);
    sites.keep(described(file, i64::from(line), name))
}

/// The innermost frame of this thread outside torch and genie. Takes the GIL where it was not here before.
fn running() -> SiteId {
    // SAFETY: takes no pointers.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        return 0;
    }
    seen_lines::find().unwrap_or_else(ask)
}

/// The same, by asking Python.
fn ask() -> SiteId {
    // SAFETY: the interpreter is running (the module is loaded), and Ensure and Release pair up.
    unsafe {
        let state = ffi::PyGILState_Ensure();
        // Frames are objects that a collection counts, and one may run any finalizer: not here, in
        // the midst of a call.
        let collects = ffi::PyGC_Disable() != 0;
        let site = walk();
        // Code that is kept alive: another's address may become a third one's.
        seen_lines::remember(site, |code| {
            SITES
                .lock()
                .as_ref()
                .and_then(|sites| sites.codes.get(&code).copied())
        });
        if collects {
            ffi::PyGC_Enable();
        }
        ffi::PyGILState_Release(state);
        site
    }
}

/// # Safety
/// The caller holds the GIL.
unsafe fn walk() -> SiteId {
    let mut found = 0;
    // SAFETY: as the caller says; the code is released.
    unsafe {
        frames::walk(|frame| {
            let code = ffi::PyFrame_GetCode(frame);
            let is_user = is_user_code(code);
            if is_user {
                let line = ffi::PyFrame_GetLineNumber(frame);
                found = intern(code, line);
            }
            ffi::Py_DECREF(code.cast());
            !is_user
        });
    }
    found
}

/// # Safety
/// The caller holds the GIL; `code` is valid.
unsafe fn is_user_code(code: *mut ffi::PyCodeObject) -> bool {
    let known = |sites: &Sites| sites.codes.get(&(code as usize)).copied();
    let found = SITES.lock().as_ref().and_then(known);
    if let Some(is_user) = found {
        return is_user;
    }
    // SAFETY: as the caller says.
    let file = unsafe { attribute(code, c"co_filename") };
    let mut guard = SITES.lock();
    let sites = guard.get_or_insert_with(Sites::default);
    let is_user = !file.starts_with('<') && !sites.inner.iter().any(|dir| file.starts_with(dir));
    let dropped = sites.make_room();
    if sites.codes.insert(code as usize, is_user).is_none() {
        // SAFETY: as the caller says; the reference is kept until there is no room for it.
        unsafe { ffi::Py_INCREF(code.cast()) };
    }
    drop(guard);
    for code in dropped {
        // Not under the lock, likewise.
        // SAFETY: with the GIL, as the caller says; the reference was taken when it was inserted.
        unsafe { ffi::Py_DECREF(code as *mut ffi::PyObject) };
    }
    is_user
}

/// # Safety
/// The caller holds the GIL; `code` is valid and was seen by [`is_user_code`].
unsafe fn intern(code: *mut ffi::PyCodeObject, line: i32) -> SiteId {
    let known = |sites: &Sites| sites.site(code as usize, line);
    let found = SITES.lock().as_ref().and_then(known);
    if let Some(site) = found {
        return site;
    }
    // SAFETY: as the caller says.
    let (file, name) = unsafe { (attribute(code, c"co_filename"), attribute(code, c"co_name")) };
    let mut guard = SITES.lock();
    let sites = guard.get_or_insert_with(Sites::default);
    let text = described(&file, i64::from(line), &name);
    sites.remember(code as usize, line, text)
}

/// # Safety
/// The caller holds the GIL; `code` is valid.
unsafe fn attribute(code: *mut ffi::PyCodeObject, name: &CStr) -> String {
    // SAFETY: as the caller says; the new reference is released.
    unsafe {
        let value = ffi::PyObject_GetAttrString(code.cast(), name.as_ptr());
        if value.is_null() {
            ffi::PyErr_Clear();
            return String::new();
        }
        let mut len = 0;
        let utf8 = ffi::PyUnicode_AsUTF8AndSize(value, &mut len);
        let text = if utf8.is_null() {
            ffi::PyErr_Clear();
            String::new()
        } else {
            let bytes = std::slice::from_raw_parts(utf8.cast::<u8>(), len.unsigned_abs());
            String::from_utf8_lossy(bytes).into_owned()
        };
        ffi::Py_DECREF(value);
        text
    }
}
