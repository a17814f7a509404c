//! This node: its sessions and what it offers.
//!
//! - [`local`]: the node, as the control plane sees it.
//! - [`data`]: the data path of a session.
//! - [`zygote`] and [`executor`]: the processes that run operators; [`libtorch`]: what they need.
//! - [`process`]: what this process uses.

pub mod data;
pub mod executor;
pub mod libtorch;
pub mod local;
pub mod process;
pub mod zygote;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use genie_channel::{Sizes, local};
use genie_control_api::v1;
use genie_controlplane::node::{NodeError, NodeEvent};
use genie_gpudev::DeviceKind;
use genie_gpudev::device::{Device as _, DeviceInfo, HostDevice};
use genie_poll::{Channel, PeerPlace};
use genie_session::fault::{Code, Fault};
use genie_session::frame::TOKEN_BYTES;
use genie_transport::{Config as TransportConfig, ConnectionId, Epoch, Protection, Role};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::fallback::{FallbackManager, Level, State};
use crate::metrics::{Gauges, Metrics};
use data::session::Carrier;
use data::{End, Session};
use executor::{Executor, Launcher};
pub use local::LocalNode;

/// The epoch of a session's connection: each session has a connection of its own.
const EPOCH: Epoch = Epoch(1);

/// What can run operators here.
struct Executors {
    launcher: Box<dyn Launcher>,
    libtorch: v1::Libtorch,
    device: DeviceInfo,
}

/// A node's state, shared by everything in the daemon.
pub struct Shared {
    /// What is counted.
    pub metrics: Metrics,
    /// A session that is silent for so long is ended.
    pub lease: Duration,
    config: Config,
    /// Set once: what runs operators, or why nothing does.
    executors: OnceLock<Result<Executors, String>>,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    fallback: OnceLock<Arc<FallbackManager>>,
    draining: AtomicBool,
    events: mpsc::UnboundedSender<NodeEvent>,
    /// Its clones are connections that are being closed.
    closing: Arc<()>,
}

impl Shared {
    /// A node without executors yet, and the events that it will tell.
    #[must_use]
    pub fn new(config: Config) -> (Arc<Self>, mpsc::UnboundedReceiver<NodeEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Self {
            metrics: Metrics::default(),
            lease: config.lease,
            config,
            executors: OnceLock::new(),
            sessions: Mutex::new(HashMap::new()),
            fallback: OnceLock::new(),
            draining: AtomicBool::new(false),
            events,
            closing: Arc::new(()),
        };
        (Arc::new(shared), receiver)
    }

    /// It can run operators on this device from now on.
    pub fn set_executors(
        &self,
        launcher: Box<dyn Launcher>,
        libtorch: v1::Libtorch,
        device: DeviceInfo,
    ) {
        // Set once, at the start.
        let _ = self.executors.set(Ok(Executors {
            launcher,
            libtorch,
            device,
        }));
    }

    /// It can't, and why.
    pub fn set_no_executors(&self, reason: String) {
        let _ = self.executors.set(Err(reason));
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
        let Some((fallback, poll)) = self
            .fallback
            .get()
            .and_then(|fallback| Some((fallback, fallback.link()?)))
        else {
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
        let (app, half) =
            local(Sizes::LOCAL, poll.doorbell().clone()).map_err(|error| error.to_string())?;
        let channel = Channel {
            config,
            peer: PeerPlace::Learned,
            half,
            source: None,
            sink: None,
        };
        poll.open(channel).map_err(|error| error.to_string())?;
        let address = poll.facts().address.to_string();
        let carrier = Carrier { poll, connection };
        session
            .expect(app, carrier)
            .map_err(|error| error.to_string())?;
        Ok(Some(v1::Transport {
            connection: connection.0,
            epoch: EPOCH.0,
            secret: secret.to_vec(),
            sealed,
            address,
            mtu_max,
        }))
    }

    fn executors(&self) -> Result<&Executors, String> {
        match self.executors.get() {
            Some(Ok(executors)) => Ok(executors),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("the node is starting".to_owned()),
        }
    }

    /// Starts an executor for a session.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn launch(&self, session: u64, memory_bytes: u64) -> Result<Executor, String> {
        self.executors()?.launcher.launch(session, memory_bytes)
    }

    /// The session `id`.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions.lock().get(&id).cloned()
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// The session whose token this is, claimed for its one data connection.
    ///
    /// # Errors
    /// What the client is told.
    pub fn attach(
        &self,
        token: &[u8; TOKEN_BYTES],
        principal: &str,
    ) -> Result<Arc<Session>, Fault> {
        let refused = |message: &str| Err(Fault::new(Code::SessionGone, 0, message));
        // Every token is compared, so that time tells nothing.
        let mut found = None;
        for session in self.sessions.lock().values() {
            if session.spec().token.matches(token) && session.spec().principal == principal {
                found = Some(Arc::clone(session));
            }
        }
        let Some(session) = found else {
            return refused(
                "the token of this data connection belongs to no session of this client: it ended, \
                 or the node was restarted; reconnect",
            );
        };
        if !session.claim() {
            return refused("this session has a data connection already: open another session");
        }
        Ok(session)
    }

    /// A session ended.
    pub fn forget(&self, id: u64, reason: String) {
        if self.sessions.lock().remove(&id).is_some() {
            // Nobody listens any more when the daemon ends.
            let _ = self.events.send(NodeEvent::SessionEnded { id, reason });
        }
    }

    /// Held while a connection is being closed.
    #[must_use]
    pub fn closing(&self) -> Arc<()> {
        Arc::clone(&self.closing)
    }

    /// Whether connections are being closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        Arc::strong_count(&self.closing) > 1
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
            let message = "the node is shutting down; reconnect, to it or to another, to go on";
            session.end(End::lost(Fault::new(Code::Draining, 0, message)));
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
        self.executors().err()
    }

    /// What only it knows of what the metrics show.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let transport = self.transport();
        let sessions = self.sessions.lock();
        Gauges {
            transport_level: transport.level.number(),
            link: transport.poll.map(|poll| poll.counters()),
            ready: self.not_ready().is_none(),
            sessions: sessions.len() as u64,
            session_memory_bytes: sessions
                .values()
                .map(|s| s.counters.memory_bytes.value())
                .sum(),
            pools: sessions.values().map(|session| session.pools()).sum(),
            ..Gauges::default()
        }
    }

    fn libtorch(&self) -> v1::Libtorch {
        match self.executors() {
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
        self.config
            .devices
            .iter()
            .map(|&device| describe_device(device, self.executors().ok()))
            .collect()
    }
}

fn describe_device(device: DeviceKind, executors: Option<&Executors>) -> v1::Device {
    let opened = executors.map(|executors| &executors.device);
    let info = opened.filter(|info| info.kind == device).cloned();
    let (kind, info) = match device {
        DeviceKind::Host(index) => ("host", info.or_else(|| Some(HostDevice::new(index).info()))),
        DeviceKind::Cuda(_) => ("cuda", info),
    };
    let (name, memory_bytes) = match info {
        Some(info) => (info.name, info.memory_bytes),
        // Nothing has opened it.
        None => (device.to_string(), 0),
    };
    v1::Device {
        kind: kind.to_owned(),
        index: u32::from(device.index()),
        name,
        memory_bytes,
    }
}
