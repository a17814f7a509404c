//! The client's end of the log: names and numbers records, matches them against plans, keeps
//! them until they are acknowledged, and says what to send.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::WireError;
use crate::frame::{self, Header, PAYLOAD_MAX};
use crate::plan::{ChunkWriter, PLANS_MAX, Predictor, Template};
use crate::record::{self, INLINE_MAX, Kind};
use crate::segment::{IdMap, Namer, SEGMENT_RECORDS_MAX};
use crate::varint::{Reader, put_u64};

/// Bytes of records that leave in one message.
pub const BATCH_BYTES: usize = 32 << 10;
/// Shortest segment that is worth a plan.
pub const PLAN_RECORDS_MIN: usize = 3;
/// Plans whose analysis was asked for and not yet answered.
pub const PLANS_PENDING_MAX: usize = 8;

/// A record before it is named: storages by their ids.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What it does.
    pub kind: Kind,
    /// Operator number, or 0.
    pub op: u32,
    /// Argument skeleton.
    pub skeleton: &'a [u8],
    /// Ids of its storages.
    pub storages: &'a [u64],
    /// Shape-deciding integers.
    pub params: &'a [i64],
    /// Other numbers.
    pub data: &'a [i64],
    /// Tail of the structure: see [`crate::record`].
    pub tail: &'a [u8],
    /// Numbers of the tail.
    pub tail_numbers: &'a [i64],
    /// Ids that it takes.
    pub fresh: u64,
    /// Bytes inside the record, at most [`INLINE_MAX`].
    pub blob: Option<&'a [u8]>,
}

impl Draft<'_> {
    /// A record of `kind` with nothing in it.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            op: 0,
            skeleton: &[],
            storages: &[],
            params: &[],
            data: &[],
            tail: &[],
            tail_numbers: &[],
            fresh: 0,
            blob: None,
        }
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub seq: u64,
    /// First id that it took.
    pub first_fresh: u64,
    /// The plan and the record of it that it was, if it went through one.
    pub planned: Option<(u32, u32)>,
    /// It ended a segment.
    pub ended: bool,
    /// The batch is full: send now.
    pub full: bool,
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
    spare: Vec<Vec<u8>>,
    // The segment under construction.
    segment: Vec<u8>,
    segment_records: usize,
    segment_ops: usize,
    segment_planned: usize,
    segment_bulk: usize,
    prefix: u64,
    /// The plan and the record that come next, while the segment is one.
    cursor: Option<(u32, u32)>,
    off_trie: bool,
    // Plans.
    plans: IdMap<ClientPlan>,
    trie: IdMap<(u32, u32)>,
    asked: IdMap<()>,
    pending: usize,
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
        self.frees.push(id);
    }

    /// Frees that wait for a record to travel with.
    #[must_use]
    pub fn pending_frees(&self) -> usize {
        self.frees.len()
    }

    /// True while records follow a plan.
    #[must_use]
    pub fn follows_plan(&self) -> bool {
        self.cursor.is_some()
    }

    /// True when there is something to send.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.batch_count > 0 || !self.frees.is_empty()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub fn append(&mut self, draft: &Draft<'_>) -> Result<Appended, AppendError> {
        self.cut_if_long();
        self.name(draft)?;
        self.place(draft, false)
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
        self.cut_if_long();
        let draft = Draft {
            storages: &[storage],
            tail: &[1],
            tail_numbers: &[bytes as i64],
            ..Draft::new(Kind::Upload)
        };
        self.name(&draft)?;
        let before = self.flush_records();
        let appended = self.place(&draft, true)?;
        self.segment_bulk += 1;
        self.bulk_sent += bytes;
        self.bulk_records.push_back(appended.seq);
        let payload = self.plain.clone();
        self.wire.clear();
        self.keep_batch();
        let header = Header::new(frame::Kind::Bulk, appended.seq, bytes);
        let header = header.with_payload(payload.len());
        Ok((before, Message { header, payload }))
    }

    fn cut_if_long(&mut self) {
        if self.segment_records >= SEGMENT_RECORDS_MAX {
            let cut = Draft::new(Kind::Cut);
            // A cut names no storage, so naming it can't fail.
            if self.name(&cut).is_ok() {
                let _ = self.place(&cut, false);
            }
        }
    }

    /// Builds the normal form in `self.structure` and `self.numbers`.
    fn name(&mut self, draft: &Draft<'_>) -> Result<(), AppendError> {
        if let Some(blob) = draft.blob.filter(|blob| blob.len() > INLINE_MAX) {
            return Err(AppendError::BlobTooLong(blob.len()));
        }
        if draft.skeleton.len() + 8 * draft.storages.len() + draft.tail.len() + 16
            > record::STRUCTURE_MAX
            || draft.storages.len() + draft.params.len() + draft.data.len()
                + draft.tail_numbers.len()
                > record::NUMBERS_MAX
        {
            return Err(AppendError::TooLong);
        }
        // A name given to a storage must not outlive a record that is not taken.
        if let Some(&id) =
            draft.storages.iter().find(|&&id| id == 0 || id >= self.namer.next())
        {
            return Err(AppendError::UnknownStorage(id));
        }
        self.structure.clear();
        self.numbers.clear();
        put_u64(&mut self.structure, draft.skeleton.len() as u64);
        self.structure.extend_from_slice(draft.skeleton);
        put_u64(&mut self.structure, draft.storages.len() as u64);
        for &id in draft.storages {
            let reference = self.namer.name(id).ok_or(AppendError::UnknownStorage(id))?;
            if reference == crate::segment::Ref::New {
                self.numbers.push(id as i64);
            }
            put_u64(&mut self.structure, reference.code());
        }
        self.structure.extend_from_slice(draft.tail);
        self.numbers.extend_from_slice(draft.params);
        self.numbers.extend_from_slice(draft.data);
        self.numbers.extend_from_slice(draft.tail_numbers);
        self.relative_frees.clear();
        let base = self.namer.base();
        self.relative_frees.extend(self.frees.drain(..).map(|id| id.wrapping_sub(base) as i64));
        Ok(())
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
        self.segment.extend_from_slice(&self.plain[item_start..]);
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
        let in_chunk = self.follow(draft, bulk);
        let planned = self.cursor.map(|(plan, next)| (plan, next.saturating_sub(1)));
        if in_chunk {
            self.counters.planned += 1;
            self.segment_planned += 1;
        } else if !bulk {
            self.end_chunk();
            self.wire.extend_from_slice(&self.plain[item_start..]);
        }
        if draft.kind.ends_segment() {
            self.end_segment();
        }
        let full = self.wire.len() + self.chunk.len() >= BATCH_BYTES
            || self.plain.len() >= 4 * BATCH_BYTES
            || self.batch_count >= 128;
        let ended = draft.kind.ends_segment();
        Ok(Appended { seq, first_fresh, planned, ended, full })
    }

    /// Goes on with the expected plan, or finds another; true if the record travels in a chunk.
    fn follow(&mut self, draft: &Draft<'_>, bulk: bool) -> bool {
        if self.off_trie {
            return false;
        }
        if let Some((plan, index)) = self.cursor
            && self.matches(plan, index, draft)
        {
            self.advance(plan, index, draft, bulk);
            return !bulk;
        }
        let prefix = step_prefix(self.prefix, draft.kind, draft.op, &self.structure);
        if let Some(&(plan, index)) = self.trie.get(&prefix)
            && self.matches(plan, index, draft)
        {
            self.end_chunk();
            self.chunk_start = index;
            self.advance(plan, index, draft, bulk);
            return !bulk;
        }
        // The structure up to here is nobody's prefix, so nothing longer is.
        self.end_chunk();
        self.cursor = None;
        self.off_trie = true;
        false
    }

    fn matches(&self, plan: u32, index: u32, draft: &Draft<'_>) -> bool {
        let Some(known) = self.plans.get(&u64::from(plan)) else { return false };
        let Some(template) = known.template.records.get(index as usize) else { return false };
        known.ready
            && template.kind == draft.kind
            && template.op == draft.op
            && template.has_blob == draft.blob.is_some()
            && template.structure == self.structure
    }

    fn advance(&mut self, plan: u32, index: u32, draft: &Draft<'_>, bulk: bool) {
        let Some(known) = self.plans.get_mut(&u64::from(plan)) else { return };
        known.last_used = self.next_seq;
        if let Some(&prefix) = known.prefixes.get(index as usize) {
            self.prefix = prefix;
        }
        if !bulk && let Some(template) = known.template.records.get(index as usize) {
            if self.chunk.is_empty() {
                self.chunk_start = index;
            }
            self.chunk.push(
                template,
                &mut known.predictor,
                &self.numbers,
                &self.relative_frees,
                draft.blob,
            );
        }
        self.cursor = Some((plan, index + 1));
    }

    fn end_chunk(&mut self) {
        if !self.chunk.is_empty()
            && let Some((plan, _)) = self.cursor
        {
            self.chunk.finish(&mut self.wire, plan, self.chunk_start);
        }
    }

    fn end_segment(&mut self) {
        self.end_chunk();
        let whole = self.cursor.is_some_and(|(plan, next)| {
            self.plans
                .get(&u64::from(plan))
                .is_some_and(|known| known.template.records.len() == next as usize)
        });
        if self.segment_ops > 0 {
            if whole {
                self.counters.plan_hits += 1;
            } else {
                self.counters.plan_misses += 1;
                self.ask_for_plan();
            }
        }
        self.namer.cut();
        self.segment.clear();
        self.segment_records = 0;
        self.segment_ops = 0;
        self.segment_planned = 0;
        self.segment_bulk = 0;
        self.prefix = 0;
        self.cursor = None;
        self.off_trie = self.trie.is_empty();
    }

    fn ask_for_plan(&mut self) {
        if self.segment_records < PLAN_RECORDS_MIN
            || self.segment_bulk * 2 > self.segment_ops
            || self.pending >= PLANS_PENDING_MAX
        {
            return;
        }
        // Past the bounds of a template (much inline data): it stays without a plan.
        let Ok(mut template) = Template::decode(&self.segment) else { return };
        let mut prefix = 0;
        let mut prefixes = Vec::with_capacity(template.records.len());
        for record in &template.records {
            prefix = step_prefix(prefix, record.kind, record.op, &record.structure);
            prefixes.push(prefix);
        }
        if self.asked.contains_key(&prefix) {
            return;
        }
        if self.plans.len() >= PLANS_MAX {
            self.drop_oldest_plan();
        }
        if self.asked.len() >= 4 * PLANS_MAX {
            self.asked.clear();
        }
        self.asked.insert(prefix, ());
        let mut used: Vec<u32> = template.records.iter().map(|record| record.op).collect();
        used.sort_unstable();
        used.dedup();
        template.operators = self
            .op_names
            .iter()
            .filter(|(op, _)| used.binary_search(op).is_ok())
            .cloned()
            .collect();
        let plan = self.next_plan;
        self.next_plan += 1;
        self.pending += 1;
        self.submissions.push_back(Submission { plan, segment: template.encode() });
        let predictor = Predictor::new(&template.numbers);
        let last_used = self.next_seq;
        let known = ClientPlan { template, predictor, prefixes, ready: false, last_used };
        self.plans.insert(u64::from(plan), known);
    }

    fn drop_oldest_plan(&mut self) {
        let in_use = self.cursor.map(|(plan, _)| u64::from(plan));
        let oldest = self
            .plans
            .iter()
            .filter(|(plan, known)| known.ready && Some(**plan) != in_use)
            .min_by_key(|(_, known)| known.last_used)
            .map(|(&plan, _)| plan as u32);
        if let Some(plan) = oldest {
            self.forget_plan(plan);
            self.dropped_plans.push(plan);
        }
    }

    fn forget_plan(&mut self, plan: u32) {
        if let Some(known) = self.plans.remove(&u64::from(plan)) {
            if let Some(last) = known.prefixes.last() {
                self.asked.remove(last);
            }
            for prefix in known.prefixes {
                if self.trie.get(&prefix).is_some_and(|&(owner, _)| owner == plan) {
                    self.trie.remove(&prefix);
                }
            }
            // Prefixes that it shared with others stay reachable.
            for (&other, known) in self.plans.iter().filter(|(_, known)| known.ready) {
                for (index, &prefix) in known.prefixes.iter().enumerate() {
                    self.trie.entry(prefix).or_insert((other as u32, index as u32));
                }
            }
        }
    }

    /// The next segment to have planned, if one waits.
    pub fn take_submission(&mut self) -> Option<Submission> {
        self.submissions.pop_front()
    }

    /// A plan is installed at the node, or was declined.
    pub fn plan_answered(&mut self, plan: u32, installed: bool) {
        self.pending = self.pending.saturating_sub(1);
        if !installed {
            // Stays in `asked`, so that it is not asked for at every turn.
            self.plans.remove(&u64::from(plan));
            return;
        }
        if let Some(known) = self.plans.get_mut(&u64::from(plan)) {
            known.ready = true;
            for (index, &prefix) in known.prefixes.iter().enumerate() {
                self.trie.entry(prefix).or_insert((plan, index as u32));
            }
            if self.segment_records == 0 {
                self.off_trie = false;
            }
        }
    }

    /// What is to be sent now; `None` if nothing waits.
    pub fn flush(&mut self) -> Option<Message> {
        if !self.frees.is_empty() && self.chunk.is_empty() {
            self.put_frees();
        }
        self.flush_records()
    }

    /// Frees that no record took along. Inside a chunk they wait for the next record.
    fn put_frees(&mut self) {
        let base = self.namer.base();
        self.relative_frees.clear();
        let take = self.frees.len().min(record::FREES_MAX / 16);
        self.relative_frees
            .extend(self.frees.drain(..take).map(|id| id.wrapping_sub(base) as i64));
        let structure = [0, 0];
        let frees = &self.relative_frees;
        let start = self.plain.len();
        record::put_plain(&mut self.plain, Kind::Frees, 0, &structure, &[], frees, None);
        self.wire.extend_from_slice(&self.plain[start..]);
        self.next_seq += 1;
        self.batch_count += 1;
        self.counters.records += 1;
    }

    fn flush_records(&mut self) -> Option<Message> {
        self.end_chunk();
        if self.batch_count == 0 {
            return None;
        }
        for plan in self.dropped_plans.drain(..) {
            record::put_drop_plan(&mut self.wire, plan);
        }
        let payload = std::mem::take(&mut self.wire);
        self.wire = self.spare.pop().unwrap_or_default();
        let header = Header::new(frame::Kind::Records, self.batch_first, 0);
        self.keep_batch();
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        Some(Message { header: header.with_payload(payload.len()), payload })
    }

    fn keep_batch(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        self.plain = self.spare.pop().unwrap_or_default();
        self.retained_bytes += plain.len();
        let (first_seq, count) = (self.batch_first, self.batch_count);
        self.retained.push_back(Batch { first_seq, count, plain });
        self.batch_first = self.next_seq;
        self.batch_count = 0;
    }

    /// Gives a message's buffer back for reuse.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < 8 && buffer.capacity() <= 1 << 20 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Everything below `seq` was executed, and `bulk` bytes consumed in all.
    ///
    /// # Errors
    /// An acknowledgement of what was never sent.
    pub fn acknowledged(&mut self, seq: u64, bulk: u64) -> Result<(), WireError> {
        if seq > self.next_seq || bulk > self.bulk_sent {
            return Err(WireError::Malformed("an acknowledgement of what was never sent"));
        }
        self.acked_seq = self.acked_seq.max(seq);
        self.bulk_acked = self.bulk_acked.max(bulk);
        while self.bulk_records.front().is_some_and(|&record| record < self.acked_seq) {
            self.bulk_records.pop_front();
        }
        while let Some(batch) = self.retained.front() {
            if batch.first_seq + batch.count > self.acked_seq {
                break;
            }
            if let Some(batch) = self.retained.pop_front() {
                self.retained_bytes -= batch.plain.len();
                self.recycle(batch.plain);
            }
        }
        Ok(())
    }

    /// The node refused record `seq` and dropped all after it; `aux` is the frame's. Gives what
    /// to send: the rewind, and every record from `seq` on, written out. Nothing if a later
    /// rewind has overtaken the refusal.
    ///
    /// # Errors
    /// A refusal of what was never sent, or is acknowledged.
    pub fn refused(&mut self, seq: u64, aux: u64) -> Result<Vec<Message>, WireError> {
        let (plan, generation) = frame::split_refusal(aux);
        if generation != self.generation {
            return Ok(Vec::new());
        }
        if seq < self.acked_seq || seq >= self.next_seq {
            return Err(WireError::Malformed("a refusal of what was not sent"));
        }
        self.counters.refused += 1;
        self.forget_plan(plan);
        self.rewound(seq)
    }

    /// Whether [`Self::resume`] from `seq` is possible.
    #[must_use]
    pub fn can_resume(&self, seq: u64) -> bool {
        (self.acked_seq..=self.next_seq).contains(&seq)
            && self.bulk_records.iter().all(|&bulk| bulk < seq)
    }

    /// On a new connection: the node has applied every record below `seq`. Gives what to send.
    /// What answers the node had sent it sends again (see [`crate::replies`]).
    ///
    /// # Errors
    /// A resume point that was never sent or is past, or bulk that went down with the old
    /// connection: its bytes are not kept.
    pub fn resume(&mut self, seq: u64) -> Result<Vec<Message>, WireError> {
        if seq < self.acked_seq || seq > self.next_seq {
            return Err(WireError::Malformed("a resume point that was never sent"));
        }
        if self.bulk_records.iter().any(|&bulk| bulk >= seq) {
            return Err(WireError::Malformed("the bytes of an upload were lost with the connection"));
        }
        self.rewound(seq)
    }

    fn rewound(&mut self, seq: u64) -> Result<Vec<Message>, WireError> {
        self.generation = self.generation.wrapping_add(1);
        // The node dropped chunks of other plans too: their predictions moved here and not
        // there. So every plan used since goes.
        let stale: Vec<u32> = self
            .plans
            .iter()
            .filter(|(_, known)| known.ready && known.last_used > seq)
            .map(|(&plan, _)| plan as u32)
            .collect();
        for stale in stale {
            self.forget_plan(stale);
            self.dropped_plans.push(stale);
        }
        // What is under construction goes out in full too: its chunks are of dropped plans.
        self.chunk = ChunkWriter::default();
        self.cursor = None;
        self.off_trie = true;
        self.wire.clear();
        self.wire.extend_from_slice(&self.plain);
        let rewind = Header::new(frame::Kind::Rewind, seq, u64::from(self.generation));
        let mut messages = vec![Message { header: rewind, payload: Vec::new() }];
        for batch in &self.retained {
            if batch.first_seq + batch.count <= seq {
                continue;
            }
            let mut payload = batch.plain.clone();
            let first_seq = rewrite(&mut payload, batch.first_seq, seq)?;
            let header = Header::new(frame::Kind::Records, first_seq, 0);
            messages.push(Message { header: header.with_payload(payload.len()), payload });
        }
        Ok(messages)
    }
}

/// Drops records below `seq` from a batch and marks its bulk as sent; gives its new first record.
fn rewrite(payload: &mut Vec<u8>, first_seq: u64, seq: u64) -> Result<u64, WireError> {
    let mut at = first_seq;
    let mut keep = Vec::with_capacity(payload.len());
    let mut reader = Reader::new(payload);
    let mut new_first = first_seq.max(seq);
    while !reader.is_empty() {
        let before = reader.rest();
        let item = record::next_item(&mut reader)?;
        let bytes = &before[..before.len() - reader.rest().len()];
        let start = keep.len();
        if let record::Item::Plain(plain) = item {
            at += 1;
            if at <= seq {
                new_first = new_first.max(at);
                continue;
            }
            keep.extend_from_slice(bytes);
            let bulk = plain.kind == Kind::Upload && plain.structure.last() == Some(&1);
            if bulk {
                record::mark_stashed(&mut keep[start..]);
            }
        } else {
            keep.extend_from_slice(bytes);
        }
    }
    *payload = keep;
    Ok(new_first)
}

fn step_prefix(prefix: u64, kind: Kind, op: u32, structure: &[u8]) -> u64 {
    let seed = prefix ^ (u64::from(op) << 8 | kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxh3_64_with_seed(structure, seed)
}
