//! Raw DPDK bindings that are loaded at run time.
//!
//! # How it is put together
//! `build.rs` asks pkg-config for the installed DPDK (22.11 or later), compiles `shim/shim.c`
//! against it into a small shared object, and has bindgen generate a table of function pointers
//! ([`Api`]), the structures and the constants from the same headers. The shim is embedded in this
//! crate. [`load`] puts it into a memfd and opens it with `RTLD_NOW | RTLD_GLOBAL`; the dynamic
//! linker then brings in librte_* as the shim's own dependencies, and every function, the shim's
//! and DPDK's, is looked up through its handle.
//!
//! So a program that links this crate has no librte_* among its needed libraries, starts on a host
//! without DPDK, and has no file to be installed beside it. The shim names librte_* by their
//! sonames, which carry the ABI's version: a host with another ABI is told apart from one without
//! DPDK ([`LoadError`]). Inline functions (bursts, mbuf allocation) cost one indirect call. The
//! fields of an mbuf are read in place, at offsets that the C compiler found. [`gpudev`] is put
//! together in the same way and loaded apart.
//!
//! The shim also stands between drivers and EAL's interrupt thread: see `genie_dpdk_intr_hook` in
//! `shim/shim.h`.
//!
//! # Without DPDK at build time
//! The crate builds on a host without DPDK or libclang. Bindings of 22.11 that lie in the source
//! tree then keep its users compiling, [`is_built`] says why it has no shim, and [`load`] refuses.
//! `GENIE_DPDK=off` at build time asks for this.
//!
//! Pages followed: <https://doc.dpdk.org/guides/contributing/abi_policy.html> and
//! <https://doc.dpdk.org/guides-22.11/prog_guide/build-sdk-meson.html>.

mod failure;
pub mod gpudev;
mod load;

pub use failure::LoadError;
pub use generated::*;
pub use load::{load, load_from, loaded};

/// The version of DPDK that this was built against, or the reason why it was built without.
pub fn is_built() -> Result<&'static str, &'static str> {
    answer(cfg!(dpdk_built), env!("GENIE_DPDK_BUILD"))
}

fn answer(built: bool, text: &'static str) -> Result<&'static str, &'static str> {
    if built { Ok(text) } else { Err(text) }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// What bindgen made of the headers, or of 22.11's where there were none.
// Generated, not written: its names are DPDK's, and its layout checks and bit fields bindgen's own.
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
    #[cfg(dpdk_built)]
    include!(concat!(env!("OUT_DIR"), "/shim.rs"));
    #[cfg(not(dpdk_built))]
    include!("bindings_22_11.rs");
}
