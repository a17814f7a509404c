//! What this process uses, as the kernel counts it.

use nix::sys::resource::{UsageWho, getrusage};

/// CPU time and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub resident_bytes: u64,
}

/// This process' usage. Zero for what can't be read.
#[must_use]
pub fn usage() -> Usage {
    let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum()
    });
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    Usage {
        cpu_seconds,
        resident_bytes: pages * page_bytes(),
    }
}

fn page_bytes() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let usage = super::usage();
        assert!(usage.resident_bytes > 100 << 10);
    }
}
