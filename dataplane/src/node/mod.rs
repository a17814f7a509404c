//! This node: its sessions and what it offers.
//!
//! - [`local`]: the node, as the control plane sees it; [`table`]: its sessions.
//! - [`offers`]: what other nodes may bring; [`dial`]: how this one goes there.
//! - [`load`]: what its devices have to do.
//! - [`watch`]: looks after executors; [`available`]: how much memory there is.
//! - [`data`]: the data path of a session.
//! - [`zygote`]: the processes that run operators; [`libtorch`]: what they need.

pub mod available;
pub mod data;
pub mod dial;
pub mod libraries;
pub mod libtorch;
pub mod load;
pub mod local;
pub mod offers;
pub mod table;
pub mod watch;
pub mod zygote;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use genie_channel::{AppHalf, MTU_MIN, Sizes, local};
use genie_control_api::v1;
use genie_controlplane::identity::Identity;
use genie_controlplane::negotiate::shown;
use genie_controlplane::node::{NodeError, NodeEvent};
use genie_gpudev::device::{Device as _, DeviceInfo, HostDevice};
use genie_gpudev::{DeviceKind, Sandbox};
use genie_poll::{Channel, PeerPlace, PollLoop};
use genie_session::fault::{Code, Fault};
use genie_session::frame::TOKEN_BYTES;
use genie_transport::{Config as TransportConfig, ConnectionId, Epoch, Protection, Role};
use tokio::sync::mpsc;

use crate::config::{Config, DeviceChoice};
use crate::fallback::{FallbackManager, Level, State};
use crate::metrics::{Gauges, Metrics};
use data::budget::Budget;
use data::host::{Executors, Host};
use data::link::Carrier;
use data::peers::Ends;
use data::session::OnEnd;
use data::{Claim, End, Session, path};
use load::Loads;
pub use local::LocalNode;
use offers::Offers;
use parking_lot::Mutex;
use rustls::ClientConfig;
use table::Table;

/// The epoch of a session's connection: each session has a connection of its own.
const EPOCH: Epoch = Epoch(1);

/// A node's state, shared by everything in the daemon.
pub struct Shared {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What its sessions need of it.
    host: Arc<Host>,
    config: Config,
    sessions: Arc<Table>,
    fallback: OnceLock<Arc<FallbackManager>>,
    offers: Offers,
    loads: Loads,
    /// How this node is known to others, where it has certificates.
    tls: Mutex<Option<Arc<ClientConfig>>>,
    draining: AtomicBool,
    events: mpsc::UnboundedSender<NodeEvent>,
}

impl Shared {
    /// A node without executors yet, and the events that it will tell.
    #[must_use]
    pub fn new(config: Config) -> (Arc<Self>, mpsc::UnboundedReceiver<NodeEvent>) {
        // One event a session, of which the control plane's table holds a bounded number.
        let (events, receiver) = mpsc::unbounded_channel();
        let bytes = config
            .node_memory_bytes
            .or_else(|| available::now().map(available::for_sessions));
        let budget = Budget::new(bytes.unwrap_or(u64::MAX));
        let host = Arc::new(Host::new(config.lease, config.sessions_max, budget));
        host.set_operator_max(config.operator_max);
        let shared = Self {
            metrics: Arc::clone(&host.metrics),
            host,
            config,
            sessions: Arc::default(),
            fallback: OnceLock::new(),
            offers: Offers::default(),
            loads: Loads::default(),
            tls: Mutex::new(None),
            draining: AtomicBool::new(false),
            events,
        };
        (Arc::new(shared), receiver)
    }

    /// It can run operators from now on.
    pub fn set_executors(&self, executors: Executors) {
        self.host.set_executors(Ok(executors));
    }

    /// It can't, and why.
    pub fn set_no_executors(&self, reason: String) {
        self.host.set_executors(Err(reason));
    }

    /// An executor of this session, or of all, is gone.
    pub fn executor_exited(&self, session: Option<u64>, how: &str) {
        let sessions = match session {
            Some(id) => self.session(id).into_iter().collect(),
            None => self.sessions(),
        };
        for session in sessions {
            session.executor_exited(how.to_owned());
        }
    }

    /// Who decides on the transport of the data path.
    pub fn set_fallback(&self, fallback: Arc<FallbackManager>) {
        // Set once, at the start.
        let _ = self.fallback.set(fallback);
    }

    /// How the data path stands.
    #[must_use]
    pub fn transport(&self) -> State {
        match self.fallback.get() {
            Some(fallback) => fallback.state(),
            None => State {
                level: Level::Tcp,
                reason: "the node is starting".to_owned(),
                poll: None,
            },
        }
    }

    /// A connection of the transport that waits for `session`'s client. `None`: there is no link.
    fn expect(&self, session: &Arc<Session>) -> Result<Option<v1::Transport>, String> {
        let Some((transport, app, carrier)) = self.listen()? else {
            return Ok(None);
        };
        path::expect(session, app, carrier).map_err(|error| error.to_string())?;
        Ok(Some(transport))
    }

    /// A connection of the transport that waits for whoever is told of it. `None`: there is no link.
    fn listen(&self) -> Result<Option<(v1::Transport, AppHalf, Carrier)>, String> {
        let Some((fallback, poll)) = self.link() else {
            return Ok(None);
        };
        let sealed = fallback.seals();
        let (mut name, mut secret) = ([0; 8], [0; 32]);
        let random = getrandom::fill(&mut name).and_then(|()| getrandom::fill(&mut secret));
        random.map_err(|error| error.to_string())?;
        let protection = Protection::agreed(sealed, secret);
        let connection = ConnectionId(u64::from_ne_bytes(name));
        let mut config = TransportConfig::new(connection, EPOCH, Role::Responder, protection);
        config.bandwidth_max = fallback.bandwidth_max();
        config.mtu_max = config.mtu_max.min(poll.facts().frame_bytes_max);
        let mtu_max = u32::try_from(config.mtu_max).unwrap_or(u32::MAX);
        let app = open(&poll, config, PeerPlace::Learned)?;
        let transport = v1::Transport {
            connection: connection.0,
            epoch: EPOCH.0,
            secret: secret.to_vec(),
            sealed,
            address: poll.facts().address.to_string(),
            mtu_max,
        };
        Ok(Some((transport, app, Carrier { poll, connection })))
    }

    fn link(&self) -> Option<(&FallbackManager, Arc<PollLoop>)> {
        let fallback = self.fallback.get()?;
        Some((fallback, fallback.link()?))
    }

    /// Whether this node's link is to where `address` is: in its network, or behind its router.
    fn is_linked_to(&self, address: SocketAddrV4) -> bool {
        self.config.dpdk.as_ref().is_some_and(|dpdk| {
            let mask = u32::MAX << (32 - u32::from(dpdk.address.prefix));
            let network = |ip: Ipv4Addr| u32::from(ip) & mask;
            let is_near = network(dpdk.address.address) == network(*address.ip());
            let is_self = dpdk.address.address == *address.ip();
            (is_near || dpdk.router.is_some()) && !is_self
        })
    }

    /// A connection of the transport to where another node has offered one. `None`: there is no link to it.
    fn call(&self, offered: &v1::Transport) -> Result<Option<(AppHalf, Carrier)>, String> {
        let address: SocketAddrV4 = (offered.address.parse())
            .map_err(|_| format!("{:?} is no address on a link", shown(&offered.address)))?;
        let secret = <[u8; 32]>::try_from(offered.secret.as_slice());
        let secret = secret.map_err(|_| "a secret of another length".to_owned())?;
        let Some((fallback, poll)) = self.link().filter(|_| self.is_linked_to(address)) else {
            return Ok(None);
        };
        // Values leave as this node's configuration has it, whatever another offers.
        if fallback.seals() && !offered.sealed {
            return Err("this node seals what it sends, and that one does not".to_owned());
        }
        let protection = Protection::agreed(offered.sealed, secret);
        let (id, epoch) = (ConnectionId(offered.connection), Epoch(offered.epoch));
        let mut config = TransportConfig::new(id, epoch, Role::Initiator, protection);
        config.bandwidth_max = fallback.bandwidth_max();
        let theirs = usize::try_from(offered.mtu_max).unwrap_or(usize::MAX);
        config.mtu_max = theirs.min(poll.facts().frame_bytes_max).max(MTU_MIN);
        config.mtu = config.mtu.min(config.mtu_max);
        let app = open(&poll, config, PeerPlace::At(address))?;
        let connection = id;
        Ok(Some((app, Carrier { poll, connection })))
    }

    /// The session `id`.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions.find(id)
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.all()
    }

    /// The session whose token this is, if it is `identity`'s, claimed for its one data connection.
    ///
    /// # Errors
    /// What the client is told.
    pub fn attach(
        &self,
        token: &[u8; TOKEN_BYTES],
        identity: &Identity,
    ) -> Result<Arc<Session>, Fault> {
        let refused = |message: &str| Err(Fault::new(Code::SessionGone, 0, message));
        // Every token is compared, so that time tells nothing.
        let mut found = None;
        for session in self.sessions() {
            if session.spec().token.matches(token) && session.spec().identity == *identity {
                found = Some(session);
            }
        }
        let Some(session) = found else {
            return refused(
                "the token of this data connection belongs to no session of this client: it ended, \
                 or the node was restarted; reconnect",
            );
        };
        match session.claim() {
            Claim::Mine => Ok(session),
            Claim::Taken => {
                refused("this session has a data connection already: open another session")
            }
            Claim::Full => {
                let end = End::full();
                let fault = end.fault.clone();
                session.end(end);
                Err(fault.unwrap_or_else(|| Fault::new(Code::Busy, 0, "there is no room")))
            }
        }
    }

    /// The session to which another node may bring values, if this is the token for it.
    ///
    /// # Errors
    /// What that node is told.
    pub fn expected_peer(&self, token: &[u8; TOKEN_BYTES]) -> Result<(Arc<Session>, Ends), Fault> {
        self.offers.take(token).ok_or_else(|| {
            let message = "nobody here waits for values of that node";
            Fault::new(Code::SessionGone, 0, message)
        })
    }

    /// How this node is known to others from now on.
    pub fn set_peer_tls(&self, tls: Option<Arc<ClientConfig>>) {
        *self.tls.lock() = tls;
    }

    /// What a session does with the news of its end.
    fn on_end(&self) -> OnEnd {
        let (sessions, events) = (Arc::downgrade(&self.sessions), self.events.clone());
        Box::new(move |id, reason| {
            if let Some(sessions) = sessions.upgrade() {
                // One that gave way was taken out before.
                sessions.remove(id);
            }
            // Nobody listens any more when the daemon ends.
            let _ = events.send(NodeEvent::SessionEnded { id, reason });
        })
    }

    /// Whether connections are being closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.host.is_closing()
    }

    /// What holds executors in, as far as that is known.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        let executors = self.host.executors();
        executors.map_or_else(
            |_| Sandbox::default(),
            |executors| executors.sandbox.clone(),
        )
    }

    /// Mends what executors are started with, if that is stopped.
    fn look_after(&self) {
        if let Ok(executors) = self.host.executors() {
            executors.launcher.look_after();
        }
    }

    /// Looks how much memory there still is.
    fn look_at_memory(&self) {
        if let Some(there) = available::now() {
            self.host.budget.there(available::for_sessions(there));
        }
    }

    /// What the tensors of one session may take at most on a device.
    #[must_use]
    pub fn session_memory_bytes(&self) -> u64 {
        self.config.memory_bytes.min(self.host.budget.bytes())
    }

    /// How long an operator may run.
    pub fn set_operator_max(&self, most: Option<Duration>) {
        self.host.set_operator_max(most);
    }

    /// Ends sessions that have had nothing to do for `long`, telling each client why.
    pub fn end_idle(&self, long: Duration) {
        for session in self.sessions() {
            if session.is_idle(long) {
                session.end(draining());
            }
        }
    }

    /// Takes no new sessions from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends every session, telling each client why.
    pub fn end_all(&self) {
        for session in self.sessions() {
            session.end(draining());
        }
    }

    /// Why it takes no new sessions, if it doesn't.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        if self.is_draining() {
            return Some(NodeError::Draining.to_string());
        }
        if self.config.gateway.is_some() {
            // It needs none: it serves who has one elsewhere.
            return None;
        }
        self.host.executors().err()
    }

    /// What only it knows of what the metrics show.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let transport = self.transport();
        let sessions = self.sessions();
        Gauges {
            transport_level: transport.level.number(),
            link: transport.poll.map(|poll| poll.counters()),
            memory_bytes: self.host.budget.bytes(),
            memory_charged_bytes: self.host.budget.charged(),
            ready: self.not_ready().is_none(),
            sessions: sessions.len() as u64,
            session_memory_bytes: sessions
                .iter()
                .map(|s| s.counters.memory_bytes.value())
                .sum(),
            pools: sessions.iter().map(|session| session.pools()).sum(),
            sandbox: self.sandbox(),
            zygotes: self
                .host
                .executors()
                .map_or(0, |executors| executors.launcher.zygotes()),
            ..Gauges::default()
        }
    }

    fn libtorch(&self) -> v1::Libtorch {
        match self.host.executors() {
            Ok(executors) => executors.libtorch.clone(),
            Err(missing_reason) => v1::Libtorch {
                missing_reason,
                ..Default::default()
            },
        }
    }

    /// Its devices, in the order of their indices.
    #[must_use]
    pub fn devices(&self) -> Vec<v1::Device> {
        let executors = self.host.executors().ok();
        let opened = |at: usize| executors.and_then(|executors| executors.devices.get(at));
        let devices = self.config.devices.iter().enumerate();
        devices
            .map(|(at, device)| v1::Device {
                at: u32::try_from(at).unwrap_or(u32::MAX),
                ..describe_device(device, opened(at))
            })
            .collect()
    }
}

/// Opens a connection of the transport for this process.
fn open(poll: &PollLoop, config: TransportConfig, peer: PeerPlace) -> Result<AppHalf, String> {
    let local = local(Sizes::LOCAL, poll.doorbell().clone());
    let (app, half) = local.map_err(|error| error.to_string())?;
    let channel = Channel {
        config,
        peer,
        half,
        source: None,
        sink: None,
    };
    poll.open(channel).map_err(|error| error.to_string())?;
    Ok(app)
}

fn draining() -> End {
    let message = "the node is shutting down; reconnect, to it or to another, to go on";
    End::lost(Fault::new(Code::Draining, 0, message))
}

fn describe_device(device: &DeviceChoice, opened: Option<&DeviceInfo>) -> v1::Device {
    let (kind, info) = match device.kind {
        DeviceKind::Host(index) => (
            "host",
            opened
                .cloned()
                .or_else(|| Some(HostDevice::new(index).info())),
        ),
        DeviceKind::Cuda(_) => ("cuda", opened.cloned()),
    };
    let (mut name, memory_bytes) = match info {
        Some(info) => (info.name, info.memory_bytes),
        // Nothing has opened it.
        None => (device.kind.to_string(), 0),
    };
    let speed = f64::from(device.speed_percent.unwrap_or(100)) / 100.0;
    if speed < 1.0 {
        name += &format!(", slowed down to {speed} of its speed");
    }
    v1::Device {
        kind: kind.to_owned(),
        index: u32::from(device.kind.index()),
        name,
        memory_bytes: device
            .memory_bytes
            .map_or(memory_bytes, |share| share.min(memory_bytes)),
        speed,
        ..v1::Device::default()
    }
}
