//! What is behind the node's port: its control plane, metrics and health, and sessions' data.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use axum::Router;
use genie_controlplane::identity::Identity;
use genie_controlplane::service::ControlPlane;
use genie_netstack::PipeStream;
use genie_server::server::{Data, Handler, Rejected, Server, Socket, Stream, refuse};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{self, HELLO_BYTES};

use crate::node::Shared;
use crate::node::data::peers::{self, Ends};
use crate::node::data::{End, Session, path};

/// What is said to who opens a data connection by TCP on the DPDK link.
const NO_DATA_HERE: &str = "on the DPDK link only control connections are TCP: the data path is \
     the transport, through a gateway";

/// A node behind its port.
#[derive(Clone)]
pub struct NodeHandler {
    /// The node.
    pub node: Arc<Shared>,
    /// What plans for it.
    pub control: ControlPlane,
}

impl Handler for NodeHandler {
    fn services(&self, router: Router) -> Router {
        self.control.routes(router)
    }

    fn metrics(&self) -> String {
        let mut gauges = self.node.gauges();
        let plans = self.control.plan_counts();
        (gauges.plan_cache_hits, gauges.plan_cache_misses) = (plans.hits, plans.misses);
        self.node.metrics.render(&gauges)
    }

    fn not_ready(&self) -> Option<String> {
        self.node.not_ready()
    }

    fn connected(&self) {
        self.node.metrics.connections.increment();
    }

    fn rejected(&self) {
        self.node.metrics.connections_rejected.increment();
    }

    async fn data(
        &self,
        data: Data,
        identity: Identity,
        mut stream: Stream,
    ) -> Result<(), Rejected> {
        let is_tcp = stream.socket().is_tcp();
        let found = match &data {
            Data::Client(hello) => self.client(hello, &identity, is_tcp).map(Found::Session),
            Data::Peer(hello) => self.peer(hello, is_tcp).map(Found::Way),
        };
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                self.node.metrics.fault(fault.code);
                return Err(refuse(fault, &mut stream).await);
            }
        };
        // From here on it belongs to threads of its own, and tokio is left.
        let (socket, tls) = stream.into_parts();
        let socket = socket.into_std();
        match found {
            Found::Way((session, ends)) => Ok(peers::accept(&session, socket?, tls, ends)?),
            Found::Session(session) => {
                let connected = socket.and_then(|socket| path::connect(&session, socket, tls));
                connected.map_err(|error| {
                    session.end(End::broken(&error));
                    Rejected::Broken(error)
                })
            }
        }
    }
}

/// Whose a connection is.
enum Found {
    Session(Arc<Session>),
    Way((Arc<Session>, Ends)),
}

impl NodeHandler {
    /// The session of a data connection.
    fn client(
        &self,
        hello: &[u8; HELLO_BYTES],
        identity: &Identity,
        is_tcp: bool,
    ) -> Result<Arc<Session>, Fault> {
        let token = frame::decode_hello(hello).map_err(unreadable)?;
        carries_data(is_tcp)?;
        self.node.attach(&token, identity)
    }

    /// The session to which another node brings values.
    fn peer(&self, hello: &[u8; HELLO_BYTES], is_tcp: bool) -> Result<(Arc<Session>, Ends), Fault> {
        let token = frame::decode_peer_hello(hello).map_err(unreadable)?;
        carries_data(is_tcp)?;
        self.node.expected_peer(&token)
    }
}

fn unreadable(error: genie_session::WireError) -> Fault {
    Fault::new(Code::Protocol, 0, error.to_string())
}

fn carries_data(is_tcp: bool) -> Result<(), Fault> {
    match is_tcp {
        true => Ok(()),
        false => Err(Fault::new(Code::Protocol, 0, NO_DATA_HERE)),
    }
}

/// Serves connections that come over the DPDK link, where the kernel is blind.
pub async fn run_link(
    server: Arc<Server<NodeHandler>>,
    mut accepted: tokio::sync::mpsc::Receiver<(PipeStream, SocketAddrV4)>,
) {
    while let Some((stream, peer)) = accepted.recv().await {
        server.spawn(Socket::Other(Box::new(stream)), SocketAddr::V4(peer));
    }
}
