//! How much memory there is for sessions: what the system, and this process' group of processes, can
//! still give.

use std::path::{Path, PathBuf};

/// What is left to the rest of the machine, at least, and as a part of what there is.
const RESERVE_BYTES: u64 = 256 << 20;
const RESERVE_PART: u64 = 16;

/// What the system can give now. `None` where it does not say.
#[must_use]
pub fn now() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = meminfo(&text)?;
    Some(group().map_or(system, |group| group.min(system)))
}

/// What sessions may have of `available`.
#[must_use]
pub fn for_sessions(available: u64) -> u64 {
    available.saturating_sub(RESERVE_BYTES.max(available / RESERVE_PART))
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What this process' control group may still take, and those above it.
fn group() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let mut folder: PathBuf = root.join(path);
    let mut least = None;
    while folder.starts_with(root) {
        let number = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let (Some(most), Some(taken)) = (number("memory.max"), number("memory.current")) {
            let left = most.saturating_sub(taken);
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        if !folder.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_a_part_is_kept() {
        let text = "MemTotal:  10 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB\n";
        assert_eq!(meminfo(text), Some(2 << 20));
        assert_eq!(meminfo("MemTotal: 1 kB\n"), None);
        assert!(now().unwrap() > 1 << 20);
        assert_eq!(for_sessions(1 << 30), (1 << 30) - RESERVE_BYTES);
        assert_eq!(for_sessions(64 << 30), 60 << 30);
        assert_eq!(for_sessions(1), 0);
    }
}
