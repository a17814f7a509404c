//! One zygote, and what is known of how its executors fare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genie_gpudev::zygote::Event;
use genie_gpudev::{Exit, Zygote, ZygoteError, ZygoteInfo, ZygoteProgram};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::Told;
use super::crashes::{CRASHES_MAX, Crashes, WINDOW};
use crate::process;

/// What the zygote's own thread knows first.
#[derive(Debug)]
struct Fate {
    gone: AtomicBool,
    worn: AtomicBool,
    crashes: Mutex<Crashes>,
    used: Mutex<Instant>,
}

/// A zygote in a tenant's use, or in nobody's yet.
#[derive(Debug)]
pub struct Home {
    zygote: Zygote,
    pid: u32,
    /// Looks in a row at which it was stopped.
    stopped: Mutex<u32>,
    fate: Arc<Fate>,
}

impl Home {
    /// Starts one. `on_worn` is called on a thread of the zygote's when it is to be replaced.
    pub fn start(
        program: &ZygoteProgram,
        told: Told,
        on_worn: impl Fn() + Send + 'static,
    ) -> Result<(Self, ZygoteInfo), ZygoteError> {
        let fate = Arc::new(Fate {
            gone: AtomicBool::new(false),
            worn: AtomicBool::new(false),
            crashes: Mutex::default(),
            used: Mutex::new(Instant::now()),
        });
        let seen = Arc::clone(&fate);
        let (zygote, info) = Zygote::start_program(program, move |event| match event {
            Event::Exited { session, exit, .. } => {
                (told.on_exit)(Some(session), format!("died of {exit}"));
                *seen.used.lock() = Instant::now();
                if seen.crashed(&told, session, exit) {
                    on_worn();
                }
            }
            Event::Gone { sessions } => {
                seen.gone.store(true, Ordering::SeqCst);
                for session in sessions {
                    let how = "died with the process that started it";
                    (told.on_exit)(Some(session), how.to_owned());
                }
                on_worn();
            }
        })?;
        let home = Self {
            zygote,
            pid: info.pid,
            stopped: Mutex::default(),
            fate,
        };
        Ok((home, info))
    }

    /// To fork from.
    pub fn zygote(&self) -> &Zygote {
        *self.fate.used.lock() = Instant::now();
        &self.zygote
    }

    /// One that somebody stopped is told to go on, and ended if it does not. Called again and again.
    pub fn look_after(&self) {
        let looks = {
            let mut looks = self.stopped.lock();
            *looks = if self.is_stopped() { *looks + 1 } else { 0 };
            *looks
        };
        match looks {
            0 | 1 => {}
            2 => {
                tracing::warn!("the zygote was stopped by somebody: it is told to go on");
                self.signal(Signal::SIGCONT);
            }
            _ => {
                tracing::error!("the zygote is stopped and does not go on: it is replaced");
                self.signal(Signal::SIGKILL);
            }
        }
    }

    /// One that forks nothing since it is stopped is replaced with the next session.
    pub fn end_if_stopped(&self) {
        if self.is_stopped() {
            self.signal(Signal::SIGKILL);
        }
    }

    fn is_stopped(&self) -> bool {
        let gone = self.fate.gone.load(Ordering::SeqCst);
        !gone && process::state(self.pid).is_some_and(|state| state.stopped)
    }

    /// The zygote is this process' child, buried by this process alone: the number is still its own.
    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.pid)
            && pid > 1
        {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// May have new executors.
    pub fn is_fit(&self) -> bool {
        !self.fate.gone.load(Ordering::SeqCst) && !self.fate.worn.load(Ordering::SeqCst)
    }

    /// Has none.
    pub fn is_empty(&self) -> bool {
        self.zygote.executors() == 0
    }

    /// How long it had none.
    pub fn idle(&self) -> Duration {
        if self.is_empty() {
            self.fate.used.lock().elapsed()
        } else {
            Duration::ZERO
        }
    }
}

impl Fate {
    /// Notes how an executor ended; whether the zygote is to be replaced now.
    fn crashed(&self, told: &Told, session: u64, exit: Exit) -> bool {
        match exit {
            Exit::Forbidden(_) => {
                tracing::warn!(session, "the executor of session {session} ended by {exit}");
                told.metrics.executors_forbidden.increment();
            }
            // A kill is what the node does to executors whose session is over.
            Exit::Status(_) | Exit::Signal(libc::SIGKILL) => return false,
            Exit::Unconfined(_) | Exit::Signal(_) => {}
        }
        let too_many = self.crashes.lock().note(Instant::now());
        let worn = too_many && !self.worn.swap(true, Ordering::SeqCst);
        if worn {
            tracing::warn!(
                "{CRASHES_MAX} executors of one zygote crashed within {} s: it is replaced, and \
                 its tenant's next sessions have another address layout",
                WINDOW.as_secs()
            );
            told.metrics.zygotes_replaced.increment();
        }
        worn
    }
}
