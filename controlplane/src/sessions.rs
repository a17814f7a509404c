//! Who has a session. Bounded; a token ties a session's data connection and its calls to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use genie_session::frame::TOKEN_BYTES;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

use crate::books::Books;
use crate::identity::Identity;
use genie_analysis::History;

/// The secret that opens a session's data. Compared in constant time, never printed.
#[derive(Clone)]
pub struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// A fresh one.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// These bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the one it belongs to.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }

    /// Whether `shown` is this token; takes as long whatever the answer.
    #[must_use]
    pub fn matches(&self, shown: &[u8]) -> bool {
        self.0.as_slice().ct_eq(shown).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Unique on the node, and not guessable.
    pub id: u64,
    /// Whose it is.
    pub identity: Identity,
    /// What opens its data.
    pub token: Token,
    /// What the client said of itself, for people.
    pub client: String,
    /// When it was opened.
    pub opened: Instant,
    /// What its tensors may take, in bytes.
    pub memory_budget_bytes: u64,
    /// What was observed of it. Lives as long as the session, and whoever still looks at it.
    pub history: Arc<Mutex<History>>,
    /// The structures of its segments that were placed, and what became of them.
    pub plans: Arc<Mutex<Books>>,
    /// The control plane that let it in, if that was another: it may ask what the client may.
    pub let_in_by: Option<Identity>,
}

impl Session {
    /// One that is opened now.
    #[must_use]
    pub fn new(
        id: u64,
        identity: Identity,
        token: Token,
        client: String,
        memory_budget_bytes: u64,
    ) -> Self {
        Self {
            id,
            identity,
            token,
            client,
            opened: Instant::now(),
            memory_budget_bytes,
            history: Arc::default(),
            plans: Arc::default(),
            let_in_by: None,
        }
    }

    fn is_of(&self, identity: &Identity) -> bool {
        self.identity == *identity || self.let_in_by.as_ref() == Some(identity)
    }
}

/// Why a session was not opened, or not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No room.
    #[error(
        "this node has {max} sessions already, as many as it takes: wait, close one, or start it \
         with a larger `--sessions`"
    )]
    Full {
        /// The bound.
        max: usize,
    },
    /// No such session, or another's. Which of the two is not said.
    #[error("there is no session {id} of this client: it ended, or its token is wrong; reconnect")]
    Unknown {
        /// As the client named it.
        id: u64,
    },
    /// Another session has that name.
    #[error("this node has a session {id} already: choose another name")]
    Taken {
        /// As it was to be.
        id: u64,
    },
    /// The operating system gave no random bytes.
    #[error("this node can't make a session token: {0}")]
    NoRandomness(getrandom::Error),
}

/// The sessions of a node.
#[derive(Debug)]
pub struct Sessions {
    max: usize,
    waiting_max: usize,
    open: Mutex<HashMap<u64, Session>>,
}

impl Sessions {
    /// At most `max` at a time, and `waiting_max` that have no data connection yet. Which those are
    /// the node knows, and keeps each of the two bounds.
    #[must_use]
    pub fn new(max: usize, waiting_max: usize) -> Self {
        Self {
            max,
            waiting_max,
            open: Mutex::new(HashMap::new()),
        }
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens one.
    ///
    /// # Errors
    /// The table is full.
    pub fn open(
        &self,
        identity: Identity,
        client: String,
        memory_budget_bytes: u64,
    ) -> Result<Session, SessionError> {
        let token = Token::random().map_err(SessionError::NoRandomness)?;
        let mut open = self.open.lock();
        if open.len() >= self.max.saturating_add(self.waiting_max) {
            return Err(SessionError::Full { max: self.max });
        }
        // Random, so that an id of before a restart names nothing afterwards.
        let id = loop {
            let id = getrandom::u64().map_err(SessionError::NoRandomness)? >> 16;
            if id != 0 && !open.contains_key(&id) {
                break id;
            }
        };
        let session = Session::new(id, identity, token, client, memory_budget_bytes);
        open.insert(id, session.clone());
        Ok(session)
    }

    /// Takes one that another control plane opened.
    ///
    /// # Errors
    /// The table is full; the name is taken.
    pub fn adopt(&self, session: Session) -> Result<(), SessionError> {
        let mut open = self.open.lock();
        if open.len() >= self.max.saturating_add(self.waiting_max) {
            return Err(SessionError::Full { max: self.max });
        }
        let id = session.id;
        if id == 0 || open.contains_key(&id) {
            return Err(SessionError::Taken { id });
        }
        open.insert(id, session);
        Ok(())
    }

    /// Those that `identity` let in.
    #[must_use]
    pub fn let_in_by(&self, identity: &Identity) -> Vec<u64> {
        let open = self.open.lock();
        let its = (open.values()).filter(|session| session.let_in_by.as_ref() == Some(identity));
        its.map(|session| session.id).collect()
    }

    /// The session `id`, if it is `identity`'s, or was let in by it, and `token` is its token.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] for every other case.
    pub fn authenticate(
        &self,
        id: u64,
        identity: &Identity,
        token: &[u8],
    ) -> Result<Session, SessionError> {
        self.open
            .lock()
            .get(&id)
            .filter(|session| session.token.matches(token) && session.is_of(identity))
            .cloned()
            .ok_or(SessionError::Unknown { id })
    }

    /// Forgets a session; gives what it was.
    pub fn close(&self, id: u64) -> Option<Session> {
        self.open.lock().remove(&id)
    }

    /// What is known of session `id`.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Session> {
        self.open.lock().get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody(name: &str) -> Identity {
        of_tenant(name, "default")
    }

    fn of_tenant(name: &str, tenant: &str) -> Identity {
        Identity {
            principal: name.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = Sessions::new(1, 1);
        let first = sessions.open(somebody("a"), String::new(), 1).unwrap();
        sessions.open(somebody("a"), String::new(), 1).unwrap();
        let refused = sessions.open(somebody("a"), String::new(), 1).unwrap_err();
        assert_eq!(refused, SessionError::Full { max: 1 });
        assert!(sessions.close(first.id).is_some());
        assert!(sessions.open(somebody("a"), String::new(), 1).is_ok());
    }

    #[test]
    fn only_its_owner_with_its_token_finds_a_session() {
        let sessions = Sessions::new(4, 0);
        let session = sessions.open(somebody("a"), String::new(), 1).unwrap();
        let (id, token) = (session.id, *session.token.bytes());
        assert!(sessions.authenticate(id, &somebody("a"), &token).is_ok());
        for other in [somebody("b"), of_tenant("a", "other")] {
            assert!(sessions.authenticate(id, &other, &token).is_err());
        }
        assert!(
            sessions
                .authenticate(id, &somebody("a"), &token[1..])
                .is_err()
        );
        assert!(
            sessions
                .authenticate(id, &somebody("a"), &[0; TOKEN_BYTES])
                .is_err()
        );
        assert!(
            sessions
                .authenticate(id ^ 1, &somebody("a"), &token)
                .is_err()
        );
    }

    #[test]
    fn who_let_a_session_in_may_ask_with_its_token_and_nobody_else() {
        let sessions = Sessions::new(2, 0);
        let token = Token::from_bytes([7; TOKEN_BYTES]);
        let let_in = |id| Session {
            let_in_by: Some(somebody("plane")),
            ..Session::new(id, somebody("a"), token.clone(), String::new(), 1)
        };
        sessions.adopt(let_in(5)).unwrap();
        assert_eq!(
            sessions.adopt(let_in(5)).unwrap_err(),
            SessionError::Taken { id: 5 }
        );
        for known in ["a", "plane"] {
            assert!(
                sessions
                    .authenticate(5, &somebody(known), token.bytes())
                    .is_ok()
            );
            assert!(
                sessions
                    .authenticate(5, &somebody(known), &[8; TOKEN_BYTES])
                    .is_err()
            );
        }
        assert!(
            sessions
                .authenticate(5, &somebody("b"), token.bytes())
                .is_err()
        );
        assert_eq!(sessions.let_in_by(&somebody("plane")), [5]);
        assert!(sessions.let_in_by(&somebody("a")).is_empty());
        sessions.adopt(let_in(6)).unwrap();
        assert_eq!(
            sessions.adopt(let_in(7)).unwrap_err(),
            SessionError::Full { max: 2 }
        );
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token::random().unwrap()), "Token(..)");
    }
}
