//! Which library a function is of, and which file a descriptor is of.

use std::ffi::{CStr, c_int, c_void};

use genie_dpdk_sys::rte_intr_callback_fn;
use nix::libc;

/// Tells a socket from another that got its number.
pub(super) fn inode(fd: c_int) -> Option<u64> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: asks the kernel about a number; all zeros is a `stat`.
    unsafe {
        match libc::fstat(fd, status.as_mut_ptr()) {
            0 => Some(status.assume_init().st_ino),
            _ => None,
        }
    }
}

/// Whether a callback lies in the library of that name.
pub(super) fn is_in(library: &str, call: rte_intr_callback_fn) -> bool {
    let Some(call) = call else { return false };
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: asks for the library of an address; all zeros is a `Dl_info`.
    let file = unsafe {
        let address = call as *const c_void;
        match libc::dladdr(address, found.as_mut_ptr()) {
            0 => return false,
            _ => found.assume_init().dli_fname,
        }
    };
    // SAFETY: the linker's own name of a loaded library, or null.
    !file.is_null()
        && unsafe { CStr::from_ptr(file) }
            .to_string_lossy()
            .contains(library)
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::os::fd::AsRawFd as _;

    use super::{inode, is_in};

    unsafe extern "C" fn callback(_: *mut c_void) {}

    #[test]
    fn functions_and_files_are_told_apart() {
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert!(is_in(name, Some(callback)));
        assert!(!is_in("librte_net_memif", Some(callback)));
        assert!(!is_in(name, None));
        let file = std::fs::File::open(&program).unwrap();
        let known = inode(file.as_raw_fd());
        assert!(known.is_some() && known == inode(file.as_raw_fd()));
        assert_ne!(known, inode(std::fs::File::open("/").unwrap().as_raw_fd()));
        assert_eq!(inode(-1), None);
    }
}
