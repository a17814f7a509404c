//! How a session ends.

use genie_session::fault::{Code, Fault};

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// For the log.
    pub reason: String,
    /// What the client is told, if it is still there.
    pub fault: Option<Fault>,
    /// It was not the client's wish.
    pub lost: bool,
}

impl End {
    /// As the client wished.
    #[must_use]
    pub fn quiet(reason: String) -> Self {
        Self {
            reason,
            fault: None,
            lost: false,
        }
    }

    /// Its data connection can't be used.
    #[must_use]
    pub fn broken(error: &std::io::Error) -> Self {
        Self {
            reason: format!("its data connection failed: {error}"),
            fault: None,
            lost: true,
        }
    }

    /// It came when all places were taken.
    #[must_use]
    pub fn full() -> Self {
        let message = "this node has as many sessions as it takes: wait, close one, or start it \
             with a larger `--sessions`";
        Self::lost(Fault::new(Code::Busy, 0, message))
    }

    /// With a fault that the client is told.
    #[must_use]
    pub fn lost(fault: Fault) -> Self {
        Self {
            reason: fault.message.clone(),
            fault: Some(fault),
            lost: true,
        }
    }
}
