//! From recorded operators to what they mean: a graph, the phase, kind of input and role of each operator,
//! what becomes of values, what all of it costs. It says how sure it is, and is never in the way of a correct
//! result.
//!
//! Three kinds of knowledge are kept apart: [`Facts`] follow from what the fingerprint covers, and are
//! remembered by it ([`fact_cache`]); a [`Reading`] is made anew for each sizes; [`History`] belongs to one
//! session.
//!
//! - [`graph`], [`arguments`], [`names`]: records as a graph, from a template or one by one.
//! - [`operators`], [`wiring`]: what an operator's name says, and who makes what it takes.
//! - [`lineage`], [`attention`], [`roles`], [`reading`]: where values come from, what attends to what, what
//!   operators are for, and what kind of work it all is.
//! - [`residency`], [`cost`]: weights, caches and results; FLOPs and bytes.
//! - [`explain`]: all of it, for people and tools.

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
mod passes;
pub mod reading;
pub mod residency;
pub mod roles;
pub mod wiring;

use std::collections::{HashMap, HashSet};

use genie_srg::{Phase, SrgError, ValidSrg, fingerprint};

pub use graph::Graph;
pub use reading::{Facts, Reading, Workload};
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
    pub workload: Workload,
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
pub fn findings(graph: &Graph, facts: &Facts) -> Findings {
    let reading = Reading::of(graph, facts);
    let mut warnings = Vec::new();
    if reading.confidence < CONFIDENCE_MIN {
        warnings.push(format!(
            "this segment of {} operators looks like no workload that Genie knows (the best guess \
             is {} at {:.0}%): it runs as it was captured, like every other, and what is said of \
             its phases may be wrong",
            graph.operators.len(),
            reading.workload.as_str(),
            reading.confidence * 100.0
        ));
    }
    Findings {
        fingerprint: graph.fingerprint,
        workload: reading.workload,
        confidence: reading.confidence,
        warnings,
        phases: count_phases(reading.phases.into_iter()),
        operators: graph.operators.len(),
    }
}

/// The graph with all that is known of it, to export or to look at. `constants` are the storages that
/// [`History::observe`] gave.
///
/// # Errors
/// A graph that does not validate with its annotations.
pub fn annotate(mut graph: Graph, constants: &HashSet<u64>) -> Result<ValidSrg, AnalysisError> {
    let facts = Facts::of(&graph);
    let reading = Reading::of(&graph, &facts);
    explain::annotate(&mut graph, &facts, &reading, constants);
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

    /// The workload in lower case, such as "llm".
    #[must_use]
    pub fn workload_name(&self) -> String {
        self.workload.as_str().to_owned()
    }
}

/// A value of the schema's enums in lower case, without the enum's own name.
#[must_use]
pub fn name_of(value: &str) -> String {
    let enums = ["PHASE_", "MODALITY_", "RESIDENCY_"];
    let bare = enums.iter().find_map(|name| value.strip_prefix(name));
    bare.unwrap_or(value).to_ascii_lowercase()
}

fn fingerprint_of(srg: &ValidSrg) -> Fingerprint {
    fingerprint(srg).to_bytes()
}

#[cfg(test)]
mod tests;
