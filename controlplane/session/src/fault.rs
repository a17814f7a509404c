//! What went wrong with a record, in a form that crosses processes.

use crate::WireError;
pub use crate::limits::MESSAGE_MAX;
use crate::varint::{Reader, put_u64};

/// The class of a fault; decides which exception the user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The operator raised on the node.
    Operator = 1,
    /// The session's memory budget, or the device, is exhausted.
    OutOfMemory = 2,
    /// The operator is not on the node's allow-list.
    NotAllowed = 3,
    /// The record does not fit the session (unknown value, bad bounds): a defect or an attack.
    Protocol = 4,
    /// The session's executor died.
    ExecutorDied = 5,
    /// The node is shutting down.
    Draining = 6,
    /// The session was ended: its lease ran out, or its token is not known.
    SessionGone = 7,
    /// An index was out of range (`IndexError`).
    Index = 8,
    /// The operator has no kernel on this device (`NotImplementedError`).
    NotImplemented = 9,
    /// A value error (`ValueError`).
    Value = 10,
    /// The node is full.
    Busy = 11,
    /// A matrix has not the property that an operator needs (`torch.linalg.LinAlgError`).
    LinAlg = 12,
    /// An argument is of the wrong type (`TypeError`).
    Type = 13,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Operator,
        Self::OutOfMemory,
        Self::NotAllowed,
        Self::Protocol,
        Self::ExecutorDied,
        Self::Draining,
        Self::SessionGone,
        Self::Index,
        Self::NotImplemented,
        Self::Value,
        Self::Busy,
        Self::LinAlg,
        Self::Type,
    ];

    fn from_u8(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u8 == raw)
    }
}

/// A fault: its class, the record that was its first cause, and a message for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Class.
    pub code: Code,
    /// Sequence number of the record that failed first.
    pub cause_seq: u64,
    /// Whose log that record is in, as the session numbers its logs. None: the log that tells.
    pub log: Option<u16>,
    /// What happened and what to do.
    pub message: String,
}

impl Fault {
    /// A fault of `code` at record `cause_seq`.
    #[must_use]
    pub fn new(code: Code, cause_seq: u64, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let mut cut = MESSAGE_MAX;
            while !message.is_char_boundary(cut) {
                cut -= 1;
            }
            message.truncate(cut);
        }
        Self {
            code,
            cause_seq,
            log: None,
            message,
        }
    }

    /// The same, as another log tells it of `log`.
    #[must_use]
    pub fn of_log(self, log: u16) -> Self {
        Self {
            log: self.log.or(Some(log)),
            ..self
        }
    }

    /// Its bytes: code, cause (varint), length (varint), message, and the log (varint) if it is another.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len() + 12);
        out.push(self.code as u8);
        put_u64(&mut out, self.cause_seq);
        put_u64(&mut out, self.message.len() as u64);
        out.extend_from_slice(self.message.as_bytes());
        if let Some(log) = self.log {
            put_u64(&mut out, u64::from(log));
        }
        out
    }

    /// Parses a fault.
    ///
    /// # Errors
    /// Truncation, an unknown code, a message too long or not UTF-8.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let code =
            Code::from_u8(reader.u8()?).ok_or(WireError::Malformed("an unknown fault code"))?;
        let cause_seq = reader.var_u64()?;
        let len = reader.count("message bytes", MESSAGE_MAX)?;
        let message = std::str::from_utf8(reader.bytes(len)?)
            .map_err(|_| WireError::Malformed("a fault message that is not UTF-8"))?;
        let log = match reader.is_empty() {
            true => None,
            false => Some(
                u16::try_from(reader.var_u64()?)
                    .map_err(|_| WireError::Malformed("a fault of a log past 16 bits"))?,
            ),
        };
        Ok(Self {
            code,
            cause_seq,
            log,
            message: message.to_owned(),
        })
    }
}
