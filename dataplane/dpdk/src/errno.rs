//! DPDK's error numbers.

use std::fmt;

use genie_dpdk_sys::Api;

/// An error number as DPDK gives it, positive. Printed in the system's words.
///
/// <https://doc.dpdk.org/api/rte__errno_8h.html>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// From a function that returns a negative error number. `-1` is a bare failure there, whose
    /// number, if any, is in `rte_errno`.
    pub(crate) fn of_result(result: i32) -> Self {
        Self(result.saturating_abs())
    }

    /// From the calling thread's `rte_errno`.
    pub(crate) fn last(api: &Api) -> Self {
        // SAFETY: reads a thread-local variable.
        Self(unsafe { api.genie_dpdk_errno() }.saturating_abs())
    }

    /// The number, as in `errno.h`.
    pub fn raw(self) -> i32 {
        self.0
    }

    pub(crate) fn known(self) -> nix::errno::Errno {
        nix::errno::Errno::from_raw(self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no reason given"),
            // DPDK's own numbers, past the system's.
            1001 => f.write_str("not possible in a secondary process"),
            1002 => f.write_str("no EAL configuration"),
            _ => write!(f, "{}", self.known().desc()),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}, {self})", self.0)
    }
}
