//! Ends of sessions, for those who let them in.

use tokio::sync::broadcast;

use crate::identity::Identity;
use crate::sessions::Session;

/// Ends of sessions that a watcher may be behind; one that is further has to watch anew.
const BEHIND_MAX: usize = 256;
/// Tells those who watch what ends.
#[derive(Debug)]
pub(crate) struct Ends(broadcast::Sender<End>);

#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) let_in_by: Identity,
    pub(crate) session: u64,
    pub(crate) reason: String,
}

impl Default for Ends {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND_MAX).0)
    }
}

impl Ends {
    /// Hears what ends from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<End> {
        self.0.subscribe()
    }

    /// `session` is over.
    pub(crate) fn tell(&self, session: &Session, reason: &str) {
        if let Some(let_in_by) = session.let_in_by.clone() {
            // Nobody may be watching.
            let _ = self.0.send(End {
                let_in_by,
                session: session.id,
                reason: reason.to_owned(),
            });
        }
    }
}
