//! How the two ends of a measurement talk about it: lines of JSON over a socket of their own.
//!
//! The server answers anybody, so lines are bounded and what they ask for is checked.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::{Memory, Seal};
use crate::path::Plan;

/// The first bytes of either end. A node takes them for bad HTTP and says so, which tells it apart.
pub const GREETING: &[u8] = b"GENIE-PERF 1\r\n\r\n";
/// The longest line, in bytes.
const LINE_MAX: usize = 64 << 10;
/// How long an end may take for an answer that takes no measuring.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the end that measures asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Make the data path. Again, if the last one did not come about.
    Open(Open),
    /// You were found on the link: take my frames.
    Meet,
    /// A test begins.
    Begin(Plan),
    /// The warm-up is over: count CPU time from here. No answer.
    Mark,
    /// Compare what arrived in this round.
    Verify {
        /// Counts from 0.
        round: u64,
        /// Slots, or messages, that were sent in it.
        count: u64,
    },
    /// The test is over.
    Stop,
    /// There are no more tests.
    Bye,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Open`].
    Opened(Way),
    /// To an [`Ask::Open`] of a path that this end can't have: ask for another.
    Lacks {
        /// Why, for a person.
        why: String,
    },
    /// To [`Ask::Meet`] and [`Ask::Begin`].
    Ready,
    /// To [`Ask::Verify`].
    Verified {
        /// Bytes that differed.
        differences: u64,
    },
    /// To [`Ask::Stop`].
    Stopped(Served),
    /// To anything that can't be done.
    Refused {
        /// Why, for a person.
        why: String,
    },
}

/// The data path that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// What carries it.
    pub link: Link,
    /// Whether it is encrypted; the path's own choice if nobody said.
    pub seal: Option<Seal>,
    /// Whose memory it ends in.
    pub memory: Memory,
    /// The device, if it is one's.
    pub device: String,
}

/// What carries a data path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// A TCP connection to the address of the control socket, or to loopback.
    Tcp,
    /// A channel, by the unix socket that it is attached through. Between two ends of one user
    /// only.
    Shm(std::path::PathBuf),
    /// The same, with engines behind the channel.
    Engine(std::path::PathBuf),
    /// Genie's transport over DPDK: over the other end's own port, or one that its parent names.
    Dpdk(Option<PortOrder>),
}

/// A port, named to a process by the one that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOrder {
    /// As [`genie_poll::PortSpec`] reads it.
    pub port: String,
    /// The network namespace of its interface, if it has one of its own.
    pub namespace: Option<String>,
}

/// How to reach the data path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Way {
    /// Connect there and say the token.
    Tcp {
        /// The port.
        port: u16,
        /// As hexadecimal digits.
        token: String,
    },
    /// Find this end on the link, and ask it to meet.
    Dpdk {
        /// A [`genie_channel::Offer`], as hexadecimal digits.
        offer: String,
    },
    /// The socket listens.
    Shm,
}

/// What the other end counted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Served {
    /// CPU time since the mark, in seconds, without comparing.
    pub cpu_seconds: f64,
    /// Time since the mark, in seconds, without comparing.
    pub seconds: f64,
    /// Packets that it sent more than once.
    pub retransmissions: u64,
    /// Frames that it threw away.
    pub frames_dropped: u64,
    /// Cores that it is pinned to; none if it isn't.
    pub pinned: usize,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One end of the conversation.
pub struct Control {
    socket: Socket,
    /// What came and was not taken: part of a line, or more than one.
    inbox: Vec<u8>,
}

impl Control {
    /// Over a connection to another machine.
    pub fn over_tcp(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(false)?;
        // Who asks and never reads is gone.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(Socket::Tcp(socket)))
    }

    /// Over a socket pair.
    #[must_use]
    pub fn over_unix(socket: UnixStream) -> Self {
        Self::over(Socket::Unix(socket))
    }

    fn over(socket: Socket) -> Self {
        Self {
            socket,
            inbox: Vec::new(),
        }
    }

    /// The other machine, if it is one.
    #[must_use]
    pub fn peer(&self) -> Option<&TcpStream> {
        match &self.socket {
            Socket::Tcp(socket) => Some(socket),
            Socket::Unix(_) => None,
        }
    }

    /// The socket, to wait on.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
        }
    }

    /// Says something.
    pub fn send(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.send_bytes(&line)
    }

    /// Says these bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(bytes),
            Socket::Unix(socket) => socket.write_all(bytes),
        }
        .context("the other end is gone")
    }

    /// What the other end said, if it said something. Does not wait.
    pub fn poll<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        if self.line_end().is_none() {
            if !readable(self.descriptor(), Duration::ZERO) {
                return Ok(None);
            }
            self.read()?;
        }
        self.take()
    }

    /// Waits for what the other end says.
    pub fn receive<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(said) = self.take()? {
                return Ok(said);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if readable(self.descriptor(), left) {
                self.read()?;
            } else if left.is_zero() {
                bail!("the other end has not answered for {timeout:?}");
            }
        }
    }

    /// Whether the other end closed its socket.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        poll(self.descriptor(), libc::POLLRDHUP, Duration::ZERO)
    }

    /// Says the last of it, and lets the other end read that: a socket that is closed while bytes
    /// come loses what it has said.
    pub fn part(mut self, last: &impl Serialize, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        if self.send(last).is_err() {
            return;
        }
        let said = match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        while said.is_ok() && !left().is_zero() && self.inbox.len() <= LINE_MAX {
            if readable(self.descriptor(), left()) && self.read().is_err() {
                return;
            }
        }
    }

    /// Whether the other end is there and has said nothing yet.
    #[must_use]
    pub fn was_silent(&self) -> bool {
        self.inbox.is_empty() && !readable(self.descriptor(), Duration::ZERO)
    }

    /// Waits for exactly these bytes. False when others come.
    pub fn expect(&mut self, wanted: &[u8], timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        while self.inbox.len() < wanted.len() && wanted.starts_with(&self.inbox) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !readable(self.descriptor(), left) {
                return Ok(false);
            }
            if self.read().is_err() {
                return Ok(false);
            }
        }
        if !self.inbox.starts_with(wanted) {
            return Ok(false);
        }
        self.inbox.drain(..wanted.len());
        Ok(true)
    }

    fn line_end(&self) -> Option<usize> {
        self.inbox.iter().position(|&byte| byte == b'\n')
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(end) = self.line_end() else {
            if self.inbox.len() > LINE_MAX {
                bail!("the other end said a line of more than {LINE_MAX} bytes");
            }
            return Ok(None);
        };
        let said = serde_json::from_slice(&self.inbox[..end])
            .context("the other end said what this version does not know");
        self.inbox.drain(..=end);
        said.map(Some)
    }

    fn read(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        let read = match &mut self.socket {
            Socket::Tcp(socket) => socket.read(&mut bytes),
            Socket::Unix(socket) => socket.read(&mut bytes),
        };
        match read {
            Ok(0) => bail!("the other end is gone"),
            Ok(n) => self.inbox.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the other end is gone"),
        }
        Ok(())
    }
}

/// Waits until `descriptor` can be read, or for `timeout`.
#[must_use]
pub fn readable(descriptor: RawFd, timeout: Duration) -> bool {
    poll(descriptor, libc::POLLIN, timeout)
}

fn poll(descriptor: RawFd, events: libc::c_short, timeout: Duration) -> bool {
    let mut polled = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    // Rounded up, so that a short wait is not a spin.
    let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: one valid entry; a negative descriptor is skipped.
    unsafe { libc::poll(&raw mut polled, 1, millis) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Control, Control) {
        let (a, b) = UnixStream::pair().unwrap();
        (Control::over_unix(a), Control::over_unix(b))
    }

    #[test]
    fn what_is_said_arrives_whole_and_in_order() {
        let (mut a, mut b) = pair();
        assert!(b.poll::<Ask>().unwrap().is_none());
        a.send(&Ask::Mark).unwrap();
        a.send(&Ask::Verify { round: 3, count: 4 }).unwrap();
        assert!(matches!(b.poll().unwrap(), Some(Ask::Mark)));
        let second = b.receive(PATIENCE).unwrap();
        assert!(matches!(second, Ask::Verify { round: 3, count: 4 }));
    }

    #[test]
    fn nonsense_endless_lines_and_an_end_are_errors() {
        let (mut a, mut b) = pair();
        a.send_bytes(b"{\"What\":1}\n").unwrap();
        assert!(b.receive::<Ask>(PATIENCE).is_err());
        let long = vec![b'x'; LINE_MAX + 4096];
        let sender = std::thread::spawn(move || {
            let _ = a.send_bytes(&long);
            a
        });
        let error = b.receive::<Ask>(PATIENCE).unwrap_err();
        assert!(error.to_string().contains("a line of more than"), "{error}");
        assert!(!b.is_gone());
        drop(b);
        let mut a = sender.join().unwrap();
        assert!(a.is_gone());
        let error = a.receive::<Answer>(PATIENCE).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn another_greeting_is_told_apart_at_its_first_other_byte() {
        let (mut a, mut b) = pair();
        a.send_bytes(b"HTTP/1.1 400").unwrap();
        assert!(!b.expect(GREETING, PATIENCE).unwrap());
        let (mut a, mut b) = pair();
        a.send_bytes(GREETING).unwrap();
        a.send(&Ask::Bye).unwrap();
        assert!(b.expect(GREETING, PATIENCE).unwrap());
        assert!(matches!(b.receive(PATIENCE).unwrap(), Ask::Bye));
    }
}
