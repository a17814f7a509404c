//! The two encodings. Decoding bounds the input before it looks at it, refuses rather than panics, and
//! recurses no deeper than the schema does (prost and serde_json have limits of their own for groups
//! and nesting that the schema doesn't have).

use std::io;

use prost::Message;

use crate::{
    Encoding, Srg, SrgError, ValidSrg,
    limits::{MAX_JSON_BYTES, MAX_PROTOBUF_BYTES},
    prescan,
};

/// At most [`MAX_PROTOBUF_BYTES`]: validation saw to that.
pub fn encode_protobuf(srg: &ValidSrg) -> Vec<u8> {
    srg.as_srg().encode_to_vec()
}

/// # Errors
/// More than [`MAX_PROTOBUF_BYTES`]; not a graph in protobuf; a graph that is not valid. Fields that
/// the schema doesn't have are skipped.
pub fn decode_protobuf(bytes: &[u8]) -> Result<ValidSrg, SrgError> {
    bound(Encoding::Protobuf, bytes.len(), MAX_PROTOBUF_BYTES)?;
    prescan::protobuf(bytes)?;
    let srg = Srg::decode(bytes).map_err(|error| SrgError::Malformed {
        encoding: Encoding::Protobuf,
        cause: error.to_string(),
    })?;
    ValidSrg::try_from(srg)
}

/// Canonical proto3 JSON: names in lowerCamelCase, 64-bit integers as strings, bytes in base64,
/// defaults left out.
///
/// # Errors
/// More than [`MAX_JSON_BYTES`].
pub fn encode_json(srg: &ValidSrg) -> Result<String, SrgError> {
    let mut out = Bounded(Vec::new());
    serde_json::to_writer(&mut out, srg.as_srg()).map_err(|error| {
        // The writer fails for one reason alone, and the serialiser for none that valid graphs give.
        if error.is_io() {
            SrgError::TooManyBytes {
                encoding: Encoding::Json,
                bytes: MAX_JSON_BYTES.saturating_add(1),
                limit: MAX_JSON_BYTES,
            }
        } else {
            SrgError::Malformed {
                encoding: Encoding::Json,
                cause: error.to_string(),
            }
        }
    })?;
    String::from_utf8(out.0).map_err(|error| SrgError::Malformed {
        encoding: Encoding::Json,
        cause: error.to_string(),
    })
}

/// # Errors
/// More than [`MAX_JSON_BYTES`]; not a graph in JSON; a field that the schema doesn't have; a graph that
/// is not valid.
pub fn decode_json(text: &[u8]) -> Result<ValidSrg, SrgError> {
    bound(Encoding::Json, text.len(), MAX_JSON_BYTES)?;
    prescan::json(text)?;
    let srg: Srg = serde_json::from_slice(text).map_err(|error| SrgError::Malformed {
        encoding: Encoding::Json,
        cause: error.to_string(),
    })?;
    ValidSrg::try_from(srg)
}

fn bound(encoding: Encoding, bytes: usize, limit: usize) -> Result<(), SrgError> {
    if bytes > limit {
        return Err(SrgError::TooManyBytes {
            encoding,
            bytes,
            limit,
        });
    }
    Ok(())
}

/// Stops when the limit is reached, so that a large graph's JSON is never in memory whole.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_JSON_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Edge, Node, validate};

    fn relu() -> Srg {
        let mut srg = Srg::new();
        srg.add_node(Node::input(1, "x"))
            .add_node(Node::operator(2, "aten::relu"))
            .add_edge(Edge::tensor((1, 0), (2, 0), Dtype::Float, &[2, 3]).with_storage(4096, 1));
        srg
    }

    #[test]
    fn json_is_what_the_schema_says() {
        let text = encode_json(&validate(&relu()).expect("valid")).expect("small");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["schemaVersion"]["major"], 1);
        assert_eq!(json["nodes"][1]["operator"]["name"], "aten::relu");
        assert_eq!(json["nodes"][1]["phase"], "PHASE_UNKNOWN");
        assert_eq!(json["edges"][0]["dims"], serde_json::json!(["2", "3"]));
        assert_eq!(json["edges"][0]["dtype"], "DTYPE_FLOAT");
    }

    #[test]
    fn input_past_the_limit_is_refused_unread() {
        let long = vec![b' '; MAX_JSON_BYTES.max(MAX_PROTOBUF_BYTES) + 1];
        assert!(matches!(
            decode_protobuf(&long),
            Err(SrgError::TooManyBytes { .. })
        ));
        assert!(matches!(
            decode_json(&long),
            Err(SrgError::TooManyBytes { .. })
        ));
    }

    #[test]
    fn graph_too_large_for_json_is_refused() {
        let mut srg = Srg::new();
        // Base64 makes 4 bytes of 3.
        for id in 0..400 {
            srg.add_node(Node::operator(id, "aten::relu").with_call(vec![1; 1 << 16], []));
        }
        let valid = validate(&srg).expect("valid");
        assert_eq!(decode_protobuf(&encode_protobuf(&valid)), Ok(valid.clone()));
        assert!(matches!(
            encode_json(&valid),
            Err(SrgError::TooManyBytes {
                encoding: Encoding::Json,
                ..
            })
        ));
    }

    #[test]
    fn json_nested_deep_is_refused() {
        for open in ["[", "{\"nodes\":["] {
            let text = open.repeat(1 << 20);
            assert!(matches!(
                decode_json(text.as_bytes()),
                Err(SrgError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn protobuf_nested_deep_is_refused() {
        // Starts of group 15, which no schema has: the classic way to exhaust a decoder's stack.
        assert!(matches!(
            decode_protobuf(&vec![0x7b; 1 << 20]),
            Err(SrgError::Malformed { .. })
        ));
    }

    #[test]
    fn unknown_json_field_is_refused() {
        assert!(matches!(
            decode_json(br#"{"nods":[]}"#),
            Err(SrgError::Malformed { .. })
        ));
    }

    #[test]
    fn decoding_validates() {
        let mut srg = relu();
        srg.edges[0].producer = 7;
        assert!(matches!(
            decode_protobuf(&srg.encode_to_vec()),
            Err(SrgError::DanglingEdge { .. })
        ));
        let text = serde_json::to_vec(&srg).expect("JSON");
        assert!(matches!(
            decode_json(&text),
            Err(SrgError::DanglingEdge { .. })
        ));
    }
}
