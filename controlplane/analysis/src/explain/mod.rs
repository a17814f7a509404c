//! What was understood of a program: as a graph that says it, and as a document for people and tools.

mod page;
mod text;

use std::collections::{BTreeMap, HashSet};

use genie_srg::{Lineage, SourceLocation, Srg, ValidSrg, limits, node};
use serde::Serialize;

use crate::graph::Graph;
use crate::reading::{Facts, Reading};
use crate::{AnalysisError, CONFIDENCE_MIN, cost, name_of, residency};

/// Keys of annotations by which a graph says what its schema has no field for.
const WORKLOAD: &str = "genie.workload";
const CONFIDENCE: &str = "genie.confidence";
const NODE: &str = "genie.node";
const SEGMENT: &str = "genie.segment";
const RAN_US: &str = "genie.ran_us";

/// Version of the document.
const VERSION: u32 = 1;

/// What whoever recorded an operator knows of it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The module whose forward it is in.
    pub module: String,
    /// The device that it ran on.
    pub node: String,
    /// Where in the program.
    pub line: String,
    /// Microseconds that it ran, if they are known.
    pub ran_us: Option<f64>,
}

/// The kind of work, and how sure that is.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// "llm", "vision" and so on.
    pub class: String,
    /// From 0 to 1.
    pub confidence: f64,
}

/// An operator and what is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// As the dispatcher has it.
    pub op: String,
    /// What it is part of.
    pub phase: String,
    /// What its values come from.
    pub modality: String,
    /// What becomes of what it makes.
    pub residency: String,
    /// What it is for; empty where nobody knows.
    pub role: String,
    /// The module whose forward it is in.
    pub module: String,
    /// The device that it ran on.
    pub node: String,
    /// Where in the program.
    pub line: String,
    /// The segment, counted from 0.
    pub segment: u32,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes that it reads.
    pub bytes_read: u64,
    /// Bytes that it writes.
    pub bytes_written: u64,
    /// Microseconds that it ran, if they are known.
    pub ran_us: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Of the document.
    pub version: u32,
    /// The kind of work.
    pub workload: Kind,
    /// Operators, in the program's order.
    pub operators: Vec<Explained>,
    /// For the user, each true.
    pub warnings: Vec<String>,
}

/// A graph that says all that is known of it. `places` are of its operators, in order; where there are none,
/// nothing is said of it.
///
/// # Errors
/// None for a graph that was made by a [`crate::graph::Builder`].
pub fn annotated(mut graph: Graph, places: &[Place]) -> Result<ValidSrg, AnalysisError> {
    let facts = Facts::of(&graph);
    let reading = Reading::of(&graph, &facts);
    annotate(&mut graph, &facts, &reading, &HashSet::new());
    let note = |annotations: &mut BTreeMap<String, String>, key: &str, value: String| {
        annotations.insert(key.to_owned(), value);
    };
    for (at, operator) in graph.operators.iter().enumerate() {
        let node = &mut graph.srg.nodes[operator.node];
        note(
            &mut node.annotations,
            SEGMENT,
            operator.known.segment.to_string(),
        );
        let Some(place) = places.get(at) else {
            continue;
        };
        node.module_path = cut(&place.module, limits::MAX_NAME_BYTES);
        if !place.node.is_empty() {
            note(
                &mut node.annotations,
                NODE,
                cut(&place.node, limits::MAX_ANNOTATION_BYTES),
            );
        }
        if let Some(ran_us) = place.ran_us {
            note(&mut node.annotations, RAN_US, format!("{ran_us:.3}"));
        }
        node.lineage = source(&place.line).map(|source| Lineage {
            source: Some(source),
            ..Lineage::default()
        });
    }
    let annotations = &mut graph.srg.annotations;
    note(annotations, WORKLOAD, reading.workload.as_str().to_owned());
    note(annotations, CONFIDENCE, reading.confidence.to_string());
    Ok(ValidSrg::try_from(graph.srg)?)
}

/// `File "x.py", line 3, in f`, as Python and we write it.
fn source(line: &str) -> Option<SourceLocation> {
    let (file, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
    let (line, function) = rest.split_once(", in ").unwrap_or((rest, ""));
    Some(SourceLocation {
        file: cut(file, limits::MAX_PATH_BYTES),
        line: line.parse().ok()?,
        function: cut(function, limits::MAX_NAME_BYTES),
    })
}

fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=text.len().min(bytes_max))
        .rev()
        .find(|&at| text.is_char_boundary(at));
    text[..end.unwrap_or(0)].to_owned()
}

impl Explanation {
    /// What a graph says of itself.
    #[must_use]
    pub fn of(srg: &Srg) -> Self {
        let said = |key: &str| srg.annotations.get(key).cloned();
        let class = said(WORKLOAD).unwrap_or_else(|| "other".to_owned());
        let confidence = said(CONFIDENCE).and_then(|text| text.parse().ok());
        let confidence = confidence
            .filter(|of: &f64| (0.0..=1.0).contains(of))
            .unwrap_or(0.0);
        let mut warnings = Vec::new();
        if confidence < CONFIDENCE_MIN {
            warnings.push(format!(
                "this program looks like no kind of work that Genie is sure of (the best guess is \
                 {class} at {:.0}%): nothing is decided by that",
                confidence * 100.0
            ));
        }
        Self {
            version: VERSION,
            operators: srg.nodes.iter().filter_map(Explained::of).collect(),
            workload: Kind { class, confidence },
            warnings,
        }
    }
}

impl Explained {
    /// What a graph says of a node. `None`: it runs nothing.
    fn of(node: &genie_srg::Node) -> Option<Self> {
        let op = match &node.kind {
            Some(node::Kind::Operator(operator)) => operator.name.clone(),
            Some(node::Kind::Fused(fused)) => fused.operators.join("+"),
            _ => return None,
        };
        // Looks, memory, and what goes from device to device.
        if matches!(op.as_str(), "genie::fetch" | "genie::send" | "genie::alloc") {
            return None;
        }
        let said = |key: &str| node.annotations.get(key);
        let source = node
            .lineage
            .as_ref()
            .and_then(|lineage| lineage.source.as_ref());
        let cost = node.cost.unwrap_or_default();
        Some(Self {
            op,
            phase: name_of(node.phase().as_str_name()),
            modality: name_of(node.modality().as_str_name()),
            residency: name_of(node.residency().as_str_name()),
            role: node.semantic_role.clone(),
            module: node.module_path.clone(),
            node: said(NODE).cloned().unwrap_or_default(),
            line: source.map_or_else(String::new, |at| format!("{}:{}", at.file, at.line)),
            segment: said(SEGMENT)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            flops: cost.flops,
            bytes_read: cost.bytes_read,
            bytes_written: cost.bytes_written,
            ran_us: said(RAN_US)
                .and_then(|text| text.parse().ok())
                .filter(|us: &f64| us.is_finite()),
        })
    }
}

/// Gives a graph's nodes all that is known of them; `constants` are storages that nobody ever wrote.
pub fn annotate(graph: &mut Graph, facts: &Facts, reading: &Reading, constants: &HashSet<u64>) {
    cost::annotate(graph);
    for (at, operator) in graph.operators.iter().enumerate() {
        let node = &mut graph.srg.nodes[operator.node];
        node.phase = reading.phases[at].into();
        node.modality = reading.modalities[at].into();
        reading.roles[at]
            .as_str()
            .clone_into(&mut node.semantic_role);
    }
    residency::annotate(graph, facts, reading, constants);
}
