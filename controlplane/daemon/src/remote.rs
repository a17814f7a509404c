//! One node, asked over gRPC.

use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_control_api::v1;
use genie_control_api::v1::control_client::ControlClient;
use genie_control_api::v1::nodes_client::NodesClient;
use genie_control_api::v1::peers_client::PeersClient;
use genie_control_api::v1::placement_client::PlacementClient;
use genie_controlplane::node::{
    Capabilities, Load, NodeError, Offered, PeerSpec, PlanForNode, SessionSpec,
};
use genie_controlplane::sessions::Token;
use genie_server::channel;
use genie_session::frame::TOKEN_BYTES;
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A template may take this much in one message.
const MESSAGE_MAX: usize = 16 << 20;

/// Whether a node is there, as far as is known.
#[derive(Clone, Debug)]
pub enum State {
    /// It answers.
    Reachable {
        /// As it said last.
        offers: Box<v1::DescribeReply>,
    },
    /// It does not.
    Unreachable {
        /// Why.
        reason: String,
        /// Since when.
        since: Instant,
    },
}

/// A node.
pub struct RemoteNode {
    address: String,
    channel: RwLock<Channel>,
    state: Mutex<State>,
}

impl RemoteNode {
    /// At `address`, HOST:PORT.
    ///
    /// # Errors
    /// That is no address.
    pub fn new(address: &str, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        Ok(Self {
            address: address.to_owned(),
            channel: RwLock::new(channel::to(address, tls)?),
            state: Mutex::new(State::Unreachable {
                reason: "it was not asked yet".to_owned(),
                since: Instant::now(),
            }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is there.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Other certificates, from now on.
    ///
    /// # Errors
    /// The address is none.
    pub fn set_tls(&self, tls: Option<Arc<ClientConfig>>) -> Result<(), String> {
        *self.channel.write() = channel::to(&self.address, tls)?;
        Ok(())
    }

    fn channel(&self) -> Channel {
        self.channel.read().clone()
    }

    /// It does not answer; says since when.
    pub fn set_unreachable(&self, reason: String) -> Instant {
        let mut state = self.state.lock();
        let since = match &*state {
            State::Unreachable { since, .. } => *since,
            State::Reachable { .. } => Instant::now(),
        };
        *state = State::Unreachable { reason, since };
        since
    }

    /// The answer, in time.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, NodeError> {
        let late = || format!("no answer within {} s", ANSWER_MAX.as_secs());
        let answered = tokio::time::timeout(ANSWER_MAX, call).await;
        let answered = answered.map_err(|_| self.unreachable(late()))?;
        answered
            .map(Response::into_inner)
            .map_err(|status| self.refused(status))
    }

    fn unreachable(&self, reason: String) -> NodeError {
        NodeError::Unreachable {
            address: self.address.clone(),
            reason,
        }
    }

    fn refused(&self, status: Status) -> NodeError {
        let is_transport = status.code() == Code::Unavailable || status.code() == Code::Unknown;
        if is_transport && genie_control_api::ErrorCode::of(&status).is_none() {
            return self.unreachable(channel::why(&status));
        }
        NodeError::Elsewhere {
            address: self.address.clone(),
            status: Box::new(status),
        }
    }

    /// What it offers now.
    ///
    /// # Errors
    /// It is not there, or does not trust us.
    pub async fn describe(&self) -> Result<v1::DescribeReply, NodeError> {
        let mut nodes = NodesClient::new(self.channel());
        let offers = self.within(nodes.describe(v1::DescribeRequest {})).await?;
        *self.state.lock() = State::Reachable {
            offers: Box::new(offers.clone()),
        };
        Ok(offers)
    }

    /// What ends of what was let in here.
    ///
    /// # Errors
    /// As [`Self::describe`].
    pub async fn watch(&self) -> Result<tonic::Streaming<v1::WatchReply>, NodeError> {
        let mut nodes = NodesClient::new(self.channel());
        self.within(nodes.watch(v1::WatchRequest {})).await
    }

    /// Opens a session.
    ///
    /// # Errors
    /// It is not there, or refuses.
    pub async fn admit(&self, spec: &SessionSpec) -> Result<(), NodeError> {
        let request = v1::AdmitRequest {
            session_id: spec.id,
            data_token: spec.token.bytes().to_vec(),
            principal: spec.identity.principal.to_string(),
            tenant: spec.identity.tenant.to_string(),
            device: u32::try_from(spec.device).unwrap_or(u32::MAX),
            memory_budget_bytes: spec.memory_budget_bytes,
            client: spec.client.clone(),
        };
        let mut nodes = NodesClient::new(self.channel());
        self.within(nodes.admit(request)).await.map(drop)
    }

    /// Installs a plan.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn install(
        &self,
        session: u64,
        token: &Token,
        plan: &PlanForNode,
    ) -> Result<bool, NodeError> {
        let request = v1::InstallRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
            plan_id: plan.id,
            segment: plan.template.to_vec(),
        };
        let nodes = NodesClient::new(self.channel());
        let mut nodes = nodes.max_encoding_message_size(MESSAGE_MAX);
        let reply = self.within(nodes.install(request)).await?;
        Ok(reply.installed)
    }

    /// Prepares for values of another log.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn offer(
        &self,
        session: u64,
        token: &Token,
        log: u16,
        from: u16,
    ) -> Result<Offered, NodeError> {
        let request = v1::OfferWayRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
            log: log.into(),
            from: from.into(),
        };
        let mut peers = PeersClient::new(self.channel());
        let reply = self.within(peers.offer_way(request)).await?;
        let offered = <[u8; TOKEN_BYTES]>::try_from(reply.token.as_slice());
        let offered = offered.map_err(|_| self.unreachable("its offer is none".to_owned()))?;
        Ok(Offered {
            token: Token::from_bytes(offered),
            transport: reply.transport,
        })
    }

    /// Connects a session to another device.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn connect(
        &self,
        session: u64,
        token: &Token,
        peer: PeerSpec,
    ) -> Result<String, NodeError> {
        let request = v1::OpenWayRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
            log: peer.log.into(),
            to: peer.to.into(),
            token: peer.token.bytes().to_vec(),
            address: peer.address,
            transport: peer.transport,
        };
        let mut peers = PeersClient::new(self.channel());
        let reply = self.within(peers.open_way(request)).await?;
        Ok(reply.way)
    }

    /// Nothing more comes to a session from a log of its client.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn end_way(&self, session: u64, token: &Token, from: u16) -> Result<(), NodeError> {
        let request = v1::EndWayRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
            from: from.into(),
        };
        let mut peers = PeersClient::new(self.channel());
        self.within(peers.end_way(request)).await.map(drop)
    }

    /// What the device of a session has to do.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn load(&self, session: u64, token: &Token) -> Result<Load, NodeError> {
        let request = v1::LoadRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
        };
        let mut placement = PlacementClient::new(self.channel());
        let reply = self.within(placement.load(request)).await?;
        Ok(Load {
            busy: Duration::from_nanos(reply.busy_ns),
            others_bytes: reply.others_bytes,
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// It is not there.
    pub async fn close(&self, session: u64, token: &Token) -> Result<bool, NodeError> {
        let request = v1::CloseSessionRequest {
            session_id: session,
            data_token: token.bytes().to_vec(),
        };
        let mut control = ControlClient::new(self.channel());
        let reply = self.within(control.close_session(request)).await?;
        Ok(reply.closed)
    }

    /// All it knows of itself and of what was let in here.
    ///
    /// # Errors
    /// It is not there.
    pub async fn status(&self) -> Result<v1::StatusReply, NodeError> {
        let mut control = ControlClient::new(self.channel());
        self.within(control.status(v1::StatusRequest {})).await
    }
}

/// What `offers` is for whoever negotiates.
#[must_use]
pub fn capabilities(offers: v1::DescribeReply) -> Capabilities {
    Capabilities {
        node_version: offers.node_version,
        torch_version: offers.torch_version,
        schema_hash: offers.schema_hash,
        devices: offers.devices,
        fleet: None,
        session_memory_bytes: offers.session_memory_bytes,
        window_records: offers.window_records,
        window_bytes: offers.window_bytes,
        lease_ms: offers.lease_ms,
        transports: offers.transports,
        operator_libraries: offers.operator_libraries,
        not_ready: Some(offers.not_ready_reason).filter(|why| !why.is_empty()),
    }
}
