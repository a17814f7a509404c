//! What another control plane asks of this node: it lets clients in by a policy of its own, and plans for
//! them. Whom the node's configuration names may; each sees the sessions that it let in.

use std::pin::Pin;

use genie_control_api::v1::nodes_server::Nodes;
use genie_control_api::{ErrorCode, v1};
use genie_session::frame::TOKEN_BYTES;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use crate::ends::End;
use crate::identity::Identity;
use crate::negotiate::{memory, shown};
use crate::node::PlanForNode;
use crate::service::{ControlPlane, Place, identity_of};
use crate::sessions::{Session, Token};

/// Messages to a watcher under way.
const UNDER_WAY_MAX: usize = 16;

impl ControlPlane {
    /// Whoever calls, if it may let clients in.
    fn trusted<T>(&self, request: &Request<T>) -> Result<Identity, Status> {
        let identity = identity_of(request)?;
        match self.trust().covers(&identity) {
            true => Ok(identity),
            false => Err(ErrorCode::NotTrusted.status(format!(
                "{identity} is no control plane of this node: name it in `control_planes` of the node's \
                 configuration"
            ))),
        }
    }

    fn living(&self, let_in_by: &Identity) -> v1::WatchReply {
        let living = v1::Living {
            sessions: self.sessions().let_in_by(let_in_by),
        };
        v1::WatchReply {
            what: Some(v1::watch_reply::What::Living(living)),
        }
    }
}

fn ended(end: End) -> v1::WatchReply {
    let ended = v1::Ended {
        session: end.session,
        reason: end.reason,
    };
    v1::WatchReply {
        what: Some(v1::watch_reply::What::Ended(ended)),
    }
}

/// Follows the ends of what `watcher` let in, until it leaves.
async fn follow(
    this: ControlPlane,
    watcher: Identity,
    mut ends: broadcast::Receiver<End>,
    to: mpsc::Sender<Result<v1::WatchReply, Status>>,
) {
    let mut next = this.living(&watcher);
    loop {
        if to.send(Ok(next)).await.is_err() {
            return;
        }
        next = loop {
            let end = tokio::select! {
                end = ends.recv() => end,
                () = to.closed() => return,
            };
            match end {
                Ok(end) if end.let_in_by == watcher => break ended(end),
                Ok(_) => {}
                // It watches anew, and is told who lives.
                Err(_) => return,
            }
        };
    }
}

#[async_trait]
impl Nodes for ControlPlane {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchReply, Status>> + Send>>;

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeReply>, Status> {
        self.trusted(&request)?;
        let node = self.node().capabilities("").await?;
        Ok(Response::new(v1::DescribeReply {
            not_ready_reason: node.not_ready.unwrap_or_default(),
            node_version: node.node_version,
            torch_version: node.torch_version,
            schema_hash: node.schema_hash,
            devices: node.devices,
            session_memory_bytes: node.session_memory_bytes,
            window_records: node.window_records,
            window_bytes: node.window_bytes,
            lease_ms: node.lease_ms,
            transports: node.transports,
            operator_libraries: node.operator_libraries,
        }))
    }

    async fn admit(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitReply>, Status> {
        let caller = self.trusted(&request)?;
        let request = request.into_inner();
        let wrong = |what: &str| Status::invalid_argument(what.to_owned());
        let token = <[u8; TOKEN_BYTES]>::try_from(request.data_token.as_slice());
        let identity = Identity {
            principal: (request.principal.parse()).map_err(|_| wrong("no such principal"))?,
            tenant: (request.tenant.parse()).map_err(|_| wrong("no such tenant"))?,
        };
        let node = self.node().capabilities("").await?;
        let memory_bytes = memory(request.device, request.memory_budget_bytes, &node)
            .map_err(|refusal| refusal.code().status(refusal.to_string()))?;
        let session = Session {
            let_in_by: Some(caller),
            ..Session::new(
                request.session_id,
                identity,
                Token::from_bytes(token.map_err(|_| wrong("a token of another length"))?),
                shown(&request.client),
                memory_bytes,
            )
        };
        self.sessions().adopt(session.clone())?;
        let place = Place {
            device: request.device,
            ..Place::default()
        };
        self.open_at(&session, place).await?;
        tracing::info!(
            session = session.id,
            principal = %session.identity.principal,
            "session {} opened by {}, let in by a control plane",
            session.id,
            session.client
        );
        Ok(Response::new(v1::AdmitReply {}))
    }

    async fn install(
        &self,
        request: Request<v1::InstallRequest>,
    ) -> Result<Response<v1::InstallReply>, Status> {
        let caller = self.trusted(&request)?;
        let request = request.into_inner();
        let session = self.authenticate(request.session_id, &caller, &request.data_token)?;
        let plan = PlanForNode {
            id: request.plan_id,
            template: request.segment.into(),
        };
        let installed = self.node().install(session.id, &plan).await?;
        Ok(Response::new(v1::InstallReply { installed }))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = self.trusted(&request)?;
        let (to, from) = mpsc::channel(UNDER_WAY_MAX);
        // Before who lives is looked at, so that no end is missed.
        let ends = self.ends().listen();
        tokio::spawn(follow(self.clone(), watcher, ends, to));
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }
}
