//! What clients see: the control service, over gRPC.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use genie_analysis::fact_cache::{self, FactCache};
use genie_analysis::{self as analysis, Facts, Findings, Graph, name_of};
use genie_control_api::v1::control_server::{Control, ControlServer};
use genie_control_api::v1::nodes_server::NodesServer;
use genie_control_api::v1::peers_server::{Peers, PeersServer};
use genie_control_api::v1::placement_server::PlacementServer;
use genie_control_api::{ErrorCode, v1};
use genie_session::frame::{PROTOCOL_VERSION, TOKEN_BYTES};
use genie_session::transfer::LOGS_MAX;
use tonic::{Request, Response, Status, async_trait};

use crate::ends::Ends;
use crate::identity::{Identity, Peer};
use crate::negotiate::{negotiate, shown};
use crate::node::{Node, NodeEvent, PeerSpec, PlanForNode, SessionSpec};
use crate::sessions::{Session, SessionError, Sessions, Token};
use crate::trust::Trust;

/// Segments analysed at a time. Analysis is behind the client's back and must not take the cores
/// from its work.
const ANALYSES_MAX: usize = 1;

/// Limits of a control plane.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions_max: usize,
    /// Sessions at a time that wait for their data connection, besides.
    pub waiting_max: usize,
    /// Structures of segments that are remembered of each tenant.
    pub plans_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 64,
            waiting_max: 64,
            plans_max: 1024,
        }
    }
}

/// The control plane of one node. Cheap to clone.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<dyn Node>,
    sessions: Sessions,
    facts: FactCache,
    analyses: tokio::sync::Semaphore,
    trust: Trust,
    ends: Ends,
}

impl ControlPlane {
    /// In front of `node`; those of `trust` may let clients in as well.
    #[must_use]
    pub fn new(node: Arc<dyn Node>, limits: Limits, trust: Trust) -> Self {
        let inner = Inner {
            node,
            sessions: Sessions::new(limits.sessions_max, limits.waiting_max),
            facts: FactCache::new(limits.plans_max),
            analyses: tokio::sync::Semaphore::new(ANALYSES_MAX),
            trust,
            ends: Ends::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Follows the node: forgets sessions that ended there. Runs until it is dropped.
    pub async fn follow_node(&self) {
        loop {
            let NodeEvent::SessionEnded { id, reason } = self.inner.node.next_event().await;
            if let Some(session) = self.forget(id) {
                self.inner.ends.tell(&session, &reason);
                tracing::debug!(session = id, "session {id} is forgotten: {reason}");
            }
        }
    }

    /// Forgets a session; gives what it was.
    fn forget(&self, id: u64) -> Option<Session> {
        self.inner.sessions.close(id)
    }

    /// How often a segment's structure was known.
    #[must_use]
    pub fn plan_counts(&self) -> fact_cache::Counts {
        self.inner.facts.counts()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.inner.sessions.len()
    }

    /// Adds what it serves to `router`.
    pub fn routes(&self, router: Router) -> Router {
        router
            .route_service(
                "/genie.control.v1.Control/{*method}",
                ControlServer::new(self.clone()),
            )
            .route_service(
                "/genie.control.v1.Peers/{*method}",
                PeersServer::new(self.clone()),
            )
            .route_service(
                "/genie.control.v1.Placement/{*method}",
                PlacementServer::new(self.clone()),
            )
            .route_service(
                "/genie.control.v1.Nodes/{*method}",
                NodesServer::new(self.clone()),
            )
    }

    /// The whole status, as `identity` may see it.
    pub async fn status(&self, identity: &Identity) -> v1::StatusReply {
        let mut status = self.inner.node.status().await;
        let counts = self.plan_counts();
        let counters = status.counters.get_or_insert_default();
        (counters.plan_cache_hits, counters.plan_cache_misses) = (counts.hits, counts.misses);
        status.protocol_version = PROTOCOL_VERSION;
        status.sessions_max = u32::try_from(self.inner.sessions.max()).unwrap_or(u32::MAX);
        let now = Instant::now();
        status.sessions = std::mem::take(&mut status.sessions)
            .into_iter()
            .filter_map(|seen| describe(&self.inner.sessions.find(seen.id)?, seen, identity, now))
            .collect();
        status
    }

    /// Who may let clients in.
    pub(crate) fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Who has a session.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Where ends are told.
    pub(crate) fn ends(&self) -> &Ends {
        &self.inner.ends
    }

    /// The node behind it.
    pub(crate) fn node(&self) -> &dyn Node {
        &*self.inner.node
    }

    /// The session `id`, if it is the caller's.
    pub(crate) fn authenticate(
        &self,
        id: u64,
        identity: &Identity,
        token: &[u8],
    ) -> Result<Session, Status> {
        Ok(self.inner.sessions.authenticate(id, identity, token)?)
    }

    /// Makes room at the node for a session that was taken in; forgets it where there is none.
    pub(crate) async fn open_at(
        &self,
        session: &Session,
        place: Place,
    ) -> Result<Option<v1::Transport>, Status> {
        let spec = SessionSpec {
            id: session.id,
            identity: session.identity.clone(),
            peer: place.peer,
            node: place.node,
            device: usize::try_from(place.device).unwrap_or(usize::MAX),
            client: session.client.clone(),
            token: session.token.clone(),
            memory_budget_bytes: session.memory_budget_bytes,
            transport_wanted: place.transport_wanted,
        };
        self.inner.node.open_session(spec).await.map_err(|error| {
            self.forget(session.id);
            tracing::warn!(principal = %session.identity.principal, "refused {}: {error}", session.client);
            error.into()
        })
    }

    /// Analyses something behind the clients' backs, one of few at a time.
    pub(crate) async fn behind<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, analysis::AnalysisError> + Send + 'static,
    ) -> Result<R, Status> {
        let gone = |_| Status::unavailable("this node is shutting down");
        let _one_of_few = self.inner.analyses.acquire().await.map_err(gone)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Status::internal(format!("the analysis of a segment died: {error}")))?
            .map_err(|error| ErrorCode::BadSegment.status(error.to_string()))
    }

    /// Analyses `segment`, with what was found of one like it.
    async fn analyse(&self, session: &Session, segment: Arc<[u8]>) -> Result<Analysed, Status> {
        let (this, session) = (self.clone(), session.clone());
        let work = move || {
            let graph = Graph::read(&segment)?;
            let facts = &this.inner.facts;
            let (tenant, fingerprint) = (session.identity.tenant.as_str(), graph.fingerprint);
            let known = facts.find(tenant, &fingerprint);
            let cached = known.is_some();
            let structure = known.unwrap_or_else(|| {
                let structure = Arc::new(Facts::of(&graph));
                facts.insert(tenant, fingerprint, Arc::clone(&structure));
                structure
            });
            Ok(Analysed {
                findings: analysis::findings(&graph, &structure),
                constants: session.history.lock().observe(&graph).len(),
                cached,
            })
        };
        self.behind(work).await
    }
}

/// Where a session is to be, and from where it was asked for, if that is known.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) peer: Option<Peer>,
    /// Of several nodes: HOST:PORT.
    pub(crate) node: String,
    pub(crate) device: u32,
    pub(crate) transport_wanted: bool,
}

/// What came of a segment.
struct Analysed {
    findings: Findings,
    /// Its storages that several segments of the session read and none wrote.
    constants: usize,
    cached: bool,
}

/// What a status says of one session: nothing of another tenant's.
fn describe(
    session: &Session,
    seen: v1::Session,
    identity: &Identity,
    now: Instant,
) -> Option<v1::Session> {
    let let_in = session.let_in_by.as_ref() == Some(identity);
    if session.identity.tenant != identity.tenant && !let_in {
        return None;
    }
    let (totals, devices) = {
        let books = session.plans.lock();
        (books.totals(), books.devices().to_vec())
    };
    let age = now.saturating_duration_since(session.opened);
    Some(v1::Session {
        tenant: session.identity.tenant.to_string(),
        principal: session.identity.principal.to_string(),
        client: session.client.clone(),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        memory_budget_bytes: session.memory_budget_bytes,
        planned_steps: totals.steps,
        planned_moved_bytes: totals.moved_bytes,
        plans_again: totals.again,
        plans_dropped: totals.dropped,
        devices,
        ..seen
    })
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Full { .. } | SessionError::Taken { .. } => {
                ErrorCode::Busy.status(error.to_string())
            }
            SessionError::Unknown { .. } => ErrorCode::UnknownSession.status(error.to_string()),
            SessionError::NoRandomness(_) => Self::internal(error.to_string()),
        }
    }
}

/// Who calls. The server puts it there for each connection.
pub(crate) fn identity_of<T>(request: &Request<T>) -> Result<Identity, Status> {
    request
        .extensions()
        .get::<Identity>()
        .cloned()
        .ok_or_else(|| {
            ErrorCode::Unauthenticated.status("the connection has no principal: use a certificate")
        })
}

#[async_trait]
impl Control for ControlPlane {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionReply>, Status> {
        let identity = identity_of(&request)?;
        let peer = request.extensions().get::<Peer>().copied();
        let request = request.into_inner();
        let node = self.inner.node.capabilities(&request.node).await?;
        let (at, devices) = match node.fleet.clone() {
            Some((at, all)) => (at, all),
            None => (String::new(), node.devices.clone()),
        };
        let client = format!(
            "{}:{}, genie {}, torch {}",
            shown(&request.hostname),
            request.pid,
            shown(&request.client_version),
            shown(&request.torch_version)
        );
        let budget = negotiate(&request, &node, PROTOCOL_VERSION).map_err(|refusal| {
            tracing::warn!(principal = %identity.principal, "refused {client}: {refusal}");
            refusal.code().status(refusal.to_string())
        })?;
        let session = self.inner.sessions.open(identity, client, budget)?;
        let place = Place {
            peer,
            node: at.clone(),
            device: request.device,
            transport_wanted: request.transport_wanted,
        };
        let transport = self.open_at(&session, place).await?;
        tracing::info!(
            session = session.id,
            principal = %session.identity.principal,
            "session {} opened by {}",
            session.id,
            session.client
        );
        Ok(Response::new(v1::OpenSessionReply {
            session_id: session.id,
            data_token: session.token.bytes().to_vec(),
            devices,
            window_records: node.window_records,
            window_bytes: node.window_bytes,
            memory_budget_bytes: budget,
            lease_ms: node.lease_ms,
            node_version: node.node_version,
            transports: node.transports,
            torch_version: node.torch_version,
            transport,
            node: at,
            operator_libraries: node.operator_libraries,
        }))
    }

    async fn submit_segment(
        &self,
        request: Request<v1::SubmitSegmentRequest>,
    ) -> Result<Response<v1::SubmitSegmentReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let (id, token) = (request.session_id, &request.data_token);
        let session = self.inner.sessions.authenticate(id, &identity, token)?;
        let template: Arc<[u8]> = request.segment.into();
        let started = Instant::now();
        let Analysed {
            findings,
            constants,
            cached,
        } = self.analyse(&session, Arc::clone(&template)).await?;
        self.inner.node.analysed(started.elapsed());
        let plan = PlanForNode {
            id: request.plan_id,
            template,
        };
        let installed = self.inner.node.install(id, &plan).await?;
        tracing::debug!(
            session = id,
            plan = plan.id,
            cached,
            installed,
            constants,
            "{}",
            findings.summary()
        );
        Ok(Response::new(v1::SubmitSegmentReply {
            fingerprint: findings.fingerprint.to_vec(),
            workload_class: findings.workload_name(),
            confidence: findings.confidence,
            warnings: findings.warnings,
            phases: (findings.phases.iter())
                .map(|&(phase, operators)| v1::PhaseCount {
                    phase: name_of(phase.as_str_name()),
                    operators,
                })
                .collect(),
            cached,
            installed,
            constants: u32::try_from(constants).unwrap_or(u32::MAX),
        }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let (id, token) = (request.session_id, &request.data_token);
        if self
            .inner
            .sessions
            .authenticate(id, &identity, token)
            .is_err()
        {
            return Ok(Response::new(v1::CloseSessionReply { closed: false }));
        }
        self.inner.node.close_session(id).await;
        self.forget(id);
        Ok(Response::new(v1::CloseSessionReply { closed: true }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let identity = identity_of(&request)?;
        Ok(Response::new(ControlPlane::status(self, &identity).await))
    }
}

/// A client's number of a log.
fn log_number(number: u32) -> Result<u16, Status> {
    let known = usize::try_from(number).is_ok_and(|number| number < LOGS_MAX);
    match (known, u16::try_from(number)) {
        (true, Ok(number)) => Ok(number),
        _ => Err(Status::invalid_argument(format!(
            "log {number}: a session has {LOGS_MAX} at most"
        ))),
    }
}

#[async_trait]
impl Peers for ControlPlane {
    async fn offer_way(
        &self,
        request: Request<v1::OfferWayRequest>,
    ) -> Result<Response<v1::OfferWayReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let (id, token) = (request.session_id, &request.data_token);
        self.inner.sessions.authenticate(id, &identity, token)?;
        let (log, from) = (log_number(request.log)?, log_number(request.from)?);
        let offered = self.inner.node.offer(id, log, from).await?;
        Ok(Response::new(v1::OfferWayReply {
            token: offered.token.bytes().to_vec(),
            transport: offered.transport,
        }))
    }

    async fn open_way(
        &self,
        request: Request<v1::OpenWayRequest>,
    ) -> Result<Response<v1::OpenWayReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let (id, token) = (request.session_id, &request.data_token);
        self.inner.sessions.authenticate(id, &identity, token)?;
        let shown = <[u8; TOKEN_BYTES]>::try_from(request.token.as_slice());
        let shown = shown.map_err(|_| Status::invalid_argument("a token of another length"))?;
        let peer = PeerSpec {
            log: log_number(request.log)?,
            to: log_number(request.to)?,
            token: Token::from_bytes(shown),
            address: request.address,
            transport: request.transport,
        };
        let way = self.inner.node.connect(id, peer).await?;
        Ok(Response::new(v1::OpenWayReply { way }))
    }

    async fn end_way(
        &self,
        request: Request<v1::EndWayRequest>,
    ) -> Result<Response<v1::EndWayReply>, Status> {
        let identity = identity_of(&request)?;
        let request = request.into_inner();
        let (id, token) = (request.session_id, &request.data_token);
        self.inner.sessions.authenticate(id, &identity, token)?;
        let from = log_number(request.from)?;
        self.inner.node.end_way(id, from).await?;
        Ok(Response::new(v1::EndWayReply {}))
    }
}
