//! A machine whose storages hold one number each, and whose operators hash their inputs: any
//! record that is lost, repeated, reordered or given other numbers changes the answers.

use std::collections::HashMap;

use genie_session::fault::Code;
use genie_session::machine::{Call, Failure, Machine, Metas, Source, View};
use genie_session::skeleton;

/// Storages of which there is never memory for a copy.
pub fn cant_be_copied(id: u64) -> bool {
    id.is_multiple_of(7)
}

/// The operator that overwrites what it writes.
pub const ZERO: u32 = 21;

/// Data that makes an operator fail.
pub const FAIL: i64 = -77;

pub fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(17)
        ^ (b >> 7)
}

/// What an operator computes from its inputs.
pub fn outcome(op: u32, params: &[i64], data: &[i64], inputs: &[u64]) -> u64 {
    let mut hash = mix(0, u64::from(op));
    for &number in params.iter().chain(data) {
        hash = mix(hash, number as u64);
    }
    inputs.iter().fold(hash, |hash, &input| mix(hash, input))
}

#[derive(Default)]
pub struct SimMachine {
    pub storages: HashMap<u64, u64>,
    pub sizes: HashMap<u64, u64>,
    /// What storages were, with their sizes, when the pending fault came.
    kept: HashMap<u64, (u64, u64)>,
    pub names: HashMap<u32, String>,
    /// Answers to fetches, to be sent by the world.
    pub answers: Vec<(u64, u64)>,
    /// Bulk bytes by place.
    pub places: HashMap<u64, u64>,
    pub uploads_by_place: u64,
    pub calls: u64,
}

impl SimMachine {
    fn get(&self, id: u64) -> u64 {
        *self
            .storages
            .get(&id)
            .expect("the log names only storages that live")
    }
}

impl Machine for SimMachine {
    fn define_op(&mut self, op: u32, name: &str) -> Result<(), Failure> {
        let known = self.names.entry(op).or_insert_with(|| name.to_owned());
        assert_eq!(known, name, "an operator's number changed its name");
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        assert!(
            self.names.contains_key(&call.op),
            "an operator that was never named"
        );
        self.calls += 1;
        if call.data.contains(&FAIL) {
            return Err(Failure::new(Code::Operator, "asked to fail"));
        }
        let inputs: Vec<u64> = call.storages.iter().map(|&id| self.get(id)).collect();
        if call.op == ZERO {
            self.storages.insert(call.storages[0], 0);
            return Ok(());
        }
        let hash = outcome(call.op, call.params, call.data, &inputs);
        let mut index = 0;
        let mut written = Vec::new();
        let counts = skeleton::measure(call.skeleton, |flags, _, _| {
            if flags & skeleton::flag::WRITE != 0 {
                written.push(call.storages[index]);
            }
            index += 1;
        })
        .expect("measured before");
        assert_eq!(
            (counts.storages, counts.params, counts.data),
            (call.storages.len(), call.params.len(), call.data.len())
        );
        for id in written {
            self.storages.insert(id, mix(hash, 1));
        }
        let out = skeleton::measure_out(call.out_skeleton, |_, _| {}, |_| {}).expect("measured");
        assert_eq!(out.params, call.out_params.len());
        for fresh in 0..out.fresh as u64 {
            self.sizes.insert(call.first_fresh + fresh, 16);
            let taken = self
                .storages
                .insert(call.first_fresh + fresh, mix(hash, 2 + fresh));
            assert!(taken.is_none(), "an id was given twice");
        }
        Ok(())
    }

    fn call_sync(&mut self, call: &Call<'_>) -> Result<Metas, Failure> {
        let inputs: Vec<u64> = call.storages.iter().map(|&id| self.get(id)).collect();
        let hash = outcome(call.op, call.params, call.data, &inputs);
        self.storages.insert(call.first_fresh, mix(hash, 2));
        self.sizes.insert(call.first_fresh, 4);
        Ok(Metas {
            out_skeleton: vec![skeleton::out::FRESH, 4, 1],
            out_params: vec![(hash % 100) as i64, 1],
            ..Metas::default()
        })
    }

    fn alloc(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        self.sizes.insert(id, bytes);
        let taken = self.storages.insert(id, bytes);
        assert!(taken.is_none(), "an id was given twice");
        Ok(())
    }

    fn resize(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        let value = mix(self.get(id), bytes);
        self.sizes.insert(id, bytes);
        self.storages.insert(id, value);
        Ok(())
    }

    fn upload(&mut self, id: u64, bytes: u64, source: Source<'_>) -> Result<(), Failure> {
        let value = match source {
            Source::Inline(blob) => {
                assert_eq!(blob.len() as u64, bytes);
                u64::from_le_bytes(blob.try_into().expect("eight bytes"))
            }
            Source::Place(place) => {
                self.uploads_by_place += 1;
                self.places
                    .remove(&place)
                    .expect("a place is consumed once")
            }
            Source::NoMemory => return Err(Failure::new(Code::OutOfMemory, "full")),
        };
        self.storages.insert(id, value);
        self.sizes.insert(id, bytes);
        Ok(())
    }

    fn fetch(&mut self, fetch: u64, view: &View<'_>) -> Result<(), Failure> {
        self.answers.push((fetch, self.get(view.storage)));
        Ok(())
    }

    fn free(&mut self, id: u64) {
        self.storages.remove(&id);
        self.sizes.remove(&id);
        self.kept.remove(&id);
    }

    fn bytes(&self, id: u64) -> Option<u64> {
        self.sizes.get(&id).copied()
    }

    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure> {
        if copy && cant_be_copied(id) {
            return Err(Failure::new(Code::OutOfMemory, "no room for a copy"));
        }
        let known = self.kept.insert(id, (self.get(id), self.sizes[&id]));
        assert!(known.is_none(), "a storage is kept once");
        if !copy {
            self.storages.remove(&id);
            self.sizes.remove(&id);
        }
        Ok(())
    }

    fn restore(&mut self, id: u64) {
        let (value, size) = self.kept.remove(&id).expect("it was kept");
        self.storages.insert(id, value);
        self.sizes.insert(id, size);
    }
}
