//! What other nodes may bring here: a token lets in values of one log for one session, once.

use std::sync::{Arc, Weak};

use genie_controlplane::node::NodeError;
use genie_controlplane::sessions::Token;
use parking_lot::Mutex;

use super::data::Session;
use super::data::peers::Ends;

/// Offers that nobody has taken up.
const OFFERS_MAX: usize = 4096;

struct Offer {
    token: Token,
    to: Weak<Session>,
    ends: Ends,
}

/// All of a node's.
#[derive(Default)]
pub struct Offers(Mutex<Vec<Offer>>);

impl Offers {
    /// Whoever shows the token may bring values to `to`.
    ///
    /// # Errors
    /// Too many; no randomness.
    pub fn add(&self, to: &Arc<Session>, ends: Ends) -> Result<Token, NodeError> {
        let token = Token::random().map_err(|error| NodeError::NoWay(error.to_string()))?;
        let mut offers = self.0.lock();
        offers.retain(|offer| offer.to.upgrade().is_some_and(|to| !to.is_over()));
        if offers.len() >= OFFERS_MAX {
            let why = "this node waits for as many other nodes as it can";
            return Err(NodeError::NoWay(why.to_owned()));
        }
        offers.push(Offer {
            token: token.clone(),
            to: Arc::downgrade(to),
            ends,
        });
        Ok(token)
    }

    /// The session for which this was offered.
    #[must_use]
    pub fn take(&self, token: &[u8]) -> Option<(Arc<Session>, Ends)> {
        let mut offers = self.0.lock();
        // Every one is compared, so that time tells nothing.
        let mut found = None;
        for (at, offer) in offers.iter().enumerate() {
            if offer.token.matches(token) {
                found = Some(at);
            }
        }
        let offer = offers.swap_remove(found?);
        Some((offer.to.upgrade()?, offer.ends))
    }
}
