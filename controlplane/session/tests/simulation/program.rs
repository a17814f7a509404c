//! Threads of a made-up program: each repeats a few routines with new numbers, now and then
//! departs from them, keeps a value longer than before, or uploads.

use genie_session::skeleton::{flag, out, tag};

use crate::machine::FAIL;
use crate::rng::Rng;

/// What a thread does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Inputs (positions in the thread's own list of values), the one written in place, results.
    Op {
        op: u32,
        inputs: Vec<usize>,
        writes: Option<usize>,
        results: u64,
        data: i64,
        param: i64,
    },
    Alloc,
    /// Overwrites it.
    Zero {
        target: usize,
    },
    /// Makes a storage and fills it, which is one record.
    Create {
        value: u64,
        bulk: bool,
    },
    Upload {
        target: usize,
        value: u64,
        bulk: bool,
    },
    Resize {
        target: usize,
        bytes: i64,
    },
    Free {
        target: usize,
    },
    Fetch {
        target: usize,
    },
    Barrier,
    CallSync {
        input: usize,
        param: i64,
    },
}

/// One thread.
#[derive(Debug)]
pub struct Thread {
    routines: Vec<Vec<Step>>,
    now: Vec<Step>,
    at: usize,
    turn: i64,
}

impl Thread {
    pub fn new(rng: &mut Rng) -> Self {
        let routines = (0..1 + rng.below(3)).map(|_| routine(rng)).collect();
        Self {
            routines,
            now: Vec::new(),
            at: 0,
            turn: 0,
        }
    }

    /// The next step. `values` is how many values the thread holds.
    pub fn next(&mut self, rng: &mut Rng, failures: bool) -> Step {
        if self.at == self.now.len() {
            let pick = rng.below(self.routines.len() as u64) as usize;
            self.now = self.routines[pick].clone();
            self.at = 0;
            self.turn += 1;
        }
        let mut step = self.now[self.at].clone();
        self.at += 1;
        let turn = self.turn;
        match &mut step {
            Step::Op { data, param, .. } => {
                // Numbers that grow, that jump, and that stay.
                *param += turn;
                if *data > 5 {
                    *data = rng.below(1000) as i64 + 10;
                }
                if failures && rng.one_in(150) {
                    *data = FAIL;
                }
            }
            Step::Upload { value, .. } | Step::Create { value, .. } => *value = rng.next(),
            Step::Free { .. } if rng.one_in(12) => return Step::Alloc,
            _ => {}
        }
        if rng.one_in(60) {
            self.at -= 1;
            return Step::Op {
                op: 9,
                inputs: vec![0],
                writes: None,
                results: 1,
                data: 1,
                param: turn,
            };
        }
        step
    }
}

fn routine(rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..3 + rng.below(12) {
        let target = rng.below(6) as usize;
        steps.push(match rng.below(16) {
            0 => Step::Alloc,
            1 => Step::Upload {
                target,
                value: 0,
                bulk: rng.one_in(2),
            },
            2 => Step::Resize {
                target,
                bytes: rng.below(64) as i64,
            },
            3 | 4 => Step::Free { target },
            5 => Step::Zero { target },
            6 => Step::Create {
                value: 0,
                bulk: rng.one_in(2),
            },
            _ => Step::Op {
                op: rng.below(8) as u32,
                inputs: (0..1 + rng.below(3))
                    .map(|_| rng.below(6) as usize)
                    .collect(),
                writes: rng.one_in(4).then_some(0),
                results: rng.below(3),
                data: rng.below(10) as i64,
                param: rng.below(10) as i64,
            },
        });
    }
    // Some look seldom: their turns are found by what repeats.
    if rng.one_in(3) {
        return steps;
    }
    steps.push(match rng.below(6) {
        0 => Step::Barrier,
        1 => Step::CallSync { input: 0, param: 3 },
        _ => Step::Fetch {
            target: rng.below(6) as usize,
        },
    });
    steps
}

/// The argument skeleton of an operator of one param and one datum.
pub fn arguments(inputs: usize, writes: Option<usize>) -> Vec<u8> {
    let mut skeleton = Vec::new();
    for index in 0..inputs {
        let flags = if writes == Some(index) {
            flag::WRITE
        } else {
            0
        };
        skeleton.extend([tag::TENSOR, flags, 6, 0]);
    }
    skeleton.extend([tag::INT, tag::DOUBLE]);
    skeleton
}

/// A result skeleton of `results` fresh vectors.
pub fn results(results: u64) -> (Vec<u8>, Vec<i64>) {
    let one = [out::FRESH, 6, 1];
    (
        one.repeat(results as usize),
        [4, 1].repeat(results as usize),
    )
}
