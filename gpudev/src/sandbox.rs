//! What holds an executor in, as far as this machine's kernel has it. The executor's program puts it
//! into force and proves it (`dataplane/executor/src/sandbox`); here is what both sides call it.

use std::fmt;

/// Whether executors are held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// As far as the kernel allows; what is missing is said.
    #[default]
    Auto,
    /// Not at all, but for what costs nothing: an environment of its own.
    Off,
}

/// One restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// No environment but what libtorch needs.
    Environment,
    /// A user of its own, or one that is nobody outside of a user namespace.
    User,
    /// No capability.
    Capabilities,
    /// No program can give it more than it has (`no_new_privs`).
    Privileges,
    /// No files.
    Files,
    /// No network.
    Network,
    /// No System V memory, semaphores and queues of others.
    Ipc,
    /// No other process to see, signal or trace.
    Processes,
    /// No system calls but those that operators need.
    Calls,
}

/// All of them, in the order in which they are shown and sent.
pub const PARTS: [Part; 9] = [
    Part::Environment,
    Part::User,
    Part::Capabilities,
    Part::Privileges,
    Part::Files,
    Part::Network,
    Part::Ipc,
    Part::Processes,
    Part::Calls,
];

impl Part {
    /// Its name, as in a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::Privileges => "privileges",
            Self::Files => "files",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Processes => "processes",
            Self::Calls => "calls",
        }
    }

    /// Its number in messages.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The part of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        PARTS.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of one restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub part: Part,
    /// It is in force, and was proved from inside.
    pub had: bool,
    /// By what means; or why it is not.
    pub note: String,
}

/// What holds the executors of a zygote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// A line a part. Empty before anything is known.
    pub parts: Vec<Held>,
}

impl Sandbox {
    /// Notes what became of a part; the last word on a part counts.
    pub fn set(&mut self, part: Part, had: bool, note: impl Into<String>) {
        let held = Held {
            part,
            had,
            note: note.into(),
        };
        match self.parts.iter_mut().find(|known| known.part == part) {
            Some(known) => *known = held,
            None => self.parts.push(held),
        }
    }

    /// True where the part is in force.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.parts.iter().any(|held| held.part == part && held.had)
    }

    /// What is not in force.
    pub fn missing(&self) -> impl Iterator<Item = &Held> {
        self.parts.iter().filter(|held| !held.had)
    }
}

/// What a system call is called, by its number.
#[must_use]
pub fn call_name(number: u32) -> String {
    syscalls::Sysno::new(number as usize).map_or_else(
        || format!("system call {number}"),
        |call| call.name().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_number_of_its_own() {
        for (at, part) in PARTS.into_iter().enumerate() {
            assert_eq!(usize::from(part.code()), at);
            assert_eq!(Part::from_code(part.code()), Some(part));
        }
        assert_eq!(Part::from_code(PARTS.len() as u8), None);
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(call_name(libc::SYS_connect as u32), "connect");
        assert_eq!(call_name(60_000), "system call 60000");
    }
}
