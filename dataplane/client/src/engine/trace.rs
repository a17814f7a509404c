//! Where each record came from, for as long as its failure can still arrive.

use super::append::SiteId;
use super::host::Host;

/// Records remembered.
const RECORDS: usize = 1 << 16;
/// Forward operators remembered for their backwards.
const FORWARDS: usize = 1 << 15;

#[derive(Clone, Copy, Default)]
struct Origin {
    seq: u64,
    op: u32,
    site: SiteId,
    backward: bool,
}

/// Lines of records and of forward operators.
pub struct Trace {
    records: Vec<Origin>,
    forwards: Vec<(i64, SiteId)>,
}

impl Default for Trace {
    fn default() -> Self {
        Self::of(RECORDS, FORWARDS)
    }
}

impl Trace {
    /// For a session that is over.
    #[must_use]
    pub fn small() -> Self {
        Self::of(1, 1)
    }

    fn of(records: usize, forwards: usize) -> Self {
        Self {
            records: vec![
                Origin {
                    seq: u64::MAX,
                    ..Origin::default()
                };
                records
            ],
            forwards: vec![(-1, 0); forwards],
        }
    }

    /// Record `seq` is operator `op` of line `site`.
    pub fn note(&mut self, seq: u64, op: u32, site: SiteId, backward: bool) {
        let at = seq as usize % self.records.len();
        self.records[at] = Origin {
            seq,
            op,
            site,
            backward,
        };
    }

    /// Forward operator `nr` (autograd's sequence number) is of line `site`.
    pub fn note_forward(&mut self, nr: i64, site: SiteId) {
        let at = nr.unsigned_abs() as usize % self.forwards.len();
        self.forwards[at] = (nr, site);
    }

    /// The line of forward operator `nr`.
    #[must_use]
    pub fn forward(&self, nr: i64) -> SiteId {
        let (known, site) = self.forwards[nr.unsigned_abs() as usize % self.forwards.len()];
        if known == nr { site } else { 0 }
    }

    /// The operator of record `seq`, and a sentence that names it and its line.
    #[must_use]
    pub fn describe(&self, seq: u64, host: &dyn Host) -> String {
        let origin = self.records[seq as usize % self.records.len()];
        if origin.seq != seq {
            return "recorded too long ago to tell by which line".to_owned();
        }
        let name = host.operator(origin.op);
        let line = host.line(origin.site);
        let what = if origin.backward {
            "the backward of a forward"
        } else {
            "recorded"
        };
        if line.is_empty() {
            format!("in {name}")
        } else {
            format!("in {name}, {what} at {line}")
        }
    }
}
