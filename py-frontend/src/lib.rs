//! `genie._native`: the recorder behind the `remote_accelerator` device, and the client's end of
//! a session.

mod annotations;
mod config;
mod current;
mod errors;
mod explain;
mod ffi;
mod fork;
mod frames;
mod host;
mod log;
mod place;
mod profile;
mod seen_lines;
mod sites;
mod target;

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::time::Duration;

use genie_client::engine::{Lane, Moved, Session};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::target::{Settings, Target};

unsafe extern "C" {
    fn genie_backend_register() -> *const c_char;
    fn genie_backend_schema_hash() -> u64;
}

/// Registers the backend with torch. `torch_version` and `torch_folder` are the imported torch's;
/// `errors` is the module of exception classes.
#[pyfunction]
fn register(
    torch_version: &str,
    inner_folders: Vec<String>,
    errors: &Bound<'_, PyAny>,
) -> PyResult<()> {
    errors::load_classes(errors)?;
    log::start();
    sites::set_inner_folders(inner_folders);
    let threads = errors.py().import("threading")?;
    let main_thread = threads.call_method0("main_thread")?;
    host::set_main_thread(main_thread.getattr("native_id")?.extract()?);
    // SAFETY: torch is imported, so its libraries are loaded; called once, by the package.
    let message = unsafe { genie_backend_register() };
    if !message.is_null() {
        // SAFETY: a message is NUL-terminated and static.
        let message = unsafe { CStr::from_ptr(message) }
            .to_string_lossy()
            .into_owned();
        return Err(PyRuntimeError::new_err(message));
    }
    // SAFETY: the backend is registered.
    current::prepare(torch_version, unsafe { genie_backend_schema_hash() });
    Ok(())
}

/// Opens a session with the nodes at `addresses`.
#[pyfunction]
#[pyo3(signature = (addresses, ca, cert, key, policy, timeout))]
fn connect(
    py: Python<'_>,
    addresses: Vec<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    policy: Option<String>,
    timeout: f64,
) -> PyResult<()> {
    let target = Target {
        addresses,
        ca,
        cert,
        key,
        policy,
    };
    let timeout = Duration::try_from_secs_f64(timeout)
        .map_err(|error| PyValueError::new_err(format!("timeout: {error}")))?;
    py.detach(|| current::connect(&target, timeout).map(|_| ()))
        .map_err(errors::raised)?;
    Ok(())
}

/// What a session is to be: addresses, authority, certificate, key, policy; of what was not passed, and
/// stands in no file that was, as the environment says.
#[pyfunction]
#[pyo3(signature = (addresses, ca, cert, key, placement, policy, config))]
fn resolve(
    addresses: Option<Vec<String>>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    placement: Option<String>,
    policy: Option<String>,
    config: Option<PathBuf>,
) -> PyResult<Resolved> {
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let passed = Settings {
        addresses,
        ca: said(ca),
        cert: said(cert),
        key: said(key),
        placement,
        policy: said(policy),
    };
    let target = Target::of(passed, config.as_deref()).map_err(errors::raised)?;
    Ok((
        target.addresses,
        target.ca,
        target.cert,
        target.key,
        target.policy,
    ))
}

type Resolved = (
    Vec<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Ends the session; nothing if there is none.
#[pyfunction]
fn disconnect(py: Python<'_>) -> PyResult<()> {
    fork::check().map_err(errors::raised)?;
    py.detach(current::disconnect);
    Ok(())
}

/// The program ends: so does the session, if it is this process's own.
#[pyfunction]
fn at_exit(py: Python<'_>) {
    py.detach(current::disconnect);
}

/// True in a child that was forked from a process with a session.
#[pyfunction]
fn is_forked() -> bool {
    fork::is_forked()
}

/// Waits until everything recorded so far has run on the node.
#[pyfunction]
fn synchronize(py: Python<'_>) -> PyResult<()> {
    py.detach(|| current::session()?.barrier(sites::here()))
        .map_err(errors::raised)?;
    Ok(())
}

/// True while a session is open.
#[pyfunction]
fn is_connected() -> bool {
    current::get().is_some_and(|session| session.check().is_ok())
}

/// The session's devices, as the package's `Device` wants them.
#[pyfunction]
fn devices(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    fork::check().map_err(errors::raised)?;
    let lanes = current::get().map_or(&[][..], |session| session.lanes());
    let is_pool = current::get().is_some_and(|session| session.indices() < lanes.len());
    let describe = |(index, lane): (usize, &Lane)| {
        let index = if is_pool { 0 } else { index };
        let out = PyDict::new(py);
        let device = lane.device();
        out.set_item("index", index)?;
        out.set_item("node", &lane.node)?;
        out.set_item("name", format!("{}:{}", device.kind, device.index))?;
        out.set_item("description", &device.name)?;
        out.set_item("memory_bytes", device.memory_bytes)?;
        out.set_item("memory_limit_bytes", lane.opened.memory_budget_bytes)?;
        out.set_item("speed", device.speed)?;
        out.set_item("link", lane.link.transport().0)?;
        out.set_item("alive", lane.check().is_ok())?;
        Ok(out)
    };
    lanes.iter().enumerate().map(describe).collect()
}

/// What the node of a device has from libraries.
#[pyfunction]
fn library_operators(device: usize) -> PyResult<Vec<String>> {
    fork::check().map_err(errors::raised)?;
    let Some(session) = current::get() else {
        return Ok(Vec::new());
    };
    let count = session.indices();
    if device >= count {
        return Err(PyValueError::new_err(format!(
            "there is no remote_accelerator:{device}: the session has {count} devices"
        )));
    }
    Ok(session.offered(device))
}

/// Where the storage at a fake address is: indices of `devices`, and why; `None` for one that is not
/// this session's.
#[pyfunction]
fn find(address: u64) -> PyResult<Option<(Vec<usize>, &'static str)>> {
    fork::check().map_err(errors::raised)?;
    Ok(place::find(address))
}

/// Whether the line of an operator is read from frames in place, without the GIL.
#[pyfunction]
fn reads_frames() -> bool {
    frames::are_read()
}

/// The program is going to look at these bytes of storages, in this order: address, offset, length.
#[pyfunction]
fn expect(values: Vec<(u64, u64, u64)>) {
    place::expect(values);
}

/// Numbers a line of the program, by which a replay's operators name it.
#[pyfunction]
fn site(file: &str, line: u32, name: &str) -> u32 {
    sites::number(file, line, name)
}

/// What the session has done, by name.
#[pyfunction]
fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    fork::check().map_err(errors::raised)?;
    let out = PyDict::new(py);
    let session = current::get();
    let log = session
        .map(|session| session.log_counters())
        .unwrap_or_default();
    let moved = session
        .map(|session| session.counters.read())
        .unwrap_or_default();
    out.set_item("connected", is_connected())?;
    let (transport, reason) = session.map_or(("none", "not connected"), |session| {
        session.first().link.transport()
    });
    out.set_item("transport", transport)?;
    out.set_item("transport_reason", reason)?;
    out.set_item(
        "session",
        session.map_or(0, |session| session.first().opened.session_id),
    )?;
    out.set_item("operators", log.operators)?;
    out.set_item("records", log.records)?;
    out.set_item("planned_records", log.planned)?;
    out.set_item("messages_sent", moved.messages_sent)?;
    out.set_item("messages_received", moved.messages_received)?;
    out.set_item("bytes_sent", moved.bytes_sent)?;
    out.set_item("bytes_received", moved.bytes_received)?;
    out.set_item("round_trips", moved.round_trips)?;
    out.set_item("fetched_ahead", moved.fetched_ahead)?;
    out.set_item("plan_hits", log.plan_hits)?;
    out.set_item("plan_misses", log.plan_misses)?;
    out.set_item("plans_refused", log.refused)?;
    out.set_item("faults", moved.faults)?;
    out.set_item("moves", moved.moves)?;
    out.set_item("moved_bytes", moved.moved_bytes)?;
    out.set_item("relayed_bytes", moved.relayed_bytes)?;
    out.set_item("links", links(py, session)?)?;
    out.set_item("policy", session.and_then(Session::policy))?;
    let planned = session.and_then(Session::planned).unwrap_or_default();
    out.set_item("placed_records", planned.counts.planned)?;
    out.set_item("placement_plans", planned.counts.plans)?;
    out.set_item("placement_hits", planned.counts.hits)?;
    out.set_item("placement_misses", planned.counts.misses)?;
    out.set_item("placements_refused", planned.refused)?;
    out.set_item("placements_replaced", planned.counts.replaced)?;
    out.set_item("placements_dropped", planned.counts.dropped)?;
    out.set_item("placements_observed", planned.observed)?;
    out.set_item("planned_sends", planned.sent)?;
    out.set_item("planned_drops", planned.let_go)?;
    out.set_item("states", planned.states)?;
    out.set_item("predicted_transfer_bytes", planned.transfer_bytes)?;
    out.set_item("fallback_operators", current::fallbacks())?;
    out.set_item(
        "shape_signatures",
        session.map_or(0, |session| session.signatures()),
    )?;
    out.set_item("workload_class", moved.analysis.workload_class)?;
    out.set_item("confidence", moved.analysis.confidence)?;
    out.set_item("warnings", moved.analysis.warnings)?;
    Ok(out)
}

/// What went between devices: from which to which, how many values, their bytes, and what carried them.
fn links<'py>(py: Python<'py>, session: Option<&Session>) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let all = session.map(Session::moved).unwrap_or_default();
    let link = |((from, to), moved): ((usize, usize), Moved)| {
        let out = PyDict::new(py);
        out.set_item("from", from)?;
        out.set_item("to", to)?;
        out.set_item("values", moved.values)?;
        out.set_item("bytes", moved.bytes)?;
        out.set_item("way", moved.way)?;
        Ok(out)
    };
    all.into_iter().map(link).collect()
}

/// The native half of `genie`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("TORCH_VERSION", env!("GENIE_TORCH_RELEASE"))?;
    module.add_class::<annotations::Annotating>()?;
    module.add_class::<explain::Recorded>()?;
    module.add_function(wrap_pyfunction!(annotations::annotate_by, module)?)?;
    module.add_function(wrap_pyfunction!(annotations::annotation, module)?)?;
    module.add_function(wrap_pyfunction!(annotations::annotations, module)?)?;
    module.add_function(wrap_pyfunction!(profile::profile_start, module)?)?;
    module.add_function(wrap_pyfunction!(profile::profile_stop, module)?)?;
    module.add_function(wrap_pyfunction!(register, module)?)?;
    module.add_function(wrap_pyfunction!(connect, module)?)?;
    module.add_function(wrap_pyfunction!(disconnect, module)?)?;
    module.add_function(wrap_pyfunction!(at_exit, module)?)?;
    module.add_function(wrap_pyfunction!(is_forked, module)?)?;
    module.add_function(wrap_pyfunction!(synchronize, module)?)?;
    module.add_function(wrap_pyfunction!(is_connected, module)?)?;
    module.add_function(wrap_pyfunction!(devices, module)?)?;
    module.add_function(wrap_pyfunction!(resolve, module)?)?;
    module.add_function(wrap_pyfunction!(expect, module)?)?;
    module.add_function(wrap_pyfunction!(reads_frames, module)?)?;
    module.add_function(wrap_pyfunction!(library_operators, module)?)?;
    module.add_function(wrap_pyfunction!(find, module)?)?;
    module.add_function(wrap_pyfunction!(site, module)?)?;
    module.add_function(wrap_pyfunction!(stats, module)?)?;
    Ok(())
}
