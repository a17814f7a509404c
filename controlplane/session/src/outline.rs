//! A session's structure before it is routed: the records of a program that chooses no device, by the
//! names of its values. A segment of it can be planned; a plan gives a device for each record of a
//! structure, found by a hash of all records of the segment up to it. Two structures whose hashes are
//! equal share their places, and any place is right.

use std::collections::VecDeque;

use crate::client::{Draft, prefixes, step_prefix};
use crate::limits::PLANS_MAX;
use crate::plan::{TEMPLATE_MAX, Template};
use crate::record::{self, Kind};
use crate::segment::{IdMap, Namer, SEGMENT_RECORDS_MAX};

/// Operators that a segment has at least to be worth a plan.
const OPERATORS_MIN: usize = 3;
/// Plans that are asked for and not answered.
const PENDING_MAX: usize = 4;
/// A structure whose plan was declined asks again after so many segments.
const AGAIN_AFTER: u64 = 1 << 12;

/// A segment whose places are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Names the answer.
    pub plan: u64,
    /// [`Template`] bytes.
    pub segment: Vec<u8>,
    /// Values from before it.
    pub externals: Vec<u64>,
}

/// What was done by plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that went where a plan said.
    pub planned: u64,
    /// Segments that were a plan from end to end.
    pub hits: u64,
    /// Segments with operators that were not.
    pub misses: u64,
    /// Plans that came.
    pub plans: u64,
}

#[derive(Debug)]
struct Plan {
    number: u64,
    /// Hashes of its records.
    prefixes: Vec<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outline {
    namer: Namer,
    /// Named by the record that is under way, so that it can be taken back.
    named: Vec<u64>,
    segment: Vec<u8>,
    records: usize,
    operators: usize,
    planned: usize,
    externals: Vec<u64>,
    frees: Vec<i64>,
    prefix: u64,
    next_prefix: u64,
    /// Places by the hash of the segment up to the record.
    places: IdMap<u8>,
    plans: VecDeque<Plan>,
    asked: Vec<Plan>,
    /// Structures that were asked about, and until which segment not again.
    known: IdMap<u64>,
    defined: Vec<bool>,
    names: Vec<(u32, String)>,
    segments: u64,
    next_plan: u64,
    counts: Counts,
    structure: Vec<u8>,
    numbers: Vec<i64>,
}

impl Outline {
    /// A session that has recorded nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was done by plans.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next value's name.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.namer.next()
    }

    /// Names an operator; does nothing if it has a name.
    pub fn define_op(&mut self, op: u32, name: &str) {
        if !self.is_defined(op) {
            let index = op as usize;
            if self.defined.len() <= index {
                self.defined.resize(index + 1, false);
            }
            self.defined[index] = true;
            self.names.push((op, name.to_owned()));
        }
    }

    /// Whether `op` was named.
    #[must_use]
    pub fn is_defined(&self, op: u32) -> bool {
        self.defined.get(op as usize).copied().unwrap_or(false)
    }

    /// Where the plan has the record that comes next. It may come again, or another instead, until
    /// [`Self::commit`]; `draft` names values.
    pub fn place(&mut self, draft: &Draft<'_>) -> Option<usize> {
        self.take_back();
        let named = self.namer.slots();
        let (structure, numbers) = (&mut self.structure, &mut self.numbers);
        let formed = draft.normal_form(&mut self.namer, structure, numbers);
        let named = self.namer.slots() - named;
        (self.named).extend(self.numbers[..named].iter().map(|&id| id as u64));
        formed.ok()?;
        self.next_prefix = step_prefix(self.prefix, draft.kind, draft.op, &self.structure);
        let place = self.places.get(&self.next_prefix);
        place.map(|&place| usize::from(place))
    }

    /// Values from before the segment that the record which [`Self::place`] saw last is the first to use.
    #[must_use]
    pub fn first_used(&self) -> &[u64] {
        &self.named
    }

    fn take_back(&mut self) {
        for id in self.named.drain(..).rev() {
            self.namer.forget(id);
        }
    }

    /// The record that [`Self::place`] saw last was appended; it went where the plan said, or not.
    pub fn commit(&mut self, draft: &Draft<'_>, by_plan: bool) {
        self.externals.append(&mut self.named);
        record::put_plain(
            &mut self.segment,
            draft.kind,
            draft.op,
            &self.structure,
            &self.numbers,
            &self.frees,
            None,
        );
        self.frees.clear();
        self.prefix = self.next_prefix;
        self.namer.take(draft.fresh);
        self.records += 1;
        self.operators += usize::from(matches!(draft.kind, Kind::Op | Kind::CallSync));
        self.planned += usize::from(by_plan);
        self.counts.planned += u64::from(by_plan);
    }

    /// A value died.
    pub fn free(&mut self, value: u64) {
        // What comes from before lives as it did, as far as a segment can tell.
        if value >= self.namer.base() && self.frees.len() < record::FREES_MAX {
            self.frees.push((value - self.namer.base()) as i64);
        }
    }

    /// Whether the segment has to end here.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.records >= SEGMENT_RECORDS_MAX
    }

    /// The segment ends: gives what to ask about it.
    pub fn cut(&mut self) -> Option<Question> {
        self.take_back();
        self.segments += 1;
        let question = match self.operators {
            0 => None,
            _ if self.planned == self.records => {
                self.counts.hits += 1;
                None
            }
            _ => {
                self.counts.misses += 1;
                self.ask()
            }
        };
        self.namer.cut();
        self.segment.clear();
        self.externals.clear();
        self.frees.clear();
        (self.records, self.operators, self.planned) = (0, 0, 0);
        self.prefix = 0;
        question
    }

    fn ask(&mut self) -> Option<Question> {
        if self.operators < OPERATORS_MIN || self.asked.len() >= PENDING_MAX {
            return None;
        }
        let again_at = self.known.get(&self.prefix).copied();
        if again_at.is_some_and(|at| self.segments < at) {
            return None;
        }
        // Past the bounds of a template: it stays without a plan.
        let mut template = Template::captured(&self.segment).ok()?;
        template.name_operators(&self.names);
        let segment = template.encode();
        if segment.len() > TEMPLATE_MAX {
            return None;
        }
        let prefixes = prefixes(&template);
        if self.known.len() >= 4 * PLANS_MAX {
            self.known.clear();
        }
        self.known.insert(self.prefix, self.segments + AGAIN_AFTER);
        let number = self.next_plan;
        self.next_plan += 1;
        self.asked.push(Plan { number, prefixes });
        Some(Question {
            plan: number,
            segment,
            externals: self.externals.clone(),
        })
    }

    /// The places of plan `number`, a device for each record; none where there is no plan. Those that
    /// are not for its structure are not taken.
    pub fn answered(&mut self, number: u64, places: &[u8]) {
        let asked = self.asked.iter().position(|plan| plan.number == number);
        let Some(plan) = asked.map(|at| self.asked.swap_remove(at)) else {
            return;
        };
        if places.len() != plan.prefixes.len() || places.is_empty() {
            return;
        }
        if self.plans.len() >= PLANS_MAX {
            self.drop_oldest();
        }
        for (&prefix, &place) in plan.prefixes.iter().zip(places) {
            self.places.insert(prefix, place);
        }
        self.counts.plans += 1;
        self.plans.push_back(plan);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.plans.pop_front() {
            for prefix in &oldest.prefixes {
                self.places.remove(prefix);
            }
            if let Some(last) = oldest.prefixes.last() {
                self.known.remove(last);
            }
        }
    }

    /// All plans go: what they were made for is no longer so.
    pub fn forget_plans(&mut self) {
        self.places.clear();
        self.plans.clear();
        self.known.clear();
        self.asked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skeleton::{out, tag};

    const F32: u8 = 6;

    /// A segment of four operators on two values from before it; gives what is asked and where the
    /// plans had each.
    fn segment(
        outline: &mut Outline,
        values: [u64; 2],
        op: u32,
    ) -> (Option<Question>, Vec<Option<usize>>) {
        let skeleton = [tag::TENSOR, 0, F32, 0, tag::TENSOR, 0, F32, 0];
        let mut places = Vec::new();
        for op in [1, 2, op, 3] {
            outline.define_op(op, &format!("aten::op{op}"));
            let draft = Draft {
                op,
                skeleton: &skeleton,
                storages: &values,
                params: &[0, 0],
                tail: &[out::FRESH, F32, 0],
                fresh: 1,
                ..Draft::new(Kind::Op)
            };
            // Without room at first.
            outline.place(&draft);
            let place = outline.place(&draft);
            places.push(place);
            outline.commit(&draft, place.is_some());
        }
        (outline.cut(), places)
    }

    fn started() -> Outline {
        let mut outline = Outline::new();
        let alloc = Draft::alloc(&[8]);
        for _ in 0..6 {
            outline.place(&alloc);
            outline.commit(&alloc, false);
        }
        outline.cut();
        outline
    }

    #[test]
    fn a_plan_places_the_same_structure_again_whatever_values_it_has() {
        let mut outline = started();
        let (question, places) = segment(&mut outline, [1, 2], 9);
        let question = question.unwrap();
        assert_eq!(
            (places, question.externals.clone()),
            (vec![None; 4], vec![1, 2])
        );
        let template = Template::decode(&question.segment).unwrap();
        assert_eq!((template.records.len(), template.operators.len()), (4, 4));
        // It is asked about once.
        assert_eq!(segment(&mut outline, [3, 1], 9).0, None);
        outline.answered(question.plan, &[0, 1, 2, 1]);
        let (question, places) = segment(&mut outline, [5, 6], 9);
        assert_eq!(places, [Some(0), Some(1), Some(2), Some(1)]);
        assert_eq!((question, outline.counts().hits), (None, 1));
        // Another way from the third record on.
        let (question, places) = segment(&mut outline, [5, 6], 7);
        assert_eq!(places, [Some(0), Some(1), None, None]);
        assert!(question.is_some());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_no_plan() {
        let mut outline = started();
        let question = segment(&mut outline, [1, 2], 9).0.unwrap();
        outline.answered(question.plan + 7, &[0; 4]);
        outline.answered(question.plan, &[0; 5]);
        assert_eq!(segment(&mut outline, [1, 2], 9).1, [None; 4]);
        assert_eq!(outline.counts().plans, 0);
    }

    #[test]
    fn plans_are_bounded_and_the_oldest_goes() {
        let mut outline = started();
        for op in 0..PLANS_MAX as u32 + 10 {
            let question = segment(&mut outline, [1, 2], 100 + op).0.unwrap();
            outline.answered(question.plan, &[1; 4]);
        }
        assert_eq!(outline.plans.len(), PLANS_MAX);
        let places = segment(&mut outline, [1, 2], 100).1;
        assert_eq!(places[2], None);
        outline.forget_plans();
        assert!(outline.places.is_empty());
    }
}
