//! Parse, don't validate: [`ValidSrg`] can only be had from a graph that keeps every rule.
//!
//! The rules: a version that this crate knows; counts and lengths within [`limits`]; unique node ids;
//! edges between nodes that are there, none into an input node, one for each input; no cycle; every
//! enum value specified and known; tensor sizes and spans below 2^63 bytes, totals below 2^64; layouts
//! that agree with their strides; rates and intensities that are finite and not negative; lineage that
//! names a node of the graph.

mod edge;
mod node;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use prost::Message;

use crate::{
    Edge, Encoding, Node, SCHEMA_VERSION, Srg, SrgError,
    limits::{self, MAX_PROTOBUF_BYTES},
    order::Wiring,
};

/// A graph that keeps every rule, with its wiring worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidSrg {
    srg: Srg,
    wiring: Wiring,
}

/// Copies the graph if it keeps every rule; `ValidSrg::try_from` does the same without the copy.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate(srg: &Srg) -> Result<ValidSrg, SrgError> {
    let wiring = check(srg)?;
    Ok(ValidSrg {
        srg: srg.clone(),
        wiring,
    })
}

impl TryFrom<Srg> for ValidSrg {
    type Error = SrgError;

    fn try_from(srg: Srg) -> Result<Self, SrgError> {
        let wiring = check(&srg)?;
        Ok(Self { srg, wiring })
    }
}

impl ValidSrg {
    /// The plain message, to encode it within another or to read it.
    pub fn as_srg(&self) -> &Srg {
        &self.srg
    }

    /// The plain message, to change it; afterwards it has to be validated again.
    pub fn into_srg(self) -> Srg {
        self.srg
    }

    /// As listed, in the capture order.
    pub fn nodes(&self) -> &[Node] {
        &self.srg.nodes
    }

    /// As listed, in no particular order.
    pub fn edges(&self) -> &[Edge] {
        &self.srg.edges
    }

    /// The node with this id.
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.wiring
            .by_id
            .get(&id)
            .map(|&node| &self.srg.nodes[node])
    }

    /// Every node after its producers. Stable: a listing that is topological already stays as it is;
    /// in another, a node is preceded by its producers in argument order. Neither ids nor the listing
    /// of edges matter.
    pub fn topological_order(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.wiring.order.iter().map(|&node| &self.srg.nodes[node])
    }

    /// A node's place in the topological order, counted from 0.
    pub fn position(&self, id: u64) -> Option<usize> {
        self.wiring
            .by_id
            .get(&id)
            .map(|&node| self.wiring.position[node])
    }

    /// The edges into the node with this id, by input index; none for an id that isn't there.
    pub fn inputs(&self, id: u64) -> impl Iterator<Item = &Edge> {
        let incoming = self
            .wiring
            .by_id
            .get(&id)
            .map_or(&[][..], |&node| self.wiring.incoming(node));
        incoming.iter().map(|&edge| &self.srg.edges[edge])
    }

    pub(crate) fn wiring(&self) -> &Wiring {
        &self.wiring
    }
}

fn check(srg: &Srg) -> Result<Wiring, SrgError> {
    // Counts first: they bound the work of everything after.
    At::Graph.at_most("nodes", srg.nodes.len(), limits::MAX_NODES)?;
    At::Graph.at_most("edges", srg.edges.len(), limits::MAX_EDGES)?;
    check_version(srg)?;
    check_annotations(At::Graph, &srg.annotations)?;
    let by_id = node_index(srg)?;
    let mut totals = Totals::default();
    for node in &srg.nodes {
        node::check(node, &by_id)?;
        totals.add_node(node)?;
    }
    let mut ends = Vec::with_capacity(srg.edges.len());
    for (index, edge) in srg.edges.iter().enumerate() {
        ends.push(edge::check(At::Edge(index, edge), edge, srg, &by_id)?);
        totals.add_edge(edge::tensor_bytes(At::Edge(index, edge), edge)?)?;
    }
    let wiring = Wiring::new(srg, by_id, &ends).map_err(|node| SrgError::Cycle {
        node: srg.nodes[node].id,
    })?;
    check_inputs_once(srg, &wiring)?;
    let bytes = srg.encoded_len();
    if bytes > MAX_PROTOBUF_BYTES {
        return Err(SrgError::TooManyBytes {
            encoding: Encoding::Protobuf,
            bytes,
            limit: MAX_PROTOBUF_BYTES,
        });
    }
    Ok(wiring)
}

fn check_version(srg: &Srg) -> Result<(), SrgError> {
    let Some(version) = srg.schema_version else {
        return Err(At::Graph.missing("schema_version"));
    };
    if version.major != SCHEMA_VERSION.major || version.minor > SCHEMA_VERSION.minor {
        return Err(SrgError::UnsupportedVersion {
            major: version.major,
            minor: version.minor,
        });
    }
    Ok(())
}

fn node_index(srg: &Srg) -> Result<HashMap<u64, usize>, SrgError> {
    let mut by_id = HashMap::with_capacity(srg.nodes.len());
    for (index, node) in srg.nodes.iter().enumerate() {
        if by_id.insert(node.id, index).is_some() {
            return Err(SrgError::DuplicateNode { id: node.id });
        }
    }
    Ok(by_id)
}

fn check_inputs_once(srg: &Srg, wiring: &Wiring) -> Result<(), SrgError> {
    for node in 0..srg.nodes.len() {
        for pair in wiring.incoming(node).windows(2) {
            if srg.edges[pair[0]].input_index == srg.edges[pair[1]].input_index {
                let at = At::Edge(pair[1], &srg.edges[pair[1]]).to_string();
                return Err(SrgError::DuplicateInput { at });
            }
        }
    }
    Ok(())
}

fn check_annotations(at: At<'_>, annotations: &BTreeMap<String, String>) -> Result<(), SrgError> {
    at.at_most("annotations", annotations.len(), limits::MAX_ANNOTATIONS)?;
    for (key, value) in annotations {
        at.at_most(
            "bytes of an annotation's key",
            key.len(),
            limits::MAX_NAME_BYTES,
        )?;
        at.at_most(
            "bytes of an annotation",
            value.len(),
            limits::MAX_ANNOTATION_BYTES,
        )?;
    }
    Ok(())
}

/// Whoever sums up a valid graph's costs or sizes in 64 bits cannot overflow.
#[derive(Default)]
struct Totals {
    flops: u64,
    cost_bytes: u64,
    edge_bytes: u64,
}

impl Totals {
    fn add_node(&mut self, node: &Node) -> Result<(), SrgError> {
        let Some(cost) = &node.cost else {
            return Ok(());
        };
        add(&mut self.flops, cost.flops, "FLOPs")?;
        add(
            &mut self.cost_bytes,
            cost.bytes_read,
            "bytes read and written",
        )?;
        add(
            &mut self.cost_bytes,
            cost.bytes_written,
            "bytes read and written",
        )
    }

    fn add_edge(&mut self, bytes: u64) -> Result<(), SrgError> {
        add(&mut self.edge_bytes, bytes, "tensor bytes")
    }
}

fn add(total: &mut u64, more: u64, what: &'static str) -> Result<(), SrgError> {
    *total = total
        .checked_add(more)
        .ok_or(SrgError::TotalOverflow { what })?;
    Ok(())
}

/// A place in a graph, written out only when an error needs it.
#[derive(Clone, Copy)]
enum At<'a> {
    Graph,
    Node(u64),
    Edge(usize, &'a Edge),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graph => f.write_str("the graph"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Edge(index, e) => write!(
                f,
                "edge {index} ({}:{} -> {}:{})",
                e.producer, e.output_index, e.consumer, e.input_index
            ),
        }
    }
}

impl At<'_> {
    fn missing(self, field: &'static str) -> SrgError {
        SrgError::Missing {
            at: self.to_string(),
            field,
        }
    }

    fn at_most(self, what: &'static str, count: usize, limit: usize) -> Result<(), SrgError> {
        if count > limit {
            return Err(SrgError::TooMany {
                at: self.to_string(),
                what,
                count,
                limit,
            });
        }
        Ok(())
    }

    /// The value of an enum field, which 0 (unspecified) is not.
    fn known<E: TryFrom<i32>>(self, field: &'static str, value: i32) -> Result<E, SrgError> {
        match E::try_from(value) {
            Ok(known) if value != 0 => Ok(known),
            _ => Err(SrgError::UnknownEnumValue {
                at: self.to_string(),
                field,
                value,
            }),
        }
    }

    fn not_negative(self, field: &'static str, value: i64) -> Result<(), SrgError> {
        if value < 0 {
            return Err(SrgError::Negative {
                at: self.to_string(),
                field,
                value,
            });
        }
        Ok(())
    }

    fn finite(self, field: &'static str, value: f64) -> Result<(), SrgError> {
        if value.is_finite() && value >= 0.0 {
            return Ok(());
        }
        Err(self.out_of_range(field, value, "any finite number"))
    }

    fn fraction(self, field: &'static str, value: f64) -> Result<(), SrgError> {
        if (0.0..=1.0).contains(&value) {
            return Ok(());
        }
        Err(self.out_of_range(field, value, "1"))
    }

    fn out_of_range(self, field: &'static str, value: f64, max: &'static str) -> SrgError {
        SrgError::NumberOutOfRange {
            at: self.to_string(),
            field,
            value: value.to_string(),
            max,
        }
    }
}

#[cfg(test)]
mod tests;
