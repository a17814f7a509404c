//! Why a graph was refused: what, at which node or edge, and what to do about it.

use std::fmt;

use crate::SCHEMA_VERSION;

/// How a graph is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protobuf => "protobuf",
            Self::Json => "JSON",
        })
    }
}

/// Why a graph was refused. `at` names the place: the graph, `node 7`, or `edge 3 (1:0 -> 2:0)`, which
/// is the edge's position in the listing with its producer, output, consumer and input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SrgError {
    #[error(
        "the graph takes {bytes} bytes or more of {encoding} and the limit is {limit}: cut the segment shorter"
    )]
    TooManyBytes {
        encoding: Encoding,
        bytes: usize,
        limit: usize,
    },

    #[error(
        "this is not a graph in {encoding} ({cause}): check that it came whole and from a Genie of this version"
    )]
    Malformed { encoding: Encoding, cause: String },

    #[error(
        "the graph's schema version is {major}.{minor} and this Genie reads {}.0 to {}.{}: \
         use the same Genie on both sides",
        SCHEMA_VERSION.major, SCHEMA_VERSION.major, SCHEMA_VERSION.minor
    )]
    UnsupportedVersion { major: u32, minor: u32 },

    #[error("{at}: {field} is missing: set it")]
    Missing { at: String, field: &'static str },

    #[error("{at}: {field} is {value}, which is unspecified or unknown: use a value of schema version {}.{}", SCHEMA_VERSION.major, SCHEMA_VERSION.minor)]
    UnknownEnumValue {
        at: String,
        field: &'static str,
        value: i32,
    },

    #[error(
        "{at}: {count} {what}, and the limit is {limit}: cut the segment shorter or leave some out"
    )]
    TooMany {
        at: String,
        what: &'static str,
        count: usize,
        limit: usize,
    },

    #[error(
        "{at}: {field} is {index} and has to be below {limit}: check how arguments are counted"
    )]
    IndexTooLarge {
        at: String,
        field: &'static str,
        index: u32,
        limit: u32,
    },

    #[error("node id {id} is used twice: give each node an id of its own")]
    DuplicateNode { id: u64 },

    #[error(
        "{at}: there is no node {node}, which is its {end}: add the node or leave the edge out"
    )]
    DanglingEdge {
        at: String,
        end: &'static str,
        node: u64,
    },

    #[error(
        "{at}: the forward node {forward} is not in this graph: name it by its session sequence number"
    )]
    DanglingLineage { at: String, forward: u64 },

    #[error("{at}: it leads into an input node, which reads nothing: make the node an operator")]
    EdgeIntoInput { at: String },

    #[error("{at}: another edge feeds the same input: give each tensor argument one edge")]
    DuplicateInput { at: String },

    #[error(
        "node {node} needs its own output: give the value that an in-place operator writes a node and version of its own"
    )]
    Cycle { node: u64 },

    #[error("{at}: \"{name}\" is not an operator's name: write namespace::name.overload")]
    BadOperatorName { at: String, name: String },

    #[error("{at}: dimension {dim} is {size}: sizes are 0 or more")]
    NegativeDim { at: String, dim: usize, size: i64 },

    #[error("{at}: {dims} dimensions and {strides} strides: give one stride a dimension")]
    StrideCount {
        at: String,
        dims: usize,
        strides: usize,
    },

    #[error("{at}: {field} is {value}: it has to be 0 or more")]
    Negative {
        at: String,
        field: &'static str,
        value: i64,
    },

    #[error("{at}: {what} does not fit 63 bits: check its dimensions, strides and offset")]
    SizeOverflow { at: String, what: &'static str },

    #[error("the graph's {what} add up to more than 64 bits: check the costs and shapes")]
    TotalOverflow { what: &'static str },

    #[error(
        "{at}: the layout is said to be {flag} and its strides are not: correct them or clear the flag"
    )]
    LayoutContradiction { at: String, flag: &'static str },

    #[error("{at}: {field} is {value}: it has to be a number from 0 to {max}")]
    NumberOutOfRange {
        at: String,
        field: &'static str,
        value: String,
        max: &'static str,
    },
}
