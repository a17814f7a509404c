//! Looks after executors: one that is stopped, that hangs, or whose operator has no end, is noticed
//! by nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use genie_session::fault::{Code, Fault};

use super::Shared;
use super::data::{End, Session};
use crate::process;

/// How often.
const TICK: Duration = Duration::from_millis(500);
/// Looks in a row at which a process is stopped before it is taken for that.
const STOPPED_LOOKS: u32 = 3;
/// How long an executor may have work, do none of it, and take no time of a core.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// What was seen of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// It has work that it has not done.
    busy: bool,
    /// Changes with each frame that it takes or says, and with each operator that it begins.
    progress: [u64; 3],
    /// Its process is stopped.
    stopped: bool,
    /// CPU time it has taken. `None`: not to be told, or it may well wait for a device.
    cpu: Option<u64>,
}

/// What is wrong with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stopped,
    Endless(Duration),
    Hangs(Duration),
}

/// What is remembered of one.
#[derive(Debug)]
struct Seen {
    look: Look,
    progress_at: Instant,
    cpu_at: Instant,
    stopped: u32,
}

impl Seen {
    fn new(look: Look, now: Instant) -> Self {
        Self {
            look,
            progress_at: now,
            cpu_at: now,
            stopped: 0,
        }
    }

    fn judge(
        &mut self,
        look: Look,
        now: Instant,
        operator_max: Option<Duration>,
    ) -> Option<Verdict> {
        let before = std::mem::replace(&mut self.look, look);
        self.stopped = if look.stopped { self.stopped + 1 } else { 0 };
        if !look.busy || look.progress != before.progress {
            (self.progress_at, self.cpu_at) = (now, now);
        }
        if look.cpu != before.cpu || look.cpu.is_none() {
            self.cpu_at = now;
        }
        let [since, idle] =
            [self.progress_at, self.cpu_at].map(|at| now.saturating_duration_since(at));
        if self.stopped >= STOPPED_LOOKS {
            Some(Verdict::Stopped)
        } else if operator_max.is_some_and(|most| since >= most) {
            Some(Verdict::Endless(since))
        } else if idle >= HANGS_AFTER {
            Some(Verdict::Hangs(idle))
        } else {
            None
        }
    }
}

/// Watches the executors of `node` on a thread of its own, as long as there is one.
///
/// # Errors
/// There is no thread for it.
pub fn start(node: &Arc<Shared>) -> std::io::Result<()> {
    let node = Arc::downgrade(node);
    let watch = std::thread::Builder::new().name("watch".to_owned());
    watch.spawn(move || run(&node)).map(drop)
}

fn run(node: &Weak<Shared>) {
    let mut seen = HashMap::<u64, Seen>::new();
    while let Some(node) = node.upgrade() {
        node.look_after();
        let sessions = node.sessions();
        if !sessions.is_empty() {
            node.look_at_memory();
        }
        seen.retain(|id, _| sessions.iter().any(|session| session.id() == *id));
        for session in &sessions {
            let now = Instant::now();
            let Some(look) = look(session) else {
                continue;
            };
            let known = seen.entry(session.id());
            let known = known.or_insert_with(|| Seen::new(look, now));
            if let Some(verdict) = known.judge(look, now, node.host.operator_max()) {
                session.end(end(verdict));
            }
        }
        drop(sessions);
        drop(node);
        std::thread::sleep(TICK);
    }
}

fn look(session: &Session) -> Option<Look> {
    let running = session.running()?;
    let state = process::state(running.pid);
    let work = running.work();
    Some(Look {
        busy: work.busy,
        progress: work.progress,
        stopped: state.is_some_and(|state| state.stopped),
        cpu: state
            .map(|state| state.cpu_ticks)
            .filter(|_| !session.host().waits_for(session.spec().device)),
    })
}

fn end(verdict: Verdict) -> End {
    let what = match verdict {
        Verdict::Stopped => "its executor was stopped by somebody".to_owned(),
        Verdict::Endless(took) => format!(
            "its executor has worked for {} s at one operator, and operator_timeout_seconds allows \
             no more",
            took.as_secs()
        ),
        Verdict::Hangs(idle) => format!(
            "its executor hangs: it has had work for {} s and done nothing",
            idle.as_secs()
        ),
    };
    let message = format!("{what}; the session ended; reconnect to go on");
    End::lost(Fault::new(Code::ExecutorDied, 0, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Look = Look {
        busy: true,
        progress: [7; 3],
        stopped: false,
        cpu: Some(1),
    };

    /// Looks at one every second; gives the second of the first verdict.
    fn first(
        looks: impl Fn(u64) -> Look,
        operator_max: Option<Duration>,
    ) -> Option<(u64, Verdict)> {
        let start = Instant::now();
        let mut seen = Seen::new(looks(0), start);
        (1..500).find_map(|second| {
            let now = start + Duration::from_secs(second);
            Some((second, seen.judge(looks(second), now, operator_max)?))
        })
    }

    #[test]
    fn an_operator_without_end_has_the_limit_that_was_set() {
        let works = |second| Look {
            cpu: Some(second),
            ..BUSY
        };
        assert_eq!(first(works, None), None);
        let most = Duration::from_secs(5);
        assert_eq!(first(works, Some(most)), Some((5, Verdict::Endless(most))));
        // Many operators, each of which ends.
        let steps = |second| Look {
            progress: [0, 0, second / 4],
            ..works(second)
        };
        assert_eq!(first(steps, Some(most)), None);
    }

    #[test]
    fn one_that_does_nothing_hangs_unless_it_has_nothing_to_do() {
        let hangs = Verdict::Hangs(HANGS_AFTER);
        assert_eq!(first(|_| BUSY, None), Some((60, hangs)));
        let idle = Look {
            busy: false,
            ..BUSY
        };
        assert_eq!(first(|_| idle, Some(Duration::from_secs(1))), None);
        let on_device = Look { cpu: None, ..BUSY };
        assert_eq!(first(|_| on_device, None), None);
    }

    #[test]
    fn one_that_is_stopped_is_told_from_one_that_was_for_a_moment() {
        let stopped = |stopped| Look {
            stopped,
            busy: false,
            ..BUSY
        };
        assert_eq!(first(|_| stopped(true), None), Some((3, Verdict::Stopped)));
        assert_eq!(first(|second| stopped(second % 3 != 0), None), None);
    }
}
