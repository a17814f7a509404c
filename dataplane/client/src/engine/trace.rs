//! Where each record came from, for as long as its failure can still arrive.

use super::append::SiteId;
use super::host::Host;
use genie_session::record::Kind;

/// Records remembered.
const RECORDS: usize = 1 << 16;
/// Forward operators remembered for their backwards.
const FORWARDS: usize = 1 << 15;

#[derive(Clone, Copy)]
struct Origin {
    /// Among the records of all logs.
    position: u64,
    /// Of the record's number the low bits: others of the same place and low bits are long gone.
    seq: u32,
    op: u32,
    site: SiteId,
    kind: Kind,
    backward: bool,
}

/// Lines of a log's records.
pub struct Trace {
    records: Vec<Origin>,
}

/// Lines of forward operators, by autograd's sequence numbers.
pub struct Forwards(Vec<(i64, SiteId)>);

impl Default for Forwards {
    fn default() -> Self {
        Self::of(FORWARDS)
    }
}

impl Forwards {
    /// For a session that is over.
    #[must_use]
    pub fn small() -> Self {
        Self::of(1)
    }

    fn of(forwards: usize) -> Self {
        Self(vec![(-1, 0); forwards])
    }

    /// Forward operator `nr` is of line `site`.
    pub fn note(&mut self, nr: i64, site: SiteId) {
        let at = nr.unsigned_abs() as usize % self.0.len();
        self.0[at] = (nr, site);
    }

    /// The line of forward operator `nr`.
    #[must_use]
    pub fn of_number(&self, nr: i64) -> SiteId {
        let (known, site) = self.0[nr.unsigned_abs() as usize % self.0.len()];
        if known == nr { site } else { 0 }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::of(RECORDS)
    }
}

impl Trace {
    /// For a session that is over.
    #[must_use]
    pub fn small() -> Self {
        Self::of(1)
    }

    fn of(records: usize) -> Self {
        Self {
            records: vec![
                Origin {
                    // Of no record that this place will have for long.
                    seq: u32::MAX,
                    kind: Kind::Cut,
                    op: 0,
                    site: 0,
                    backward: false,
                    position: 0,
                };
                records
            ],
        }
    }

    /// Record `seq` is of `kind`, of operator `op` if it runs one, and of line `site`; `position` is
    /// its among the records of all logs.
    pub fn note(
        &mut self,
        seq: u64,
        kind: Kind,
        op: u32,
        (site, backward): (SiteId, bool),
        position: u64,
    ) {
        let at = seq as usize % self.records.len();
        self.records[at] = Origin {
            seq: seq as u32,
            kind,
            op,
            site,
            backward,
            position,
        };
    }

    /// Where record `seq` is among the records of all logs; 0 if that is long ago.
    #[must_use]
    pub fn position(&self, seq: u64) -> u64 {
        let origin = self.records[seq as usize % self.records.len()];
        if origin.seq == seq as u32 {
            origin.position
        } else {
            0
        }
    }

    /// The operator of record `seq`, and a sentence that names it and its line.
    #[must_use]
    pub fn describe(&self, seq: u64, host: &dyn Host) -> String {
        let origin = self.records[seq as usize % self.records.len()];
        if origin.seq != seq as u32 {
            return "recorded too long ago to tell by which line".to_owned();
        }
        let name = match origin.kind {
            Kind::Op | Kind::CallSync => host.operator(origin.op),
            Kind::Upload => "a copy to the device".to_owned(),
            Kind::Alloc => "a new tensor".to_owned(),
            Kind::Resize => "a resize".to_owned(),
            Kind::Fetch => "a copy to the CPU".to_owned(),
            Kind::Send | Kind::Recv => "a copy to another device".to_owned(),
            Kind::Barrier | Kind::Cut | Kind::Frees => "a synchronisation".to_owned(),
        };
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
