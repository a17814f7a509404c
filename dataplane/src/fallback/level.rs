//! How good the data path is.

use std::fmt;

/// Levels of the data path, the best first. The client's own levels (its accelerator, its CPU) are
/// not a daemon's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// DPDK, payload received straight into device memory.
    Direct,
    /// DPDK, payload received into host memory and copied from there.
    Staged,
    /// The kernel's TCP.
    Tcp,
}

impl Level {
    /// 0 is the best.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Staged => 1,
            Self::Tcp => 2,
        }
    }

    /// For a program.
    #[must_use]
    pub fn transport(self) -> &'static str {
        match self {
            Self::Direct | Self::Staged => "dpdk",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "level 0 (DPDK, direct)",
            Self::Staged => "level 1 (DPDK, staged)",
            Self::Tcp => "level 2 (TCP)",
        })
    }
}
