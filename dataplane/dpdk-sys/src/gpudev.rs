//! DPDK's gpudev: raw bindings, loaded on their own, since a host may have DPDK without this one
//! library.
//!
//! # Registering a device
//! What upstream calls a driver may be any code of the process. With the EAL running (hold a
//! `genie_dpdk::Eal`):
//! 1. [`load`] gives the table, once a process.
//! 2. `rte_gpu_allocate(name)` makes a device, null where one of that name was announced or there
//!    are too many (32, unless `rte_gpu_init` came first).
//!    It lies in memory from `calloc`, less aligned than its type says: no reference to all of it.
//! 3. Fill `(*gpu).ops`, `(*gpu).process_private` and, in `(*(*gpu).mpshared).info`, everything but
//!    `name` and `dev_id`: `parent` is [`GENIE_GPU_ID_NONE`] for a whole device, `page_size` is a
//!    power of two, `numa_node` -1 where there is none. `name` must point to a string that outlives
//!    the device; `rte_gpu_allocate` lets it point to the copy that it keeps.
//! 4. `rte_gpu_complete_new(gpu)` announces it; `rte_gpu_count_avail` counts it from here on.
//! 5. `rte_gpu_close(dev_id)` calls `ops.dev_close` and releases it. A device that was allocated
//!    and never announced is given back with `rte_gpu_release`.
//!
//! The operations are called on the caller's thread and return 0 or a negative error number. With
//! `mem_alloc` missing, `rte_gpu_mem_alloc` fails with `ENOTSUP`, and so on.
//!
//! `rte_gpu_comm_create_list(dev_id, count)` needs `mem_register`; it asks `mem_cpu_map` for a
//! status that the device keeps, and logs an error and uses host memory where that is missing. The
//! list is an array of `count` items; destroy it with the same count. `rte_gpu_comm_*` take the
//! device's number unsigned.
//!
//! # Receiving into a device's memory
//! Allocate with `rte_gpu_mem_alloc`, describe the range as a `genie_dpdk::ExternalMemory`, and make
//! a pool with `genie_dpdk::Mempool::over_external`.
//!
//! Pages followed: <https://doc.dpdk.org/guides/prog_guide/gpudev.html> and
//! <https://doc.dpdk.org/api/rte__gpudev_8h.html>.

use std::sync::OnceLock;

pub use generated::*;

use crate::LoadError;
#[cfg(gpudev_built)]
use crate::load::{from_memory, words};

/// The version of DPDK whose gpudev this was built against, or why it was built without.
pub fn is_built() -> Result<&'static str, &'static str> {
    crate::answer(cfg!(gpudev_built), env!("GENIE_GPUDEV_BUILD"))
}

/// Loads DPDK, if nobody has, and librte_gpudev. The first call decides, the others repeat its
/// answer. Says `LoadError::NoLibrary` where only this library is missing (Debian's package is
/// librte-gpudev23 for 22.11).
pub fn load() -> Result<&'static GpuApi, LoadError> {
    static GPUDEV: OnceLock<Result<GpuApi, LoadError>> = OnceLock::new();
    GPUDEV
        .get_or_init(|| {
            // It needs DPDK's other libraries first.
            crate::load()?;
            embedded()
        })
        .as_ref()
        .map_err(Clone::clone)
}

#[cfg(not(gpudev_built))]
fn embedded() -> Result<GpuApi, LoadError> {
    let reason = is_built().err();
    Err(LoadError::NotBuilt {
        reason: reason.unwrap_or("no shim was embedded"),
    })
}

#[cfg(gpudev_built)]
fn embedded() -> Result<GpuApi, LoadError> {
    let built = is_built().map_err(|reason| LoadError::NotBuilt { reason })?;
    let library = from_memory(
        include_bytes!(concat!(env!("OUT_DIR"), "/gpudev.so")),
        built,
    )?;
    // SAFETY: the table's types were generated from the headers that the shim was compiled with.
    unsafe { GpuApi::from_library(library) }
        .map_err(|error| LoadError::of_linker(&words(&error), built))
}

impl std::fmt::Debug for GpuApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GpuApi")
    }
}

/// What bindgen made of `shim/gpudev.h`, or of 22.11's where there was none.
// Generated, not written: see the other such module of this crate.
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn
)]
mod generated {
    #[cfg(gpudev_built)]
    include!(concat!(env!("OUT_DIR"), "/gpudev.rs"));
    #[cfg(not(gpudev_built))]
    include!("gpudev_22_11.rs");
}

#[cfg(test)]
mod tests {
    #[test]
    fn gpudev_answers_or_says_why_not() {
        match super::load() {
            Ok(api) => {
                // SAFETY: counting needs no EAL.
                assert_eq!(unsafe { api.rte_gpu_count_avail() }, 0);
            }
            Err(error) => {
                eprintln!("skipped: {error}");
                assert!(super::is_built().is_err() || !error.to_string().is_empty());
            }
        }
    }
}
