//! The client's end of the log: names and numbers records, matches them against plans, keeps
//! them until they are acknowledged, and says what to send.

mod cycles;
mod draft;
mod history;
mod plans;
mod sending;
mod window;

use std::collections::VecDeque;

pub use crate::limits::PLANS_PENDING_MAX;
use cycles::{Cycles, key_of_draft};
pub use draft::Draft;
use history::History;
use plans::Replacement;
pub(crate) use plans::{prefixes, step_prefix};
pub use window::Window;
use window::{Asked, Sent};

use crate::frame::{self, Header};
use crate::plan::{ChunkWriter, Predictor, Template};
use crate::record::{self, INLINE_MAX, Kind};
use crate::segment::{IdMap, Namer, SEGMENT_RECORDS_MAX};

/// Bytes of records that leave in one message.
pub const BATCH_BYTES: usize = 32 << 10;
/// Shortest segment that is worth a plan.
pub const PLAN_RECORDS_MIN: usize = 3;

/// Where a record went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub seq: u64,
    /// First id that it took.
    pub first_fresh: u64,
    /// The batch is full: send now.
    pub full: bool,
    /// A plan is to be asked for ([`ClientLog::take_submission`]).
    pub asks: bool,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A storage was never given by this session.
    #[error("a tensor names storage {0}, which this session never made")]
    UnknownStorage(u64),
    /// Bytes inside a record are past their bound.
    #[error("{0} bytes are too many inside a record")]
    BlobTooLong(usize),
    /// The call has too many arguments.
    #[error("the call has too many arguments or dimensions to be sent")]
    TooLong,
}

/// A message to send: header, payload. Bulk bytes follow where the header says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Header.
    pub header: Header,
    /// Payload.
    pub payload: Vec<u8>,
}

/// A segment whose plan is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The plan's number.
    pub plan: u32,
    /// [`Template`] bytes.
    pub segment: Vec<u8>,
}

#[derive(Debug)]
struct Batch {
    first_seq: u64,
    count: u64,
    /// The records written out, kept until they are acknowledged.
    plain: Vec<u8>,
}

#[derive(Debug)]
struct ClientPlan {
    template: Template,
    predictor: Predictor,
    /// Hash of the structure up to and with each record.
    prefixes: Vec<u64>,
    /// What each record is without the names of its storages ([`cycles`]).
    keys: Vec<u64>,
    ready: bool,
    last_used: u64,
}

/// What the client's end has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Records appended.
    pub records: u64,
    /// Operators among them.
    pub operators: u64,
    /// Records that went through a plan.
    pub planned: u64,
    /// Segments that were a plan from end to end.
    pub plan_hits: u64,
    /// Segments that were not.
    pub plan_misses: u64,
    /// Chunks that the node refused.
    pub refused: u64,
}

impl std::iter::Sum for ClientCounters {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            records: sum.records + one.records,
            operators: sum.operators + one.operators,
            planned: sum.planned + one.planned,
            plan_hits: sum.plan_hits + one.plan_hits,
            plan_misses: sum.plan_misses + one.plan_misses,
            refused: sum.refused + one.refused,
        })
    }
}

/// The client's end.
#[derive(Debug, Default)]
pub struct ClientLog {
    namer: Namer,
    next_seq: u64,
    acked_seq: u64,
    bulk_sent: u64,
    bulk_acked: u64,
    /// Counts rewinds, so that a refusal from before the last one is known.
    generation: u32,
    /// Records not acknowledged whose bytes were bulk.
    bulk_records: VecDeque<u64>,
    /// Frees since the last record, by id.
    frees: Vec<u64>,
    defined_ops: Vec<bool>,
    op_names: Vec<(u32, String)>,
    /// Bytes of a storage whose record is held back: the upload that fills it makes it.
    staged: Option<i64>,
    /// A flush has left it, once: the upload may be about to come.
    staged_is_old: bool,
    // The batch under construction.
    batch_first: u64,
    batch_count: u64,
    plain: Vec<u8>,
    wire: Vec<u8>,
    chunk: ChunkWriter,
    chunk_start: u32,
    // Sent, not acknowledged.
    retained: VecDeque<Batch>,
    retained_bytes: usize,
    /// Of everything that was sent, in bytes of records written out.
    kept_total: u64,
    asked: Asked,
    spare: Vec<Vec<u8>>,
    // The segment under construction.
    history: History,
    cycles: Cycles,
    segment_records: usize,
    segment_ops: usize,
    segment_bulk: usize,
    /// Records that no chunk took.
    segment_plain: usize,
    prefix: u64,
    /// The plan and the record that come next, while the segment is one.
    cursor: Option<(u32, u32)>,
    /// What comes next is the cut that ends it.
    cut_is_next: bool,
    off_trie: bool,
    // Plans.
    plans: IdMap<ClientPlan>,
    trie: IdMap<(u32, u32)>,
    /// Structures that have a plan or asked for one, and from which record on they may ask again.
    planned: IdMap<u64>,
    pending: usize,
    replaces: Option<Replacement>,
    next_plan: u32,
    submissions: VecDeque<Submission>,
    dropped_plans: Vec<u32>,
    counters: ClientCounters,
    // Scratch.
    structure: Vec<u8>,
    numbers: Vec<i64>,
    relative_frees: Vec<i64>,
}

impl ClientLog {
    /// A session that has recorded nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds what may be under way from now on.
    pub fn set_window(&mut self, window: Window) {
        self.asked.set_window(window);
    }

    /// Whether a record, and `bulk` bytes of an upload, may be appended now. If not, the next
    /// [`Self::flush`] asks for an acknowledgement, so the caller flushes and then waits.
    pub fn has_room(&mut self, bulk: u64) -> bool {
        let under_way = Sent {
            records: self.in_flight(),
            kept_bytes: self.retained_bytes() as u64,
            bulk_bytes: self.bulk_in_flight(),
        };
        let has_room = self.asked.has_room(under_way, bulk);
        if !has_room {
            self.asked.want();
        }
        has_room
    }

    /// Plans that are installed or asked for, and those of which the node has not heard that they are
    /// dropped.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.plans.len() + self.dropped_plans.len()
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// Records appended and not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.next_seq - self.acked_seq
    }

    /// Bulk bytes sent and not consumed.
    #[must_use]
    pub fn bulk_in_flight(&self) -> u64 {
        self.bulk_sent - self.bulk_acked
    }

    /// Bytes kept for a refusal.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes + self.plain.len()
    }

    /// Sequence number of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Names an operator; does nothing if it has a name.
    pub fn define_op(&mut self, op: u32, name: &str) {
        let index = op as usize;
        if self.defined_ops.len() <= index {
            self.defined_ops.resize(index + 1, false);
        }
        if !self.defined_ops[index] {
            self.defined_ops[index] = true;
            self.op_names.push((op, name.to_owned()));
            self.end_chunk();
            record::put_define_op(&mut self.wire, op, name);
            record::put_define_op(&mut self.plain, op, name);
        }
    }

    /// True when `op` was named.
    #[inline]
    #[must_use]
    pub fn is_defined(&self, op: u32) -> bool {
        self.defined_ops.get(op as usize).copied().unwrap_or(false)
    }

    /// Notes that a storage died. It travels with the next record, or with [`Self::flush`].
    pub fn free(&mut self, id: u64) {
        if id >= self.namer.next() {
            // Made first: a record's frees come before what it makes.
            self.unstage();
        }
        self.frees.push(id);
    }

    /// True when there is something to send.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.batch_count > 0 || self.staged.is_some() || !self.frees.is_empty()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub fn append(&mut self, draft: &Draft<'_>) -> Result<Appended, AppendError> {
        if let (Kind::Alloc, &[bytes]) = (draft.kind, draft.tail_numbers) {
            self.unstage();
            self.staged = Some(bytes);
            self.staged_is_old = false;
            return Ok(Appended {
                seq: self.next_seq,
                first_fresh: self.namer.next(),
                full: false,
                asks: false,
            });
        }
        let filling = self.filling(draft);
        let draft = filling.as_ref().unwrap_or(draft);
        self.cut_before(draft);
        self.name(draft)?;
        self.place(draft, false)
    }

    /// The held-back storage is made by a record of its own.
    fn unstage(&mut self) {
        if let Some(bytes) = self.staged.take() {
            let bytes = [bytes];
            let alloc = Draft::alloc(&bytes);
            self.cut_before(&alloc);
            // It names no storage, so naming it can't fail.
            if self.name(&alloc).is_ok() {
                let _ = self.place(&alloc, false);
            }
        }
    }

    /// `draft` as an upload that makes its storage, if that is the one held back; any other storage
    /// that is held back is made.
    fn filling<'a>(&mut self, draft: &Draft<'a>) -> Option<Draft<'a>> {
        let staged = self.staged?;
        if draft.kind == Kind::Upload
            && draft.storages == [self.namer.next()]
            && draft.tail_numbers == [staged]
        {
            self.staged = None;
            return Some(Draft {
                storages: &[],
                fresh: 1,
                ..*draft
            });
        }
        self.unstage();
        None
    }

    /// Appends an upload whose `bytes` follow its message. Gives the messages to send: what came
    /// before, then the upload; its raw bytes come right after it.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_bulk(
        &mut self,
        storage: u64,
        bytes: u64,
    ) -> Result<(Option<Message>, Message), AppendError> {
        let numbers = [bytes as i64];
        let draft = Draft {
            tail: &[1],
            ..Draft::upload(&storage, &numbers)
        };
        let draft = self.filling(&draft).unwrap_or(draft);
        self.cut_before(&draft);
        self.name(&draft)?;
        let before = self.flush_records();
        let appended = self.place(&draft, true)?;
        self.segment_bulk += 1;
        self.bulk_sent += bytes;
        self.bulk_records.push_back(appended.seq);
        let payload = self.plain.clone();
        self.wire.clear();
        let asks = self.keep_batch();
        let header = Header::new(frame::Kind::Bulk, appended.seq, bytes).asking(asks);
        let header = header.with_payload(payload.len());
        Ok((before, Message { header, payload }))
    }

    /// Ends the segment, if there is anything in it: another log of the session ends its own here.
    pub fn cut(&mut self) {
        if self.segment_records > 0 || self.staged.is_some() {
            self.unstage();
            self.cut_now();
        }
    }

    /// Ends the segment if `draft` begins another: it is long, its plan ends here, or a cycle begins.
    fn cut_before(&mut self, draft: &Draft<'_>) {
        let is_replaced = self.is_replaced(draft);
        let begins_cycle = is_replaced || (self.off_trie && self.cycles.is_start(draft));
        // A look ends the segment by itself, and is part of it the next time.
        let cut_is_next = self.cut_is_next && !draft.kind.is_look();
        if self.segment_records > 0
            && (cut_is_next || self.segment_records >= SEGMENT_RECORDS_MAX || begins_cycle)
        {
            self.cut_now();
        }
        if is_replaced {
            self.replace();
        }
    }

    fn cut_now(&mut self) {
        let cut = Draft::new(Kind::Cut);
        // A cut names no storage, so naming it can't fail.
        if self.name(&cut).is_ok() {
            let _ = self.place(&cut, false);
            self.cycles.note_cut();
        }
    }

    /// Builds the normal form in `self.structure` and `self.numbers`.
    fn name(&mut self, draft: &Draft<'_>) -> Result<(), AppendError> {
        if let Some(blob) = draft.blob.filter(|blob| blob.len() > INLINE_MAX) {
            return Err(AppendError::BlobTooLong(blob.len()));
        }
        if draft.skeleton.len() + 8 * draft.storages.len() + draft.tail.len() + 16
            > record::STRUCTURE_MAX
            || draft.storages.len()
                + draft.params.len()
                + draft.data.len()
                + draft.tail_numbers.len()
                > record::NUMBERS_MAX
        {
            return Err(AppendError::TooLong);
        }
        // A name given to a storage must not outlive a record that is not taken.
        if let Some(&id) = draft
            .storages
            .iter()
            .find(|&&id| id == 0 || id >= self.namer.next())
        {
            return Err(AppendError::UnknownStorage(id));
        }
        draft.normal_form(&mut self.namer, &mut self.structure, &mut self.numbers)?;
        self.take_frees();
        Ok(())
    }

    /// Takes frees along with the next record, as many as one may have; the rest waits.
    fn take_frees(&mut self) {
        let base = self.namer.base();
        let count = self.frees.len().min(record::FREES_MAX);
        self.relative_frees.clear();
        self.relative_frees.extend(
            self.frees
                .drain(..count)
                .map(|id| id.wrapping_sub(base) as i64),
        );
    }

    /// Puts the named record into the batch.
    fn place(&mut self, draft: &Draft<'_>, bulk: bool) -> Result<Appended, AppendError> {
        let item_start = self.plain.len();
        record::put_plain(
            &mut self.plain,
            draft.kind,
            draft.op,
            &self.structure,
            &self.numbers,
            &self.relative_frees,
            draft.blob,
        );
        self.history.push(&self.plain[item_start..]);
        let seq = self.next_seq;
        self.next_seq += 1;
        self.batch_count += 1;
        let first_fresh = self.namer.take(draft.fresh);
        self.counters.records += 1;
        self.segment_records += 1;
        if matches!(draft.kind, Kind::Op | Kind::CallSync) {
            self.counters.operators += 1;
            self.segment_ops += 1;
        }
        let followed = self.follow(draft, bulk);
        if followed.is_some_and(|followed| followed.is_planned) {
            self.counters.planned += 1;
        } else if !bulk {
            self.end_chunk();
            self.segment_plain += 1;
            self.wire.extend_from_slice(&self.plain[item_start..]);
        }
        if draft.kind != Kind::Cut {
            let key = followed.map_or_else(|| key_of_draft(draft), |followed| followed.key);
            self.cycles
                .note(key, draft.kind, first_fresh, draft.storages);
        }
        if draft.kind.ends_segment() {
            self.end_segment();
        }
        if draft.kind != Kind::Cut {
            self.ask_for_cycle(followed.is_some());
        }
        let full = self.wire.len() + self.chunk.len() >= BATCH_BYTES
            || self.plain.len() >= 4 * BATCH_BYTES
            || self.batch_count >= 128;
        Ok(Appended {
            seq,
            first_fresh,
            full,
            asks: !self.submissions.is_empty(),
        })
    }
}
