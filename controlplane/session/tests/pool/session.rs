//! The client's side, with a model of what every value holds.

use std::collections::BTreeMap;

use genie_session::fault::{Code, Fault};
use genie_session::places::{Bring, Copy, Places, Unproven};

use crate::cluster::{Asked, Cluster, DEVICES};
use crate::node::{mix, outcome};
use crate::rng::Rng;

const STEPS: u64 = 200;

/// What receivers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// For everything.
    Enough,
    /// Not for everything.
    Tight,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub sent: u64,
    pub ended: u64,
    pub read_from_copy: u64,
    pub fetched: u64,
    pub waited: u64,
    pub raised: u64,
    pub back: u64,
    pub cuts: u64,
    pub frames_lost: u64,
    pub repeated: u64,
}

impl Totals {
    pub fn add(&mut self, one: &Self) {
        self.sent += one.sent;
        self.ended += one.ended;
        self.read_from_copy += one.read_from_copy;
        self.fetched += one.fetched;
        self.waited += one.waited;
        self.raised += one.raised;
        self.back += one.back;
        self.cuts += one.cuts;
        self.frames_lost += one.frames_lost;
        self.repeated += one.repeated;
    }
}

/// What a value held since the last look that went well, the last as of now.
struct Model {
    held: Vec<u64>,
    /// It was there at that look.
    is_old: bool,
}

pub struct Session {
    rng: Rng,
    cluster: Cluster,
    places: Places,
    unproven: Unproven,
    live: BTreeMap<u64, Model>,
    totals: Totals,
}

impl Session {
    pub fn start(mut rng: Rng, memory: Memory) -> Self {
        Self {
            cluster: Cluster::start(&mut rng, memory == Memory::Tight),
            rng,
            places: Places::new(DEVICES),
            unproven: Unproven::default(),
            live: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    pub fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.cluster.listen();
        }
        while let Some((&value, _)) = self.live.first_key_value() {
            self.fetch(value);
            if self.live.contains_key(&value) {
                self.free(value);
            }
        }
        assert!(self.places.is_empty());
        for device in 0..DEVICES {
            assert_eq!(self.places.held(device), 0, "bytes of device {device}");
        }
        // What sources kept goes with a last look.
        self.barrier();
    }

    pub fn finish(mut self) -> Totals {
        (self.totals.cuts, self.totals.repeated) = (self.cluster.cuts, self.cluster.repeated);
        for counts in self.cluster.finish() {
            self.totals.waited += counts.waited;
            self.totals.frames_lost += counts.lost;
            assert_eq!(counts.left, 0, "a copy was never freed");
        }
        self.totals
    }

    fn any(&mut self) -> Option<u64> {
        let nth = self.rng.below(self.live.len().max(1) as u64) as usize;
        self.live.keys().nth(nth).copied()
    }

    fn step(&mut self) {
        let (Some(first), Some(second)) = (self.any(), self.any()) else {
            self.upload(None);
            return;
        };
        match self.rng.below(16) {
            0 | 1 if self.live.len() < 40 => self.upload(None),
            2 => self.upload(Some(first)),
            3..=9 if self.live.len() < 60 => self.operator(&[first, second], false),
            10..=12 => self.operator(&[first, second], true),
            13 => self.free(first),
            14 => self.fetch(first),
            _ if self.rng.one_in(4) => {
                let device = self.rng.below(DEVICES as u64) as usize;
                self.cluster.break_link(device);
            }
            _ => self.cluster.flush_all(),
        }
    }

    // ---- placing -------------------------------------------------------------------------------

    /// The ids of values at a device, where they are brought.
    fn bring(&mut self, values: &[u64], device: usize) -> Vec<u64> {
        values.iter().map(|&v| self.bring_one(v, device)).collect()
    }

    fn bring_one(&mut self, value: u64, device: usize) -> u64 {
        match self
            .places
            .bring(value, device, |_| true)
            .expect("it lives")
        {
            Bring::Here(id) => {
                let first = self.places.get(value).and_then(|v| v.copies().next());
                self.totals.read_from_copy += u64::from(first.expect("a copy").device != device);
                id
            }
            Bring::Lost(_) => unreachable!("no device is lost"),
            Bring::Make(_) => {
                self.cluster.room(&[device]);
                let id = self.cluster.alloc(device);
                self.places.add(value, device, id, "");
                id
            }
            Bring::Send(copy, _) => {
                self.cluster.room(&[copy.device, device]);
                let id = self.cluster.transfer(copy.device, copy.id, device);
                self.totals.sent += 1;
                self.unproven.bring(value, device);
                self.places.add(value, device, id, "");
                id
            }
        }
    }

    fn wrote(&mut self, value: u64, device: usize) {
        let dropped = self.places.written(value, device);
        self.totals.ended += dropped.len() as u64;
        let gone = self.unproven.write(value, device, dropped);
        self.drop_copies(gone);
    }

    fn drop_copies(&mut self, copies: Vec<Copy>) {
        for copy in copies {
            self.cluster.free(copy.device, copy.id);
        }
    }

    // ---- records -------------------------------------------------------------------------------

    fn upload(&mut self, known: Option<u64>) {
        let value = known.unwrap_or_else(|| {
            let value = self.places.take(1);
            self.places.insert(value, 8);
            value
        });
        let held = self.places.get(value).and_then(|v| v.copies().next());
        let drawn = self.rng.below(DEVICES as u64) as usize;
        let device = held.map_or(drawn, |copy| copy.device);
        let id = self.bring_one(value, device);
        self.cluster.room(&[device]);
        let bytes = self.rng.next();
        self.cluster.upload(device, id, bytes);
        self.wrote(value, device);
        self.hold(value, bytes);
    }

    fn hold(&mut self, value: u64, bytes: u64) {
        let new = || Model {
            held: Vec::new(),
            is_old: false,
        };
        self.live.entry(value).or_insert_with(new).held.push(bytes);
    }

    fn operator(&mut self, inputs: &[u64; 2], writes: bool) {
        let device = self.rng.below(DEVICES as u64) as usize;
        let ids = self.bring(inputs, device);
        self.cluster.room(&[device]);
        let (op, data) = (self.rng.below(5) as u32, 1 + self.rng.below(7) as i64);
        let id = self.cluster.operator(device, op, data, &ids, writes);
        let held = |value| *self.live[value].held.last().expect("what it holds");
        let inputs_held: Vec<u64> = inputs.iter().map(held).collect();
        let hash = outcome(op, data, &inputs_held);
        if writes {
            self.wrote(inputs[0], device);
            self.hold(inputs[0], mix(hash, 1));
        } else {
            let value = self.places.take(1);
            self.places.insert(value, 8);
            self.places.add(value, device, id, "");
            self.hold(value, mix(hash, 2));
        }
    }

    fn free(&mut self, value: u64) {
        self.live.remove(&value);
        let gone = self.places.remove(value).expect("it was there");
        self.drop_copies(gone.copies().collect());
    }

    // ---- looks ---------------------------------------------------------------------------------

    /// Asks all devices, the one for a view: its value, and the faults of any.
    fn look(&mut self, device: usize, id: Option<u64>) -> (Option<u64>, bool) {
        let asked: Vec<Asked> = (0..DEVICES)
            .map(|at| self.cluster.ask(at, id.filter(|_| at == device)))
            .collect();
        let look = self.unproven.look();
        self.cluster.cut();
        self.cluster.flush_all();
        let (mut found, mut failed) = (None, false);
        for key in asked {
            match self.cluster.answer(key) {
                Ok(value) => found = found.or(value),
                Err(_) => failed = true,
            }
        }
        if !failed {
            let gone = self.unproven.proven(look);
            self.drop_copies(gone);
            for model in self.live.values_mut() {
                model.held.drain(..model.held.len() - 1);
                model.is_old = true;
            }
        }
        (found, failed)
    }

    fn barrier(&mut self) {
        if self.look(0, None).1 {
            self.raised();
        }
    }

    fn fetch(&mut self, value: u64) {
        let device = self.places.get(value).and_then(|v| v.copies().next());
        let device = device.expect("a copy").device;
        let id = self.bring_one(value, device);
        let (found, failed) = self.look(device, Some(id));
        if failed {
            self.raised();
            return;
        }
        let wanted = self.live[&value].held.last().copied();
        assert_eq!(found, wanted, "value {value} at device {device}");
        self.totals.fetched += 1;
    }

    /// The program has heard of a failure. What was there before it must still be.
    fn raised(&mut self) {
        self.totals.raised += 1;
        let (gone, doubts) = self.unproven.failed(&mut self.places);
        self.drop_copies(gone);
        for doubt in doubts {
            let known = self.places.get(doubt.value);
            let arrived = match known.and_then(|known| known.at(doubt.device)) {
                Some(id) => self.peek(doubt.device, id).is_ok(),
                None => true,
            };
            self.totals.back += u64::from(!arrived);
            let gone = Unproven::settle(&mut self.places, doubt, arrived);
            self.drop_copies(gone);
        }
        for value in self.live.keys().copied().collect::<Vec<_>>() {
            let copies: Vec<Copy> = self.places.get(value).expect("it lives").copies().collect();
            let &[copy] = &copies[..] else {
                panic!("value {value} has {} copies", copies.len());
            };
            let peeked = self.peek(copy.device, copy.id);
            let model = &self.live[&value];
            match peeked {
                Ok(found) => {
                    let found = found.expect("its bytes");
                    assert!(
                        model.held.contains(&found),
                        "value {value} holds a stranger"
                    );
                    self.hold(value, found);
                }
                Err(fault) if model.is_old => panic!("value {value} is lost: {fault:?}"),
                Err(fault) => {
                    assert_eq!(fault.code, Code::OutOfMemory);
                    self.free(value);
                }
            }
        }
        for model in self.live.values_mut() {
            model.held.drain(..model.held.len() - 1);
            model.is_old = true;
        }
    }

    fn peek(&mut self, device: usize, id: u64) -> Result<Option<u64>, Fault> {
        let asked = self.cluster.ask(device, Some(id));
        self.cluster.flush_all();
        self.cluster.answer(asked)
    }
}
