//! The thread of a loop, and what other threads may ask of it.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use genie_channel::Doorbell;
use genie_dpdk::{CoreId, Eal, Lcore, allowed_cores};
use genie_gpudev::device::DeviceKind;
use genie_hugepages::{NodeId, Root};
use genie_netstack::{HostError, PipeStream};
use genie_shm::Mapping;
use genie_transport::ConnectionId;

use crate::counters::{Counters, Snapshot};
use crate::engine::{Channel, ChannelOpenError};
use crate::idle::{Idle, Polling};
use crate::link::{Link, LinkConfig, LinkError, open_for};
use crate::rest::{Rest, rest};
use crate::seat::Seat;

/// Requests that may wait.
const REQUESTS_MAX: usize = 256;
/// Turns between two looks at the clock and at requests, while busy.
const LOOK_EVERY: u32 = 64;
/// How often the port is asked whether its link is up.
const LINK_LOOK: Duration = Duration::from_millis(10);
/// How long the last frames have when a loop ends.
const FAREWELL: Duration = Duration::from_millis(30);

/// A loop did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It ended.
    #[error("the poll loop has ended")]
    Ended,
    /// It is asked for too much at a time.
    #[error("{REQUESTS_MAX} requests wait for the poll loop already")]
    Busy,
    /// A connection.
    #[error(transparent)]
    Channel(#[from] ChannelOpenError),
    /// TCP.
    #[error(transparent)]
    Host(#[from] HostError),
}

enum Request {
    Open(Box<Channel>, SyncSender<Result<(), ChannelOpenError>>),
    Share(Box<Shared>, SyncSender<Result<(), ChannelOpenError>>),
    Connect(SocketAddrV4, SyncSender<Result<PipeStream, HostError>>),
    Close(ConnectionId),
}

struct Shared {
    id: ConnectionId,
    source: Arc<Mapping>,
    sink: Arc<Mapping>,
}

/// What is done with a TCP connection from outside.
pub type OnAccept = Arc<dyn Fn(PipeStream, SocketAddrV4) + Send + Sync>;

/// What else a loop is to do.
pub struct LoopOptions {
    /// How it waits.
    pub polling: Polling,
    /// The core that it has for itself. Without: any of the port's NUMA node.
    pub core: Option<CoreId>,
    /// A TCP port of the link's address to listen on, and who takes the connections.
    pub listen: Option<(u16, OnAccept)>,
    /// The device in whose memory packets are to arrive, or why in none.
    pub direct: Result<DeviceKind, String>,
}

/// A running loop. Dropping it ends the loop.
pub struct PollLoop {
    requests: Sender<Request>,
    doorbell: Doorbell,
    stop: Arc<AtomicBool>,
    up: Arc<AtomicBool>,
    counters: Arc<Counters>,
    facts: Facts,
    thread: Option<JoinHandle<()>>,
}

/// What is known of a link from its beginning.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The device, as it was asked for.
    pub port: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// This host's address, and the UDP port of its transport.
    pub address: SocketAddrV4,
    /// Bytes of the longest IP packet.
    pub mtu: u16,
    /// Bytes of the longest frame of the transport.
    pub frame_bytes_max: usize,
    /// The NUMA node that the port is on, if that is known.
    pub node: Option<NodeId>,
    /// Offloads that were granted.
    pub granted: genie_dpdk::Granted,
    /// The device in whose memory packets arrive, or why they arrive in the host's.
    pub direct: Result<DeviceKind, String>,
}

impl PollLoop {
    /// Opens the port and starts polling.
    ///
    /// # Errors
    /// [`LinkError`]
    pub fn start(eal: &Eal, config: &LinkConfig, options: LoopOptions) -> Result<Self, LinkError> {
        let doorbell = Doorbell::new()
            .map_err(|error| LinkError::System(std::io::Error::other(error.to_string())))?;
        let waker = doorbell.clone();
        let wake = Arc::new(move || waker.ring());
        let mut link = open_for(eal, config, wake, &options.direct)?;
        let facts = Facts {
            port: config.port.to_string(),
            mac: link.engine.place().mac,
            address: config.address,
            mtu: link.mtu,
            frame_bytes_max: link.engine.frame_bytes_max(),
            node: link.node,
            granted: link.granted,
            direct: link.direct.clone(),
        };
        if let Some((port, _)) = &options.listen {
            link.engine.host().listen(*port, 64)?;
        }
        let (requests, inbox) = bounded(REQUESTS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let up = Arc::new(AtomicBool::new(false));
        let counters = Arc::clone(link.engine.counters());
        let seat = seat(&facts, options.core);
        let work = Work {
            link,
            inbox,
            stop: Arc::clone(&stop),
            up: Arc::clone(&up),
            options,
            seat,
        };
        let (eal, bell) = (eal.clone(), doorbell.clone());
        let thread = std::thread::Builder::new()
            .name("genie-poll".to_owned())
            .spawn(move || work.run(&eal, bell))
            .map_err(LinkError::Thread)?;
        Ok(Self {
            requests,
            doorbell,
            stop,
            up,
            counters,
            facts,
            thread: Some(thread),
        })
    }

    /// What is known of the link.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The link is up, and the loop runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Wakes the loop; channels that it serves ring it.
    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Opens a connection for a program.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn open(&self, channel: Channel) -> Result<(), RequestError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Open(Box::new(channel), answer))?;
        Ok(answered.recv().map_err(|_| RequestError::Ended)??)
    }

    /// Gives the program of a connection its memory.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn share(
        &self,
        id: ConnectionId,
        source: Arc<Mapping>,
        sink: Arc<Mapping>,
    ) -> Result<(), RequestError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let shared = Shared { id, source, sink };
        self.ask(Request::Share(Box::new(shared), answer))?;
        Ok(answered.recv().map_err(|_| RequestError::Ended)??)
    }

    /// Closes a connection.
    ///
    /// # Errors
    /// The loop has ended, or is asked for too much.
    pub fn close(&self, id: ConnectionId) -> Result<(), RequestError> {
        self.ask(Request::Close(id))
    }

    /// A TCP connection from the link's own host.
    ///
    /// # Errors
    /// [`RequestError`]; that nobody answers is seen on the stream.
    pub fn connect(&self, to: SocketAddrV4) -> Result<PipeStream, RequestError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Connect(to, answer))?;
        Ok(answered.recv().map_err(|_| RequestError::Ended)??)
    }

    fn ask(&self, request: Request) -> Result<(), RequestError> {
        match self.requests.try_send(request) {
            Ok(()) => {
                self.doorbell.ring();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(RequestError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(RequestError::Ended),
        }
    }
}

impl Drop for PollLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.doorbell.ring();
        if let Some(thread) = self.thread.take() {
            // A loop that died has nothing left to say.
            let _ = thread.join();
        }
    }
}

struct Work {
    link: Link,
    inbox: Receiver<Request>,
    stop: Arc<AtomicBool>,
    up: Arc<AtomicBool>,
    options: LoopOptions,
    /// The cores to keep to, if not all.
    seat: Option<Vec<CoreId>>,
}

impl Work {
    fn run(mut self, eal: &Eal, doorbell: Doorbell) {
        let _lcore = register(eal, self.seat.as_deref());
        let mut idle = Idle::new(self.options.polling, doorbell);
        let mut looks = Looks::default();
        let mut turns = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            turns = turns.wrapping_add(1);
            let busy = self.link.engine.turn();
            if busy {
                idle.busy();
            }
            if !busy || turns.is_multiple_of(LOOK_EVERY) {
                if self.requests() {
                    idle.busy();
                    continue;
                }
                self.accept();
                looks.look(&mut self.link, &self.up);
            }
            if !busy {
                let inbox = &self.inbox;
                let _: Rest = rest(&mut self.link.engine, &mut idle, || !inbox.is_empty());
            }
        }
        self.up.store(false, Ordering::Relaxed);
        self.link.engine.end_all("the daemon stops");
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if !self.link.engine.turn() {
                std::thread::yield_now();
            }
        }
    }

    /// Does what was asked. True if something was.
    fn requests(&mut self) -> bool {
        let mut any = false;
        while let Ok(request) = self.inbox.try_recv() {
            any = true;
            let engine = &mut self.link.engine;
            match request {
                Request::Open(channel, answer) => {
                    // Who asked may have given up waiting.
                    let _ = answer.send(engine.open_channel(*channel));
                }
                Request::Share(shared, answer) => {
                    let Shared { id, source, sink } = *shared;
                    let _ = answer.send(engine.share(id, source, sink));
                }
                Request::Connect(to, answer) => {
                    let _ = answer.send(engine.connect(to));
                }
                Request::Close(id) => engine.close(id),
            }
        }
        any
    }

    fn accept(&mut self) {
        if let Some((_, accept)) = &self.options.listen {
            while let Some((stream, peer, _)) = self.link.engine.host().accept() {
                accept(stream, peer);
            }
        }
    }
}

/// What is looked at by the clock.
#[derive(Default)]
struct Looks {
    link_at: Option<Instant>,
}

impl Looks {
    fn look(&mut self, link: &mut Link, up: &AtomicBool) {
        let now = Instant::now();
        if self.link_at.is_some_and(|at| now < at) {
            return;
        }
        self.link_at = Some(now + LINK_LOOK);
        let is_up = link.port.link().is_ok_and(|link| link.up);
        if up.swap(is_up, Ordering::Relaxed) != is_up {
            let state = if is_up { "up" } else { "down" };
            tracing::info!("the DPDK link is {state}");
            if is_up {
                link.engine.host().link_up();
            }
        }
    }
}

/// The cores that a loop keeps to; says so where they are not near its port.
fn seat(facts: &Facts, configured: Option<CoreId>) -> Option<Vec<CoreId>> {
    let allowed = allowed_cores();
    let raw: Vec<_> = allowed.iter().map(|core| core.raw()).collect();
    let configured = configured.map(CoreId::raw);
    let Seat { cores, warning } = Seat::choose(&Root::system(), facts.node, configured, &raw);
    if let Some(warning) = warning {
        tracing::warn!("port {}: {warning}", facts.port);
    }
    let cores = cores?;
    let is_chosen = |core: &CoreId| cores.contains(&core.raw());
    Some(allowed.into_iter().filter(is_chosen).collect())
}

/// Makes DPDK know the thread, so that its pools keep packets at hand for it. Without cores of its
/// own it may run on any.
fn register(eal: &Eal, cores: Option<&[CoreId]>) -> Option<Lcore> {
    let lcore = match cores {
        Some(cores) => Lcore::within(eal, cores),
        None => Lcore::join(eal),
    };
    lcore
        .inspect_err(|error| {
            tracing::warn!("the poll loop runs without packets at hand: {error}");
        })
        .ok()
}
