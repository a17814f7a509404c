//! Brings the shim, and with it DPDK, into the process.

use std::path::Path;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::{Api, LoadError, is_built};

/// The one table of the process. It is never unloaded: DPDK starts threads that can't be stopped.
static API: OnceLock<Result<Api, LoadError>> = OnceLock::new();

/// Loads DPDK by the embedded shim. The first call decides, the others repeat its answer.
pub fn load() -> Result<&'static Api, LoadError> {
    API.get_or_init(embedded).as_ref().map_err(Clone::clone)
}

/// Loads DPDK by a shim in a file, for a debugger or a host that forbids executable memfds.
///
/// # Safety
/// The file must be the shim of this very build: bindings and constants were made with it.
pub unsafe fn load_from(shim: &Path) -> Result<&'static Api, LoadError> {
    API.get_or_init(|| {
        let built = built()?;
        // SAFETY: the caller vouches for the file.
        let library = unsafe { open(shim, built) }?;
        // SAFETY: and that it was compiled with the headers that the table was generated from.
        unsafe { Api::from_library(library) }
            .map_err(|error| LoadError::of_linker(&words(&error), built))
    })
    .as_ref()
    .map_err(Clone::clone)
}

/// The table, where an earlier [`load`] succeeded.
#[inline]
pub fn loaded() -> Option<&'static Api> {
    API.get()?.as_ref().ok()
}

fn built() -> Result<&'static str, LoadError> {
    is_built().map_err(|reason| LoadError::NotBuilt { reason })
}

#[cfg(not(dpdk_built))]
fn embedded() -> Result<Api, LoadError> {
    built()?;
    Err(LoadError::Other {
        detail: "no shim was embedded".into(),
    })
}

#[cfg(dpdk_built)]
fn embedded() -> Result<Api, LoadError> {
    let built = built()?;
    let library = from_memory(include_bytes!(concat!(env!("OUT_DIR"), "/shim.so")), built)?;
    // SAFETY: the table's types were generated from the headers that the shim was compiled with.
    unsafe { Api::from_library(library) }
        .map_err(|error| LoadError::of_linker(&words(&error), built))
}

/// Opens a shim of this build that lies in memory.
#[cfg(dpdk_built)]
pub(crate) fn from_memory(shim: &[u8], built: &'static str) -> Result<Library, LoadError> {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    let denied = |error: std::io::Error| LoadError::NoPermission {
        detail: format!("an executable memfd: {error}"),
    };
    let mut file = memory_file().map_err(denied)?;
    file.write_all(shim).map_err(denied)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file holds a shim of this build. The mapping outlives the descriptor.
    unsafe { open(Path::new(&path), built) }
}

/// A file without a name that may be mapped for execution.
#[cfg(dpdk_built)]
fn memory_file() -> std::io::Result<std::fs::File> {
    use std::os::fd::FromRawFd as _;

    /// Since Linux 6.3; earlier kernels refuse the flag and make every memfd executable.
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |flags| {
        // SAFETY: the name is a C string that lives as long as the program.
        unsafe { libc::memfd_create(c"genie_dpdk_shim".as_ptr(), flags) }
    };
    let mut descriptor = create(libc::MFD_CLOEXEC | MFD_EXEC);
    if descriptor < 0 {
        descriptor = create(libc::MFD_CLOEXEC);
    }
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
    Ok(unsafe { std::fs::File::from_raw_fd(descriptor) })
}

/// # Safety
/// `shim` must be a shim of this build.
unsafe fn open(shim: &Path, built: &'static str) -> Result<Library, LoadError> {
    // SAFETY: the shim has no constructors of its own, and DPDK's only register their libraries.
    unsafe { Library::open(Some(shim), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| LoadError::of_linker(&words(&error), built))
}

/// The dynamic linker's own message, which libloading keeps as the source of its error.
pub(crate) fn words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    /// The promise that the daemon starts without DPDK: nothing of it is there before `load`.
    #[test]
    fn the_program_itself_needs_no_dpdk() {
        // This variable makes the dynamic linker list what the program needs, as ldd does.
        let child = std::process::Command::new("/proc/self/exe")
            .arg("--list")
            .env("LD_TRACE_LOADED_OBJECTS", "1")
            .output()
            .unwrap();
        let listed = String::from_utf8(child.stdout).unwrap();
        assert!(listed.contains("libc.so"), "{listed}");
        assert!(!listed.contains("librte_"), "{listed}");
    }

    #[test]
    fn loading_answers_or_says_why_not() {
        match super::load() {
            Ok(api) => {
                // SAFETY: `rte_version` returns a static string and needs no EAL.
                let version = unsafe { std::ffi::CStr::from_ptr(api.rte_version()) };
                assert!(version.to_bytes().starts_with(b"DPDK "));
                assert!(super::loaded().is_some());
            }
            Err(error) => {
                eprintln!("skipped: {error}");
                assert!(super::loaded().is_none());
            }
        }
    }
}
