//! An explanation to read.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::{Explained, Explanation};

/// What of an operator is summed up by.
pub(super) type Column = fn(&Explained) -> &str;

/// Rows of the table of modules.
const ROWS_MAX: usize = 40;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        let columns: [(&str, Column); 3] = [
            ("phase", |one| &one.phase),
            ("modality", |one| &one.modality),
            ("node", |one| &one.node),
        ];
        for (what, of) in columns {
            writeln!(f, "\n{what:<36} operators         ran")?;
            for (name, count, ran_us) in self.sums(of) {
                writeln!(f, "  {name:<34} {count:9} {:8.2} ms", ran_us / 1e3)?;
            }
        }
        writeln!(f, "\nin order, runs of one module and phase together:")?;
        let runs = self
            .operators
            .chunk_by(|a, b| (&a.module, &a.phase) == (&b.module, &b.phase));
        let mut more = 0;
        for (at, run) in runs.enumerate() {
            if at >= ROWS_MAX {
                more += 1;
                continue;
            }
            let mut roles: Vec<&str> = Vec::new();
            for one in run.iter().filter(|one| !one.role.is_empty()) {
                if !roles.contains(&one.role.as_str()) {
                    roles.push(&one.role);
                }
            }
            let ran: f64 = run.iter().filter_map(|one| one.ran_us).sum();
            let (module, phase) = (named(&run[0].module), &run[0].phase);
            let (count, ran, roles) = (run.len(), ran / 1e3, roles.join(", "));
            writeln!(
                f,
                "  {module:<40} {phase:<14} {count:4} {ran:8.2} ms  {roles}"
            )?;
        }
        if more > 0 {
            writeln!(f, "  and {more} more: JSON and the page have all")?;
        }
        Ok(())
    }
}

fn named(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

impl Explanation {
    /// In one line.
    pub(super) fn title(&self) -> String {
        format!(
            "{} at {:.0}%, {} operators",
            self.workload.class,
            self.workload.confidence * 100.0,
            self.operators.len()
        )
    }

    /// By what `of` says: its name, operators and microseconds, those that took longest first.
    pub(super) fn sums(&self, of: impl Fn(&Explained) -> &str) -> Vec<(&str, usize, f64)> {
        let mut sums: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for one in &self.operators {
            let sum = sums.entry(named(of(one))).or_default();
            sum.0 += 1;
            sum.1 += one.ran_us.unwrap_or(0.0);
        }
        let mut sums: Vec<_> = sums
            .into_iter()
            .map(|(name, (n, us))| (name, n, us))
            .collect();
        sums.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.1.cmp(&a.1)));
        sums
    }
}
