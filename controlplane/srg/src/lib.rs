//! The semantically rich graph (SRG) and the plan made of it: the schema by which the control plane
//! understands a captured program. Data only, never code. Everybody may depend on this crate; it
//! depends on no other of Genie's.
//!
//! The one definition is `proto/genie/srg/v1`; the Rust types, their protobuf encoding and their JSON
//! come from it. A graph that came from elsewhere is worth nothing before [`validate`] has seen it: the
//! result, [`ValidSrg`], is the proof, and what plans or fingerprints takes that.
//!
//! ```
//! use genie_srg::{Dtype, Edge, Node, Phase, Srg, decode_protobuf, encode_protobuf, fingerprint, validate};
//!
//! let mut srg = Srg::new();
//! srg.add_node(Node::input(1, "x").with_phase(Phase::Decode));
//! srg.add_node(Node::operator(2, "aten::relu").with_phase(Phase::Decode));
//! srg.add_edge(Edge::tensor((1, 0), (2, 0), Dtype::Float, &[32, 768]));
//!
//! let valid = validate(&srg)?;
//! let again = decode_protobuf(&encode_protobuf(&valid))?;
//! assert_eq!(fingerprint(&valid), fingerprint(&again));
//! # Ok::<(), genie_srg::SrgError>(())
//! ```

mod builder;
mod codec;
mod dtype;
mod error;
mod fingerprint;
pub mod limits;
mod order;
mod prescan;
mod proto;
mod validate;

pub use codec::{decode_json, decode_protobuf, encode_json, encode_protobuf};
pub use error::{Encoding, SrgError};
pub use fingerprint::{Fingerprint, ParseFingerprintError, fingerprint};
pub use proto::*;
pub use validate::{ValidSrg, validate};

/// The version that this crate writes. It reads every version with the same major and no newer minor.
pub const SCHEMA_VERSION: SchemaVersion = SchemaVersion { major: 1, minor: 1 };
