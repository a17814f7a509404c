//! What devices have to do: the time that their executors took of a core, which for the `host` device is
//! the time that it computed. Of an accelerator it is that of the thread that launches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_controlplane::node::Load;
use parking_lot::Mutex;

use super::data::Session;
use crate::process;

/// Of the kernel's clock.
const TICKS_PER_SECOND: u64 = 100;
/// How long is looked back.
const SPAN: Duration = Duration::from_secs(1);
/// Who asks sooner hears the same again: looking costs a file for each executor.
const AGE_MAX: Duration = Duration::from_millis(20);

/// Ticks by process, at a time.
#[derive(Debug)]
struct Sample {
    at: Instant,
    ticks: HashMap<u32, u64>,
}

/// Of all devices of the node.
#[derive(Debug, Default)]
pub struct Loads {
    devices: Mutex<HashMap<usize, VecDeque<Sample>>>,
}

impl Loads {
    /// What the device of `session` has to do, which all `sessions` of the node may use.
    pub fn of(&self, session: &Session, sessions: &[Arc<Session>]) -> Load {
        let device = session.spec().device;
        let here = || sessions.iter().filter(|one| one.spec().device == device);
        let others = here().filter(|one| one.id() != session.id());
        let others_bytes = others.map(|one| one.counters.memory_bytes.value()).sum();
        let ticks = || {
            let pids = here().filter_map(|one| Some(one.running()?.pid));
            let ticks = |pid| Some((pid, process::state(pid)?.cpu_ticks));
            pids.filter_map(ticks).collect()
        };
        let mut devices = self.devices.lock();
        let samples = devices.entry(device).or_default();
        Load {
            busy: busy(samples, Instant::now(), ticks),
            others_bytes,
        }
    }
}

/// How long of the last second all processes ran.
fn busy(
    samples: &mut VecDeque<Sample>,
    now: Instant,
    ticks: impl FnOnce() -> HashMap<u32, u64>,
) -> Duration {
    if samples.back().is_none_or(|last| now - last.at >= AGE_MAX) {
        samples.push_back(Sample {
            at: now,
            ticks: ticks(),
        });
    }
    // The oldest that is kept is as old as the span, or as there are.
    while samples.get(1).is_some_and(|next| now - next.at >= SPAN) {
        samples.pop_front();
    }
    let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
        return Duration::ZERO;
    };
    let ran = last.ticks.iter().map(|(pid, &ticks)| {
        // One that is newer than the first look began at nothing.
        ticks.saturating_sub(first.ticks.get(pid).copied().unwrap_or(0))
    });
    let ran = Duration::from_secs_f64(ran.sum::<u64>() as f64 / TICKS_PER_SECOND as f64);
    let span = last.at - first.at;
    if span > SPAN {
        ran.mul_f64(SPAN.as_secs_f64() / span.as_secs_f64())
    } else {
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_ran_in_the_last_second() {
        let (start, mut samples) = (Instant::now(), VecDeque::new());
        let mut look = |ms: u64, ticks: &[(u32, u64)]| {
            let now = start + Duration::from_millis(ms);
            busy(&mut samples, now, || ticks.iter().copied().collect()).as_millis()
        };
        assert_eq!(look(0, &[(1, 50)]), 0);
        assert_eq!(look(10, &[(1, 99)]), 0, "too soon");
        assert_eq!(look(500, &[(1, 70)]), 200);
        // Another began, and the first ended.
        assert_eq!(look(900, &[(2, 30)]), 300);
        assert_eq!(look(1600, &[(2, 50)]), 454, "50 ticks in 1.1 s");
        assert_eq!(look(5000, &[(2, 50)]), 0);
    }
}
