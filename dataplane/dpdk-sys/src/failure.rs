//! Why DPDK could not be loaded.

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// ABI majors that are looked for to tell a foreign DPDK from none: 20.11 to 39.11.
const ABI_MAJORS: std::ops::Range<u32> = 21..41;

/// Why DPDK could not be loaded. Each says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// This program was built where DPDK was absent.
    #[error("this program was built without DPDK: {reason}")]
    NotBuilt {
        /// What the build lacked.
        reason: &'static str,
    },
    /// The host has no DPDK.
    #[error("{library} is not on this host; install DPDK {built} (Debian: apt install dpdk)")]
    NoLibrary {
        /// The first library that the dynamic linker missed.
        library: String,
        /// The version that this program was built against.
        built: &'static str,
    },
    /// The host has a DPDK with another ABI.
    #[error("this host has DPDK {found}, this program was built against {built}; rebuild it here")]
    WrongVersion {
        /// What is installed.
        found: String,
        /// The version that this program was built against.
        built: &'static str,
    },
    /// Reading or mapping the library is not permitted.
    #[error("no permission to load the DPDK shim: {detail}")]
    NoPermission {
        /// The dynamic linker's or the kernel's words.
        detail: String,
    },
    /// The installed libraries lack a function that is needed.
    #[error("the installed DPDK lacks a function: {detail}; it must be {built} or ABI compatible")]
    MissingSymbol {
        /// The dynamic linker's words.
        detail: String,
        /// The version that this program was built against.
        built: &'static str,
    },
    /// Anything else that the dynamic linker complains about.
    #[error("the DPDK shim can't be loaded: {detail}")]
    Other {
        /// The dynamic linker's words.
        detail: String,
    },
}

impl LoadError {
    /// Sorts the dynamic linker's message, which is all that `dlopen` reports.
    pub(crate) fn of_linker(message: &str, built: &'static str) -> Self {
        let detail = message.to_owned();
        if message.contains("Permission denied") || message.contains("not permitted") {
            return Self::NoPermission { detail };
        }
        if message.contains("version `DPDK_") || message.contains("undefined symbol") {
            return Self::MissingSymbol { detail, built };
        }
        let Some((library, _)) = message.split_once(": cannot open shared object file") else {
            return Self::Other { detail };
        };
        match foreign_abi(library) {
            Some(found) => Self::WrongVersion { found, built },
            None => Self::NoLibrary {
                library: library.to_owned(),
                built,
            },
        }
    }
}

/// The release of another DPDK on this host, where `missing` is one of DPDK's libraries.
fn foreign_abi(missing: &str) -> Option<String> {
    missing.starts_with("librte_").then_some(())?;
    ABI_MAJORS
        .filter(|major| !missing.ends_with(&format!(".so.{major}")))
        .find(|major| {
            let name = format!("librte_eal.so.{major}");
            // SAFETY: DPDK's constructors only register log types and drivers in tables of their
            // own library, and the handle is dropped before anything else could refer to it.
            unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_LOCAL) }.is_ok()
        })
        // The ABI's major is the year of its long-term release and one.
        .map(|major| format!("{}.11 (ABI {major})", major - 1))
}

#[cfg(test)]
mod tests {
    use super::LoadError;

    fn sorted(message: &str) -> LoadError {
        LoadError::of_linker(message, "22.11.0")
    }

    #[test]
    fn a_missing_library_is_named() {
        let message = "libabsent.so.7: cannot open shared object file: No such file or directory";
        let expected = LoadError::NoLibrary {
            library: "libabsent.so.7".into(),
            built: "22.11.0",
        };
        assert_eq!(sorted(message), expected);
    }

    #[test]
    fn the_linkers_other_messages_are_sorted() {
        let denied = "/x.so: cannot open shared object file: Permission denied";
        assert!(matches!(sorted(denied), LoadError::NoPermission { .. }));
        let symbol = "/x.so: undefined symbol: rte_eal_init, version DPDK_23";
        assert!(matches!(sorted(symbol), LoadError::MissingSymbol { .. }));
        let other = "/x.so: file too short";
        assert!(matches!(sorted(other), LoadError::Other { .. }));
    }

    #[test]
    fn another_abi_is_told_from_none() {
        if crate::is_built().is_err() || crate::load().is_err() {
            eprintln!("skipped: no DPDK to be taken for a foreign one");
            return;
        }
        let message = "librte_eal.so.9: cannot open shared object file: No such file or directory";
        assert!(matches!(sorted(message), LoadError::WrongVersion { .. }));
    }
}
