//! From a captured segment to what is known of it: a graph, its phases, what lives where, what it
//! costs. Heuristics that say how sure they are, never in the way of a correct result. Nothing decides
//! with them yet.
//!
//! Three kinds of knowledge are kept apart: [`Structure`] follows from what the fingerprint covers, and
//! is remembered by it; [`Sizes`] are looked at in each segment; [`History`] belongs to one session.
//!
//! - [`arguments`], [`names`] and [`graph`]: the segment's template as an SRG.
//! - [`operators`]: what an operator's name says.
//! - [`phase`]: what the operators are for, and what kind of work it all is.
//! - [`residency`]: weights, caches and results.
//! - [`cost`]: FLOPs and bytes.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod arguments;
pub mod attention;
pub mod cost;
pub mod explain;
pub mod fact_cache;
pub mod graph;
pub mod lineage;
pub mod names;
pub mod operators;
pub mod phase;
pub mod reading;
pub mod residency;
pub mod roles;
pub mod wiring;

use std::collections::{HashMap, HashSet};

use genie_srg::{Phase, SrgError, ValidSrg, WorkloadClass, fingerprint};

pub use graph::Graph;
pub use phase::{Sizes, Structure};
pub use residency::History;

/// A structural fingerprint, most significant byte first.
pub type Fingerprint = [u8; 16];

/// Below this it is a guess, and the user hears so.
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

/// What a client is told of its segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// Of the structure.
    pub fingerprint: Fingerprint,
    /// What kind of work it is.
    pub workload: WorkloadClass,
    /// From 0 to 1.
    pub confidence: f64,
    /// For the user, each with what to do about it.
    pub warnings: Vec<String>,
    /// Operators in each phase, most first.
    pub phases: Vec<(Phase, u32)>,
    /// Operators.
    pub operators: usize,
}

/// What is known of a segment of this structure.
#[must_use]
pub fn findings(graph: &Graph, structure: &Structure) -> Findings {
    let workload = structure.workload(&Sizes::of(graph));
    let mut warnings = Vec::new();
    if workload.confidence < CONFIDENCE_MIN {
        warnings.push(format!(
            "this segment of {} operators looks like no workload that Genie knows (the best guess \
             is {} at {:.0}%): it runs as it was captured, like every other, and what is said of \
             its phases may be wrong",
            graph.operators.len(),
            name_of(workload.class.as_str_name()),
            workload.confidence * 100.0
        ));
    }
    Findings {
        fingerprint: graph.fingerprint,
        workload: workload.class,
        confidence: workload.confidence,
        warnings,
        phases: count_phases(structure.phases(workload.class)),
        operators: graph.operators.len(),
    }
}

/// The graph with all that is known of it, to export or to look at. `constants` are the storages that
/// [`History::observe`] gave.
///
/// # Errors
/// A graph that does not validate with its annotations.
pub fn annotate(mut graph: Graph, constants: &HashSet<u64>) -> Result<ValidSrg, AnalysisError> {
    let structure = Structure::of(&graph);
    let workload = structure.workload(&Sizes::of(&graph));
    cost::annotate(&mut graph);
    phase::annotate(&mut graph, &structure, workload.class);
    residency::annotate(&mut graph, constants);
    Ok(ValidSrg::try_from(graph.srg)?)
}

fn count_phases(phases: impl Iterator<Item = Phase>) -> Vec<(Phase, u32)> {
    let mut counts = HashMap::<Phase, u32>::new();
    for phase in phases {
        *counts.entry(phase).or_default() += 1;
    }
    let mut phases: Vec<_> = counts.into_iter().collect();
    phases.sort_by_key(|&(phase, operators)| (std::cmp::Reverse(operators), phase));
    phases
}

impl Findings {
    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let hex: String = self
            .fingerprint
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "segment {hex}: {} at {:.0}%, {} operators",
            self.workload_name(),
            self.confidence * 100.0,
            self.operators
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
