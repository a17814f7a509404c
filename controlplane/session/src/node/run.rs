//! Running one record: frees, names, poison, the machine, the answer.

use std::sync::Arc;

use super::faults::Value;
use super::{NodeLog, Outgoing, VALUES_MAX, encode_metas, overwrites};
use crate::WireError;
use crate::fault::{Code, Fault};
use crate::frame::{self, Header};
use crate::machine::{Call, Failure, Machine, Metas, Source, View};
use crate::record::{Kind, Shape};
use crate::segment::SEGMENT_RECORDS_MAX;
use crate::skeleton;

/// A record ready to run: where its parts are.
pub(super) struct Ready<'a> {
    pub(super) kind: Kind,
    pub(super) op: u32,
    pub(super) structure: &'a [u8],
    pub(super) shape: &'a Shape,
    pub(super) blob: Option<&'a [u8]>,
}

impl NodeLog {
    pub(super) fn run(
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
        let mut troubled = self.faults.pending().is_some();
        for &id in &ids {
            let value = self.values.get(&id).ok_or(WireError::Malformed(
                "a storage that was freed or never made",
            ))?;
            if let Some(seq) = value.pending() {
                self.arrive(id, seq, machine, out);
                troubled |= self.faults.pending().is_some();
            }
            troubled |= self
                .values
                .get(&id)
                .is_some_and(|value| value.cause().is_some());
        }
        let call = Call {
            seq,
            op: ready.op,
            skeleton: ready
                .structure
                .get(shape.skeleton.clone())
                .unwrap_or_default(),
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
            fresh: shape.fresh,
        };
        let tail = tail_numbers.first().copied();
        if ready.kind.is_look() {
            self.look(ready, &call, tail, machine, out);
        } else {
            self.write(ready, &call, tail, bulk, troubled, machine, out);
        }
        machine.ends();
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

    /// A value that another device sends is used for the first time: it is waited for.
    fn arrive(&mut self, id: u64, seq: u64, machine: &mut impl Machine, out: &mut Outgoing) {
        // The sender has to go on meanwhile, and may wait for an acknowledgement of this log.
        machine.say(out);
        let arrived = machine.arrive(id);
        let Some(value) = self.values.get_mut(&id) else {
            return;
        };
        match arrived {
            Ok(()) => value.arrived(),
            Err(fault) => {
                let is_ours = fault.log.is_none();
                let cause_seq = if is_ours { seq } else { fault.cause_seq };
                let fault = Arc::new(Fault { cause_seq, ..fault });
                *value = Value::missing(Arc::clone(&fault), 0);
                // The sender's own is raised there.
                if is_ours {
                    self.counters.faults += 1;
                    out.push((
                        Header::new(frame::Kind::Fault, fault.cause_seq, 0),
                        fault.encode(),
                    ));
                    self.faults.add(&fault, id);
                }
            }
        }
    }

    /// A record that is answered: with what it asks for, or with the failure that comes first.
    fn look(
        &mut self,
        ready: &Ready<'_>,
        call: &Call<'_>,
        tail: Option<i64>,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) {
        let cause = self.faults.raise(&mut self.values, machine);
        let cause = cause.or_else(|| {
            let mut read = call.storages.iter();
            read.find_map(|id| self.values.get(id)?.cause().cloned())
        });
        let cause = cause.or_else(|| {
            let failure = self.perform(ready, call, tail, None, machine, out).err()?;
            Some(self.fault(call.seq, failure))
        });
        let Some(cause) = cause else {
            self.mark_written(ready, call);
            return;
        };
        self.counters.raised += 1;
        self.answer_fault(ready.kind, call.seq, tail, &cause, out);
    }

    /// A record that nobody waits for. `troubled`: something failed before, and may concern it.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a record is, and what it may use, once"
    )]
    fn write(
        &mut self,
        ready: &Ready<'_>,
        call: &Call<'_>,
        tail: Option<i64>,
        bulk: Option<Source<'_>>,
        troubled: bool,
        machine: &mut impl Machine,
        out: &mut Outgoing,
    ) {
        let mut healing = Vec::new();
        let mut cause = None;
        if troubled {
            healing = self.healing(ready, call, machine);
            cause = self.blocked(ready, call, &healing, machine);
        }
        let outcome = match cause {
            Some(cause) => {
                self.counters.poisoned += 1;
                if let Some(Source::Place(place)) = bulk {
                    out.push((Header::new(frame::Kind::PlaceFree, place, 0), Vec::new()));
                }
                Err(cause)
            }
            None => self
                .make_missing(&healing, machine)
                .and_then(|()| self.perform(ready, call, tail, bulk, machine, out))
                .map_err(|failure| {
                    let fault = self.fault(call.seq, failure);
                    out.push((Header::new(frame::Kind::Fault, call.seq, 0), fault.encode()));
                    fault
                }),
        };
        match outcome {
            Ok(()) => self.settle(ready, call),
            Err(cause) => {
                if ready.kind == Kind::Send {
                    machine.send_fault(tail.unwrap_or_default() as u64, &cause);
                }
                self.spoil(ready, call, tail, &cause, machine);
            }
        }
    }

    fn mark_written(&mut self, ready: &Ready<'_>, call: &Call<'_>) {
        for id in written(call, ready.shape) {
            if let Some(value) = self.values.get_mut(&id) {
                value.written();
            }
        }
    }

    /// What the record wrote and made is there.
    fn settle(&mut self, ready: &Ready<'_>, call: &Call<'_>) {
        self.mark_written(ready, call);
        let made = match ready.kind {
            Kind::Recv => Value::expected(call.seq),
            _ => Value::default(),
        };
        for id in call.first_fresh..call.first_fresh + call.fresh {
            self.values.insert(id, made.clone());
        }
    }

    /// What the record was to write and make is not there.
    fn spoil(
        &mut self,
        ready: &Ready<'_>,
        call: &Call<'_>,
        tail: Option<i64>,
        cause: &Arc<Fault>,
        machine: &mut impl Machine,
    ) {
        let bytes = tail.and_then(|bytes| u64::try_from(bytes).ok());
        let mut spoiled = false;
        for id in written(call, ready.shape) {
            let lost = machine.bytes(id).is_none();
            let lost = lost.then(|| {
                let known = self.values.get(&id).and_then(Value::missing_bytes);
                known.or(bytes).unwrap_or_default()
            });
            spoiled |= self.faults.spoil(&mut self.values, id, cause, lost);
            if let Some(value) = self.values.get_mut(&id) {
                value.version += 1;
                if ready.kind == Kind::Resize && lost.is_some() {
                    value.resized(bytes.unwrap_or_default());
                }
            }
        }
        let mut sizes = fresh_bytes(ready.kind, call, bytes);
        for id in call.first_fresh..call.first_fresh + call.fresh {
            let bytes = sizes.next().unwrap_or_default();
            self.values
                .insert(id, Value::missing(Arc::clone(cause), bytes));
        }
        // What was raised once and only spreads to new results is found where they are looked at. All
        // else is a failure to be raised.
        if (cause.log.is_none() && cause.cause_seq == call.seq) || spoiled {
            self.faults.add(cause, call.first_fresh);
        }
    }

    /// Storages that can't be used, and that this record overwrites entirely.
    fn healing(&self, ready: &Ready<'_>, call: &Call<'_>, machine: &impl Machine) -> Vec<u64> {
        let troubled = |id: &u64| self.values.get(id).is_some_and(|v| v.cause().is_some());
        let mut ids: Vec<u64> = written(call, ready.shape).filter(troubled).collect();
        if ids.is_empty() || ready.kind == Kind::Upload {
            return ids;
        }
        if ready.kind != Kind::Op || !self.overwriting.contains(&ready.op) {
            return Vec::new();
        }
        let spans = overwrites::spans(call.skeleton, call.params);
        let size = |id: u64| {
            let value = self.values.get(&id)?;
            value.missing_bytes().or_else(|| machine.bytes(id))
        };
        let whole = |id: u64| {
            call.storages
                .iter()
                .zip(&spans)
                .all(|(&other, span)| other != id || (span.is_some() && *span == size(id)))
        };
        ids.retain(|&id| whole(id));
        ids
    }

    /// Why the record can't run: the first cause among what it reads, or no memory to keep what it
    /// writes while a fault is pending.
    fn blocked(
        &mut self,
        ready: &Ready<'_>,
        call: &Call<'_>,
        healing: &[u64],
        machine: &mut impl Machine,
    ) -> Option<Arc<Fault>> {
        for (index, id) in call.storages.iter().enumerate() {
            let heals = ready.shape.written.get(index) == Some(&true) && healing.contains(id);
            if !heals && let Some(cause) = self.values.get(id).and_then(Value::cause) {
                return Some(Arc::clone(cause));
            }
        }
        let pending = Arc::clone(self.faults.pending()?);
        let replaced = ready.kind == Kind::Upload;
        let kept = written(call, ready.shape)
            .all(|id| self.faults.keep(&mut self.values, id, replaced, machine));
        (!kept).then_some(pending)
    }

    /// Makes the storages that are to be overwritten and were never made.
    fn make_missing(&self, healing: &[u64], machine: &mut impl Machine) -> Result<(), Failure> {
        for id in healing {
            let bytes = self.values.get(id).and_then(Value::missing_bytes);
            if let Some(bytes) = bytes
                && machine.bytes(*id).is_none()
            {
                machine.alloc(*id, bytes)?;
            }
        }
        Ok(())
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
        machine.begins(call.seq);
        if matches!(ready.kind, Kind::Op | Kind::CallSync)
            && let Some(failure) = self.refused_ops.get(&u64::from(ready.op))
        {
            return Err(failure.clone());
        }
        match ready.kind {
            Kind::Op => machine.call(call),
            Kind::CallSync => {
                let metas = machine.call_sync(call)?;
                self.learn_metas(call, &metas)?;
                out.push((
                    Header::new(frame::Kind::Metas, call.seq, 0),
                    encode_metas(&metas),
                ));
                Ok(())
            }
            Kind::Alloc => machine.alloc(call.first_fresh, bytes()?),
            Kind::Resize => machine.resize(id, bytes()?),
            Kind::Upload => {
                let source = match (ready.shape.bulk, ready.blob, bulk) {
                    (true, _, Some(source)) => source,
                    (false, Some(blob), _) if blob.len() as u64 == bytes()? => Source::Inline(blob),
                    _ => {
                        return Err(Failure::new(Code::Protocol, "an upload without its bytes"));
                    }
                };
                let id = call.storages.first().map_or(call.first_fresh, |&id| id);
                machine.upload(id, bytes()?, source)
            }
            Kind::Fetch => {
                let view = view_of(call)
                    .ok_or_else(|| Failure::new(Code::Protocol, "a fetch of no tensor"))?;
                machine.fetch(tail.unwrap_or_default() as u64, &view)
            }
            Kind::Send => {
                let view = view_of(call)
                    .ok_or_else(|| Failure::new(Code::Protocol, "a transfer of no tensor"))?;
                machine.send(tail.unwrap_or_default() as u64, &view)
            }
            Kind::Recv => {
                let transfer = call.out_params.get(1).copied().unwrap_or_default();
                machine.expect(call.first_fresh, bytes()?, transfer as u64)
            }
            Kind::Barrier => {
                let id = tail.unwrap_or_default() as u64;
                out.push((Header::new(frame::Kind::Synced, id, 0), Vec::new()));
                Ok(())
            }
            Kind::Cut | Kind::Frees => Ok(()),
        }
    }

    fn learn_metas(&mut self, call: &Call<'_>, metas: &Metas) -> Result<(), Failure> {
        let counts = skeleton::measure_out(&metas.out_skeleton, |_, _| {}, |_| {})
            .map_err(|error| Failure::new(Code::Operator, error.to_string()))?;
        let fresh = counts.fresh as u64;
        if fresh > call.fresh {
            return Err(Failure::new(
                Code::Operator,
                "more results than were reserved",
            ));
        }
        for id in call.first_fresh..call.first_fresh + fresh {
            self.values.insert(id, Value::default());
        }
        Ok(())
    }

    fn fault(&mut self, seq: u64, failure: Failure) -> Arc<Fault> {
        self.counters.faults += 1;
        Arc::new(Fault::new(failure.code, seq, failure.message))
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
        out.push((
            Header::new(frame::Kind::FetchFault, id, aux),
            cause.encode(),
        ));
    }
}

/// Ids that a record writes.
fn written<'a>(call: &Call<'a>, shape: &'a Shape) -> impl Iterator<Item = u64> + use<'a> {
    let written = call.storages.iter().zip(&shape.written);
    written.filter_map(|(&id, written)| written.then_some(id))
}

/// Sizes of the storages that a record was to make. `bytes`: what its tail says.
fn fresh_bytes(kind: Kind, call: &Call<'_>, bytes: Option<u64>) -> std::vec::IntoIter<u64> {
    let mut sizes = Vec::new();
    if kind != Kind::Op {
        sizes.extend(bytes);
        return sizes.into_iter();
    }
    let mut rest = call.out_params;
    for item in skeleton::results(call.out_skeleton) {
        if let Ok(skeleton::ResultItem::Fresh { dtype, ndim }) = item {
            let ndim = usize::from(ndim);
            let (shape, strides) = rest
                .split_at_checked(2 * ndim)
                .map(|(mine, others)| {
                    rest = others;
                    mine.split_at(ndim)
                })
                .unwrap_or_default();
            sizes.push(skeleton::span_bytes(dtype, 0, shape, strides).unwrap_or_default());
        }
    }
    sizes.into_iter()
}

fn view_of<'a>(call: &Call<'a>) -> Option<View<'a>> {
    let &[tag, flags, dtype, ndim] = call.skeleton else {
        return None;
    };
    if tag != skeleton::tag::TENSOR || call.params.len() != 1 + 2 * usize::from(ndim) {
        return None;
    }
    let (&offset, rest) = call.params.split_first()?;
    let (sizes, strides) = rest.split_at(usize::from(ndim));
    let storage = *call.storages.first()?;
    Some(View {
        storage,
        flags,
        dtype,
        offset,
        sizes,
        strides,
    })
}
