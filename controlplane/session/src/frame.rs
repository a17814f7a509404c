//! Frames of the data path: a fixed header, a payload, and for bulk raw bytes after it.
//!
//! The same frames pass between the daemon and an executor, in shared-memory rings, with raw
//! bytes replaced by their place in the session's arena.

use crate::WireError;
pub use crate::limits::PAYLOAD_MAX;

/// Version of everything on the wire. Peers of another version are refused.
pub const PROTOCOL_VERSION: u32 = 5;
/// First bytes of a data connection. Anything else on the port is HTTP (gRPC, metrics).
pub const DATA_MAGIC: [u8; 8] = *b"GENIEDT1";
/// First bytes of a connection from another node, which brings values of a session.
pub const PEER_MAGIC: [u8; 8] = *b"GENIEPR1";
/// Bytes of the token that ties a data connection to its session.
pub const TOKEN_BYTES: usize = 32;
/// Bytes of a data connection's opening: magic, version (u32), zero (u32), token.
pub const HELLO_BYTES: usize = 8 + 4 + 4 + TOKEN_BYTES;
/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 24;
/// In a ring: the bytes could not be placed (no memory left), or there were none.
pub const NO_PLACE: u64 = u64::MAX;

/// What a frame is. `seq`, `aux` and the payload are given for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: records; `seq` of the first one, payload as in [`crate::record`].
    Records = 1,
    /// Client: one upload record (payload) whose `aux` raw bytes follow. `seq` of the record.
    /// In a ring: payload is place (u64) then the record, nothing follows.
    Bulk = 2,
    /// Client: is anybody there? `seq` and `aux` are echoed.
    Ping = 3,
    /// Client: the session ends; nothing follows.
    Goodbye = 4,
    /// Client: after a refusal, records go on from `seq`. `aux` counts rewinds.
    Rewind = 5,
    /// Ring only, daemon to executor: plan `seq`, payload as in [`crate::plan`].
    InstallPlan = 6,
    /// Ring only, daemon to executor: forget plan `seq`.
    DropPlan = 7,
    /// Ring only, daemon to executor: the reply bytes at place `seq` were sent; reuse them.
    PlaceSent = 8,
    /// Ring only, daemon to executor: the pool of device memory whose places began at `seq` is gone.
    PoolGone = 9,
    /// Ring only, daemon to executor: transfer `seq` is here, `aux` bytes. Payload: the place (u64).
    Arrived = 10,
    /// Ring only, daemon to executor: transfer `seq` will never be here. Payload:
    /// [`crate::fault::Fault`].
    ArrivedFault = 11,
    /// Ring only, daemon to executor: nothing more comes from log `seq` of the session. Payload:
    /// [`crate::fault::Fault`].
    PeerGone = 12,

    /// Node: every record below `seq` was executed. `aux`: bytes of bulk that were consumed
    /// since the session began.
    Ack = 16,
    /// Node: answer to fetch `seq`, or a part of it; `aux` raw bytes follow. Parts come in order
    /// and without a gap until all bytes that were asked for are there.
    /// In a ring: payload is place (u64), nothing follows.
    Data = 17,
    /// Node: record `seq` failed. Payload: [`crate::fault::Fault`].
    Fault = 18,
    /// Node: fetch or sync `seq` can't be answered. Payload: [`crate::fault::Fault`].
    FetchFault = 19,
    /// Node: results of synchronous operator `seq`. Payload: a result skeleton (u16 length
    /// before it) and its params as varints, then values that are not tensors.
    Metas = 20,
    /// Node: barrier `seq` was reached.
    Synced = 21,
    /// Node: record `seq` and all after it were not applied: a plan is not known here. `aux`
    /// as in [`refusal`].
    Refused = 22,
    /// Node: answer to a ping. Payload: the node's clock, in nanoseconds (u64).
    Pong = 23,
    /// Node: the session is over. Payload: [`crate::fault::Fault`].
    Lost = 24,
    /// Node: the data connection is accepted. `seq`: first record expected.
    Welcome = 25,
    /// Ring only, executor to daemon: plan `seq` is installed (`aux` = 0) or refused.
    PlanInstalled = 26,
    /// Ring only, executor to daemon: the bytes at inbound place `seq` are free again.
    PlaceFree = 27,
    /// Ring only, executor to daemon: bytes now held (`aux`), tensors now held (`seq`).
    Usage = 28,
    /// Node to node: `aux` bytes of transfer `seq`, in order and without a gap until all are there.
    /// Payload: how many there are in all (u64); the raw bytes follow.
    /// In a ring, executor to daemon: payload is place (u64), then that; nothing follows.
    Transfer = 29,
    /// Node to node, and in a ring: transfer `seq` fails. Payload: [`crate::fault::Fault`].
    /// After some of its bytes: no more of it comes.
    TransferFault = 30,
    /// Node to node, against the direction of values, and in a ring, executor to daemon: nobody wants
    /// transfer `seq` any more.
    Unwanted = 31,
    /// Client: from here on say when records run (`aux` = 1), or no longer (0).
    Profile = 32,
    /// Ring only, daemon to executor: the next frame came at `seq`, the last of its raw bytes at `aux`,
    /// both by the node's clock.
    Came = 33,
    /// Node: when records ran. `aux`: that is all (1). Payload as in [`crate::times`].
    Times = 34,
}

impl Kind {
    /// The kind of this number, if there is one.
    #[must_use]
    pub fn from_u8(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Records,
            2 => Self::Bulk,
            3 => Self::Ping,
            4 => Self::Goodbye,
            5 => Self::Rewind,
            6 => Self::InstallPlan,
            7 => Self::DropPlan,
            8 => Self::PlaceSent,
            9 => Self::PoolGone,
            10 => Self::Arrived,
            11 => Self::ArrivedFault,
            12 => Self::PeerGone,
            16 => Self::Ack,
            17 => Self::Data,
            18 => Self::Fault,
            19 => Self::FetchFault,
            20 => Self::Metas,
            21 => Self::Synced,
            22 => Self::Refused,
            23 => Self::Pong,
            24 => Self::Lost,
            25 => Self::Welcome,
            26 => Self::PlanInstalled,
            27 => Self::PlaceFree,
            28 => Self::Usage,
            29 => Self::Transfer,
            30 => Self::TransferFault,
            31 => Self::Unwanted,
            32 => Self::Profile,
            33 => Self::Came,
            34 => Self::Times,
            _ => return None,
        })
    }

    /// True for what a client may send over the network.
    #[must_use]
    pub fn is_from_client(self) -> bool {
        (self as u8) <= Self::Rewind as u8 || self == Self::Profile
    }

    /// True for what a node may send over the network.
    #[must_use]
    pub fn is_from_node(self) -> bool {
        (Self::Ack as u8..=Self::Welcome as u8).contains(&(self as u8)) || self == Self::Times
    }

    /// True where `aux` raw bytes follow the payload on a stream (never in a ring).
    #[must_use]
    pub fn has_raw_bytes(self) -> bool {
        matches!(self, Self::Bulk | Self::Data)
    }
}

/// Bit of a header's flags: see [`Header::asks`].
const ASKS: u8 = 1;

/// A frame header: `kind u8, flags u8, zero u16, payload length u32, seq u64, aux u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Client, Records and Bulk: acknowledge once this frame is done (see
    /// [`crate::client::Window`]).
    pub asks: bool,
    /// Bytes of payload after the header.
    pub payload_len: u32,
    /// See [`Kind`].
    pub seq: u64,
    /// See [`Kind`].
    pub aux: u64,
}

impl Header {
    /// A header without payload.
    #[must_use]
    pub fn new(kind: Kind, seq: u64, aux: u64) -> Self {
        Self {
            kind,
            asks: false,
            payload_len: 0,
            seq,
            aux,
        }
    }

    /// The same with `payload_len`.
    #[must_use]
    pub fn with_payload(self, payload_len: usize) -> Self {
        debug_assert!(payload_len <= PAYLOAD_MAX);
        Self {
            payload_len: payload_len as u32,
            ..self
        }
    }

    /// The same, asking for an acknowledgement if `asks`.
    #[must_use]
    pub fn asking(self, asks: bool) -> Self {
        Self { asks, ..self }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = if self.asks { ASKS } else { 0 };
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }

    /// Parses a header.
    ///
    /// # Errors
    /// An unknown kind, reserved bits that are set, a payload past [`PAYLOAD_MAX`].
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let kind = Kind::from_u8(bytes[0]).ok_or(WireError::Malformed("an unknown frame kind"))?;
        let asks = bytes[1] == ASKS && matches!(kind, Kind::Records | Kind::Bulk);
        if bytes[2..4] != [0, 0] || (bytes[1] != 0 && !asks) {
            return Err(WireError::Malformed(
                "reserved bits of a frame header are set",
            ));
        }
        let word = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let payload_len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if payload_len as usize > PAYLOAD_MAX {
            return Err(WireError::TooMany {
                what: "payload bytes",
                got: u64::from(payload_len),
                max: PAYLOAD_MAX,
            });
        }
        Ok(Self {
            kind,
            asks,
            payload_len,
            seq: word(8),
            aux: word(16),
        })
    }
}

/// `aux` of a refusal: the plan, and the rewind that the node last saw.
#[must_use]
pub fn refusal(plan: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(plan)
}

/// The plan and the rewind in `aux` of a refusal.
#[must_use]
pub fn split_refusal(aux: u64) -> (u32, u32) {
    (aux as u32, (aux >> 32) as u32)
}

/// The opening of a data connection.
#[must_use]
pub fn encode_hello(token: &[u8; TOKEN_BYTES]) -> [u8; HELLO_BYTES] {
    encode_opening(&DATA_MAGIC, token)
}

/// The opening of a connection to another node.
#[must_use]
pub fn encode_peer_hello(token: &[u8; TOKEN_BYTES]) -> [u8; HELLO_BYTES] {
    encode_opening(&PEER_MAGIC, token)
}

fn encode_opening(magic: &[u8; 8], token: &[u8; TOKEN_BYTES]) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(token);
    bytes
}

/// Parses the opening of a data connection; gives the token.
///
/// # Errors
/// [`WireError::NotGenie`] for other first bytes, [`WireError::Version`] for another version.
pub fn decode_hello(bytes: &[u8; HELLO_BYTES]) -> Result<[u8; TOKEN_BYTES], WireError> {
    decode_opening(&DATA_MAGIC, bytes)
}

/// Parses the opening of another node; gives the token.
///
/// # Errors
/// As [`decode_hello`].
pub fn decode_peer_hello(bytes: &[u8; HELLO_BYTES]) -> Result<[u8; TOKEN_BYTES], WireError> {
    decode_opening(&PEER_MAGIC, bytes)
}

fn decode_opening(
    magic: &[u8; 8],
    bytes: &[u8; HELLO_BYTES],
) -> Result<[u8; TOKEN_BYTES], WireError> {
    if &bytes[..8] != magic {
        return Err(WireError::NotGenie);
    }
    let theirs = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if theirs != PROTOCOL_VERSION {
        return Err(WireError::Version {
            theirs,
            ours: PROTOCOL_VERSION,
        });
    }
    let mut token = [0; TOKEN_BYTES];
    token.copy_from_slice(&bytes[16..]);
    Ok(token)
}
