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

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// A signal, or a debugger, has stopped it.
    pub stopped: bool,
    /// CPU time of all its threads, in the kernel's ticks.
    pub cpu_ticks: u64,
}

/// How process `pid` is. `None` where there is none.
#[must_use]
pub fn state(pid: u32) -> Option<State> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid ...; the name may hold spaces and brackets.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let times = fields.skip(10).take(2);
    Some(State {
        stopped: matches!(state, "T" | "t"),
        cpu_ticks: times.map(|time| time.parse::<u64>().unwrap_or(0)).sum(),
    })
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

    #[test]
    fn a_process_is_seen_to_work_and_to_stop() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let pid = child.id();
        let wait = |right: &dyn Fn(super::State) -> bool| {
            for _ in 0..500 {
                if super::state(pid).is_some_and(right) {
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            false
        };
        assert!(wait(&|state| state.cpu_ticks > 2 && !state.stopped));
        let raw = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGSTOP).unwrap();
        assert!(wait(&|state| state.stopped));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(super::state(pid), None);
    }
}
