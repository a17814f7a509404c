//! Whether a client and a node understand each other.

use genie_control_api::{ErrorCode, v1};

use crate::node::Capabilities;

/// Why they don't. Each message names both sides and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another protocol.
    #[error(
        "the client (genie {client_version}) speaks protocol version {theirs}, this node (genie \
         {node_version}) speaks {ours}: install the same genie release on both sides"
    )]
    Version {
        /// The client's protocol.
        theirs: u32,
        /// The node's protocol.
        ours: u32,
        /// The client's release.
        client_version: String,
        /// The node's release.
        node_version: String,
    },
    /// Another torch.
    #[error(
        "the client has torch {theirs}, this node runs libtorch {ours}: install torch=={ours} in \
         the client's environment, or start the node with `--libtorch` of {theirs}"
    )]
    Torch {
        /// The client's release.
        theirs: String,
        /// The node's release.
        ours: String,
    },
    /// The same release with other operators.
    #[error(
        "the operators of the client's torch {torch} (schema hash {theirs:016x}) are not those of \
         this node's (schema hash {ours:016x}): one of them is a patched build; use the same build \
         on both sides"
    )]
    Schema {
        /// The release both have.
        torch: String,
        /// The client's hash.
        theirs: u64,
        /// The node's hash.
        ours: u64,
    },
    /// A device that is not there.
    #[error("the client wants device {wanted} of this node, which has {have}")]
    Device {
        /// The index it asked for.
        wanted: u32,
        /// Devices there are.
        have: usize,
    },
    /// More memory than there is.
    #[error(
        "the client wants {wanted} bytes of memory, this node gives a session at most {most}: ask \
         for less, or start the node with a larger `--memory`"
    )]
    Memory {
        /// What it asked for.
        wanted: u64,
        /// What there is.
        most: u64,
    },
}

impl Refusal {
    /// The machine-readable reason.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Version { .. } => ErrorCode::VersionMismatch,
            Self::Torch { .. } => ErrorCode::TorchMismatch,
            Self::Schema { .. } => ErrorCode::SchemaMismatch,
            Self::Device { .. } | Self::Memory { .. } => ErrorCode::Busy,
        }
    }
}

/// Compares what a client says of itself with a node; gives the session's memory budget.
///
/// # Errors
/// The first thing that differs.
pub fn negotiate(
    request: &v1::OpenSessionRequest,
    node: &Capabilities,
    protocol_version: u32,
) -> Result<u64, Refusal> {
    if request.protocol_version != protocol_version {
        return Err(Refusal::Version {
            theirs: request.protocol_version,
            ours: protocol_version,
            client_version: shown(&request.client_version),
            node_version: node.node_version.clone(),
        });
    }
    // A gateway has no torch to compare: it refuses later, with its own reason.
    let ours = release(&node.torch_version);
    if !ours.is_empty() && release(&request.torch_version) != ours {
        return Err(Refusal::Torch {
            theirs: shown(release(&request.torch_version)),
            ours: ours.to_owned(),
        });
    }
    let (theirs, ours_hash) = (request.schema_hash, node.schema_hash);
    if theirs != 0 && ours_hash != 0 && theirs != ours_hash {
        return Err(Refusal::Schema {
            torch: ours.to_owned(),
            theirs,
            ours: ours_hash,
        });
    }
    memory(request.device, request.memory_bytes_wanted, node)
}

/// What a session on `device` gets that wants so many bytes; 0 is what there is.
///
/// # Errors
/// No such device; more than there is.
pub fn memory(wanted_device: u32, wanted: u64, node: &Capabilities) -> Result<u64, Refusal> {
    let device = usize::try_from(wanted_device).ok();
    let device = device.and_then(|device| node.devices.get(device));
    let most = match device.map(|device| device.memory_bytes) {
        Some(has) if has > 0 => node.session_memory_bytes.min(has),
        // A gateway has none: it refuses later, with its own reason.
        Some(_) => node.session_memory_bytes,
        None if wanted_device == 0 => node.session_memory_bytes,
        None => {
            return Err(Refusal::Device {
                wanted: wanted_device,
                have: node.devices.len(),
            });
        }
    };
    match wanted {
        0 => Ok(most),
        wanted if wanted <= most => Ok(wanted),
        wanted => Err(Refusal::Memory { wanted, most }),
    }
}

/// A torch version without its local suffix: "2.11.0+cpu" is "2.11.0".
#[must_use]
pub fn release(version: &str) -> &str {
    version.split('+').next().unwrap_or_default().trim()
}

/// A peer's text as it may stand in a message or a log line: short, printable, one line.
#[must_use]
pub fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    if text.is_empty() {
        return "(none)".to_owned();
    }
    text.chars()
        .take(SHOWN_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Capabilities {
        Capabilities {
            node_version: "0.1.0".into(),
            torch_version: "2.11.0+cu130".into(),
            schema_hash: 7,
            session_memory_bytes: 1 << 30,
            ..Capabilities::default()
        }
    }

    fn client() -> v1::OpenSessionRequest {
        v1::OpenSessionRequest {
            protocol_version: 1,
            client_version: "0.1.0".into(),
            torch_version: "2.11.0+cpu".into(),
            schema_hash: 7,
            ..Default::default()
        }
    }

    #[test]
    fn the_local_suffix_does_not_matter() {
        assert_eq!(negotiate(&client(), &node(), 1), Ok(1 << 30));
    }

    #[test]
    fn another_protocol_names_both() {
        let refusal = negotiate(&client(), &node(), 2).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::VersionMismatch);
        let text = refusal.to_string();
        assert!(
            text.contains("version 1") && text.contains("speaks 2"),
            "{text}"
        );
    }

    #[test]
    fn another_torch_names_both() {
        for theirs in ["2.11.1", "2.10.0+cpu", "2.1", ""] {
            let request = v1::OpenSessionRequest {
                torch_version: theirs.into(),
                ..client()
            };
            let refusal = negotiate(&request, &node(), 1).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::TorchMismatch, "{theirs}");
            assert!(refusal.to_string().contains("torch==2.11.0"), "{refusal}");
        }
    }

    #[test]
    fn schemas_are_compared_where_both_know_them() {
        let request = v1::OpenSessionRequest {
            schema_hash: 8,
            ..client()
        };
        assert_eq!(
            negotiate(&request, &node(), 1).unwrap_err().code(),
            ErrorCode::SchemaMismatch
        );
        let unknown = v1::OpenSessionRequest {
            schema_hash: 0,
            ..client()
        };
        assert!(negotiate(&unknown, &node(), 1).is_ok());
        let gateway = Capabilities {
            schema_hash: 0,
            ..node()
        };
        assert!(negotiate(&request, &gateway, 1).is_ok());
    }

    #[test]
    fn a_device_has_its_share_and_must_be_there() {
        let node = Capabilities {
            devices: vec![
                v1::Device::default(),
                v1::Device {
                    memory_bytes: 4096,
                    ..Default::default()
                },
            ],
            ..node()
        };
        let on = |device| v1::OpenSessionRequest { device, ..client() };
        assert_eq!(negotiate(&on(0), &node, 1), Ok(1 << 30));
        assert_eq!(negotiate(&on(1), &node, 1), Ok(4096));
        for missing in [2, u32::MAX] {
            let refusal = negotiate(&on(missing), &node, 1).unwrap_err();
            assert!(refusal.to_string().contains("which has 2"), "{refusal}");
        }
    }

    #[test]
    fn memory_is_granted_or_refused_whole() {
        let wants = |bytes| v1::OpenSessionRequest {
            memory_bytes_wanted: bytes,
            ..client()
        };
        assert_eq!(negotiate(&wants(4096), &node(), 1), Ok(4096));
        assert_eq!(
            negotiate(&wants((1 << 30) + 1), &node(), 1)
                .unwrap_err()
                .code(),
            ErrorCode::Busy
        );
    }

    #[test]
    fn a_peers_text_is_tamed() {
        assert_eq!(shown("a\nb"), "a?b");
        assert_eq!(shown(&"x".repeat(1000)).len(), 64);
    }
}
