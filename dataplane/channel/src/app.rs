//! A program's half of a channel: it may block.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_shm::{Bell, Mapping, RingCloser, RingConsumer, RingProducer, RingStats, WaitPolicy};

use crate::Sizes;
use crate::doorbell::Doorbell;
use crate::error::ChannelError;
use crate::looping::LoopHalf;
use crate::message::{Command, FromLoop, STREAM_MAX, encode_stream, stream_len};
use crate::wait::{Ear, is_hung_up};

/// A program's half. Its parts may go to different threads; dropping either ends the channel.
#[derive(Debug)]
pub struct AppHalf {
    /// Puts things in.
    pub sender: AppSender,
    /// Takes things out.
    pub receiver: AppReceiver,
    /// Where bulk lies, if the channel has memory for it. The program allocates in it.
    pub arena: Option<Arc<Mapping>>,
    /// What carries it, in a gateway's words. Empty in one process.
    pub link: String,
}

/// Puts the stream and commands in.
#[derive(Debug)]
pub struct AppSender {
    ring: RingProducer,
    socket: Option<Arc<UnixStream>>,
}

/// Takes the stream and answers out.
#[derive(Debug)]
pub struct AppReceiver {
    ring: RingConsumer,
    ear: Ear,
    frame: Vec<u8>,
    is_gone: bool,
}

/// Both halves of a channel in one process. The loop sleeps on `loop_doorbell`; it reaches the
/// memory of bulk by another way, unless `sizes` gives the channel an arena.
///
/// # Errors
/// No memory, or no descriptors.
pub fn local(sizes: Sizes, loop_doorbell: Doorbell) -> Result<(AppHalf, LoopHalf), ChannelError> {
    let open = |ring: BorrowedFd<'_>| {
        let file = ring.try_clone_to_owned().map_err(ChannelError::Doorbell)?;
        Ok::<_, ChannelError>(Arc::new(Mapping::from_peer(file)?))
    };
    let arena = match sizes.arena_bytes {
        0 => None,
        bytes => Some(Arc::new(Mapping::create(bytes)?)),
    };
    let commands = RingProducer::create(sizes.ring())?;
    let answers = RingConsumer::create(sizes.ring(), WaitPolicy::default())?;
    let commands_out = RingConsumer::open(open(commands.file())?, WaitPolicy::SLEEP)?;
    let mut answers_in = RingProducer::open(open(answers.file())?)?;
    let ear = Doorbell::new()?;
    answers_in.set_bell(Arc::new(ear.clone()));
    let app = AppHalf::new(
        commands,
        answers,
        Arc::new(loop_doorbell),
        Ear::Local(ear),
        arena.clone(),
    );
    Ok((app, LoopHalf::new(commands_out, answers_in, arena, None)))
}

/// Ends a channel from anywhere, and wakes the threads that wait in it.
#[derive(Clone, Debug)]
pub struct AppCloser {
    rings: [RingCloser; 2],
    ear: Ear,
}

impl AppCloser {
    /// Ends it. What was put in before still reaches the loop; both parts are told
    /// [`ChannelError::Closed`].
    pub fn close(&self) {
        for ring in &self.rings {
            ring.close();
        }
        self.ear.ring_own();
    }
}

impl AppHalf {
    /// Ends the channel from elsewhere.
    #[must_use]
    pub fn closer(&self) -> AppCloser {
        AppCloser {
            rings: [self.sender.ring.closer(), self.receiver.ring.closer()],
            ear: self.receiver.ear.clone(),
        }
    }

    pub(crate) fn new(
        mut commands: RingProducer,
        mut answers: RingConsumer,
        loop_bell: Arc<dyn Bell>,
        ear: Ear,
        arena: Option<Arc<Mapping>>,
    ) -> Self {
        commands.set_bell(Arc::clone(&loop_bell));
        answers.set_bell(loop_bell);
        let socket = match &ear {
            Ear::Local(_) => None,
            Ear::Socket(stream) => Some(Arc::clone(stream)),
        };
        Self {
            sender: AppSender {
                ring: commands,
                socket,
            },
            receiver: AppReceiver {
                ring: answers,
                ear,
                frame: Vec::with_capacity(stream_len(STREAM_MAX) as usize),
                is_gone: false,
            },
            arena,
            link: String::new(),
        }
    }
}

impl AppSender {
    /// Puts in as much of the stream as there is room for; how many bytes that was, possibly 0.
    ///
    /// # Errors
    /// The other half is gone, or the ring damaged.
    pub fn try_stream(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        let mut taken = 0;
        while taken < bytes.len() {
            if self.ring.is_closed() {
                return Err(ChannelError::Closed);
            }
            let Some(room) = self.ring.room()? else { break };
            let piece = (bytes.len() - taken)
                .min(STREAM_MAX)
                .min(room.saturating_sub(stream_len(0)) as usize);
            // Not a crumb for each byte that the loop takes: small messages cost it as much.
            if piece == 0 || (piece < bytes.len() - taken && piece < PIECE_MIN) {
                break;
            }
            let message = encode_stream(&bytes[taken..taken + piece])?;
            if !self.ring.try_push(&message.parts())? {
                break;
            }
            taken += piece;
        }
        Ok(taken)
    }

    /// Puts a command in, if there is room.
    ///
    /// # Errors
    /// A length that is not allowed; the other half is gone, or the ring damaged.
    pub fn try_put(&mut self, command: Command) -> Result<bool, ChannelError> {
        Ok(self.ring.try_push(&command.encode()?.parts())?)
    }

    /// Sleeps until there may be more room than at the last try, or for `timeout` (false). True if
    /// the channel is over, too: the next try says so.
    pub fn wait_room(&mut self, timeout: Duration) -> bool {
        self.ring.wait_room(timeout).unwrap_or(true)
    }

    /// True once the other half was dropped or its process died. May be a system call.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.ring.is_closed() || self.socket.as_deref().is_some_and(is_hung_up)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.ring.stats()
    }
}

/// A piece that is not the last of its bytes has at least so many.
const PIECE_MIN: usize = 1024;

impl AppReceiver {
    /// The next message, if there is one.
    ///
    /// # Errors
    /// The other half is gone and nothing is left; or the ring is damaged.
    pub fn try_next(&mut self) -> Result<Option<FromLoop<'_>>, ChannelError> {
        if self.fill()? {
            FromLoop::decode(&self.frame).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The next message; waits for it at most `timeout`, spinning a little first. A signal ends the
    /// wait, too, so that the program can look at it.
    ///
    /// # Errors
    /// As [`AppReceiver::try_next`].
    pub fn next(&mut self, timeout: Duration) -> Result<Option<FromLoop<'_>>, ChannelError> {
        if self.wait(timeout)? {
            FromLoop::decode(&self.frame).map(Some)
        } else {
            Ok(None)
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, ChannelError> {
        if self.fill()? {
            return Ok(true);
        }
        if !timeout.is_zero() && self.ring.spin() {
            return self.fill();
        }
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut interrupted = false;
            if self.ring.arm() {
                interrupted = !self.ear.sleep(left);
                self.disarm();
            }
            if self.fill()? {
                return Ok(true);
            }
            if interrupted || left.is_zero() {
                return Ok(false);
            }
        }
    }

    fn fill(&mut self) -> Result<bool, ChannelError> {
        if self.ring.try_pop(&mut self.frame)? {
            return Ok(true);
        }
        // A process that died has not closed its ring.
        if self.is_gone {
            Err(ChannelError::Closed)
        } else {
            Ok(false)
        }
    }

    /// Says that this side sleeps, so that the next message makes [`AppReceiver::fd`] readable.
    /// False, and nothing said, if there is a message already or the channel is over.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        // Rings for messages that were taken without sleeping.
        self.is_gone |= !self.ear.clear();
        !self.is_gone && self.ring.arm()
    }

    /// Takes back [`AppReceiver::arm`], after sleeping.
    pub fn disarm(&mut self) {
        self.ring.disarm();
        self.is_gone |= !self.ear.clear();
    }

    /// Waits until there is a message, which stays where it is, or the channel is over; or for
    /// `timeout` (false).
    pub fn wait_ready(&mut self, timeout: Duration) -> bool {
        if self.ring.arm() {
            self.ear.sleep(timeout);
            self.disarm();
        }
        self.is_gone || self.ring.is_ready()
    }

    /// What to wait on with poll(2), for reading, once armed. It stays readable until somebody
    /// disarms or waits in [`AppReceiver::next`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ear.fd()
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.ring.stats()
    }
}
