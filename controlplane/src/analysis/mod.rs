//! From a captured segment to what is known of it.

use std::sync::Arc;

use genie_control_api::v1;
use genie_srg::{Sequence, WorkloadClass};

/// A structural fingerprint, most significant byte first.
pub type Fingerprint = [u8; 16];

/// Why a segment can't be analysed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// Its bytes are not a template.
    #[error("the segment can't be read: {0}")]
    Wire(#[from] genie_session::WireError),
}

/// A segment as a graph.
pub struct Graph {
    /// Of its structure.
    pub fingerprint: Fingerprint,
}

/// What is known of a segment's structure.
#[derive(Debug)]
pub struct Analysis {
    /// Of the structure.
    pub fingerprint: Fingerprint,
    /// What kind of work it is.
    pub workload: WorkloadClass,
    /// From 0 to 1.
    pub confidence: f64,
    /// For the user.
    pub warnings: Vec<String>,
    /// Operators in each phase.
    pub phases: Vec<v1::PhaseCount>,
    /// What a node does.
    pub sequence: Arc<Sequence>,
}

/// Reads a segment.
///
/// # Errors
/// Bytes that are not a template.
pub fn graph(_segment: &[u8]) -> Result<Graph, AnalysisError> {
    Err(genie_session::WireError::Malformed("templates are not there yet").into())
}

/// Finds out what a graph is for.
///
/// # Errors
/// A graph that does not validate.
pub fn annotate(graph: Graph) -> Result<Analysis, AnalysisError> {
    Ok(Analysis {
        fingerprint: graph.fingerprint,
        workload: WorkloadClass::Unknown,
        confidence: 0.0,
        warnings: Vec::new(),
        phases: Vec::new(),
        sequence: Arc::new(Sequence::default()),
    })
}

impl Analysis {
    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} ({:.0}%)", name_of(self.workload), self.confidence * 100.0)
    }
}

/// A workload class in lower case, such as "llm_decode".
#[must_use]
pub fn name_of(class: WorkloadClass) -> String {
    class.as_str_name().trim_start_matches("WORKLOAD_CLASS_").to_ascii_lowercase()
}
