//! Counting before decoding. An empty node is two bytes in protobuf and hundreds in memory, so a small
//! message could fill it; this look over the bytes builds nothing.

use std::fmt;

use prost::encoding::{DecodeContext, decode_key, skip_field};
use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, SeqAccess, Visitor},
};

use crate::{Encoding, SrgError, limits};

const NODES_FIELD: u32 = 2;
const EDGES_FIELD: u32 = 3;

/// Refuses a protobuf message with more nodes or edges than a graph may have.
pub(crate) fn protobuf(mut bytes: &[u8]) -> Result<(), SrgError> {
    let malformed = |error: prost::DecodeError| SrgError::Malformed {
        encoding: Encoding::Protobuf,
        cause: error.to_string(),
    };
    let (mut nodes, mut edges) = (0, 0);
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(malformed)?;
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(malformed)?;
        match field {
            NODES_FIELD => nodes += 1,
            EDGES_FIELD => edges += 1,
            _ => {}
        }
    }
    check(nodes, edges)
}

/// The same for JSON.
pub(crate) fn json(text: &[u8]) -> Result<(), SrgError> {
    let counts: Counts = serde_json::from_slice(text).map_err(|error| SrgError::Malformed {
        encoding: Encoding::Json,
        cause: error.to_string(),
    })?;
    check(counts.nodes.0, counts.edges.0)
}

fn check(nodes: usize, edges: usize) -> Result<(), SrgError> {
    for (what, count, limit) in [
        ("nodes", nodes, limits::MAX_NODES),
        ("edges", edges, limits::MAX_EDGES),
    ] {
        if count > limit {
            return Err(SrgError::TooMany {
                at: "the graph".to_owned(),
                what,
                count,
                limit,
            });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Counts {
    nodes: Length,
    edges: Length,
}

/// The length of a list whose items are skipped.
#[derive(Default)]
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
                let mut length = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(Length(length))
            }
        }
        deserializer.deserialize_seq(Counter)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{Edge, Node, Srg};

    #[test]
    fn protobuf_counts_what_prost_decodes() {
        let too_many_nodes = Srg {
            nodes: vec![Node::default(); limits::MAX_NODES + 1],
            ..Srg::default()
        };
        let too_many_edges = Srg {
            edges: vec![Edge::default(); limits::MAX_EDGES + 1],
            ..Srg::default()
        };
        assert!(matches!(
            protobuf(&too_many_nodes.encode_to_vec()),
            Err(SrgError::TooMany { what: "nodes", .. })
        ));
        assert!(matches!(
            protobuf(&too_many_edges.encode_to_vec()),
            Err(SrgError::TooMany { what: "edges", .. })
        ));
    }

    #[test]
    fn json_counts_what_pbjson_decodes() {
        let list = |length: usize| vec!["{}"; length].join(",");
        let nodes = format!(r#"{{"n\u006fdes":[{}]}}"#, list(limits::MAX_NODES + 1));
        let edges = format!(r#"{{"edges":[{}]}}"#, list(limits::MAX_EDGES + 1));
        assert!(matches!(
            json(nodes.as_bytes()),
            Err(SrgError::TooMany { what: "nodes", .. })
        ));
        assert!(matches!(
            json(edges.as_bytes()),
            Err(SrgError::TooMany { what: "edges", .. })
        ));
    }
}
