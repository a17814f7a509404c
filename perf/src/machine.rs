//! The machine: what it is, what makes its numbers worse than they could be, and pinning.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::report::Host;

/// What this machine is.
#[must_use]
pub fn host() -> Host {
    let cpu = read("/proc/cpuinfo");
    let model = field(&cpu, "model name").or_else(|| field(&cpu, "CPU part"));
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    Host {
        system: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        architecture: std::env::consts::ARCH,
        cpu: model.unwrap_or_else(|| "unknown".to_owned()),
        cores: cores(),
        memory_bytes: kib.unwrap_or(0) << 10,
    }
}

/// Cores that this process might use when it first asked, before it was pinned to any.
#[must_use]
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

static PINNED: AtomicBool = AtomicBool::new(false);

/// Whether this process was pinned: then nobody else is meant to use its core, and it may spin.
#[must_use]
pub fn is_pinned() -> bool {
    PINNED.load(Ordering::Relaxed)
}

/// Pins this process to `cores`. Nothing happens for none.
pub fn pin(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    // Asked while the answer is still that of the machine.
    let _ = self::cores();
    PINNED.store(true, Ordering::Relaxed);
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core)
            .with_context(|| format!("core {core} is past what the kernel counts"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| {
        format!(
            "can't pin to cores {cores:?}: this machine lends {} of them",
            self::cores()
        )
    })
}

/// What was found about pinning and polling.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Cores that were pinned, of both ends.
    pub pinned: usize,
    /// Ends on this machine.
    pub ends: usize,
    /// Whether they poll.
    pub polls: bool,
}

/// What a reader of the numbers should know.
#[must_use]
pub fn warnings(setting: &Setting) -> Vec<String> {
    warnings_below(Path::new("/"), setting)
}

fn warnings_below(root: &Path, setting: &Setting) -> Vec<String> {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut found = Vec::new();
    let cores = cores();
    if setting.pinned < setting.ends {
        found.push(
            "not every end is pinned to a core: the scheduler moves them (--cores pins)".to_owned(),
        );
    }
    if setting.polls && cores < setting.ends {
        found.push(format!(
            "{} ends poll on {cores} core: they take turns, so latency is the scheduler's",
            setting.ends
        ));
    }
    let load = text("proc/loadavg");
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|one| one.parse().ok())
        .unwrap_or(0.0);
    if load > 0.5 * cores as f64 {
        found.push(format!(
            "other work ran on this machine: load average {load:.1} on {cores} cores before the \
             start"
        ));
    }
    let turbo_off = text("sys/devices/system/cpu/intel_pstate/no_turbo").trim() == "1"
        || text("sys/devices/system/cpu/cpufreq/boost").trim() == "0";
    if turbo_off {
        found.push("turbo is off: a single core is slower than it could be".to_owned());
    }
    let governor = text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    match governor.trim() {
        "" if !turbo_off => found.push(
            "clock and turbo can't be seen here (a virtual machine?): runs may differ".to_owned(),
        ),
        "" | "performance" => {}
        other => found.push(format!(
            "the clock's governor is {other}, not performance: it is slow to start"
        )),
    }
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let host = host();
        assert!(host.system.starts_with("Linux ") && host.memory_bytes > 0 && host.cores > 0);
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        assert!(pin(&[1 << 20]).is_err());
        assert!(pin(&[]).is_ok());
    }

    #[test]
    fn each_lack_is_named() {
        let root = std::env::temp_dir().join(format!("genie-perf-machine-{}", std::process::id()));
        let cpu = root.join("sys/devices/system/cpu");
        std::fs::create_dir_all(cpu.join("intel_pstate")).unwrap();
        std::fs::create_dir_all(cpu.join("cpu0/cpufreq")).unwrap();
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(root.join(path), text).unwrap();
        let poor = Setting {
            pinned: 1,
            ends: 2,
            polls: true,
        };
        write("proc/loadavg", "900.0 0 0 1/2 3\n");
        write("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n");
        write(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "powersave\n",
        );
        let said = warnings_below(&root, &poor).join("\n");
        for part in [
            "not every end is pinned",
            "load average 900",
            "turbo is off",
            "powersave",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }

        write("proc/loadavg", "0.0 0 0 1/2 3\n");
        write("sys/devices/system/cpu/intel_pstate/no_turbo", "0\n");
        write(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "performance\n",
        );
        let good = Setting {
            pinned: 2,
            polls: false,
            ..poor
        };
        assert_eq!(warnings_below(&root, &good), Vec::<String>::new());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
