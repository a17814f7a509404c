//! The data path to the node: a byte stream that one thread reads while another writes, with bulk in
//! it. It is a socket (TCP to the node, or a pipe through a gateway), plain or under TLS; or a
//! channel to a gateway, which takes the bytes over the DPDK transport.

mod bulk;
mod channel;
mod inbound;
mod memory;
mod socket;
mod stall;
mod stream;
mod unsent;

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use genie_channel::Offer;
use genie_channel::attach::{self, AttachError};
use genie_control_api::v1::Transport;

pub use self::bulk::{Bulk, Part};
use self::channel::ChannelLink;
pub use self::stall::Stall;
use self::stream::StreamLink;
pub use self::stream::resolve;
pub use self::unsent::{Kept, Unsent};
use crate::address::{Address, Tls};

/// How long a call waits before the caller looks at signals and the peer's health.
pub const TICK: Duration = Duration::from_millis(100);

/// One data connection.
pub struct Link {
    path: Path,
    reason: String,
}

enum Path {
    Stream(Box<StreamLink>),
    Channel(Box<ChannelLink>),
}

impl Link {
    /// Connects a socket to the node within `timeout`, through a gateway if `address` is one.
    ///
    /// # Errors
    /// Nobody there, or a TLS handshake that fails.
    pub fn connect(address: &Address, tls: Option<&Tls>, timeout: Duration) -> io::Result<Self> {
        let reason = match address {
            Address::Node { .. } => "connected to the node itself, without a gateway",
            Address::Gateway { .. } => "a socket was asked for",
        };
        Self::over_socket(address, tls, timeout, reason.to_owned())
    }

    /// Connects over the best that there is: a gateway's transport, if `offered` is the node's end
    /// of it, and a socket else.
    ///
    /// # Errors
    /// As [`Link::connect`]; a gateway that refuses and does not name TCP as the way out.
    pub fn open(
        address: &Address,
        tls: Option<&Tls>,
        offered: Option<&Transport>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let Address::Gateway { socket, .. } = address else {
            return Self::connect(address, tls, timeout);
        };
        let reason = match offered {
            None => match attach::info(socket, timeout) {
                Ok(info) if info.transport == "tcp" => info.reason,
                _ => "the node offers no other transport".to_owned(),
            },
            Some(transport) => match attach::attach(socket, &offer(transport)?, timeout) {
                Ok(half) => {
                    let reason =
                        format!("through the gateway at {}: {}", socket.display(), half.link);
                    return Ok(Self {
                        path: Path::Channel(Box::new(ChannelLink::new(half)?)),
                        reason,
                    });
                }
                Err(AttachError::Fallback(reason)) => reason,
                Err(error) => return Err(io::Error::other(error)),
            },
        };
        Self::over_socket(address, tls, timeout, reason)
    }

    fn over_socket(
        address: &Address,
        tls: Option<&Tls>,
        timeout: Duration,
        reason: String,
    ) -> io::Result<Self> {
        let stream = StreamLink::connect(address, tls, timeout)?;
        Ok(Self {
            path: Path::Stream(Box::new(stream)),
            reason,
        })
    }

    /// What carries the data ("dpdk" or "tcp"), and why it is this.
    #[must_use]
    pub fn transport(&self) -> (&'static str, &str) {
        let name = match self.path {
            Path::Stream(_) => "tcp",
            Path::Channel(_) => "dpdk",
        };
        (name, &self.reason)
    }

    /// Counts bulk that moved apart from the stream: as long as it grows the node is there, though
    /// an answer to a question that was put behind much bulk takes its time.
    #[must_use]
    pub fn moved(&self) -> u64 {
        match &self.path {
            Path::Stream(_) => 0,
            Path::Channel(channel) => channel.moved.load(Ordering::Relaxed),
        }
    }

    /// A gateway looks after the node, and says within seconds that it is gone; so a bulk that is slow
    /// to leave is no sign of it.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        matches!(self.path, Path::Channel(_))
    }

    /// Reads what there is, at least one byte. `Ok(None)` after a tick without any.
    ///
    /// # Errors
    /// The end of the stream, too, is an error.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match &self.path {
            Path::Stream(stream) => stream.read(buffer),
            Path::Channel(channel) => channel.read(buffer),
        }
    }

    /// Writes all of `parts`. Between ticks it asks `go_on`, which must not write itself.
    ///
    /// # Errors
    /// The stream's, or what `go_on` says.
    pub fn write_all(
        &self,
        parts: &[&[u8]],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        for parts in parts.chunks(3) {
            let mut three: [&[u8]; 3] = [&[]; 3];
            three[..parts.len()].copy_from_slice(parts);
            self.send(&mut Unsent::new(three, &[]), &mut |_| go_on())?;
        }
        Ok(())
    }

    /// A frame that is to leave: `header`, `payload`, and the `raw` bytes that follow them.
    #[must_use]
    pub fn frame<'a>(&self, header: &'a [u8], payload: &'a [u8], raw: &'a [u8]) -> Unsent<'a> {
        match self.takes_apart(raw.len() as u64) {
            true => Unsent::new([header, payload, &[]], raw),
            false => Unsent::new([header, payload, raw], &[]),
        }
    }

    /// Sends `unsent`. At a tick without progress, where a signal came, and once a second it asks
    /// `go_on`, with the bytes that are left. If that fails, `unsent` is what still has to be sent
    /// before anything else, by whoever comes next.
    ///
    /// # Errors
    /// The stream's, or what `go_on` says.
    pub fn send(
        &self,
        unsent: &mut Unsent<'_>,
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        match &self.path {
            Path::Stream(stream) => stream.send(unsent, go_on),
            Path::Channel(channel) => channel.send(unsent, go_on),
        }
    }

    /// Writes `header` and `payload` of a frame, and the `raw` bytes that follow it, which are free
    /// when this returns.
    ///
    /// # Errors
    /// As [`Link::write_all`].
    pub fn write_frame(
        &self,
        header: &[u8],
        payload: &[u8],
        raw: &[u8],
        go_on: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        self.send(&mut self.frame(header, payload, raw), &mut |_| go_on())
    }

    /// True if `len` raw bytes after a frame do not come inside the stream: then
    /// [`Link::take_bulk`] gets them.
    #[must_use]
    pub fn takes_apart(&self, len: u64) -> bool {
        matches!(self.path, Path::Channel(_)) && len > genie_channel::INLINE_MAX
    }

    /// Gets the `len` raw bytes of the frame that was read last, or has them dropped if `into` is
    /// `None`. It asks `go_on` when the node was heard (true), and at every tick without (false).
    /// `Ok(Err(_))`: these bytes will never come, but the stream goes on.
    ///
    /// # Errors
    /// The stream's, or what `go_on` says. `into` must be `len` bytes long, and the bytes must
    /// come apart.
    pub fn take_bulk(
        &self,
        len: u64,
        mut into: Option<&mut [u8]>,
        go_on: &mut dyn FnMut(bool) -> io::Result<()>,
    ) -> io::Result<Result<(), String>> {
        if into.as_ref().is_some_and(|into| into.len() as u64 != len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bulk = Bulk::new(len);
        let mut at = 0;
        loop {
            match self.bulk_part(&mut bulk, into.is_some())? {
                Part::Over(outcome) => return Ok(outcome),
                Part::Nothing { heard } => go_on(heard)?,
                Part::Here(n) => {
                    let target = into.as_deref_mut().map(|into| &mut into[at..at + n]);
                    self.land(&mut bulk, target)?;
                    at += n;
                    go_on(true)?;
                }
            }
        }
    }

    /// Asks for the parts of `bulk`, or has those that nobody asked for dropped if it is not
    /// `wanted` (any more), and waits a tick at most for the next. A part that is here has to
    /// [`Link::land`]. Whoever comes next may go on with `bulk`.
    ///
    /// # Errors
    /// The stream's; these bytes come inside the stream.
    pub fn bulk_part(&self, bulk: &mut Bulk, wanted: bool) -> io::Result<Part> {
        self.channel()?.bulk_part(bulk, wanted)
    }

    /// Copies the part that is here to `into`, which is as long as it, or drops it.
    ///
    /// # Errors
    /// The connection is over.
    pub fn land(&self, bulk: &mut Bulk, into: Option<&mut [u8]>) -> io::Result<()> {
        self.channel()?.land(bulk, into)
    }

    fn channel(&self) -> io::Result<&ChannelLink> {
        match &self.path {
            Path::Channel(channel) => Ok(channel),
            Path::Stream(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "these bytes come inside the stream",
            )),
        }
    }

    /// What to wait on with poll(2), for reading, after [`Link::arm`].
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        match &self.path {
            Path::Stream(stream) => stream.descriptor(),
            Path::Channel(channel) => channel.descriptor(),
        }
    }

    /// Makes [`Link::descriptor`] tell when something comes, also to several threads at once, until
    /// one of them reads. False if something is there already.
    #[must_use]
    pub fn arm(&self) -> bool {
        match &self.path {
            Path::Stream(stream) => !stream.has_more(),
            Path::Channel(channel) => channel.arm(),
        }
    }

    /// True if a thread that reads takes back [`Link::arm`]: then whoever sleeps has to arm anew.
    #[must_use]
    pub fn reading_disarms(&self) -> bool {
        matches!(self.path, Path::Channel(_))
    }

    /// Waits until there is something to read, or for `timeout`.
    pub fn wait_readable(&self, timeout: Duration) -> bool {
        match &self.path {
            Path::Stream(stream) => stream.wait_readable(timeout),
            Path::Channel(channel) => channel.wait_readable(timeout),
        }
    }

    /// Gives back memory that is kept for speed.
    pub fn trim(&self) {
        if let Path::Channel(channel) = &self.path {
            channel.trim();
        }
    }

    /// Ends both directions; a thread that waits on the link returns.
    pub fn shutdown(&self) {
        match &self.path {
            Path::Stream(stream) => stream.shutdown(),
            Path::Channel(channel) => channel.shutdown(),
        }
    }
}

/// The node's end of a connection, as its control channel tells it.
fn offer(transport: &Transport) -> io::Result<Offer> {
    let invalid = |what: &str| {
        let text = format!("the node offers a connection that can't be: {what}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let offer = Offer {
        connection: transport.connection,
        epoch: transport.epoch,
        secret: transport
            .secret
            .as_slice()
            .try_into()
            .map_err(|_| invalid("its secret's length"))?,
        sealed: transport.sealed,
        peer: transport
            .address
            .parse()
            .map_err(|_| invalid("its address is not IP:PORT"))?,
        mtu_max: u16::try_from(transport.mtu_max).map_err(|_| invalid("its MTU"))?,
    };
    offer.checked().map_err(|error| invalid(error.0))
}
