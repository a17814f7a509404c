//! Who has a session. Bounded; a token ties a session's data connection and its calls to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use genie_session::frame::TOKEN_BYTES;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

use crate::analysis::History;

/// Who is calling: from the client's certificate, or nobody in particular without TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The certificate's common name.
    pub name: String,
    /// Whose data it may see: the certificate's organisation.
    pub tenant: String,
}

impl Principal {
    /// Whoever comes without TLS.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "anonymous".to_owned(),
            tenant: "default".to_owned(),
        }
    }
}

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
    pub principal: Principal,
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
    /// The operating system gave no random bytes.
    #[error("this node can't make a session token: {0}")]
    NoRandomness(getrandom::Error),
}

/// The sessions of a node.
#[derive(Debug)]
pub struct Sessions {
    max: usize,
    open: Mutex<HashMap<u64, Session>>,
}

impl Sessions {
    /// At most `max` at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
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
        principal: Principal,
        client: String,
        memory_budget_bytes: u64,
    ) -> Result<Session, SessionError> {
        let token = Token::random().map_err(SessionError::NoRandomness)?;
        let mut open = self.open.lock();
        if open.len() >= self.max {
            return Err(SessionError::Full { max: self.max });
        }
        // Random, so that an id of before a restart names nothing afterwards.
        let id = loop {
            let id = getrandom::u64().map_err(SessionError::NoRandomness)? >> 16;
            if id != 0 && !open.contains_key(&id) {
                break id;
            }
        };
        let opened = Instant::now();
        let session = Session {
            id,
            principal,
            token,
            client,
            opened,
            memory_budget_bytes,
            history: Arc::default(),
        };
        open.insert(id, session.clone());
        Ok(session)
    }

    /// The session `id`, if it is `principal`'s and `token` is its token.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] for every other case.
    pub fn authenticate(
        &self,
        id: u64,
        principal: &Principal,
        token: &[u8],
    ) -> Result<Session, SessionError> {
        self.open
            .lock()
            .get(&id)
            .filter(|session| session.token.matches(token) && session.principal == *principal)
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

    fn somebody(name: &str) -> Principal {
        Principal {
            name: name.into(),
            tenant: "default".into(),
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = Sessions::new(2);
        let first = sessions.open(somebody("a"), String::new(), 1).unwrap();
        sessions.open(somebody("a"), String::new(), 1).unwrap();
        let refused = sessions.open(somebody("a"), String::new(), 1).unwrap_err();
        assert_eq!(refused, SessionError::Full { max: 2 });
        assert!(sessions.close(first.id).is_some());
        assert!(sessions.open(somebody("a"), String::new(), 1).is_ok());
    }

    #[test]
    fn only_its_owner_with_its_token_finds_a_session() {
        let sessions = Sessions::new(4);
        let session = sessions.open(somebody("a"), String::new(), 1).unwrap();
        let (id, token) = (session.id, *session.token.bytes());
        assert!(sessions.authenticate(id, &somebody("a"), &token).is_ok());
        assert!(sessions.authenticate(id, &somebody("b"), &token).is_err());
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
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token::random().unwrap()), "Token(..)");
    }
}
