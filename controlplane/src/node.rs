//! The one trait through which the control plane sees nodes: the daemon's own, in its process, or several
//! over the network (`genie-controlplane`).

use std::sync::Arc;
use std::time::Duration;

use genie_control_api::{ErrorCode, v1};
use tonic::async_trait;

use crate::identity::{Identity, Peer};
use crate::sessions::Token;

/// A plan as a node installs it: what was recorded, to be repeated in the order of capture.
#[derive(Clone, Debug)]
pub struct PlanForNode {
    /// As the client numbered it, unique in the session.
    pub id: u32,
    /// The recorded segment, as `genie_session::plan` encodes it.
    pub template: Arc<[u8]>,
}

/// What a node offers.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// Its release, such as "0.1.0".
    pub node_version: String,
    /// Its libtorch's release, such as "2.11.0". Empty: it is a gateway.
    pub torch_version: String,
    /// A hash of the schemas of its libtorch's operators. 0: not known.
    pub schema_hash: u64,
    /// What it has loaded besides libtorch.
    pub operator_libraries: Vec<v1::OperatorLibrary>,
    /// Its own.
    pub devices: Vec<v1::Device>,
    /// Where it is, HOST:PORT, and all devices of it and of those beside it; `None` where there is one.
    pub fleet: Option<(String, Vec<v1::Device>)>,
    /// What one session's tensors may take at most, in bytes; and no more than its device has.
    pub session_memory_bytes: u64,
    /// Records a session may have under way.
    pub window_records: u64,
    /// Bytes of bulk a session may have under way.
    pub window_bytes: u64,
    /// A session that is silent for so long is ended.
    pub lease_ms: u32,
    /// Transports of the data path, best first.
    pub transports: Vec<String>,
    /// Why it takes no new sessions.
    pub not_ready: Option<String>,
}

/// What a device has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How long of the last second it computed, for all sessions.
    pub busy: Duration,
    /// Bytes that the tensors of other sessions hold.
    pub others_bytes: u64,
}

/// What a node needs to know of a session.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Unique on the node.
    pub id: u64,
    /// Who it belongs to.
    pub identity: Identity,
    /// Where it was opened from, if that is known.
    pub peer: Option<Peer>,
    /// Which node's, of several: HOST:PORT.
    pub node: String,
    /// Which of the node's devices it uses.
    pub device: usize,
    /// What the client said of itself, for people.
    pub client: String,
    /// What its data connection must show.
    pub token: Token,
    /// What its tensors may take, in bytes.
    pub memory_budget_bytes: u64,
    /// Its client's gateway may reach the node's transport.
    pub transport_wanted: bool,
}

/// Another device of a session, which is to get values of this one.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Number of the log that sends, among its client's.
    pub log: u16,
    /// Number of the log that receives.
    pub to: u16,
    /// What the receiver's node has given for it.
    pub token: Token,
    /// HOST:PORT of the receiver's node.
    pub address: String,
    /// A connection of the transport that waits there, if one does.
    pub transport: Option<v1::Transport>,
}

/// What a receiver's node has for a sender's.
#[derive(Clone, Debug)]
pub struct Offered {
    /// What the sender has to show.
    pub token: Token,
    /// A connection of the transport that waits for it, if this node has a link.
    pub transport: Option<v1::Transport>,
}

/// What a node tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// A session is over: its client left, its lease ran out, its executor died.
    SessionEnded {
        /// Which.
        id: u64,
        /// Why, for the log.
        reason: String,
    },
}

/// Why a node refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// It can't run operators.
    #[error("this node has no executor: {reason}")]
    NoExecutor {
        /// Why, and how to mend it.
        reason: String,
    },
    /// It has no room.
    #[error("{0}")]
    Busy(String),
    /// It is shutting down.
    #[error("this node is shutting down and takes no new sessions: connect to another, or again")]
    Draining,
    /// It can't be reached.
    #[error("the node at {address} can't be reached: {reason}")]
    Unreachable {
        /// HOST:PORT.
        address: String,
        /// Why.
        reason: String,
    },
    /// Another node said no.
    #[error("the node at {address}: {}", status.message())]
    Elsewhere {
        /// HOST:PORT.
        address: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// A way to another device can't be had.
    #[error("{0}")]
    NoWay(String),
    /// It knows no such session.
    #[error("this node has no session {0}: it ended; reconnect")]
    UnknownSession(u64),
}

impl From<NodeError> for tonic::Status {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::NoExecutor { .. } => ErrorCode::NoExecutor,
            NodeError::Busy(_) | NodeError::NoWay(_) => ErrorCode::Busy,
            NodeError::Draining => ErrorCode::Draining,
            NodeError::UnknownSession(_) => ErrorCode::UnknownSession,
            NodeError::Unreachable { .. } => return Self::unavailable(error.to_string()),
            NodeError::Elsewhere { status, .. } => match ErrorCode::of(status) {
                Some(code) => code,
                None => return Self::new(status.code(), error.to_string()),
            },
        };
        code.status(error.to_string())
    }
}

/// A machine that runs sequences.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// What it offers now; of several, the one at `node`, or the first that is there.
    ///
    /// # Errors
    /// It is not there.
    async fn capabilities(&self, node: &str) -> Result<Capabilities, NodeError>;

    /// Makes room for a session and waits for its data connection; gives one of the transport, if
    /// that is wanted and the node has any.
    ///
    /// # Errors
    /// No executor, no room, shutting down.
    async fn open_session(&self, spec: SessionSpec) -> Result<Option<v1::Transport>, NodeError>;

    /// Installs a plan in a session. False where the session can't take it now (no data
    /// connection yet, or its executor refused it): records then go on travelling plainly.
    ///
    /// # Errors
    /// An unknown session.
    async fn install(&self, session: u64, plan: &PlanForNode) -> Result<bool, NodeError>;

    /// Hears how long the analysis of a segment took, to count it.
    fn analysed(&self, took: Duration) {
        let _ = took;
    }

    /// Prepares for values of log `from` to a session, which is log `log` of its client: gives what its
    /// sender has to show.
    ///
    /// # Errors
    /// An unknown session; too many.
    async fn offer(&self, session: u64, log: u16, from: u16) -> Result<Offered, NodeError>;

    /// Connects a session to another device; gives what carries the values.
    ///
    /// # Errors
    /// An unknown session; nobody there.
    async fn connect(&self, session: u64, peer: PeerSpec) -> Result<String, NodeError>;

    /// Nothing more comes to a session from log `from` of its client, which is lost to it.
    ///
    /// # Errors
    /// An unknown session.
    async fn end_way(&self, session: u64, from: u16) -> Result<(), NodeError>;

    /// What the device of a session has to do.
    ///
    /// # Errors
    /// An unknown session.
    async fn load(&self, session: u64) -> Result<Load, NodeError>;

    /// Ends a session and frees what it holds. False where there was none.
    async fn close_session(&self, session: u64) -> bool;

    /// All it knows of itself. Of a session only what a node can know: the caller adds the rest.
    async fn status(&self) -> v1::StatusReply;

    /// Waits for the next event.
    async fn next_event(&self) -> NodeEvent;
}
