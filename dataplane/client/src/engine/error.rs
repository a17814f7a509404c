//! What can go wrong in a session.

use genie_session::fault::{Code, Fault};

/// Errors that have a name of their own in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Exception {
    /// No session could be opened.
    Connect = 0,
    /// Another protocol, torch or set of operators.
    VersionMismatch = 1,
    /// The session is over.
    NodeLost = 2,
    /// An operator failed on the node.
    RemoteOperator = 3,
    /// A tensor of an earlier session.
    StaleTensor = 4,
    /// Used in a forked child.
    Fork = 5,
    /// There is no session.
    NotConnected = 6,
}

/// An error on its way to the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One with a name of its own.
    #[error("{1}")]
    Genie(Exception, String),
    /// The node has no memory left.
    #[error("{0}")]
    OutOfMemory(String),
    /// An index out of range.
    #[error("{0}")]
    Index(String),
    /// Something that nobody has written.
    #[error("{0}")]
    NotImplemented(String),
    /// A value that can't be.
    #[error("{0}")]
    Value(String),
    /// A type that can't be.
    #[error("{0}")]
    Type(String),
    /// A matrix without the property that an operator needs.
    #[error("{0}")]
    LinAlg(String),
    /// Anything else.
    #[error("{0}")]
    Runtime(String),
    /// A signal handler of the program wants the wait to end.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// From a fault of the node; `place` names the operator and the user's line, `hint` where to read more
    /// of errors that have no name of their own.
    #[must_use]
    pub fn from_fault(fault: &Fault, place: &str, hint: &str) -> Self {
        let mut text = fault.message.clone();
        for (indent, line) in [("  ", place), ("", hint)] {
            if !line.is_empty() {
                text.extend(["\n", indent, line]);
            }
        }
        match fault.code {
            Code::OutOfMemory => Self::OutOfMemory(text),
            Code::Index => Self::Index(text),
            Code::NotImplemented => Self::NotImplemented(text),
            Code::Value => Self::Value(text),
            Code::Type => Self::Type(text),
            Code::LinAlg => Self::LinAlg(text),
            Code::Operator | Code::NotAllowed | Code::Protocol => {
                Self::Genie(Exception::RemoteOperator, text)
            }
            Code::ExecutorDied | Code::Draining | Code::SessionGone | Code::Busy => {
                Self::Genie(Exception::NodeLost, text)
            }
        }
    }
}
