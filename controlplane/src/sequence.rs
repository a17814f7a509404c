//! One node's part of a plan.

use std::sync::Arc;

use genie_srg::Sequence;

/// A plan as a node installs it.
#[derive(Clone, Debug)]
pub struct PlanForNode {
    /// As the client numbered it, unique in the session.
    pub id: u32,
    /// The recorded segment, as `genie_session::plan` encodes it: what the executor replays.
    pub template: Arc<[u8]>,
    /// What the node does, in order.
    pub sequence: Arc<Sequence>,
}
