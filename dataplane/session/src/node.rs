//! The node's end of the log: puts records in order, expands plans, tracks values and poison,
//! and drives a [`Machine`].

use std::sync::Arc;

use crate::WireError;
use crate::fault::{Code, Fault};
use crate::frame::{self, Header};
use crate::machine::{Call, Failure, Machine, Metas, Source, View};
use crate::plan::{ChunkReader, PLANS_MAX, Predictor, Template};
use crate::record::{self, Item, Kind, Plain, Shape};
use crate::segment::{IdMap, Resolver, SEGMENT_RECORDS_MAX};
use crate::skeleton;
use crate::varint::{Reader, put_i64};

/// Records executed before an acknowledgement goes out on its own.
pub const ACK_RECORDS: u64 = 512;
/// Bulk bytes consumed before an acknowledgement goes out on its own.
pub const ACK_BULK_BYTES: u64 = 8 << 20;
/// Values that a session may hold.
pub const VALUES_MAX: usize = 1 << 22;

/// A storage as the log knows it.
#[derive(Clone, Debug, Default)]
struct Value {
    /// Counts writes; with the id it names a value.
    version: u64,
    /// The first cause, if what it holds can't be used.
    poison: Option<Arc<Fault>>,
}

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
    resolver: Resolver,
    segment_records: usize,
    values: IdMap<Value>,
    plans: IdMap<NodePlan>,
    /// After a refusal everything is dropped until the client rewinds.
    discarding: bool,
    /// Of the last rewind.
    generation: u32,
    /// Bulk that arrived while discarding, by record: the place and its size.
    stash: IdMap<Option<u64>>,
    refused_ops: IdMap<Failure>,
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
    /// Records not run because an input was poisoned.
    pub poisoned: u64,
}

/// A record ready to run: where its parts are.
struct Ready<'a> {
    kind: Kind,
    op: u32,
    structure: &'a [u8],
    shape: &'a Shape,
    blob: Option<&'a [u8]>,
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
                self.bulk_bytes = self.bulk_bytes.saturating_add(header.aux);
                if header.seq < self.expected_seq {
                    // Known already: its memory goes back to the daemon.
                    if let Source::Place(place) = bulk {
                        out.push((Header::new(frame::Kind::PlaceFree, place, 0), Vec::new()));
                    }
                } else if self.discarding {
                    self.stash_bulk(header.seq, bulk)?;
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
                    Ok(template) if self.plans.len() < PLANS_MAX => {
                        let predictor = Predictor::new(&template.numbers);
                        let template = Arc::new(template);
                        self.plans.insert(plan, NodePlan { template, predictor });
                        false
                    }
                    _ => true,
                };
                let header = Header::new(frame::Kind::PlanInstalled, plan, u64::from(refused));
                out.push((header, Vec::new()));
            }
            frame::Kind::DropPlan => {
                self.plans.remove(&header.seq);
            }
            frame::Kind::Ping => {
                out.push((Header::new(frame::Kind::Pong, header.seq, 0), Vec::new()));
            }
            frame::Kind::Goodbye | frame::Kind::PlaceSent => {}
            _ => return Err(WireError::Malformed("a frame that a client never sends")),
        }
        let due = self.expected_seq - self.acked_seq >= ACK_RECORDS
            || self.bulk_bytes - self.bulk_acked >= ACK_BULK_BYTES;
        if due {
            self.acknowledge(out);
        }
        Ok(())
    }

    fn stash_bulk(&mut self, seq: u64, bulk: Source<'_>) -> Result<(), WireError> {
        if self.stash.len() > SEGMENT_RECORDS_MAX {
            return Err(WireError::Malformed("too much bulk after a refusal"));
        }
        let place = match bulk {
            Source::Place(place) => Some(place),
            _ => None,
        };
        self.stash.insert(seq, place);
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
                    match machine.define_op(op, name) {
                        Ok(()) => self.refused_ops.remove(&u64::from(op)),
                        Err(failure) => self.refused_ops.insert(u64::from(op), failure),
                    };
                }
                Item::DropPlan { plan } => {
                    self.plans.remove(&u64::from(plan));
                }
                Item::Plain(plain) => {
                    if self.takes(seq)? {
                        self.plain(&plain, None, machine, out)?;
                    }
                    seq += 1;
                }
                Item::Chunk { plan, start, count, body } => {
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
        let Some(known) = self.plans.get(&u64::from(plan)) else { return Ok(false) };
        let template = Arc::clone(&known.template);
        let end = start as usize + count as usize;
        let Some(records) = template.records.get(start as usize..end) else { return Ok(false) };
        let mut reader = ChunkReader::new(body)?;
        let mut numbers = std::mem::take(&mut self.numbers);
        let mut frees = std::mem::take(&mut self.frees);
        for record in records {
            numbers.clear();
            frees.clear();
            let Some(known) = self.plans.get_mut(&u64::from(plan)) else { return Ok(false) };
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

    fn run(
        &mut self,
        ready: &Ready<'_>,
        numbers: &[i64],
        frees: &[i64],
        bulk: Option<Source<'_>>,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<(), WireError> {
        let seq = self.expected_seq;
        self.expected_seq += 1;
        self.counters.records += 1;
        for &relative in frees {
            let id = self.resolver.relative(relative)?;
            if self.values.remove(&id).is_some() {
                machine.free(id);
            }
        }
        if ready.kind == Kind::Frees {
            return Ok(());
        }
        self.segment_records += 1;
        if self.segment_records > SEGMENT_RECORDS_MAX + 1 {
            return Err(WireError::Malformed("a segment that never ends"));
        }
        let shape = ready.shape;
        let (externals, rest) = numbers
            .split_at_checked(shape.externals)
            .ok_or(WireError::Malformed("the numbers do not fit the structure"))?;
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        self.resolver.resolve(&shape.refs, externals, &mut ids)?;
        let (params, rest) = rest.split_at(shape.counts.params.min(rest.len()));
        let (data, tail_numbers) = rest.split_at(shape.counts.data.min(rest.len()));
        let first_fresh = self.resolver.take(shape.fresh);
        if self.values.len() + shape.fresh as usize > VALUES_MAX {
            return Err(WireError::TooMany {
                what: "values",
                got: self.values.len() as u64,
                max: VALUES_MAX,
            });
        }
        let poison = self.poison_of(ready.kind, &ids)?;
        let call = Call {
            seq,
            op: ready.op,
            skeleton: ready.structure.get(shape.skeleton.clone()).unwrap_or_default(),
            storages: &ids,
            params,
            data,
            out_skeleton: if ready.kind == Kind::Op {
                ready.structure.get(shape.tail..).unwrap_or_default()
            } else {
                &[]
            },
            out_params: tail_numbers,
            first_fresh,
        };
        let tail = tail_numbers.first().copied();
        let outcome = match poison {
            Some(cause) => {
                self.counters.poisoned += 1;
                Err(cause)
            }
            None => self
                .perform(ready, &call, tail, bulk, machine, out)
                .map_err(|failure| self.fault(seq, failure, ready.kind, out)),
        };
        let cause = outcome.err();
        for (&id, written) in ids.iter().zip(&shape.written) {
            if *written && let Some(value) = self.values.get_mut(&id) {
                value.version += 1;
                value.poison.clone_from(&cause);
            }
        }
        let reserved_used = if ready.kind == Kind::CallSync { 0 } else { shape.fresh };
        for id in first_fresh..first_fresh + reserved_used {
            self.values.insert(id, Value { version: 0, poison: cause.clone() });
        }
        if let Some(cause) = cause {
            self.answer_fault(ready.kind, seq, tail, &cause, out);
        }
        self.ids = ids;
        if ready.kind.ends_segment() {
            self.resolver.cut();
            self.segment_records = 0;
            if ready.kind != Kind::Cut {
                self.acknowledge(out);
            }
        }
        Ok(())
    }

    /// The first cause among the inputs. An overwritten target's own poison does not count.
    fn poison_of(&self, kind: Kind, ids: &[u64]) -> Result<Option<Arc<Fault>>, WireError> {
        let mut cause = None;
        for id in ids {
            let value = self
                .values
                .get(id)
                .ok_or(WireError::Malformed("a storage that was freed or never made"))?;
            if cause.is_none() && kind != Kind::Upload {
                cause.clone_from(&value.poison);
            }
        }
        Ok(cause)
    }

    fn perform(
        &mut self,
        ready: &Ready<'_>,
        call: &Call<'_>,
        tail: Option<i64>,
        bulk: Option<Source<'_>>,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) -> Result<(), Failure> {
        let bytes = || {
            tail.and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| Failure::new(Code::Protocol, "a negative size in bytes"))
        };
        let id = call.storages.first().copied().unwrap_or_default();
        if matches!(ready.kind, Kind::Op | Kind::CallSync)
            && let Some(failure) = self.refused_ops.get(&u64::from(ready.op))
        {
            return Err(failure.clone());
        }
        match ready.kind {
            Kind::Op => machine.call(call),
            Kind::CallSync => {
                let metas = machine.call_sync(call, ready.shape.fresh)?;
                self.learn_metas(call, ready.shape.fresh, &metas)?;
                out.push((Header::new(frame::Kind::Metas, call.seq, 0), encode_metas(&metas)));
                Ok(())
            }
            Kind::Alloc => machine.alloc(call.first_fresh, bytes()?),
            Kind::Resize => machine.resize(id, bytes()?),
            Kind::Upload => {
                let source = match (ready.shape.bulk, ready.blob, bulk) {
                    (true, _, Some(source)) => source,
                    (false, Some(blob), _) if blob.len() as u64 == bytes()? => {
                        Source::Inline(blob)
                    }
                    _ => {
                        return Err(Failure::new(Code::Protocol, "an upload without its bytes"));
                    }
                };
                machine.upload(id, bytes()?, source)
            }
            Kind::Fetch => {
                let view = view_of(call)
                    .ok_or_else(|| Failure::new(Code::Protocol, "a fetch of no tensor"))?;
                machine.fetch(tail.unwrap_or_default() as u64, &view)
            }
            Kind::Barrier => {
                let id = tail.unwrap_or_default() as u64;
                out.push((Header::new(frame::Kind::Synced, id, 0), Vec::new()));
                Ok(())
            }
            Kind::Cut | Kind::Frees => Ok(()),
        }
    }

    fn learn_metas(
        &mut self,
        call: &Call<'_>,
        reserved: u64,
        metas: &Metas,
    ) -> Result<(), Failure> {
        let counts = skeleton::measure_out(&metas.out_skeleton, |_, _| {}, |_| {})
            .map_err(|error| Failure::new(Code::Operator, error.to_string()))?;
        let fresh = counts.fresh as u64;
        if fresh > reserved {
            return Err(Failure::new(Code::Operator, "more results than were reserved"));
        }
        for id in call.first_fresh..call.first_fresh + fresh {
            self.values.insert(id, Value::default());
        }
        Ok(())
    }

    fn fault(
        &mut self,
        seq: u64,
        failure: Failure,
        kind: Kind,
        out: &mut Outgoing,
    ) -> Arc<Fault> {
        self.counters.faults += 1;
        let fault = Arc::new(Fault::new(failure.code, seq, failure.message));
        // What somebody waits for is answered apart.
        if !matches!(kind, Kind::Fetch | Kind::Barrier | Kind::CallSync) {
            out.push((Header::new(frame::Kind::Fault, seq, 0), fault.encode()));
        }
        fault
    }

    fn answer_fault(
        &self,
        kind: Kind,
        seq: u64,
        tail: Option<i64>,
        cause: &Fault,
        out: &mut Outgoing,
    ) {
        let id = match kind {
            Kind::Fetch | Kind::Barrier => tail.unwrap_or_default() as u64,
            Kind::CallSync => seq,
            _ => return,
        };
        // A synchronous operator has no id of its own: its record's number, marked by `aux`.
        let aux = u64::from(kind == Kind::CallSync);
        out.push((Header::new(frame::Kind::FetchFault, id, aux), cause.encode()));
    }
}

fn view_of<'a>(call: &Call<'a>) -> Option<View<'a>> {
    let &[tag, flags, dtype, ndim] = call.skeleton else { return None };
    if tag != skeleton::tag::TENSOR || call.params.len() != 1 + 2 * usize::from(ndim) {
        return None;
    }
    let (&offset, rest) = call.params.split_first()?;
    let (sizes, strides) = rest.split_at(usize::from(ndim));
    let storage = *call.storages.first()?;
    Some(View { storage, flags, dtype, offset, sizes, strides })
}

/// The payload of a Metas frame: `u16 length, result skeleton, its params (varints), u16 length,
/// value skeleton, its data (varints)`.
#[must_use]
pub fn encode_metas(metas: &Metas) -> Vec<u8> {
    let mut out = Vec::new();
    for (skeleton, numbers) in
        [(&metas.out_skeleton, &metas.out_params), (&metas.value_skeleton, &metas.value_data)]
    {
        out.extend_from_slice(&(skeleton.len() as u16).to_le_bytes());
        out.extend_from_slice(skeleton);
        for &number in numbers {
            put_i64(&mut out, number);
        }
    }
    out
}

/// Parses a Metas payload.
///
/// # Errors
/// Anything that is not of the layout above.
pub fn decode_metas(payload: &[u8]) -> Result<Metas, WireError> {
    let mut reader = Reader::new(payload);
    let len = reader.u16()?;
    let out_skeleton = reader.bytes(usize::from(len))?.to_vec();
    let counts = skeleton::measure_out(&out_skeleton, |_, _| {}, |_| {})?;
    let mut out_params = Vec::with_capacity(counts.params);
    for _ in 0..counts.params {
        out_params.push(reader.var_i64()?);
    }
    let len = reader.u16()?;
    let value_skeleton = reader.bytes(usize::from(len))?.to_vec();
    let counts = skeleton::measure(&value_skeleton, |_, _, _| {})?;
    if counts.storages > 0 || counts.params > 0 {
        return Err(WireError::Malformed("a value that is not a scalar"));
    }
    let mut value_data = Vec::with_capacity(counts.data);
    for _ in 0..counts.data {
        value_data.push(reader.var_i64()?);
    }
    Ok(Metas { out_skeleton, out_params, value_skeleton, value_data })
}
