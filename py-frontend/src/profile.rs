//! What a profile has noted, as Python's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use genie_client::engine::{self, Captured, Clock, Host as _, Profile, Sent, Waited};
use genie_session::record::Kind;
use genie_session::times::Entry;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::explain::Recorded;
use crate::host::Python as Host;
use crate::{annotations, current, errors, sites};

unsafe extern "C" {
    /// shim/profile.h
    fn genie_backend_profile(is_on: i32);
}

static IS_ON: AtomicBool = AtomicBool::new(false);

/// What annotations said that records have; tensors may be gone by the end.
static SAID: Mutex<Option<HashMap<u64, Py<PyAny>>>> = Mutex::new(None);

/// Whether anybody wants to know.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// What this thread records next begins now, if anybody wants to know.
pub fn begins() {
    if is_on() {
        engine::begins();
    }
}

#[unsafe(no_mangle)]
extern "C" fn genie_begins() {
    engine::begins();
}

/// What the running task says, for a profile; zero is nothing.
pub fn annotation() -> u64 {
    if !is_on() {
        return 0;
    }
    let (number, said) = annotations::here();
    if let Some(said) = said {
        SAID.lock()
            .get_or_insert_with(HashMap::new)
            .entry(number)
            .or_insert(said);
    }
    number
}

fn set(on: bool) {
    IS_ON.store(on, Ordering::Relaxed);
    // SAFETY: takes any number.
    unsafe { genie_backend_profile(i32::from(on)) };
}

/// From here on notes what happens when; with `is_whole` also what is recorded, whole.
#[pyfunction]
#[pyo3(signature = (is_whole=false))]
pub fn profile_start(py: Python<'_>, is_whole: bool) -> PyResult<()> {
    py.detach(|| current::session()?.start_profile(is_whole))
        .map_err(errors::raised)?;
    set(true);
    Ok(())
}

/// Notes no more, and gives what was noted.
#[pyfunction]
pub fn profile_stop(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    set(false);
    let said = SAID.lock().take().unwrap_or_default();
    let mut profile = py
        .detach(|| current::session()?.stop_profile())
        .map_err(errors::raised)?;
    let transcript = profile.transcript.take();
    let out = columns(py, &profile)?;
    if let Some(transcript) = transcript {
        out.set_item("transcript", Bound::new(py, Recorded::new(transcript))?)?;
    }
    out.set_item("annotations", said)?;
    Ok(out)
}

fn columns<'py>(py: Python<'py>, profile: &Profile) -> PyResult<Bound<'py, PyDict>> {
    let (mut operators, mut lines) = (HashMap::new(), HashMap::new());
    for one in &profile.captured {
        lines
            .entry(one.site)
            .or_insert_with(|| sites::text(one.site));
        if matches!(one.kind, Kind::Op | Kind::CallSync) {
            operators
                .entry(one.op)
                .or_insert_with(|| Host.operator(one.op));
        }
    }
    let out = PyDict::new(py);
    out.set_item("span", profile.span)?;
    out.set_item("dropped", profile.dropped)?;
    out.set_item("operators", operators)?;
    out.set_item("lines", lines)?;
    out.set_item("captured", list(py, &profile.captured, captured)?)?;
    out.set_item("sent", list(py, &profile.sent, sent)?)?;
    out.set_item("waited", list(py, &profile.waited, waited)?)?;
    out.set_item("clocks", list(py, &profile.clocks, clock)?)?;
    let frames = profile.measured.iter().filter_map(|&(lane, entry)| {
        let Entry::Frame {
            came,
            landed,
            begun,
        } = entry
        else {
            return None;
        };
        Some((lane, came, landed, begun))
    });
    out.set_item("frames", PyList::new(py, frames.collect::<Vec<_>>())?)?;
    let records = profile.measured.iter().filter_map(|&(lane, entry)| {
        let Entry::Record { seq, begun, ended } = entry else {
            return None;
        };
        Some((lane, seq, begun, ended))
    });
    out.set_item("records", PyList::new(py, records.collect::<Vec<_>>())?)?;
    Ok(out)
}

fn list<'py, T, R>(
    py: Python<'py>,
    entries: &[T],
    row: impl Fn(&T) -> R,
) -> PyResult<Bound<'py, PyList>>
where
    R: IntoPyObject<'py>,
{
    PyList::new(py, entries.iter().map(row).collect::<Vec<_>>())
}

fn captured(one: &Captured) -> impl for<'py> IntoPyObject<'py> + use<> {
    let kind = match one.kind {
        Kind::Op => "operator",
        Kind::CallSync => "synchronous operator",
        Kind::Upload => "upload",
        Kind::Alloc => "allocation",
        Kind::Resize => "resize",
        Kind::Fetch => "fetch",
        Kind::Barrier => "barrier",
        Kind::Send => "send",
        Kind::Recv => "receive",
        Kind::Cut => "cut",
        Kind::Frees => "frees",
    };
    (
        (
            one.lane,
            one.seq,
            kind,
            one.op,
            one.site,
            one.origin.annotation,
        ),
        (one.thread, one.begun, one.ended, one.question),
        (one.origin.sequence_nr, one.origin.forward_nr),
    )
}

fn sent(one: &Sent) -> (usize, u64, u64, u64, u64) {
    (one.lane, one.seq, one.bytes, one.begun, one.ended)
}

fn waited(one: &Waited) -> (usize, u64, u64, bool, u64, u64) {
    (
        one.lane,
        one.thread,
        one.question,
        one.is_call,
        one.begun,
        one.ended,
    )
}

fn clock(one: &Clock) -> (usize, u64, i64, u64) {
    (one.lane, one.at, one.ahead, one.took)
}
