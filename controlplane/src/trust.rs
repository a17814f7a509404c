//! Who may let clients in, besides a node's own control plane.

use std::collections::HashSet;

use crate::identity::{Identity, Principal};

/// Who may let clients in.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Nobody.
    #[default]
    Nobody,
    /// Whoever reaches the port, who may do anything there anyway: there is no TLS.
    Everybody,
    /// Those whose certificates say so.
    Named(HashSet<Principal>),
}

impl Trust {
    pub(crate) fn covers(&self, identity: &Identity) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Named(names) => names.contains(&identity.principal),
        }
    }
}
