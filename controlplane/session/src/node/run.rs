//! Running one record: frees, names, poison, the machine, the answer.

use std::sync::Arc;

use super::{NodeLog, Outgoing, VALUES_MAX, Value, encode_metas};
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
        let poison = self.poison_of(ready.kind, &ids)?;
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
        let reserved_used = if ready.kind == Kind::CallSync {
            0
        } else {
            shape.fresh
        };
        for id in first_fresh..first_fresh + reserved_used {
            self.values.insert(
                id,
                Value {
                    version: 0,
                    poison: cause.clone(),
                },
            );
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
            let value = self.values.get(id).ok_or(WireError::Malformed(
                "a storage that was freed or never made",
            ))?;
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

    fn fault(&mut self, seq: u64, failure: Failure, kind: Kind, out: &mut Outgoing) -> Arc<Fault> {
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
        out.push((
            Header::new(frame::Kind::FetchFault, id, aux),
            cause.encode(),
        ));
    }
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
