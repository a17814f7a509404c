//! Why a call was refused, for a program: the metadata beside the status.

use tonic::{Code, Status};

/// The metadata key that carries an [`ErrorCode`].
pub const ERROR_KEY: &str = "genie-error";

/// Why a call was refused. The status' message says it for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The other side speaks another version of the protocol.
    VersionMismatch,
    /// The other side has another torch.
    TorchMismatch,
    /// The same torch, with other operator schemas.
    SchemaMismatch,
    /// The node has no libtorch or no executor binary: it is a gateway.
    NoExecutor,
    /// The node has no room for another session, or for this much memory.
    Busy,
    /// The node is shutting down.
    Draining,
    /// There is no such session, or it is another's.
    UnknownSession,
    /// The segment is not one.
    BadSegment,
    /// No client certificate, or a token that isn't the session's.
    Unauthenticated,
    /// Only a control plane that the node's configuration names may ask this.
    NotTrusted,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VersionMismatch,
        Self::TorchMismatch,
        Self::SchemaMismatch,
        Self::NoExecutor,
        Self::Busy,
        Self::Draining,
        Self::UnknownSession,
        Self::BadSegment,
        Self::Unauthenticated,
        Self::NotTrusted,
    ];

    /// Its name in the metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VersionMismatch => "version_mismatch",
            Self::TorchMismatch => "torch_mismatch",
            Self::SchemaMismatch => "schema_mismatch",
            Self::NoExecutor => "no_executor",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::UnknownSession => "unknown_session",
            Self::BadSegment => "bad_segment",
            Self::Unauthenticated => "unauthenticated",
            Self::NotTrusted => "not_trusted",
        }
    }

    /// The gRPC code that goes with it.
    #[must_use]
    pub const fn grpc_code(self) -> Code {
        match self {
            Self::VersionMismatch
            | Self::TorchMismatch
            | Self::SchemaMismatch
            | Self::NoExecutor => Code::FailedPrecondition,
            Self::Busy => Code::ResourceExhausted,
            Self::Draining => Code::Unavailable,
            Self::UnknownSession => Code::NotFound,
            Self::BadSegment => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::NotTrusted => Code::PermissionDenied,
        }
    }

    /// A status with this code and `message`.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut status = Status::new(self.grpc_code(), message);
        status.metadata_mut().insert(
            ERROR_KEY,
            tonic::metadata::MetadataValue::from_static(self.as_str()),
        );
        status
    }

    /// The code that `status` carries, if any.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let value = status.metadata().get(ERROR_KEY)?.to_str().ok()?;
        Self::ALL.into_iter().find(|code| code.as_str() == value)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_comes_back_from_its_status() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::of(&code.status("why")), Some(code));
        }
        assert_eq!(ErrorCode::of(&tonic::Status::internal("other")), None);
    }
}
