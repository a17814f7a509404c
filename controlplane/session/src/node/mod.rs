//! The node's end of the log: puts records in order, expands plans, tracks values and poison,
//! and drives a [`Machine`].

mod faults;
mod metas;
mod overwrites;
mod run;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use faults::{Faults, Value};
pub use metas::{decode_metas, encode_metas};
use run::Ready;

use crate::WireError;
use crate::frame::{self, Header};
use crate::limits::NODE_PLANS_MAX;
pub use crate::limits::VALUES_MAX;
use crate::machine::{Failure, Machine, Source};
use crate::plan::{ChunkReader, Predictor, Template};
use crate::record::{self, Item, Kind, Plain, Shape};
use crate::segment::{IdMap, Resolver, SEGMENT_RECORDS_MAX};
use crate::varint::Reader;

/// Records executed before an acknowledgement goes out on its own.
pub const ACK_RECORDS: u64 = 512;
/// Bulk bytes consumed before an acknowledgement goes out on its own.
pub const ACK_BULK_BYTES: u64 = 8 << 20;

#[derive(Debug)]
struct NodePlan {
    template: Arc<Template>,
    predictor: Predictor,
}

/// Frames to send back.
pub type Outgoing = Vec<(Header, Vec<u8>)>;

/// The node's end.
#[derive(Debug, Default)]
pub struct NodeLog {
    expected_seq: u64,
    acked_seq: u64,
    bulk_bytes: u64,
    bulk_acked: u64,
    /// Bulk below this record was counted.
    bulk_next: u64,
    resolver: Resolver,
    segment_records: usize,
    values: IdMap<Value>,
    plans: IdMap<NodePlan>,
    /// Plans that were dropped before they came: plans and the news of them take different ways.
    dropped: VecDeque<u64>,
    /// After a refusal everything is dropped until the client rewinds.
    discarding: bool,
    /// Of the last rewind.
    generation: u32,
    /// Bulk that arrived while discarding, by record: the place and its size.
    stash: IdMap<Option<u64>>,
    refused_ops: IdMap<Failure>,
    /// Operators that overwrite what they write.
    overwriting: HashSet<u32>,
    faults: Faults,
    ids: Vec<u64>,
    numbers: Vec<i64>,
    frees: Vec<i64>,
    counters: NodeCounters,
}

/// What the node's end has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Records applied.
    pub records: u64,
    /// Of these, through a plan.
    pub planned: u64,
    /// Chunks refused.
    pub refused: u64,
    /// Records that failed themselves.
    pub faults: u64,
    /// Records not run because of an earlier failure.
    pub poisoned: u64,
    /// Failures that a look was answered with, instead of what it asked for.
    pub raised: u64,
}

impl NodeLog {
    /// A session that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sequence number of the next record.
    #[must_use]
    pub fn expected_seq(&self) -> u64 {
        self.expected_seq
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> NodeCounters {
        self.counters
    }

    /// Version of a value (how often it was written), if it lives.
    #[must_use]
    pub fn version(&self, id: u64) -> Option<u64> {
        self.values.get(&id).map(|value| value.version)
    }

    /// Plans that are installed.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.plans.len()
    }

    /// Storages that live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.values.len()
    }

    /// Applies one frame as it came from the client, or from the daemon for plans. `bulk` says
    /// where a bulk frame's bytes are. Replies are appended to `out`.
    ///
    /// # Errors
    /// The client is defective or hostile; the session must end.
    pub fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        bulk: Source<'_>,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<(), WireError> {
        match header.kind {
            frame::Kind::Records => self.records(header.seq, payload, machine, out)?,
            frame::Kind::Bulk => {
                let mut reader = Reader::new(payload);
                let Item::Plain(plain) = record::next_item(&mut reader)? else {
                    return Err(WireError::Malformed("a bulk frame without an upload"));
                };
                if plain.kind != Kind::Upload || !reader.is_empty() {
                    return Err(WireError::Malformed("a bulk frame without an upload"));
                }
                // Once, though a frame may come twice.
                if header.seq >= self.bulk_next {
                    self.bulk_next = header.seq.saturating_add(1);
                    self.bulk_bytes = self.bulk_bytes.saturating_add(header.aux);
                }
                if header.seq < self.expected_seq {
                    // Known already: its memory goes back to the daemon.
                    if let Source::Place(place) = bulk {
                        out.push((Header::new(frame::Kind::PlaceFree, place, 0), Vec::new()));
                    }
                } else if self.discarding {
                    self.stash_bulk(header.seq, bulk, out)?;
                } else if header.seq > self.expected_seq {
                    return Err(WireError::Malformed("a gap in the records"));
                } else {
                    self.plain(&plain, Some(bulk), machine, out)?;
                }
            }
            frame::Kind::Rewind => {
                if header.seq != self.expected_seq {
                    return Err(WireError::Malformed("a rewind to another record"));
                }
                self.discarding = false;
                self.generation = header.aux as u32;
            }
            frame::Kind::InstallPlan => {
                let plan = header.seq;
                let refused = match Template::decode(payload) {
                    Ok(template)
                        if self.plans.len() < NODE_PLANS_MAX && !self.take_dropped(plan) =>
                    {
                        let predictor = Predictor::new(&template.numbers);
                        let template = Arc::new(template);
                        self.plans.insert(
                            plan,
                            NodePlan {
                                template,
                                predictor,
                            },
                        );
                        false
                    }
                    _ => true,
                };
                let header = Header::new(frame::Kind::PlanInstalled, plan, u64::from(refused));
                out.push((header, Vec::new()));
            }
            frame::Kind::DropPlan => self.drop_plan(header.seq),
            frame::Kind::Ping => {
                out.push((Header::new(frame::Kind::Pong, header.seq, 0), Vec::new()));
            }
            frame::Kind::Goodbye | frame::Kind::PlaceSent | frame::Kind::PoolGone => {}
            _ => return Err(WireError::Malformed("a frame that a client never sends")),
        }
        let due = header.asks
            || self.expected_seq - self.acked_seq >= ACK_RECORDS
            || self.bulk_bytes - self.bulk_acked >= ACK_BULK_BYTES;
        if due {
            self.acknowledge(out);
        }
        Ok(())
    }

    /// The client will not use it, whether it is here or still comes.
    fn drop_plan(&mut self, plan: u64) {
        if self.plans.remove(&plan).is_none() {
            if self.dropped.len() >= NODE_PLANS_MAX {
                self.dropped.pop_front();
            }
            self.dropped.push_back(plan);
        }
    }

    /// Whether the client dropped this plan before it came.
    fn take_dropped(&mut self, plan: u64) -> bool {
        let at = self.dropped.iter().position(|&dropped| dropped == plan);
        at.and_then(|at| self.dropped.remove(at)).is_some()
    }

    fn stash_bulk(
        &mut self,
        seq: u64,
        bulk: Source<'_>,
        out: &mut Outgoing,
    ) -> Result<(), WireError> {
        if self.stash.len() > SEGMENT_RECORDS_MAX {
            return Err(WireError::Malformed("too much bulk after a refusal"));
        }
        let place = match bulk {
            Source::Place(place) => Some(place),
            _ => None,
        };
        if let Some(Some(known)) = self.stash.insert(seq, place) {
            // It came twice: one of the two is enough.
            out.push((Header::new(frame::Kind::PlaceFree, known, 0), Vec::new()));
        }
        Ok(())
    }

    fn acknowledge(&mut self, out: &mut Outgoing) {
        self.acked_seq = self.expected_seq;
        self.bulk_acked = self.bulk_bytes;
        let header = Header::new(frame::Kind::Ack, self.expected_seq, self.bulk_bytes);
        out.push((header, Vec::new()));
    }

    fn records(
        &mut self,
        first_seq: u64,
        payload: &[u8],
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<(), WireError> {
        let mut reader = Reader::new(payload);
        let mut seq = first_seq;
        while !reader.is_empty() {
            match record::next_item(&mut reader)? {
                Item::DefineOp { op, name } => {
                    // A refused name fails where it is used, with the record's number.
                    if overwrites::overwrites(name) {
                        self.overwriting.insert(op);
                    } else {
                        self.overwriting.remove(&op);
                    }
                    match machine.define_op(op, name) {
                        Ok(()) => self.refused_ops.remove(&u64::from(op)),
                        Err(failure) => self.refused_ops.insert(u64::from(op), failure),
                    };
                }
                Item::DropPlan { plan } => self.drop_plan(u64::from(plan)),
                Item::Plain(plain) => {
                    if self.takes(seq)? {
                        self.plain(&plain, None, machine, out)?;
                    }
                    seq += 1;
                }
                Item::Chunk {
                    plan,
                    start,
                    count,
                    body,
                } => {
                    if self.discarding || seq + u64::from(count) <= self.expected_seq {
                        seq += u64::from(count);
                        continue;
                    }
                    // A chunk is applied whole or not at all, so it can't be half known.
                    if seq != self.expected_seq {
                        return Err(WireError::Malformed("a gap in the records"));
                    }
                    if !self.chunk(plan, start, count, body, machine, out)? {
                        self.discarding = true;
                        self.counters.refused += 1;
                        let aux = frame::refusal(plan, self.generation);
                        let header = Header::new(frame::Kind::Refused, seq, aux);
                        out.push((header, Vec::new()));
                    }
                    seq += u64::from(count);
                }
            }
        }
        Ok(())
    }

    /// Whether record `seq` is the next one (it may be known already).
    fn takes(&self, seq: u64) -> Result<bool, WireError> {
        if self.discarding || seq < self.expected_seq {
            return Ok(false);
        }
        if seq > self.expected_seq {
            return Err(WireError::Malformed("a gap in the records"));
        }
        Ok(true)
    }

    fn plain(
        &mut self,
        plain: &Plain<'_>,
        bulk: Option<Source<'_>>,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<(), WireError> {
        let shape = Shape::parse(plain.kind, plain.structure)?;
        if shape.numbers() != plain.numbers.count {
            return Err(WireError::Malformed("the numbers do not fit the structure"));
        }
        let mut numbers = std::mem::take(&mut self.numbers);
        let mut frees = std::mem::take(&mut self.frees);
        numbers.clear();
        frees.clear();
        plain.numbers.unpack(&mut numbers);
        plain.frees.unpack(&mut frees);
        let stashed;
        let bulk = if plain.stashed {
            stashed = self
                .stash
                .remove(&self.expected_seq)
                .ok_or(WireError::Malformed("bulk that never came"))?;
            Some(stashed.map_or(Source::NoMemory, Source::Place))
        } else {
            bulk
        };
        let ready = Ready {
            kind: plain.kind,
            op: plain.op,
            structure: plain.structure,
            shape: &shape,
            blob: plain.blob,
        };
        let done = self.run(&ready, &numbers, &frees, bulk, machine, out);
        self.numbers = numbers;
        self.frees = frees;
        done
    }

    fn chunk(
        &mut self,
        plan: u32,
        start: u32,
        count: u32,
        body: &[u8],
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<bool, WireError> {
        let Some(known) = self.plans.get(&u64::from(plan)) else {
            return Ok(false);
        };
        let template = Arc::clone(&known.template);
        let end = start as usize + count as usize;
        let Some(records) = template.records.get(start as usize..end) else {
            return Ok(false);
        };
        let mut reader = ChunkReader::new(body)?;
        let mut numbers = std::mem::take(&mut self.numbers);
        let mut frees = std::mem::take(&mut self.frees);
        for record in records {
            numbers.clear();
            frees.clear();
            let Some(known) = self.plans.get_mut(&u64::from(plan)) else {
                return Ok(false);
            };
            let blob = reader.next(record, &mut known.predictor, &mut numbers, &mut frees)?;
            let ready = Ready {
                kind: record.kind,
                op: record.op,
                structure: &record.structure,
                shape: &record.shape,
                blob,
            };
            self.run(&ready, &numbers, &frees, None, machine, out)?;
            self.counters.planned += 1;
        }
        self.numbers = numbers;
        self.frees = frees;
        Ok(true)
    }
}
