//! The channel between a program and a gateway's poll loop as a path: rings in shared memory, and
//! an arena for transfers. The end that measures is the program; the other end stands for the loop:
//! it has no engine, and keeps what comes instead of sending it on.
//!
//! A transfer costs what it costs PyTorch: one copy into the arena. From there a loop would send
//! it.

mod arena;
mod looping;
mod program;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use genie_channel::attach::{Request, answer_attach, attach, read_request};
use genie_channel::{Doorbell, Offer, Sizes};

pub use self::looping::Looping;
pub use self::program::Program;
use crate::control::readable;

/// How long either end may take to open the channel.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rings as a gateway has them, and an arena that holds a test. Pages are taken when they are used.
const SIZES: Sizes = Sizes {
    arena_bytes: 16 << 30,
    ..Sizes::GATEWAY
};

/// The longest message, in bytes.
const MESSAGE_MAX: usize = 16 << 10;

/// Waits for the program, as a gateway does, once `ready` has told it where.
pub fn listen(socket: &Path, ready: impl FnOnce() -> Result<()>) -> Result<Looping> {
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
    let doorbell = Doorbell::new()?;
    let half = answer_attach(stream, SIZES, &doorbell, "")?;
    Looping::new(half, doorbell)
}

/// Attaches, as a client does.
pub fn connect(socket: &Path) -> Result<Program> {
    // A gateway would open this connection; the loop at the other end has none.
    let offer = Offer {
        connection: 1,
        epoch: 1,
        secret: [1; 32],
        sealed: false,
        peer: std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
        mtu_max: 8900,
    };
    Program::new(attach(socket, &offer, TIMEOUT)?)
}
