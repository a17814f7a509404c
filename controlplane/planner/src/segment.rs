//! A segment as a planner sees it: what each record takes and makes, how large that is, and where it
//! was when the plan was asked for.

use genie_session::places::Set;

/// A value that the segment uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Its bytes; of what the segment makes, when it is made.
    pub bytes: u64,
    /// Who holds it before the segment; nobody where the segment makes it.
    pub at: Set,
    /// It returns in every cycle, grown or written: a KV cache.
    pub is_state: bool,
}

/// A value that a record takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which of the segment's storages.
    pub storage: usize,
    /// Whether it writes it.
    pub writes: bool,
}

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What it takes.
    pub takes: Vec<Use>,
    /// Storages that it makes.
    pub makes: Vec<usize>,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Values.
    pub storages: Vec<Storage>,
    /// Records, in order.
    pub records: Vec<Record>,
}

/// What a plan does besides placing, for each record and on average.
pub const STEPS_MAX: usize = 4;

/// What becomes of a copy once a record has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It goes to another device, where a later record takes it: so it is on its way before it is waited for.
    Send,
    /// It goes from a device where nobody reads it before it is written elsewhere.
    Drop,
}

/// What a plan does with a value besides placing records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// After which record.
    pub record: usize,
    /// What is done.
    pub act: Act,
    /// Which of the values that the record takes, in their order, and then of those that it makes.
    pub value: usize,
    /// To, or from which device.
    pub device: usize,
}

/// What was decided for a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// A device for each record.
    pub places: Vec<usize>,
    /// What is sent and dropped when, by record.
    pub steps: Vec<Step>,
    /// Values that move because of it, each time.
    pub transfers: u64,
    /// Their bytes.
    pub transfer_bytes: u64,
    /// States that are pinned.
    pub states: usize,
}
