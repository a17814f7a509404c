//! A session's data connection.

use std::sync::{Arc, OnceLock};

use genie_poll::PollLoop;
use genie_transport::ConnectionId;

use super::outgoing::Outgoing;
use super::running::Running;
use super::stream::Cut;

/// A data connection.
pub struct Link {
    /// Its sending side.
    pub outgoing: Outgoing,
    /// Ends it from anywhere.
    pub cut: Cut,
    /// The executor behind it, once there is one.
    pub running: OnceLock<Running>,
    /// The transport's connection that carries it, if one does.
    pub carrier: Option<Carrier>,
}

impl Link {
    /// One without an executor behind it yet.
    #[must_use]
    pub fn new(outgoing: Outgoing, cut: Cut, carrier: Option<Carrier>) -> Self {
        Self {
            outgoing,
            cut,
            running: OnceLock::new(),
            carrier,
        }
    }
}

/// A connection of the transport.
#[derive(Clone)]
pub struct Carrier {
    /// Who drives it.
    pub poll: Arc<PollLoop>,
    /// Its name.
    pub connection: ConnectionId,
}
