//! Holds executors in: what a session runs is a client's, and libtorch trusts its arguments.
//!
//! Done in two steps. The zygote, once libtorch is loaded, gives up what no executor needs, for all of
//! its executors at once ([`Enclosure::new`]): its user, files, network. Each executor puts the rest
//! into force before it has a second thread and before it reads a byte of its client
//! ([`Enclosure::confine`]), and then tries what it must not be able to do. What the zygote says to
//! the daemon it has seen hold, in an executor of no session.
//!
//! What a kernel or a container does not allow is left out, and said. What was said to hold is then
//! demanded of every executor: one that can't put it into force, or that gets through, ends.

mod calls;
mod identity;
mod landlock;
mod limits;
mod namespaces;
mod process;
mod proof;
mod report;
mod root;
mod trap;

use genie_gpudev::sandbox::{PARTS, Part, Sandbox};

pub use process::{Origin, fork, leave};
pub use report::Report;

/// Executors of which kind are to be held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Not at all.
    Off,
    /// On the host device, which needs nothing of the machine.
    Host,
    /// On an accelerator, whose driver wants its files, its devices and calls of its own.
    Accelerator,
}

impl Profile {
    /// As the daemon names it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "host" => Some(Self::Host),
            "accelerator" => Some(Self::Accelerator),
            _ => None,
        }
    }
}

/// Why an executor is not held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unconfined {
    /// By what.
    part: Part,
    /// What the kernel said; 0 where it let something through.
    errno: i32,
}

impl Unconfined {
    fn refused(part: Part, error: nix::Error) -> Self {
        Self {
            part,
            errno: error as i32,
        }
    }

    fn let_through(part: Part) -> Self {
        Self { part, errno: 0 }
    }

    fn why(self) -> String {
        match self.errno {
            0 => "it did not hold when it was tried".to_owned(),
            errno => format!("the kernel: {}", nix::Error::from_raw(errno).desc()),
        }
    }
}

/// What the zygote gave up, and what its executors have to give up.
#[derive(Debug)]
pub struct Enclosure {
    profile: Profile,
    /// What is in force, each part by itself; demanded of every executor.
    sandbox: Sandbox,
    /// What that comes to, for people.
    summary: Sandbox,
    landlock: Option<u32>,
}

impl Enclosure {
    /// Gives up what no executor needs, and tries an executor. For a process of one thread that has
    /// opened what it needs.
    pub fn new(profile: Profile, origin: &Origin) -> Self {
        let mut sandbox = Sandbox::default();
        sandbox.set(Part::Environment, true, "what libtorch's libraries read");
        let mut enclosure = Self {
            profile,
            sandbox,
            summary: Sandbox::default(),
            landlock: None,
        };
        if profile == Profile::Off {
            enclosure.leave_out_all("sandbox is off");
        } else {
            enclosure.give_up();
            enclosure.try_out(origin);
        }
        enclosure.summary = enclosure.sum();
        enclosure
    }

    /// What holds.
    pub fn summary(&self) -> &Sandbox {
        &self.summary
    }

    /// Without a call for it there is no way to it either.
    fn sum(&self) -> Sandbox {
        let mut said = self.sandbox.clone();
        if self.sandbox.has(Part::Calls) {
            for part in [Part::Files, Part::Network, Part::Ipc, Part::Processes] {
                let held = self.sandbox.parts.iter().find(|held| held.part == part);
                if let Some(held) = held.filter(|held| !held.had) {
                    said.set(part, true, format!("by the calls alone: {}", held.note));
                }
            }
        }
        said.parts.sort_by_key(|held| held.part.code());
        said
    }

    /// Executors have numbers of processes of their own.
    pub fn own_processes(&self) -> bool {
        self.sandbox.has(Part::Processes)
    }

    fn leave_out_all(&mut self, why: &str) {
        let left_out = PARTS.into_iter().filter(|&part| part != Part::Environment);
        for part in left_out {
            self.sandbox.set(part, false, why);
        }
    }

    /// The zygote's part.
    fn give_up(&mut self) {
        let whole = self.profile == Profile::Host;
        if whole {
            identity::own_user(&mut self.sandbox);
        } else {
            let why = "the accelerator's driver and its files are the daemon's user's";
            self.sandbox.set(Part::User, false, why);
        }
        namespaces::enter(whole, &mut self.sandbox);
        if whole {
            self.landlock = landlock::version();
            root::empty(self.landlock, &mut self.sandbox);
            self.sandbox.set(Part::Calls, true, "");
        } else {
            let why = "the accelerator's driver opens files of its own";
            self.sandbox.set(Part::Files, false, why);
            let why = "the accelerator's driver makes calls of its own";
            self.sandbox.set(Part::Calls, false, why);
        }
        identity::keep_what_forks(&mut self.sandbox);
    }

    /// Puts the rest into force and tries it. For an executor, before its second thread.
    ///
    /// # Errors
    /// What does not hold.
    pub fn confine(&self, origin: &Origin, report: &Report) -> Result<(), Unconfined> {
        limits::apply(identity::is_own());
        if self.profile == Profile::Off {
            return Ok(());
        }
        identity::drop_all()?;
        if self.profile == Profile::Host {
            // Nobody else of this user may trace it, or look into it by /proc.
            let _ = nix::sys::prctl::set_dumpable(false);
        }
        if self.landlock.is_some() {
            landlock::apply()?;
        }
        proof::kernel(&self.sandbox, origin)?;
        if self.sandbox.has(Part::Calls) {
            trap::install(report)?;
            calls::apply(self.sandbox.has(Part::Files))?;
            proof::calls(origin)?;
            report.note_barriers(calls::has_barriers());
        }
        Ok(())
    }

    /// Tries an executor of no session, and leaves out what does not hold.
    fn try_out(&mut self, origin: &Origin) {
        // Each turn but the last leaves one part out.
        for _ in 0..PARTS.len() {
            let report = match Report::new() {
                Ok(report) => report,
                Err(error) => return self.leave_out_all(&format!("no shared page: {error}")),
            };
            match self.try_once(origin, &report) {
                Ok(()) => {
                    if self.sandbox.has(Part::Calls) {
                        let note = calls::describe(report.barriers());
                        self.sandbox.set(Part::Calls, true, note);
                    }
                    return;
                }
                Err(unconfined) => {
                    self.sandbox.set(unconfined.part, false, unconfined.why());
                    if unconfined.part == Part::Files {
                        self.landlock = None;
                    }
                }
            }
        }
    }

    fn try_once(&self, origin: &Origin, report: &Report) -> Result<(), Unconfined> {
        let refused = |error| Unconfined::refused(Part::Processes, error);
        // SAFETY: this process has one thread; the child ends by `leave`.
        let child = unsafe { fork(self.own_processes()) }.map_err(refused)?;
        let Some(pid) = child else {
            let status = match self.confine(origin, report) {
                Ok(()) => 0,
                Err(unconfined) => {
                    report.unconfined(unconfined);
                    1
                }
            };
            process::leave(status)
        };
        let ended = process::wait(pid).map_err(refused)?;
        match report.said_unconfined() {
            Some(unconfined) => Err(unconfined),
            None if ended => Ok(()),
            // It was killed, by a filter that is stricter than this kernel's own needs.
            None => Err(Unconfined::let_through(Part::Calls)),
        }
    }
}

impl Unconfined {
    /// For the report: which, and why.
    fn into_raw(self) -> (u8, i32) {
        (self.part.code(), self.errno)
    }

    fn from_raw(part: u8, errno: i32) -> Option<Self> {
        Some(Self {
            part: Part::from_code(part)?,
            errno,
        })
    }

    /// For the daemon.
    pub fn part(self) -> Part {
        self.part
    }
}
