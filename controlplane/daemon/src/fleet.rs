//! Several nodes behind one control plane.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_control_api::v1;
use genie_control_api::v1::watch_reply::What;
use genie_controlplane::node::{
    Capabilities, Load, Node, NodeError, NodeEvent, Offered, PeerSpec, PlanForNode, SessionSpec,
};
use genie_controlplane::sessions::Token;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::async_trait;

use crate::remote::{RemoteNode, State, capabilities};

/// Between two attempts to reach a node: the first, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often a node that says nothing is asked what it offers.
const DESCRIBED_EVERY: Duration = Duration::from_secs(1);
/// A node that was not reached for so long has ended its sessions, as far as their clients are concerned.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// Nodes, and which session is where.
pub struct Fleet {
    inner: Arc<Inner>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<NodeEvent>>,
    started: Instant,
    /// Between it and everybody.
    tls: bool,
}

struct Inner {
    /// In the order of the configuration, which is that of the devices.
    nodes: Vec<Arc<RemoteNode>>,
    /// No more than the control plane in front opens.
    sessions: Mutex<HashMap<u64, Held>>,
    /// One message for each session that ends.
    ended: mpsc::UnboundedSender<NodeEvent>,
}

#[derive(Clone)]
struct Held {
    node: usize,
    token: Token,
}

impl Fleet {
    /// Of these; each is followed from now on.
    #[must_use]
    pub fn new(nodes: Vec<RemoteNode>, tls: bool) -> Self {
        let (ended, events) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            nodes: nodes.into_iter().map(Arc::new).collect(),
            sessions: Mutex::default(),
            ended,
        });
        for at in 0..inner.nodes.len() {
            tokio::spawn(follow(Arc::clone(&inner), at));
        }
        Self {
            inner,
            events: tokio::sync::Mutex::new(events),
            started: Instant::now(),
            tls,
        }
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<RemoteNode>] {
        &self.inner.nodes
    }

    /// How many of them take sessions.
    #[must_use]
    pub fn there(&self) -> usize {
        let nodes = self.inner.nodes.iter();
        nodes.filter(|node| why_not(node).is_none()).count()
    }

    /// Whether all of them are.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.there() == self.inner.nodes.len()
    }

    /// Why no session can be opened.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        (self.there() == 0).then(|| self.nobody().to_string())
    }

    /// The nodes that take sessions, in their order, and what they offer, as they said last.
    fn offers(&self) -> Vec<(usize, v1::DescribeReply)> {
        let takes = |(at, node): (usize, &Arc<RemoteNode>)| match node.state() {
            State::Reachable { offers } if offers.not_ready_reason.is_empty() => {
                Some((at, *offers))
            }
            _ => None,
        };
        self.inner
            .nodes
            .iter()
            .enumerate()
            .filter_map(takes)
            .collect()
    }

    fn position(&self, address: &str) -> Option<usize> {
        let mut nodes = self.inner.nodes.iter();
        nodes.position(|node| node.address() == address)
    }

    fn held(&self, session: u64) -> Result<(Arc<RemoteNode>, Token), NodeError> {
        let held = self.inner.sessions.lock().get(&session).cloned();
        let held = held.ok_or(NodeError::UnknownSession(session))?;
        Ok((Arc::clone(&self.inner.nodes[held.node]), held.token))
    }

    /// Why no node is there.
    fn nobody(&self) -> NodeError {
        let why = |node: &Arc<RemoteNode>| Some(format!("{}: {}", node.address(), why_not(node)?));
        let reasons: Vec<_> = self.inner.nodes.iter().filter_map(why).collect();
        NodeError::Busy(format!("no node is there: {}", reasons.join("; ")))
    }
}

impl Inner {
    fn end(&self, session: u64, reason: &str) {
        if self.sessions.lock().remove(&session).is_some() {
            // Without a listener the process is ending.
            let _ = self.ended.send(NodeEvent::SessionEnded {
                id: session,
                reason: reason.to_owned(),
            });
        }
    }

    /// Ends what is not among `living`.
    fn reconcile(&self, at: usize, living: &HashSet<u64>, reason: &str) {
        let gone: Vec<u64> = {
            let sessions = self.sessions.lock();
            let its = sessions.iter().filter(|(_, held)| held.node == at);
            its.map(|(&id, _)| id)
                .filter(|id| !living.contains(id))
                .collect()
        };
        for session in gone {
            self.end(session, reason);
        }
    }

    /// Hears of a node what ends there, until it can't be heard any more.
    async fn hear(&self, at: usize, was_there: &mut bool) -> NodeError {
        let node = &self.nodes[at];
        let before: HashSet<u64> = self.sessions.lock().keys().copied().collect();
        let mut stream = match node.watch().await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        if let Err(error) = node.describe().await {
            return error;
        }
        tracing::info!("the node at {} is there", node.address());
        *was_there = true;
        loop {
            // Whether it drains is told when it is asked.
            let heard = tokio::time::timeout(DESCRIBED_EVERY, stream.message()).await;
            let Ok(heard) = heard else {
                if let Err(error) = node.describe().await {
                    return error;
                }
                continue;
            };
            match heard {
                Ok(Some(reply)) => match reply.what {
                    Some(What::Living(living)) => {
                        // What is being opened now may not be there yet.
                        let mut living: HashSet<u64> = living.sessions.into_iter().collect();
                        living.extend(self.newer_than(&before));
                        self.reconcile(at, &living, "its node ended it meanwhile");
                    }
                    Some(What::Ended(ended)) => self.end(ended.session, &ended.reason),
                    None => {}
                },
                Ok(None) => return unreachable(node, "it closed the connection"),
                Err(status) => {
                    return unreachable(node, &genie_server::channel::why(&status));
                }
            }
        }
    }

    fn newer_than(&self, before: &HashSet<u64>) -> Vec<u64> {
        let sessions = self.sessions.lock();
        let newer = sessions.keys().filter(|id| !before.contains(id));
        newer.copied().collect()
    }
}

/// Why a node takes no sessions.
fn why_not(node: &RemoteNode) -> Option<String> {
    match node.state() {
        State::Unreachable { reason, .. } => Some(reason),
        State::Reachable { offers } => {
            Some(offers.not_ready_reason).filter(|reason| !reason.is_empty())
        }
    }
}

/// A node's devices, as those of one among several.
fn devices_at(address: &str, devices: Vec<v1::Device>) -> impl Iterator<Item = v1::Device> {
    devices.into_iter().map(move |device| v1::Device {
        node: address.to_owned(),
        ..device
    })
}

fn unreachable(node: &RemoteNode, reason: &str) -> NodeError {
    NodeError::Unreachable {
        address: node.address().to_owned(),
        reason: reason.to_owned(),
    }
}

/// Follows a node for ever.
async fn follow(inner: Arc<Inner>, at: usize) {
    let node = Arc::clone(&inner.nodes[at]);
    let mut pause = RETRY_MIN;
    let mut said = None;
    loop {
        let mut was_there = false;
        let error = inner.hear(at, &mut was_there).await;
        let reason = match &error {
            NodeError::Unreachable { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        if was_there {
            (pause, said) = (RETRY_MIN, None);
        }
        let since = node.set_unreachable(reason.clone());
        if said.as_ref() != Some(&reason) {
            tracing::warn!("the node at {} is not there: {reason}", node.address());
            said = Some(reason);
        }
        if since.elapsed() > LOST_AFTER {
            inner.reconcile(
                at,
                &HashSet::new(),
                "its node could not be reached for a minute",
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[async_trait]
impl Node for Fleet {
    async fn capabilities(&self, wanted: &str) -> Result<Capabilities, NodeError> {
        let mut offers = self.offers();
        let candidates: Vec<usize> = match wanted {
            "" => (0..offers.len())
                .filter(|&nth| !offers[nth].1.devices.is_empty())
                .collect(),
            wanted => {
                let at = self
                    .position(wanted)
                    .ok_or_else(|| NodeError::Unreachable {
                        address: genie_controlplane::negotiate::shown(wanted),
                        reason: "it is none of this control plane's nodes".to_owned(),
                    })?;
                offers
                    .iter()
                    .position(|&(other, _)| other == at)
                    .into_iter()
                    .collect()
            }
        };
        for nth in candidates {
            let node = Arc::clone(&self.inner.nodes[offers[nth].0]);
            match node.describe().await {
                Ok(now) if now.not_ready_reason.is_empty() => offers[nth].1 = now,
                // It went away just now.
                _ => continue,
            }
            let chosen = offers[nth].1.clone();
            let all = offers.into_iter().flat_map(|(at, offered)| {
                devices_at(self.inner.nodes[at].address(), offered.devices)
            });
            return Ok(Capabilities {
                fleet: Some((node.address().to_owned(), all.collect())),
                ..capabilities(chosen)
            });
        }
        Err(
            match self.position(wanted).map(|at| &self.inner.nodes[at]) {
                None => self.nobody(),
                Some(node) => unreachable(node, &why_not(node).unwrap_or_default()),
            },
        )
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Option<v1::Transport>, NodeError> {
        let at = self.position(&spec.node).ok_or_else(|| self.nobody())?;
        let held = Held {
            node: at,
            token: spec.token.clone(),
        };
        // Before it is there, so that its end is never missed.
        self.inner.sessions.lock().insert(spec.id, held);
        if let Err(error) = self.inner.nodes[at].admit(&spec).await {
            self.inner.sessions.lock().remove(&spec.id);
            return Err(error);
        }
        Ok(None)
    }

    async fn install(&self, session: u64, plan: &PlanForNode) -> Result<bool, NodeError> {
        let (node, token) = self.held(session)?;
        node.install(session, &token, plan).await
    }

    async fn offer(&self, session: u64, log: u16, from: u16) -> Result<Offered, NodeError> {
        let (node, token) = self.held(session)?;
        node.offer(session, &token, log, from).await
    }

    async fn connect(&self, session: u64, peer: PeerSpec) -> Result<String, NodeError> {
        let (node, token) = self.held(session)?;
        node.connect(session, &token, peer).await
    }

    async fn end_way(&self, session: u64, from: u16) -> Result<(), NodeError> {
        let (node, token) = self.held(session)?;
        node.end_way(session, &token, from).await
    }

    async fn load(&self, session: u64) -> Result<Load, NodeError> {
        let (node, token) = self.held(session)?;
        node.load(session, &token).await
    }

    async fn close_session(&self, session: u64) -> bool {
        let Ok((node, token)) = self.held(session) else {
            return false;
        };
        let closed = node.close(session, &token).await;
        self.inner.sessions.lock().remove(&session);
        closed.unwrap_or(false)
    }

    async fn status(&self) -> v1::StatusReply {
        let mut asked = JoinSet::new();
        for (at, node) in self.inner.nodes.iter().enumerate() {
            if matches!(node.state(), State::Reachable { .. }) {
                let node = Arc::clone(node);
                asked.spawn(async move { (at, node.status().await) });
            }
        }
        let mut sessions = Vec::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok((at, Ok(status))) = answer {
                let address = self.inner.nodes[at].address();
                sessions.extend(status.sessions.into_iter().map(|session| v1::Session {
                    node: address.to_owned(),
                    ..session
                }));
            }
        }
        let nodes: Vec<_> = (self.inner.nodes.iter().enumerate())
            .map(|(at, node)| self.describe(at, node))
            .collect();
        let reachable = self.there() > 0;
        v1::StatusReply {
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: reachable,
            not_ready_reason: match reachable {
                true => String::new(),
                false => self.nobody().to_string(),
            },
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            devices: (nodes.iter())
                .flat_map(|node| devices_at(&node.address, node.devices.clone()))
                .collect(),
            sessions,
            nodes,
            tls: self.tls,
            ..Default::default()
        }
    }

    async fn next_event(&self) -> NodeEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            // The fleet holds the other end.
            None => std::future::pending().await,
        }
    }
}

impl Fleet {
    fn describe(&self, at: usize, node: &RemoteNode) -> v1::NodeState {
        let sessions = self.inner.sessions.lock();
        let its = sessions.values().filter(|held| held.node == at).count();
        let address = node.address().to_owned();
        let sessions = u32::try_from(its).unwrap_or(u32::MAX);
        match node.state() {
            State::Reachable { offers } => v1::NodeState {
                address,
                reachable: true,
                reason: String::new(),
                node_version: offers.node_version,
                devices: offers.devices,
                sessions,
                not_ready_reason: offers.not_ready_reason,
            },
            State::Unreachable { reason, .. } => v1::NodeState {
                address,
                reason,
                sessions,
                ..Default::default()
            },
        }
    }
}
