//! From what was measured to a report.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::interrupt;
use crate::machine::{self, Setting};
use crate::path::Facts;
use crate::report::{Measurement, Report, SCHEMA_VERSION};

/// A run that began.
pub struct Run {
    began: Instant,
    started_at: u64,
    warnings: Vec<String>,
}

/// What a run was, beside its numbers.
pub struct What {
    /// The path that was really used.
    pub facts: Facts,
    /// Whose memory.
    pub memory: String,
    /// Whether every byte was compared.
    pub verified: bool,
    /// Cores that the ends are pinned to.
    pub pinned_cores: usize,
}

impl Run {
    /// Begins, and looks at the machine while it is still quiet.
    #[must_use]
    pub fn begin(setting: &Setting) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            began: Instant::now(),
            started_at: since.as_secs(),
            warnings: machine::warnings(setting),
        }
    }

    /// Something else that a reader should know.
    pub fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    /// The report.
    #[must_use]
    pub fn report(self, what: What, results: Vec<Measurement>) -> Report {
        let command: Vec<String> = std::env::args().skip(1).collect();
        Report {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            command: command.join(" "),
            started_at: self.started_at,
            duration_s: self.began.elapsed().as_secs_f64(),
            transport: what.facts.transport.to_owned(),
            path: what.facts.path,
            mtu_bytes: what.facts.mtu_bytes,
            seal: what.facts.seal.to_owned(),
            memory: what.memory,
            verified: what.verified,
            interrupted: interrupt::asked(),
            pinned_cores: what.pinned_cores,
            host: machine::host(),
            warnings: self.warnings,
            results,
            receptions: Vec::new(),
        }
    }
}
