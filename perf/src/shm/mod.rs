//! The channel between a program and a gateway's poll loop as a path: rings in shared memory, and
//! an arena for transfers. The end that measures is the program; the other end stands for the loop:
//! it has no engine, and keeps what comes instead of sending it on.
//!
//! A transfer costs what it costs PyTorch: one copy into the arena. From there a loop would send
//! it. With real engines behind the channel ([`engines`]) messages go all the way.

mod arena;
mod engines;
mod looping;
mod program;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use genie_channel::attach::{Request, answer_attach, attach, read_request};
use genie_channel::{Doorbell, LoopHalf, Offer, Sizes};

pub use self::engines::Engines;
pub use self::looping::Looping;
pub use self::program::Program;
use crate::control::readable;
use crate::path::Facts;

/// How long either end may take to open the channel.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rings as a gateway has them, and an arena that holds a test. Pages are taken when they are used.
const SIZES: Sizes = Sizes {
    arena_bytes: 16 << 30,
    ..Sizes::GATEWAY
};

/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 16 << 10;

/// What is behind the loop's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the loop keeps what comes.
    Nothing,
    /// Engines, and another program.
    Engines {
        /// Whether frames between the engines are encrypted.
        sealed: bool,
    },
}

impl Behind {
    /// What both ends are.
    pub fn facts(self) -> Facts {
        let (path, mtu_bytes, seal) = match self {
            Self::Nothing => (
                "rings and doorbells between a program and a loop, no engine: what comes lies in \
                 the channel's arena, or goes straight back",
                0,
                "off",
            ),
            Self::Engines { sealed } => (
                "a program's channel to an engine, a link in memory to a second engine, and its \
                 channel to a program that answers; the engines and that program share a thread, \
                 and all poll",
                u64::from(engines::MTU),
                if sealed { "aes-128-gcm" } else { "crc32c" },
            ),
        };
        Facts {
            transport: "shm",
            path: path.to_owned(),
            mtu_bytes,
            seal,
        }
    }

    /// A gateway would open this connection; without engines nobody does.
    fn offer(self) -> Offer {
        Offer {
            connection: 1,
            epoch: 1,
            secret: [1; 32],
            sealed: self == Self::Engines { sealed: true },
            peer: std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
            mtu_max: 8900,
        }
    }
}

/// Waits for the program, as a gateway does, once `ready` has told it where.
pub fn listen(socket: &Path, ready: impl FnOnce() -> Result<()>) -> Result<Looping> {
    let doorbell = Doorbell::new()?;
    let half = accept(socket, ready, SIZES, &doorbell)?;
    Looping::new(half, doorbell)
}

/// As [`listen`], with engines behind the channel.
pub fn listen_with_engines(
    socket: &Path,
    sealed: bool,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Engines> {
    let behind = Behind::Engines { sealed };
    let half = accept(socket, ready, Sizes::GATEWAY, &Doorbell::new()?)?;
    Engines::new(half, &behind.offer(), behind.facts())
}

fn accept(
    socket: &Path,
    ready: impl FnOnce() -> Result<()>,
    sizes: Sizes,
    doorbell: &Doorbell,
) -> Result<LoopHalf> {
    use std::os::fd::AsRawFd as _;
    let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
    ready()?;
    if !readable(listener.as_raw_fd(), TIMEOUT) {
        bail!("no program came to the channel");
    }
    let (stream, _) = listener.accept()?;
    match read_request(&stream, TIMEOUT)? {
        Request::Attach(_) => {}
        other => bail!("the program asks for {other:?}, not for a channel"),
    }
    Ok(answer_attach(stream, sizes, doorbell, "")?)
}

/// Attaches, as a client does.
pub fn connect(socket: &Path, behind: Behind) -> Result<Program> {
    Program::new(attach(socket, &behind.offer(), TIMEOUT)?, behind.facts())
}
