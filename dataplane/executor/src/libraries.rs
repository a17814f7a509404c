//! Operator libraries: shared objects with operators of their own, which the node's operator trusts. They
//! are loaded once, before any executor is forked, and are held in as executors are.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use genie_gpudev::message::{FromZygote, OPERATORS_MAX, SCHEMA_MAX};

use crate::{ffi, operators};

/// In the place of libtorch's library for Python, which libraries are linked to whether they call it or
/// not: a node has no Python.
const STAND_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stand_in.so"));

/// Loads them in their order; `say` tells the daemon of each.
///
/// # Errors
/// Of the first that can't be loaded: which, why, and what to do.
pub fn load(
    paths: &[&OsStr],
    mut say: impl FnMut(&FromZygote) -> io::Result<()>,
) -> Result<(), String> {
    if paths.is_empty() {
        return Ok(());
    }
    stand_in().map_err(|error| format!("no library can be loaded: {error}"))?;
    let mut said = Vec::new();
    let mut allowed = HashSet::new();
    for (at, path) in paths.iter().enumerate() {
        let shown = Path::new(path).display();
        tracing::debug!("loading the operator library {shown}");
        let library = u16::try_from(at).unwrap_or(u16::MAX);
        // It may end this process.
        say(&FromZygote::Loading { library }).map_err(|error| error.to_string())?;
        let schemas = one(path, &mut allowed)
            .map_err(|why| format!("the operator library {shown} can't be loaded: {why}"))?;
        said.extend(FromZygote::operators(library, schemas));
        if threads() != 1 {
            return Err(format!(
                "the operator library {shown} starts threads when it is loaded: a process with \
                 threads can't be forked. Build it without"
            ));
        }
    }
    if allowed.len() > OPERATORS_MAX {
        return Err(format!(
            "operator libraries define {} operators: a node takes {OPERATORS_MAX} at most",
            allowed.len()
        ));
    }
    operators::allow(allowed);
    let told = said.iter().try_for_each(say);
    told.map_err(|error| error.to_string())
}

/// Loads one; gives its operators' schemas, sorted.
fn one(path: &OsStr, allowed: &mut HashSet<String>) -> Result<Vec<String>, String> {
    let file = CString::new(path.as_bytes()).map_err(|error| error.to_string())?;
    let found = ffi::load_library(&file).map_err(|failure| explained(&failure.message))?;
    if found.is_empty() {
        return Err("it defines no operators (by TORCH_LIBRARY)".to_owned());
    }
    let (carried, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|operator| operator.is_carried && operator.schema.len() <= SCHEMA_MAX);
    for operator in others {
        tracing::warn!(
            "{} gives views, or takes or gives what no record carries: programs run it on their own CPU",
            operator.name
        );
    }
    let mut schemas = Vec::new();
    for operator in carried {
        schemas.push(operator.schema);
        allowed.insert(operator.name);
    }
    schemas.sort();
    Ok(schemas)
}

/// What the loader says, and what may be meant by it.
fn explained(said: &str) -> String {
    let missing = said.split_once("undefined symbol: ").map(|(_, name)| name);
    let hint = match missing {
        Some(name)
            if ["Py", "_Py", "THP", "_ZN8pybind11"]
                .iter()
                .any(|of| name.starts_with(of)) =>
        {
            ". It calls Python, which a node does not have: build its operators (TORCH_LIBRARY) apart \
             from its Python module"
        }
        Some(name)
            if [
                "_ZN2at",
                "_ZN3c10",
                "_ZN5torch",
                "_ZNK2at",
                "_ZNK3c10",
                "_ZNK5torch",
            ]
            .iter()
            .any(|of| name.starts_with(of)) =>
        {
            ". It was built for another libtorch: build it for this node's"
        }
        None if said.contains("cuda") && said.contains("cannot open shared object") => {
            ". It was built for CUDA, which this node's libtorch has not: build it for the CPU"
        }
        _ => "",
    };
    format!("{said}{hint}")
}

fn stand_in() -> io::Result<()> {
    let file = nix::sys::memfd::memfd_create(c"stand-in", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut left = STAND_IN;
    while !left.is_empty() {
        let written = nix::unistd::write(&file, left)?;
        left = &left[written..];
    }
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    ffi::load_shared(&path).map_err(|failure| io::Error::other(failure.message))
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loader_says_is_explained() {
        for (said, wanted) in [
            ("x.so: undefined symbol: PyExc_ValueError", "calls Python"),
            ("x.so: undefined symbol: THPVariableClass", "calls Python"),
            (
                "x.so: undefined symbol: _ZN3c105ErrorC1Ev",
                "another libtorch",
            ),
            (
                "x.so: undefined symbol: _ZNK2at6Tensor3fooEv",
                "another libtorch",
            ),
            (
                "libtorch_cuda.so: cannot open shared object file: No such file",
                "built for CUDA",
            ),
        ] {
            let explained = explained(said);
            assert!(
                explained.starts_with(said) && explained.contains(wanted),
                "{explained}"
            );
        }
        assert_eq!(explained("x.so: file too short"), "x.so: file too short");
    }

    #[test]
    fn the_stand_in_loads_once_and_again() {
        stand_in().unwrap();
        stand_in().unwrap();
    }
}
