//! What a daemon puts behind its port.

use axum::Router;
use genie_controlplane::identity::Identity;
use genie_session::frame::HELLO_BYTES;

use crate::rejected::Rejected;
use crate::stream::Stream;

/// What brings tensors, by its opening.
pub enum Data {
    /// A client.
    Client([u8; HELLO_BYTES]),
    /// Another node.
    Peer([u8; HELLO_BYTES]),
}

/// What is behind a port.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Adds what it serves by gRPC.
    fn services(&self, router: Router) -> Router;

    /// What `/metrics` says, as OpenMetrics.
    fn metrics(&self) -> String;

    /// Why `/healthz` says that it takes no sessions; `None`: it does.
    fn not_ready(&self) -> Option<String>;

    /// Somebody connected.
    fn connected(&self) {}

    /// That came to nothing.
    fn rejected(&self) {}

    /// Takes a connection that brings tensors.
    fn data(
        &self,
        data: Data,
        identity: Identity,
        stream: Stream,
    ) -> impl Future<Output = Result<(), Rejected>> + Send;
}
