//! What was understood of a program, as a document for people and tools.

use genie_srg::{Modality, Phase, Residency};
use serde::Serialize;

use super::graph::Graph;
use super::operators::Class;
use super::reading::{Facts, Reading};
use super::{AnalysisError, cost, residency};

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
    pub class: &'static str,
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
    pub role: &'static str,
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

/// Explains a graph. `places` are of its operators, in order; where there are none, nothing is said of it.
///
/// # Errors
/// None for a graph that was made by a [`super::graph::Builder`].
pub fn explain(mut graph: Graph, places: &[Place]) -> Result<Explanation, AnalysisError> {
    let facts = Facts::of(&graph);
    let reading = Reading::of(&graph, &facts);
    annotate(&mut graph, &facts, &reading);
    let mut warnings = Vec::new();
    if reading.confidence < super::CONFIDENCE_MIN {
        warnings.push(format!(
            "this program looks like no kind of work that Genie is sure of (the best guess is {} at {:.0}%): it \
             is placed as if nothing was known of it",
            reading.workload.as_str(),
            reading.confidence * 100.0
        ));
    }
    let nothing = Place::default();
    let mut operators = Vec::with_capacity(graph.operators.len());
    for (at, operator) in graph.operators.iter().enumerate() {
        if matches!(facts.classes[at], Class::Look | Class::Transfer) {
            continue;
        }
        let node = &graph.srg.nodes[operator.node];
        let place = places.get(at).unwrap_or(&nothing);
        let cost = node.cost.clone().unwrap_or_default();
        operators.push(Explained {
            op: full_name(node),
            phase: short(node.phase().as_str_name(), "PHASE_"),
            modality: short(node.modality().as_str_name(), "MODALITY_"),
            residency: short(node.residency().as_str_name(), "RESIDENCY_"),
            role: reading.roles[at].as_str(),
            module: place.module.clone(),
            node: place.node.clone(),
            line: place.line.clone(),
            segment: operator.known.segment,
            flops: cost.flops,
            bytes_read: cost.bytes_read,
            bytes_written: cost.bytes_written,
            ran_us: place.ran_us,
        });
    }
    Ok(Explanation {
        version: VERSION,
        workload: Kind {
            class: reading.workload.as_str(),
            confidence: reading.confidence,
        },
        operators,
        warnings,
    })
}

/// Gives a graph's nodes all that is known of them.
pub fn annotate(graph: &mut Graph, facts: &Facts, reading: &Reading) {
    cost::annotate(graph);
    for (at, operator) in graph.operators.iter().enumerate() {
        let node = &mut graph.srg.nodes[operator.node];
        node.phase = reading.phases[at].into();
        node.modality = reading.modalities[at].into();
        reading.roles[at]
            .as_str()
            .clone_into(&mut node.semantic_role);
    }
    for node in &mut graph.srg.nodes {
        if node.phase() == Phase::Unspecified {
            node.phase = Phase::Unknown.into();
        }
        if node.modality() == Modality::Unspecified {
            node.modality = Modality::Unknown.into();
        }
        if node.residency() == Residency::Unspecified {
            node.residency = Residency::Unknown.into();
        }
    }
    residency::of_reading(graph, facts, reading);
}

fn full_name(node: &genie_srg::Node) -> String {
    match &node.kind {
        Some(genie_srg::node::Kind::Operator(operator)) => operator.name.clone(),
        _ => String::new(),
    }
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}
