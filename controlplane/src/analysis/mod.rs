//! From a captured segment to what is known of it: a graph, its phases, what lives where, what it
//! costs. Heuristics that say how sure they are, never in the way of a correct result.
//!
//! - [`arguments`] and [`graph`]: the segment's template as an SRG.
//! - [`phase`]: what the operators are for, and what kind of work it all is.
//! - [`residency`]: weights, caches and results.
//! - [`cost`]: FLOPs and bytes.

pub mod arguments;
pub mod cost;
pub mod graph;
pub mod phase;
pub mod residency;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use genie_control_api::v1;
use genie_srg::{Phase, Sequence, SrgError, ValidSrg, WorkloadClass, fingerprint};

pub use graph::Graph;
pub use residency::History;

use crate::sequence;

/// A structural fingerprint, most significant byte first.
pub type Fingerprint = [u8; 16];

/// Below this the plan is the conservative one.
pub const CONFIDENCE_MIN: f64 = 0.7;

/// Why a segment can't be analysed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AnalysisError {
    /// Its bytes are not a template.
    #[error("the segment can't be read: {0}")]
    Wire(#[from] genie_session::WireError),
    /// It is no valid graph.
    #[error("the segment makes no graph: {0}")]
    Graph(#[from] SrgError),
    /// It is larger than a graph may be.
    #[error("the segment has {count} {what}, more than the {limit} that a graph may have")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}

/// What is known of a segment's structure.
#[derive(Debug)]
pub struct Analysis {
    /// Of the structure.
    pub fingerprint: Fingerprint,
    /// The graph with its annotations.
    pub srg: ValidSrg,
    /// What kind of work it is.
    pub workload: WorkloadClass,
    /// From 0 to 1.
    pub confidence: f64,
    /// For the user, each with what to do about it.
    pub warnings: Vec<String>,
    /// Operators in each phase, most first.
    pub phases: Vec<v1::PhaseCount>,
    /// What a node does.
    pub sequence: Arc<Sequence>,
}

/// Finds out what a graph is for. `constants` are the storages that [`History::observe`] gave.
///
/// # Errors
/// A graph that does not validate with its annotations.
pub fn annotate(mut graph: Graph, constants: &HashSet<u64>) -> Result<Analysis, AnalysisError> {
    let fingerprint = graph.fingerprint;
    cost::annotate(&mut graph);
    let workload = phase::annotate(&mut graph);
    residency::annotate(&mut graph, constants);
    let mut warnings = Vec::new();
    let conservative = workload.confidence < CONFIDENCE_MIN;
    if conservative {
        warnings.push(format!(
            "this segment of {} operators looks like no workload that Genie knows (the best guess \
             is {} at {:.0}%), so its plan keeps everything and overlaps nothing: results are the \
             same, it may be slower",
            graph.operators.len(),
            name_of(workload.class.as_str_name()),
            workload.confidence * 100.0
        ));
    }
    let phases = count_phases(&graph);
    let sequence = Arc::new(sequence::for_one_node(&graph, conservative));
    Ok(Analysis {
        fingerprint,
        srg: ValidSrg::try_from(graph.srg)?,
        workload: workload.class,
        confidence: workload.confidence,
        warnings,
        phases,
        sequence,
    })
}

fn count_phases(graph: &Graph) -> Vec<v1::PhaseCount> {
    let mut counts = HashMap::<i32, u32>::new();
    for operator in &graph.operators {
        *counts
            .entry(graph.srg.nodes[operator.node].phase)
            .or_default() += 1;
    }
    let mut phases: Vec<_> = counts
        .into_iter()
        .map(|(phase, operators)| {
            let phase = Phase::try_from(phase).unwrap_or(Phase::Unknown);
            v1::PhaseCount {
                phase: name_of(phase.as_str_name()),
                operators,
            }
        })
        .collect();
    phases.sort_by(|a, b| {
        b.operators
            .cmp(&a.operators)
            .then_with(|| a.phase.cmp(&b.phase))
    });
    phases
}

impl Analysis {
    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let hex: String = self
            .fingerprint
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "segment {hex}: {} at {:.0}%, {} steps",
            self.workload_name(),
            self.confidence * 100.0,
            self.sequence.steps.len()
        )
    }

    /// The workload in lower case, such as "llm_decode".
    #[must_use]
    pub fn workload_name(&self) -> String {
        name_of(self.workload.as_str_name())
    }
}

/// A value of the schema's enums in lower case, without the enum's own name.
#[must_use]
pub fn name_of(value: &str) -> String {
    let bare = value
        .strip_prefix("WORKLOAD_CLASS_")
        .or_else(|| value.strip_prefix("PHASE_"));
    bare.unwrap_or(value).to_ascii_lowercase()
}

fn fingerprint_of(srg: &ValidSrg) -> Fingerprint {
    fingerprint(srg).to_bytes()
}

#[cfg(test)]
mod tests;
