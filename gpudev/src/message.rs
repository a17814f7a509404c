//! What the daemon and its zygote say to each other: one message a packet of a
//! `SOCK_SEQPACKET` socket pair, integers little-endian, strings with a u16 length.

use crate::device::DeviceKind;
use crate::sandbox::{Held, Part, Sandbox, call_name};
use genie_shm::ring::WaitPolicy;

/// Longest message.
pub const MESSAGE_MAX: usize = 16 << 10;

/// Operators that libraries may define, all together.
pub const OPERATORS_MAX: usize = 4096;
/// Longest schema of one, in bytes.
pub const SCHEMA_MAX: usize = STRING_MAX;

/// Where a session's tensors are. The rings' files come first: the one to the executor, then the
/// one from it. Last comes the number that says what its tensors may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensors {
    /// In memory that the daemon and the executor share. Files: the inbound arena, the outbound
    /// arena.
    Shared,
    /// In pools of the device that the daemon makes and the executor maps. File: the socket on
    /// which they are announced, the outbound pool first.
    Pools,
}

/// What a session may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the session's tensors, temporaries included.
    pub memory_bytes: u64,
    /// Threads that one operator may use, if it has work for them; 0 is as many as have a free core.
    pub threads: u32,
    /// Of 100 percent: below, each operator is made to take so much longer.
    pub speed_percent: u32,
    /// Capacity of each arena. Only what is used takes memory.
    pub arena_bytes: u64,
    /// Capacity of each ring.
    pub ring_bytes: u64,
    /// How long both sides spin for a frame before they sleep, in microseconds.
    pub spin_us: u32,
}

impl Limits {
    /// How both sides of the rings wait.
    #[must_use]
    pub fn wait_policy(&self) -> WaitPolicy {
        WaitPolicy {
            spin_max: std::time::Duration::from_micros(u64::from(self.spin_us)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 16 << 30,
            threads: 0,
            speed_percent: 100,
            arena_bytes: 16 << 30,
            ring_bytes: genie_shm::ring::CAPACITY_BYTES,
            spin_us: WaitPolicy::default().spin_max.as_micros() as u32,
        }
    }
}

/// How an executor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status; 0 when its session ended.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
    /// By a system call that its sandbox forbids, of this number.
    Forbidden(u32),
    /// Before it began: this part of its sandbox could not be put into force, or did not hold when
    /// it was tried.
    Unconfined(Part),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(libc::SIGSEGV) => write!(f, "a segmentation fault"),
            Self::Signal(libc::SIGABRT) => write!(f, "an abort"),
            Self::Signal(libc::SIGFPE) => write!(f, "a division by zero"),
            Self::Signal(libc::SIGKILL) => write!(f, "a kill (perhaps out of memory)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Forbidden(call) => {
                write!(
                    f,
                    "a system call that is forbidden to it: {}",
                    call_name(call)
                )
            }
            Self::Unconfined(part) => write!(f, "a sandbox that does not hold ({part})"),
        }
    }
}

/// Daemon to zygote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToZygote {
    /// Fork an executor. Answered by [`FromZygote::Forked`] or [`FromZygote::ForkFailed`].
    Fork {
        /// The daemon's number for it.
        session: u64,
        /// The device it works on.
        device: DeviceKind,
        /// Where its tensors are.
        tensors: Tensors,
        /// What it may use.
        limits: Limits,
    },
    /// Kill the executor of this session, if it lives.
    Kill {
        /// As in `Fork`.
        session: u64,
    },
}

/// Zygote to daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromZygote {
    /// First message: libtorch is loaded.
    Hello {
        /// The zygote's process.
        pid: u32,
        /// `2.11.0`.
        torch_version: String,
        /// Fingerprint of libtorch's operators.
        schema_hash: u64,
        /// What will hold its executors.
        sandbox: Sandbox,
    },
    /// Before the first message: a library is loaded now.
    Loading {
        /// Which, in the order in which they were named.
        library: u16,
    },
    /// Before the first message: operators of a library, some or all of them.
    Operators {
        /// Which, in the order in which they were named.
        library: u16,
        /// As PyTorch prints them.
        schemas: Vec<String>,
    },
    /// In the first message's place: a library can't be loaded.
    NotLoaded {
        /// Which, why, and what to do.
        message: String,
    },
    /// There is a process for the executor.
    Forked {
        /// As in `Fork`.
        session: u64,
        /// Its process.
        pid: u32,
    },
    /// Said by the executor itself: it is held in, and proved it.
    Ready {
        /// As in `Fork`.
        session: u64,
    },
    /// There is no executor.
    ForkFailed {
        /// As in `Fork`.
        session: u64,
        /// Why.
        message: String,
    },
    /// The executor is gone.
    Exited {
        /// As in `Fork`.
        session: u64,
        /// Its process.
        pid: u32,
        /// How.
        exit: Exit,
    },
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message between daemon and zygote is malformed")]
pub struct MessageError;

impl ToZygote {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Fork {
                session,
                device,
                tensors,
                limits,
            } => {
                out.push(1);
                out.extend(session.to_le_bytes());
                out.extend(match device {
                    DeviceKind::Host(index) => [0, *index],
                    DeviceKind::Cuda(index) => [1, *index],
                });
                out.push(match tensors {
                    Tensors::Shared => 0,
                    Tensors::Pools => 1,
                });
                out.extend(limits.memory_bytes.to_le_bytes());
                out.extend(limits.threads.to_le_bytes());
                out.extend(limits.speed_percent.to_le_bytes());
                out.extend(limits.arena_bytes.to_le_bytes());
                out.extend(limits.ring_bytes.to_le_bytes());
                out.extend(limits.spin_us.to_le_bytes());
            }
            Self::Kill { session } => {
                out.push(2);
                out.extend(session.to_le_bytes());
            }
        }
        out
    }

    /// Parses a message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let message = match reader.u8()? {
            1 => Self::Fork {
                session: reader.u64()?,
                device: match (reader.u8()?, reader.u8()?) {
                    (0, index) => DeviceKind::Host(index),
                    (1, index) => DeviceKind::Cuda(index),
                    _ => return Err(MessageError),
                },
                tensors: match reader.u8()? {
                    0 => Tensors::Shared,
                    1 => Tensors::Pools,
                    _ => return Err(MessageError),
                },
                limits: Limits {
                    memory_bytes: reader.u64()?,
                    threads: reader.u32()?,
                    speed_percent: reader.u32()?,
                    arena_bytes: reader.u64()?,
                    ring_bytes: reader.u64()?,
                    spin_us: reader.u32()?,
                },
            },
            2 => Self::Kill {
                session: reader.u64()?,
            },
            _ => return Err(MessageError),
        };
        reader.end(message)
    }
}

impl FromZygote {
    /// Tells of a library's operators, in as many messages as it takes.
    #[must_use]
    pub fn operators(library: u16, schemas: Vec<String>) -> Vec<Self> {
        let mut all = Vec::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for schema in schemas {
            let takes = schema.len().min(STRING_MAX) + 2;
            // Its kind, its library and its count come before.
            if 5 + bytes + takes > MESSAGE_MAX {
                let schemas = std::mem::take(&mut part);
                all.push(Self::Operators { library, schemas });
                bytes = 0;
            }
            bytes += takes;
            part.push(schema);
        }
        all.push(Self::Operators {
            library,
            schemas: part,
        });
        all
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello {
                pid,
                torch_version,
                schema_hash,
                sandbox,
            } => {
                out.push(1);
                out.extend(pid.to_le_bytes());
                out.extend(schema_hash.to_le_bytes());
                put_string(&mut out, torch_version);
                put_sandbox(&mut out, sandbox);
            }
            Self::Forked { session, pid } => {
                out.push(2);
                out.extend(session.to_le_bytes());
                out.extend(pid.to_le_bytes());
            }
            Self::ForkFailed { session, message } => {
                out.push(3);
                out.extend(session.to_le_bytes());
                put_string(&mut out, message);
            }
            Self::Exited { session, pid, exit } => {
                out.push(4);
                out.extend(session.to_le_bytes());
                out.extend(pid.to_le_bytes());
                let (kind, number) = match *exit {
                    Exit::Status(status) => (0, status),
                    Exit::Signal(signal) => (1, signal),
                    Exit::Forbidden(call) => (2, call.cast_signed()),
                    Exit::Unconfined(part) => (3, i32::from(part.code())),
                };
                out.push(kind);
                out.extend(number.to_le_bytes());
            }
            Self::Ready { session } => {
                out.push(5);
                out.extend(session.to_le_bytes());
            }
            Self::Operators { library, schemas } => {
                out.push(6);
                out.extend(library.to_le_bytes());
                out.extend((schemas.len() as u16).to_le_bytes());
                for schema in schemas {
                    put_string(&mut out, schema);
                }
            }
            Self::NotLoaded { message } => {
                out.push(7);
                put_string(&mut out, message);
            }
            Self::Loading { library } => {
                out.push(8);
                out.extend(library.to_le_bytes());
            }
        }
        out
    }

    /// Parses a message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        let message = match reader.u8()? {
            1 => {
                let (pid, schema_hash) = (reader.u32()?, reader.u64()?);
                Self::Hello {
                    pid,
                    schema_hash,
                    torch_version: reader.string()?,
                    sandbox: reader.sandbox()?,
                }
            }
            2 => Self::Forked {
                session: reader.u64()?,
                pid: reader.u32()?,
            },
            3 => Self::ForkFailed {
                session: reader.u64()?,
                message: reader.string()?,
            },
            4 => Self::Exited {
                session: reader.u64()?,
                pid: reader.u32()?,
                exit: match (reader.u8()?, reader.u32()? as i32) {
                    (0, status) => Exit::Status(status),
                    (1, signal) => Exit::Signal(signal),
                    (2, call) => Exit::Forbidden(call.cast_unsigned()),
                    (3, part) => Exit::Unconfined(
                        u8::try_from(part)
                            .ok()
                            .and_then(Part::from_code)
                            .ok_or(MessageError)?,
                    ),
                    _ => return Err(MessageError),
                },
            },
            5 => Self::Ready {
                session: reader.u64()?,
            },
            6 => {
                let (library, count) = (reader.u16()?, reader.u16()?);
                let schemas = (0..count).map(|_| reader.string());
                Self::Operators {
                    library,
                    schemas: schemas.collect::<Result<_, _>>()?,
                }
            }
            7 => Self::NotLoaded {
                message: reader.string()?,
            },
            8 => Self::Loading {
                library: reader.u16()?,
            },
            _ => return Err(MessageError),
        };
        reader.end(message)
    }
}

/// Longest string in a message.
const STRING_MAX: usize = 4096;

fn put_string(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(STRING_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.extend((len as u16).to_le_bytes());
    out.extend(&text.as_bytes()[..len]);
}

fn put_sandbox(out: &mut Vec<u8>, sandbox: &Sandbox) {
    out.push(sandbox.parts.len() as u8);
    for Held { part, had, note } in &sandbox.parts {
        out.extend([part.code(), u8::from(*had)]);
        put_string(out, note);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(MessageError)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        self.take(N)?.try_into().map_err(|_| MessageError)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, MessageError> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| MessageError)
    }

    fn sandbox(&mut self) -> Result<Sandbox, MessageError> {
        let mut sandbox = Sandbox::default();
        for _ in 0..self.u8()? {
            let part = Part::from_code(self.u8()?).ok_or(MessageError)?;
            let had = match self.u8()? {
                0 => false,
                1 => true,
                _ => return Err(MessageError),
            };
            sandbox.set(part, had, self.string()?);
        }
        Ok(sandbox)
    }

    fn end<T>(self, message: T) -> Result<T, MessageError> {
        if self.0.is_empty() {
            Ok(message)
        } else {
            Err(MessageError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_survives() {
        let limits = Limits::default();
        for message in [
            ToZygote::Fork {
                session: 7,
                device: DeviceKind::Cuda(2),
                tensors: Tensors::Pools,
                limits,
            },
            ToZygote::Fork {
                session: 7,
                device: DeviceKind::Host(0),
                tensors: Tensors::Shared,
                limits,
            },
            ToZygote::Kill { session: u64::MAX },
        ] {
            assert_eq!(ToZygote::decode(&message.encode()), Ok(message));
        }
        let mut sandbox = Sandbox::default();
        sandbox.set(Part::Calls, true, "56 of them");
        sandbox.set(Part::Network, false, "no namespaces");
        for message in [
            FromZygote::Hello {
                pid: 1,
                torch_version: "2.11.0".into(),
                schema_hash: 5,
                sandbox,
            },
            FromZygote::Operators {
                library: 3,
                schemas: vec!["a::b(Tensor x) -> Tensor".into(), String::new()],
            },
            FromZygote::NotLoaded {
                message: "no".into(),
            },
            FromZygote::Loading { library: 2 },
            FromZygote::Forked { session: 1, pid: 2 },
            FromZygote::Ready { session: 1 },
            FromZygote::ForkFailed {
                session: 1,
                message: "no".into(),
            },
            FromZygote::Exited {
                session: 1,
                pid: 2,
                exit: Exit::Signal(11),
            },
            FromZygote::Exited {
                session: 1,
                pid: 2,
                exit: Exit::Status(-1),
            },
            FromZygote::Exited {
                session: 1,
                pid: 2,
                exit: Exit::Forbidden(101),
            },
            FromZygote::Exited {
                session: 1,
                pid: 2,
                exit: Exit::Unconfined(Part::Calls),
            },
        ] {
            assert_eq!(FromZygote::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn many_operators_are_told_in_parts() {
        let schemas: Vec<String> = (0..OPERATORS_MAX)
            .map(|at| format!("a::b{at}{}", "x".repeat(at)))
            .collect();
        let parts = FromZygote::operators(2, schemas.clone());
        let mut told = Vec::new();
        for part in &parts {
            let bytes = part.encode();
            assert!(bytes.len() <= MESSAGE_MAX);
            let Ok(FromZygote::Operators {
                library: 2,
                schemas,
            }) = FromZygote::decode(&bytes)
            else {
                panic!("another message");
            };
            told.extend(schemas);
        }
        let cut = |text: &String| text[..text.len().min(SCHEMA_MAX)].to_owned();
        assert_eq!(told, schemas.iter().map(cut).collect::<Vec<_>>());
        assert!(parts.len() > 100);
        assert_eq!(FromZygote::operators(0, Vec::new()).len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = ToZygote::decode(&bytes);
            let _ = FromZygote::decode(&bytes);
        }
    }
}
