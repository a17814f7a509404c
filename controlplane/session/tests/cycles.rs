//! Loops that seldom look travel by plans: from their third turn on, whatever they look at. The node is
//! one that installs a plan at once, so that counts are exact.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it can't go on"
)]

use genie_session::client::{ClientCounters, ClientLog, Draft, Window};
use genie_session::limits::CYCLE_RECORDS_MAX;
use genie_session::record::Kind;
use genie_session::skeleton::{flag, out, tag};

/// A program: what it has made, and its log.
struct Program {
    log: ClientLog,
    looks: i64,
    /// How many plans were asked for.
    asked: usize,
    longest: usize,
}

impl Program {
    fn new() -> Self {
        let mut log = ClientLog::new();
        log.set_window(Window {
            records: u64::MAX,
            kept_bytes: u64::MAX,
            bulk_bytes: u64::MAX,
        });
        for op in 0..64 {
            log.define_op(op, &format!("aten::op{op}"));
        }
        Self {
            log,
            looks: 0,
            asked: 0,
            longest: 0,
        }
    }

    fn append(&mut self, draft: &Draft<'_>) -> u64 {
        let appended = self.log.append(draft).expect("a record");
        while let Some(submission) = self.log.take_submission() {
            self.asked += 1;
            let template = genie_session::plan::Template::decode(&submission.segment);
            self.longest = self.longest.max(template.expect("a plan").records.len());
            self.log.plan_answered(submission.plan, true);
        }
        if appended.full {
            self.log.flush();
        }
        appended.first_fresh
    }

    /// `op` of `inputs`: its result.
    fn op(&mut self, op: u32, inputs: &[u64]) -> u64 {
        let skeleton = [tag::TENSOR, 0, 6, 0].repeat(inputs.len());
        let offsets = vec![0; inputs.len()];
        let draft = Draft {
            op,
            skeleton: &skeleton,
            storages: inputs,
            params: &offsets,
            tail: &[out::FRESH, 6, 1],
            tail_numbers: &[4, 1],
            fresh: 1,
            ..Draft::new(Kind::Op)
        };
        self.append(&draft)
    }

    fn in_place(&mut self, op: u32, target: u64) {
        let skeleton = [tag::TENSOR, flag::WRITE, 6, 0];
        let draft = Draft {
            op,
            skeleton: &skeleton,
            storages: &[target],
            params: &[0],
            ..Draft::new(Kind::Op)
        };
        self.append(&draft);
    }

    fn look(&mut self, target: u64) {
        self.looks += 1;
        let draft = Draft {
            skeleton: &[tag::TENSOR, 0, 6, 0],
            storages: &[target],
            params: &[0],
            tail_numbers: &[self.looks],
            ..Draft::new(Kind::Fetch)
        };
        self.append(&draft);
    }

    fn create(&mut self) -> u64 {
        let alloc = Draft {
            tail_numbers: &[8],
            fresh: 1,
            ..Draft::new(Kind::Alloc)
        };
        let made = self.append(&alloc);
        let draft = Draft {
            blob: Some(&[7; 8]),
            ..Draft::upload(&made, &[8])
        };
        self.append(&draft);
        made
    }

    fn weights(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.create()).collect()
    }

    /// A training step: a batch, a forward, a backward, an update. Gives the loss.
    fn step(&mut self, weights: &[u64]) -> u64 {
        let batch = self.create();
        let mut hidden = vec![batch];
        for &weight in weights {
            let product = self.op(1, &[*hidden.last().unwrap(), weight]);
            let next = self.op(2, &[product]);
            self.log.free(product);
            hidden.push(next);
        }
        let loss = self.op(3, &[*hidden.last().unwrap(), batch]);
        let mut gradient = self.op(4, &[loss]);
        for (index, &weight) in weights.iter().enumerate().rev() {
            let of_weight = self.op(5, &[gradient, hidden[index]]);
            let next = self.op(6, &[gradient, weight]);
            self.log.free(std::mem::replace(&mut gradient, next));
            self.in_place(7, weight);
            self.log.free(of_weight);
        }
        self.log.free(gradient);
        for made in hidden {
            self.log.free(made);
        }
        loss
    }

    /// Turns of a loop: the share of its records that travelled by plans from the third on.
    fn share(&mut self, turns: usize, mut turn: impl FnMut(&mut Self, usize)) -> f64 {
        let mut before = ClientCounters::default();
        for number in 0..turns {
            if number == 2 {
                before = self.log.counters();
            }
            turn(self, number);
        }
        let after = self.log.counters();
        (after.planned - before.planned) as f64 / (after.records - before.records) as f64
    }
}

/// The share of a training loop of `layers` layers that looks after a step where `looks` says so.
fn training(layers: usize, turns: usize, mut looks: impl FnMut(usize) -> bool) -> (Program, f64) {
    let mut program = Program::new();
    let weights = program.weights(layers);
    let share = program.share(turns, |program, number| {
        let loss = program.step(&weights);
        if looks(number) {
            program.look(loss);
        }
        program.log.free(loss);
    });
    (program, share)
}

#[test]
fn a_loop_that_never_looks_travels_by_plans_from_its_third_turn_on() {
    for layers in [3, 7, 20, 80] {
        let (program, share) = training(layers, 60, |_| false);
        assert!(share >= 0.95, "{layers} layers: {share}");
        let counters = program.log.counters();
        assert!(counters.plan_hits >= 55, "{layers} layers: {counters:?}");
    }
}

#[test]
fn a_loop_whose_cycle_is_as_long_as_a_segment_may_be_travels_by_plans() {
    let fit = (CYCLE_RECORDS_MAX - 4) / 5;
    let (_, share) = training(fit, 12, |_| false);
    assert!(share >= 0.95, "{share}");
}

#[test]
fn what_it_looks_at_now_and_then_changes_nothing() {
    let (_, share) = training(8, 120, |number| number % 10 == 9);
    assert!(share >= 0.95, "each tenth: {share}");
    let (_, share) = training(8, 120, |_| true);
    assert!(share >= 0.95, "each: {share}");
    for seed in 1..20_u64 {
        let mut state = seed;
        let mut drawn = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 61 < 2
        };
        let (program, share) = training(8, 120, &mut drawn);
        assert!(
            share >= 0.95,
            "seed {seed}: {share}, {:?}",
            program.log.counters()
        );
    }
}

#[test]
fn a_look_in_the_middle_or_another_computation_costs_its_turn() {
    let mut program = Program::new();
    let weights = program.weights(8);
    let share = program.share(120, |program, number| {
        let loss = program.step(&weights);
        if number % 9 == 8 {
            let mut value = loss;
            for _ in 0..5 {
                let next = program.op(20, &[value, weights[0]]);
                program.log.free(value);
                value = program.op(21, &[next]);
                program.log.free(next);
            }
            program.look(value);
            program.log.free(value);
        } else {
            program.log.free(loss);
        }
    });
    assert!(share >= 0.95, "{share}");
}

#[test]
fn a_cycle_without_a_beat_of_its_own_is_found() {
    let mut program = Program::new();
    let state = program.create();
    let weight = program.create();
    // a a b a a b b: no operator is there once.
    let share = program.share(400, |program, _| {
        for op in [30, 30, 31, 30, 30, 31, 31] {
            let made = program.op(op, &[state, weight]);
            program.log.free(made);
        }
    });
    assert!(share >= 0.9, "{share}");
    let mut program = Program::new();
    let state = program.create();
    let share = program.share(2000, |program, _| program.in_place(30, state));
    assert!(share >= 0.9, "of one record: {share}");
}

#[test]
fn layers_are_not_taken_for_turns() {
    let mut program = Program::new();
    let weights = program.weights(64);
    program.look(weights[0]);
    let turn = |program: &mut Program, _| {
        let mut hidden = program.create();
        for four in weights.chunks(4) {
            for (op, &weight) in four.iter().enumerate() {
                let next = program.op(op as u32, &[hidden, weight]);
                program.log.free(std::mem::replace(&mut hidden, next));
            }
        }
        program.look(hidden);
        program.log.free(hidden);
    };
    let share = program.share(20, turn);
    assert!((share - 1.0).abs() < 1e-9, "{share}");
    // One segment, and one plan, from look to look: the first turn is cut nowhere.
    assert_eq!(program.asked, 1, "{} plans", program.asked);
    assert_eq!(program.longest, 66);
}

#[test]
fn a_longer_cycle_replaces_what_repeats_inside_of_it() {
    let mut program = Program::new();
    let weight = program.create();
    let other = program.create();
    let turn = |program: &mut Program, _| {
        let mut state = program.create();
        // A recurrent cell: the same weights at every step.
        for _ in 0..60 {
            let next = program.op(1, &[state, weight]);
            program.log.free(std::mem::replace(&mut state, next));
            let next = program.op(2, &[state, weight]);
            program.log.free(std::mem::replace(&mut state, next));
        }
        let made = program.op(3, &[state, other]);
        program.log.free(state);
        program.log.free(made);
    };
    let share = program.share(30, turn);
    assert!(share >= 0.9, "{share}");
    let before = program.log.counters();
    (0..10).for_each(|number| turn(&mut program, number));
    let after = program.log.counters();
    assert_eq!(after.records - before.records, 10 * 123, "one cut a turn");
    assert_eq!(after.planned - before.planned, 10 * 123);
    assert_eq!(after.plan_hits - before.plan_hits, 10);
}

#[test]
fn records_that_never_repeat_cost_no_plans() {
    let mut program = Program::new();
    let mut state = 1_u64;
    let mut value = program.create();
    for _ in 0..20_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let next = program.op((state >> 58) as u32, &[value]);
        program.log.free(std::mem::replace(&mut value, next));
    }
    // The cuts of long segments ask, and nothing else.
    assert!(program.asked <= 10, "{}", program.asked);
}
