//! This daemon as a node, as the control plane sees it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_control_api::v1;
use genie_controlplane::negotiate::shown;
use genie_controlplane::node::{
    Capabilities, Load, Node, NodeError, NodeEvent, Offered, PeerSpec, PlanForNode, SessionSpec,
};
use genie_controlplane::sessions::Token;
use genie_gpudev::sandbox::Held;
use genie_session::frame::TOKEN_BYTES;
use tokio::sync::mpsc;
use tonic::async_trait;

use super::Shared;
use super::data::peers::{self, Apart, Ends, Leaving};
use super::data::stream::{ReadHalf, WriteHalf};
use super::data::{End, Session};
use super::dial::{dial, greet_on_link};

/// How long a session may wait for its data connection, if its lease is longer.
const ATTACH_MAX: Duration = Duration::from_secs(5);

/// This daemon as a node.
pub struct LocalNode {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<NodeEvent>>,
}

impl LocalNode {
    /// Over what [`Shared::new`] gave.
    #[must_use]
    pub fn new(shared: Arc<Shared>, events: mpsc::UnboundedReceiver<NodeEvent>) -> Self {
        Self {
            shared,
            events: tokio::sync::Mutex::new(events),
        }
    }
}

impl LocalNode {
    /// A connection of the transport that waits for who brings values and shows `token`. `None`: there is no
    /// link.
    fn offer_link(
        &self,
        to: &Arc<Session>,
        token: &Token,
    ) -> Result<Option<v1::Transport>, String> {
        let Some((transport, app, carrier)) = self.shared.listen()? else {
            return Ok(None);
        };
        let shared = Arc::clone(&self.shared);
        // Of the tokens that are out: each lets in once, by whatever it comes first.
        let take = move |token: &[u8; TOKEN_BYTES]| shared.offers.take(token);
        let name = token.clone();
        peers::expect(to, (app, carrier), name, take).map_err(|error| error.to_string())?;
        Ok(Some(transport))
    }

    fn known(&self, session: u64) -> Result<Arc<Session>, NodeError> {
        let known = self.shared.session(session);
        known.ok_or(NodeError::UnknownSession(session))
    }
}

#[async_trait]
impl Node for LocalNode {
    async fn capabilities(&self, node: &str) -> Result<Capabilities, NodeError> {
        if !node.is_empty() {
            let reason = "it is a node, and no other is behind it".to_owned();
            let address = shown(node);
            return Err(NodeError::Unreachable { address, reason });
        }
        let config = &self.shared.config;
        let libtorch = self.shared.libtorch();
        Ok(Capabilities {
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            torch_version: libtorch.version,
            schema_hash: libtorch.schema_hash,
            operator_libraries: libtorch.operator_libraries,
            devices: self.shared.devices(),
            session_memory_bytes: self.shared.session_memory_bytes(),
            window_records: config.window_records,
            window_bytes: config.window_bytes,
            lease_ms: u32::try_from(milliseconds(config.lease)).unwrap_or(u32::MAX),
            transports: match self.shared.transport().level.transport() {
                "tcp" => vec!["tcp".to_owned()],
                better => vec![better.to_owned(), "tcp".to_owned()],
            },
            fleet: None,
            not_ready: self.shared.not_ready(),
        })
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Option<v1::Transport>, NodeError> {
        let started = Instant::now();
        let wanted = spec.transport_wanted;
        let refused = if self.shared.is_draining() {
            Some(NodeError::Draining)
        } else {
            let missing = self.shared.host.executors().err();
            let missing = missing.map(|reason| NodeError::NoExecutor { reason });
            let full =
                || (!self.shared.host.has_place()).then(|| NodeError::Busy(End::full().reason));
            missing.or_else(full)
        };
        if let Some(error) = refused {
            self.shared.metrics.sessions_refused.increment();
            return Err(error);
        }
        let (host, on_end) = (Arc::clone(&self.shared.host), self.shared.on_end());
        let session = Arc::new(Session::new(spec, host, on_end));
        if let Some(oldest) = self.shared.sessions.insert(&session)
            && !oldest.is_connected()
        {
            let reason = "its data connection never came, and it gave way to a newer one";
            oldest.end(End::quiet(reason.to_owned()));
        }
        self.shared.metrics.sessions_opened.increment();
        let peer = session.spec().peer;
        let transport = if wanted && self.shared.sessions.has_room_on_link(peer) {
            self.shared.expect(&session).unwrap_or_else(|reason| {
                tracing::warn!("session {} goes by TCP: {reason}", session.id());
                None
            })
        } else {
            None
        };
        let patience = self.shared.host.lease.min(ATTACH_MAX);
        let session = Arc::downgrade(&session);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(session) = session.upgrade()
                && !session.is_connected()
            {
                session.end(End::quiet("its data connection never came".to_owned()));
            }
        });
        let took = started.elapsed().as_secs_f64();
        self.shared.metrics.times.session_open.observe(took);
        Ok(transport)
    }

    async fn install(&self, session: u64, plan: &PlanForNode) -> Result<bool, NodeError> {
        let session = self.known(session)?;
        session.install(plan.id, &plan.template).await
    }

    fn analysed(&self, took: Duration) {
        let took = took.as_secs_f64();
        self.shared.metrics.times.analysis.observe(took);
    }

    async fn offer(&self, session: u64, log: u16, from: u16) -> Result<Offered, NodeError> {
        let to = self.known(session)?;
        let ends = Ends { from, to: log };
        let token = self.shared.offers.add(&to, ends)?;
        let transport = self.offer_link(&to, &token).unwrap_or_else(|reason| {
            tracing::warn!("values for session {session} come by TCP: {reason}");
            None
        });
        Ok(Offered { token, transport })
    }

    async fn connect(&self, session: u64, peer: PeerSpec) -> Result<String, NodeError> {
        let from = self.known(session)?;
        let ends = Ends {
            from: peer.log,
            to: peer.to,
        };
        let no_way = |error: std::io::Error| {
            NodeError::NoWay(format!(
                "the node at {} can't be reached: {error}",
                peer.address
            ))
        };
        if let Some((to, offered)) = self.shared.offers.take(peer.token.bytes()) {
            if to.spec().identity != from.spec().identity || offered != ends {
                let why = "that was offered to another session";
                return Err(NodeError::NoWay(why.to_owned()));
            }
            peers::within(&from, &to, ends).map_err(no_way)?;
            return Ok("memory".to_owned());
        }
        let lease = self.shared.host.lease;
        let (shared, token) = (Arc::clone(&self.shared), peer.token.clone());
        let offered = peer.transport.clone();
        let sender = Arc::clone(&from);
        let by_link = move || by_link(&shared, &sender, offered.as_ref(), &token);
        let by_link = tokio::task::spawn_blocking(by_link).await;
        match by_link.map_err(io::Error::other).and_then(|found| found) {
            Ok(Some((halves, apart))) => {
                peers::send_over(&from, halves, ends, Some(apart)).map_err(no_way)?;
                return Ok("dpdk".to_owned());
            }
            Ok(None) => {}
            Err(error) => tracing::info!(
                session,
                "session {session}: values for log {} go by TCP, since the link does not lead there: {error}",
                peer.to
            ),
        }
        let (address, tls) = (peer.address.clone(), self.shared.tls.lock().clone());
        let dialled = move || dial(&address, tls, peer.token.bytes(), lease);
        let half = tokio::task::spawn_blocking(dialled).await;
        let half = half.map_err(std::io::Error::other).and_then(|half| half);
        peers::send_over(&from, half.map_err(no_way)?, ends, None).map_err(no_way)?;
        Ok("tcp".to_owned())
    }

    async fn end_way(&self, session: u64, from: u16) -> Result<(), NodeError> {
        let to = self.known(session)?;
        // Its executor may be busy, and its ring full.
        let told = tokio::task::spawn_blocking(move || peers::lost(&to, from)).await;
        told.map_err(|error| NodeError::NoWay(error.to_string()))
    }

    async fn load(&self, session: u64) -> Result<Load, NodeError> {
        let session = self.known(session)?;
        Ok(self.shared.loads.of(&session, &self.shared.sessions()))
    }

    async fn close_session(&self, session: u64) -> bool {
        let Some(session) = self.shared.session(session) else {
            return false;
        };
        session.end(End::quiet("the client closed it".to_owned()));
        true
    }

    async fn status(&self) -> v1::StatusReply {
        let (shared, metrics) = (&self.shared, &self.shared.metrics);
        let not_ready = shared.not_ready();
        let transport = shared.transport();
        v1::StatusReply {
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: not_ready.is_none(),
            draining: shared.is_draining(),
            not_ready_reason: not_ready.unwrap_or_default(),
            uptime_ms: metrics.uptime_ms(),
            libtorch: Some(shared.libtorch()),
            devices: shared.devices(),
            sessions: shared
                .sessions()
                .iter()
                .map(|session| describe_session(session))
                .collect(),
            counters: Some(v1::Counters {
                sessions_opened: metrics.sessions_opened.value(),
                sessions_refused: metrics.sessions_refused.value(),
                sessions_lost: metrics.sessions_lost.value(),
                records: metrics.records.value(),
                frames_received: metrics.frames_received.value(),
                frames_sent: metrics.frames_sent.value(),
                bytes_received: metrics.bytes_received.value(),
                bytes_sent: metrics.bytes_sent.value(),
                plans_installed: metrics.plans_installed.value(),
                executors_started: metrics.executors_started.value(),
                executors_died: metrics.executors_died.value(),
                faults: metrics.faults(),
                connections_rejected: metrics.connections_rejected.value(),
                ..Default::default()
            }),
            transport: transport.level.transport().to_owned(),
            transport_reason: format!("{}: {}", transport.level, transport.reason),
            tls: shared.config.tls.is_some(),
            memory_budget_bytes: shared.session_memory_bytes(),
            sandbox: shared.sandbox().parts.iter().map(describe_held).collect(),
            ..Default::default()
        }
    }

    async fn next_event(&self) -> NodeEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            // The node outlives its listener.
            None => std::future::pending().await,
        }
    }
}

/// The way by the link, if both nodes have one.
fn by_link(
    shared: &Shared,
    from: &Arc<Session>,
    offered: Option<&v1::Transport>,
    token: &Token,
) -> io::Result<Option<((ReadHalf, WriteHalf), Apart)>> {
    let Some(offered) = offered else {
        return Ok(None);
    };
    let Some((app, carrier)) = shared.call(offered).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let leaving = Arc::<Leaving>::default();
    let (left, session) = (Arc::clone(&leaving), Arc::downgrade(from));
    let on_sent = Box::new(move |chunk| {
        let (session, whole) = (session.upgrade(), left.left(chunk));
        let running = session.as_ref().and_then(|session| session.running());
        if let (Some(running), Some(place)) = (running, whole) {
            // An executor that is gone needs no memory.
            let _ = running.place_sent(place);
        }
    });
    let halves = greet_on_link(app, token.bytes(), shared.host.lease, on_sent)?;
    Ok(Some((halves, Apart::new(carrier, leaving))))
}

fn describe_held(held: &Held) -> v1::Restriction {
    v1::Restriction {
        name: held.part.name().to_owned(),
        in_force: held.had,
        note: held.note.clone(),
    }
}

fn describe_session(session: &Session) -> v1::Session {
    let counters = &session.counters;
    v1::Session {
        id: session.id(),
        silent_ms: milliseconds(session.silent()),
        connected: session.is_connected(),
        memory_bytes: counters.memory_bytes.value(),
        tensors: counters.tensors.value(),
        records: counters.records.value(),
        plans: counters.plans.value(),
        plan_hits: counters.plan_hits.value(),
        bytes_received: counters.bytes_received.value(),
        bytes_sent: counters.bytes_sent.value(),
        ..Default::default()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
