//! The client's side, with a model of what every storage holds.

use crate::cluster::{Cluster, DEVICES};
use crate::node::{FAIL, mix, outcome};
use crate::rng::Rng;

const STEPS: u64 = 220;

/// What happens in a run besides moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Values are written in place.
    InPlace,
    /// Operators fail.
    Failures,
    /// A device dies.
    Death,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub moves: u64,
    pub waited: u64,
    pub early: u64,
    pub freed_early: u64,
    pub plan_hits: u64,
    pub failed_elsewhere: u64,
    pub lost: u64,
    pub fetched: u64,
    pub cuts: u64,
    pub frames_lost: u64,
    pub repeated: u64,
}

impl Totals {
    pub fn add(&mut self, one: &Self) {
        self.moves += one.moves;
        self.waited += one.waited;
        self.early += one.early;
        self.freed_early += one.freed_early;
        self.plan_hits += one.plan_hits;
        self.failed_elsewhere += one.failed_elsewhere;
        self.lost += one.lost;
        self.fetched += one.fetched;
        self.cuts += one.cuts;
        self.frames_lost += one.frames_lost;
        self.repeated += one.repeated;
    }
}

/// What a storage should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Value(u64),
    /// It failed in this log.
    Failed(u16),
}

pub struct Session {
    rng: Rng,
    kinds: Kinds,
    cluster: Cluster,
    /// Of which logs a failure is pending that nobody has heard of.
    pending: [bool; DEVICES],
    /// Values that live: where, and what they hold.
    live: Vec<(usize, u64, Holds)>,
    totals: Totals,
}

impl Session {
    pub fn start(mut rng: Rng, kinds: Kinds) -> Self {
        Self {
            cluster: Cluster::start(&mut rng, false),
            rng,
            kinds,
            pending: [false; DEVICES],
            live: Vec::new(),
            totals: Totals::default(),
        }
    }

    pub fn run(&mut self) {
        let dies = self.rng.below(STEPS / 2) + STEPS / 4;
        // The same few routines again and again, so that there are plans.
        let routine: Vec<u64> = (0..12).map(|_| self.rng.next()).collect();
        for step in 0..STEPS {
            let choice = match self.rng.one_in(10) {
                true => self.rng.next(),
                false => routine[(step % 12) as usize],
            };
            self.step(choice);
            self.cluster.listen();
            if self.kinds == Kinds::Death && step == dies {
                self.die();
            }
        }
        while let Some(&(lane, id, holds)) = self.live.last() {
            self.fetch(lane, id, holds);
            self.live.pop();
        }
    }

    pub fn finish(mut self) -> Totals {
        self.totals.plan_hits = self.cluster.plan_hits();
        (self.totals.cuts, self.totals.repeated) = (self.cluster.cuts, self.cluster.repeated);
        for counts in self.cluster.finish() {
            self.totals.waited += counts.waited;
            self.totals.early += counts.early;
            self.totals.freed_early += counts.freed_early;
            self.totals.frames_lost += counts.lost;
        }
        self.totals
    }

    fn step(&mut self, choice: u64) {
        let lane = (choice % DEVICES as u64) as usize;
        let here: Vec<usize> = (0..self.live.len())
            .filter(|&at| self.live[at].0 == lane)
            .collect();
        let pick = |seed: u64| here[(seed % here.len() as u64) as usize];
        match (choice >> 8) % 16 {
            _ if here.len() < 2 => self.upload(lane),
            0 | 1 => self.upload(lane),
            2..=7 => {
                let inputs = [pick(choice >> 16), pick(choice >> 24)];
                self.operator(lane, &inputs, choice >> 32);
            }
            8..=11 => self.send(
                pick(choice >> 16),
                ((choice >> 40) % DEVICES as u64) as usize,
            ),
            12 if self.live.len() > 40 || self.rng.one_in(2) => {
                let (lane, id, _) = self.live.swap_remove(pick(choice >> 16));
                self.cluster.free(lane, id);
            }
            13 => {
                let (lane, id, holds) = self.live[pick(choice >> 16)];
                self.fetch(lane, id, holds);
            }
            14 if self.rng.one_in(4) => self.cluster.break_link(lane),
            _ => self.cluster.flush_all(),
        }
        if self.live.len() > 60 {
            let (lane, id, _) = self.live.swap_remove(0);
            self.cluster.free(lane, id);
        }
    }

    fn die(&mut self) {
        let lane = self.rng.below(DEVICES as u64) as usize;
        self.cluster.kill(lane);
        self.live.retain(|&(of, ..)| of != lane);
        // What it has sent may be there or not: whoever has something of it is looked at without
        // knowing what comes.
        for value in &mut self.live {
            value.2 = Holds::Failed(lane as u16);
        }
    }

    // ---- records -------------------------------------------------------------------------------

    fn upload(&mut self, lane: usize) {
        if !self.cluster.is_alive(lane) {
            return;
        }
        self.cluster.room(&[lane]);
        let value = self.rng.next();
        let id = self.cluster.alloc(lane);
        self.cluster.upload(lane, id, value);
        self.live.push((lane, id, Holds::Value(value)));
    }

    fn operator(&mut self, lane: usize, inputs: &[usize], choice: u64) {
        let writes = self.kinds == Kinds::InPlace && choice.is_multiple_of(3);
        let fails = self.kinds == Kinds::Failures && self.rng.one_in(25);
        let (op, data) = (
            (choice >> 8) as u32 % 5,
            if fails { FAIL } else { 1 + (choice % 7) as i64 },
        );
        self.cluster.room(&[lane]);
        let ids: Vec<u64> = inputs.iter().map(|&at| self.live[at].1).collect();
        let id = self.cluster.operator(lane, op, data, &ids, writes);
        let failed = inputs.iter().find_map(|&at| match self.live[at].2 {
            Holds::Failed(log) => Some(log),
            Holds::Value(_) => None,
        });
        let values: Vec<u64> = inputs
            .iter()
            .filter_map(|&at| match self.live[at].2 {
                Holds::Value(value) => Some(value),
                Holds::Failed(_) => None,
            })
            .collect();
        let hash = outcome(op, data, &values);
        let holds = |value| match (failed, fails) {
            (Some(log), _) => Holds::Failed(log),
            (None, true) => Holds::Failed(lane as u16),
            (None, false) => Holds::Value(value),
        };
        self.pending[lane] |= fails && failed.is_none();
        match writes {
            true => self.live[inputs[0]].2 = holds(mix(hash, 1)),
            false => self.live.push((lane, id, holds(mix(hash, 2)))),
        }
    }

    fn send(&mut self, at: usize, to: usize) {
        let (from, id, holds) = self.live[at];
        if from == to || !self.cluster.is_alive(to) || !self.cluster.is_alive(from) {
            return;
        }
        self.cluster.room(&[from, to]);
        let id = self.cluster.transfer(from, id, to);
        self.live.push((to, id, holds));
        self.totals.moves += 1;
    }

    fn fetch(&mut self, lane: usize, id: u64, holds: Holds) {
        if !self.cluster.is_alive(lane) {
            return;
        }
        let asked = self.cluster.ask(lane, Some(id));
        self.cluster.cut();
        self.cluster.flush_all();
        let answer = self
            .cluster
            .answer(asked)
            .map(|value| value.expect("its bytes"));
        let dead = (0..DEVICES).any(|lane| !self.cluster.is_alive(lane));
        match (answer, holds) {
            (Ok(value), Holds::Value(wanted)) => {
                assert!(!self.pending[lane], "a failure was not raised");
                assert_eq!(value, wanted, "storage {id} of device {lane}");
                self.totals.fetched += 1;
            }
            // Sent before its device died.
            (Ok(_), Holds::Failed(_)) if dead => self.totals.fetched += 1,
            (Ok(_), Holds::Failed(log)) => panic!("storage {id} failed in log {log}"),
            (Err(fault), _) if self.pending[lane] => {
                assert_eq!(fault.log, None, "its own comes first");
                self.pending[lane] = false;
            }
            (Err(fault), Holds::Failed(log)) => {
                let of = fault.log.unwrap_or(lane as u16);
                assert_eq!(of, log, "a failure of log {log}");
                self.totals.failed_elsewhere += u64::from(of != lane as u16);
                self.totals.lost += u64::from(dead);
            }
            (Err(fault), Holds::Value(_)) => panic!("storage {id} of {lane}: {fault:?}"),
        }
    }
}
