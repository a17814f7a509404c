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

/// Structures that are told of at a time.
const TOLD_MAX: usize = 64;

/// A segment whose places are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Names the answer, and the structure from now on.
    pub plan: u64,
    /// What the structure was called before; 0: nothing.
    pub before: u64,
    /// [`Template`] bytes.
    pub segment: Vec<u8>,
    /// Values from before it.
    pub externals: Vec<u64>,
}

/// What a plan does with a value once a record has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// A copy goes to the device; else the copy there goes.
    pub is_send: bool,
    /// Which of the values that the record takes, and then of those that it makes.
    pub value: usize,
    /// Which device.
    pub device: usize,
}

/// What a segment was, for those who judge plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long it took.
    pub ns: u64,
    /// Bytes that moved between devices.
    pub moved_bytes: u64,
    /// Bytes of what it used from before it.
    pub used_bytes: u64,
}

/// What was seen of a structure since it was told of last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The structure, as in [`Question`].
    pub plan: u64,
    /// How often it came.
    pub steps: u64,
    /// Whether its records went where a plan said.
    pub placed: bool,
    /// In all, but for `used_bytes`, which are of the last time.
    pub seen: Seen,
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
    /// Of them, those that took another's place.
    pub replaced: u64,
    /// Plans that were given up, because of what became of them.
    pub dropped: u64,
}

/// A structure that was asked about.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    number: u64,
    /// Until which segment it is not asked about again.
    until: u64,
    stats: Stats,
    asks_again: bool,
}

/// A plan that came, for the next cut.
#[derive(Debug)]
struct Arrived {
    plan: Plan,
    places: Vec<u8>,
    steps: Vec<(usize, Step)>,
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
    /// What plans do besides, by the same.
    steps: IdMap<Vec<Step>>,
    plans: VecDeque<Plan>,
    asked: Vec<Plan>,
    arrived: Vec<Arrived>,
    /// Structures that were asked about, by the hash of all their records.
    known: IdMap<Known>,
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

    /// What the plan does now that the record which was committed last has run.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        if self.steps.is_empty() {
            return &[];
        }
        self.steps.get(&self.prefix).map_or(&[], Vec::as_slice)
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

    /// The segment ends, and was like this: gives what to ask about it.
    pub fn cut(&mut self, seen: Seen) -> Option<Question> {
        self.take_back();
        self.segments += 1;
        let question = if self.operators == 0 {
            None
        } else {
            let is_planned = self.planned == self.records;
            let asks_again = self.note(seen, is_planned);
            match is_planned {
                true => self.counts.hits += 1,
                false => self.counts.misses += 1,
            }
            if is_planned && !asks_again {
                None
            } else {
                self.ask()
            }
        };
        for arrived in std::mem::take(&mut self.arrived) {
            self.install(arrived);
        }
        self.namer.cut();
        self.segment.clear();
        self.externals.clear();
        self.frees.clear();
        (self.records, self.operators, self.planned) = (0, 0, 0);
        self.prefix = 0;
        question
    }

    /// Counts a segment of a structure that was asked about; whether it is to be asked about again.
    fn note(&mut self, seen: Seen, is_planned: bool) -> bool {
        let Some(known) = self.known.get_mut(&self.prefix) else {
            return false;
        };
        let stats = &mut known.stats;
        if stats.placed != is_planned {
            // What was seen before it had its plan, or after it lost it, is told apart.
            *stats = Stats::default();
        }
        stats.steps += 1;
        stats.placed = is_planned;
        stats.seen.ns += seen.ns;
        stats.seen.moved_bytes += seen.moved_bytes;
        stats.seen.used_bytes = seen.used_bytes;
        known.asks_again
    }

    /// What was seen of structures since this was asked last, of some of them.
    pub fn take_stats(&mut self) -> Vec<Stats> {
        let seen = self
            .known
            .values_mut()
            .filter(|known| known.stats.steps > 0);
        let told = seen.take(TOLD_MAX).map(|known| {
            let stats = std::mem::take(&mut known.stats);
            known.stats.placed = stats.placed;
            Stats {
                plan: known.number,
                ..stats
            }
        });
        told.collect()
    }

    /// The plan of a structure no longer fits it: another is asked for when it comes the next time.
    pub fn ask_again(&mut self, number: u64) {
        let mut all = self.known.values_mut();
        if let Some(known) = all.find(|known| known.number == number) {
            known.asks_again = true;
        }
    }

    /// The plan of a structure is worse than none.
    pub fn drop_plan(&mut self, number: u64) {
        let Some(at) = self.plans.iter().position(|plan| plan.number == number) else {
            return;
        };
        if let Some(plan) = self.plans.remove(at) {
            self.forget(&plan);
            self.counts.dropped += 1;
        }
    }

    /// Where its records go is open again.
    fn forget(&mut self, plan: &Plan) {
        for prefix in &plan.prefixes {
            self.places.remove(prefix);
            self.steps.remove(prefix);
        }
    }

    fn ask(&mut self) -> Option<Question> {
        if self.operators < OPERATORS_MIN || self.asked.len() >= PENDING_MAX {
            return None;
        }
        let known = self.known.get(&self.prefix).copied();
        if known.is_some_and(|known| self.segments < known.until && !known.asks_again) {
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
        self.next_plan += 1;
        let number = self.next_plan;
        let now = Known {
            number,
            until: self.segments + AGAIN_AFTER,
            ..Known::default()
        };
        self.known.insert(self.prefix, now);
        self.asked.push(Plan { number, prefixes });
        Some(Question {
            plan: number,
            before: known.map_or(0, |known| known.number),
            segment,
            externals: self.externals.clone(),
        })
    }

    /// The places of plan `number`, a device for each record, and what it does besides, by record; none
    /// where there is no plan. Those that are not for its structure are not taken. It holds from the next
    /// segment on.
    pub fn answered(&mut self, number: u64, places: &[u8], steps: Vec<(usize, Step)>) {
        let asked = self.asked.iter().position(|plan| plan.number == number);
        let Some(plan) = asked.map(|at| self.asked.swap_remove(at)) else {
            return;
        };
        if places.len() != plan.prefixes.len() || places.is_empty() {
            return;
        }
        let arrived = Arrived {
            plan,
            places: places.to_vec(),
            steps,
        };
        match self.records {
            0 => self.install(arrived),
            // A segment is not half of one plan and half of another.
            _ => self.arrived.push(arrived),
        }
    }

    fn install(&mut self, arrived: Arrived) {
        let Arrived {
            plan,
            places,
            steps,
        } = arrived;
        let same = |other: &Plan| other.prefixes.last() == plan.prefixes.last();
        if let Some(old) = self.plans.iter().position(same)
            && let Some(old) = self.plans.remove(old)
        {
            self.forget(&old);
            self.counts.replaced += 1;
        }
        if self.plans.len() >= PLANS_MAX {
            self.drop_oldest();
        }
        for (&prefix, &place) in plan.prefixes.iter().zip(&places) {
            self.places.insert(prefix, place);
        }
        for (record, step) in steps {
            if let Some(&prefix) = plan.prefixes.get(record) {
                self.steps.entry(prefix).or_default().push(step);
            }
        }
        self.counts.plans += 1;
        self.plans.push_back(plan);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.plans.pop_front() {
            self.forget(&oldest);
            if let Some(last) = oldest.prefixes.last() {
                self.known.remove(last);
            }
        }
    }

    /// All plans go: what they were made for is no longer so.
    pub fn forget_plans(&mut self) {
        self.places.clear();
        self.steps.clear();
        self.arrived.clear();
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
        (outline.cut(Seen::default()), places)
    }

    fn started() -> Outline {
        let mut outline = Outline::new();
        let alloc = Draft::alloc(&[8]);
        for _ in 0..6 {
            outline.place(&alloc);
            outline.commit(&alloc, false);
        }
        outline.cut(Seen::default());
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
        outline.answered(question.plan, &[0, 1, 2, 1], Vec::new());
        let (question, places) = segment(&mut outline, [5, 6], 9);
        assert_eq!(places, [Some(0), Some(1), Some(2), Some(1)]);
        assert_eq!((question, outline.counts().hits), (None, 1));
        // Another way from the third record on.
        let (question, places) = segment(&mut outline, [5, 6], 7);
        assert_eq!(places, [Some(0), Some(1), None, None]);
        assert!(question.is_some());
    }

    #[test]
    fn a_plan_is_replaced_at_a_cut_and_what_became_of_it_is_told_once() {
        let mut outline = started();
        let first = segment(&mut outline, [1, 2], 9).0.unwrap();
        assert_eq!(first.before, 0);
        outline.answered(first.plan, &[1; 4], Vec::new());
        assert_eq!(segment(&mut outline, [1, 2], 9).1, [Some(1); 4]);
        segment(&mut outline, [1, 2], 9);
        let told = outline.take_stats();
        assert_eq!(
            (told.len(), told[0].plan, told[0].steps),
            (1, first.plan, 2)
        );
        assert!(told[0].placed && outline.take_stats().is_empty());
        // Another is asked for when it comes again, and meanwhile the old one holds.
        outline.ask_again(first.plan);
        let (second, places) = segment(&mut outline, [1, 2], 9);
        let second = second.unwrap();
        assert_eq!((second.before, places), (first.plan, vec![Some(1); 4]));
        // It comes in the midst of a segment, which is not half of each.
        let alloc = Draft::alloc(&[8]);
        outline.place(&alloc);
        outline.commit(&alloc, false);
        let send = Step {
            is_send: true,
            value: 2,
            device: 1,
        };
        outline.answered(second.plan, &[2; 4], vec![(1, send)]);
        assert_eq!(outline.counts().replaced, 0);
        outline.cut(Seen::default());
        assert_eq!(outline.counts().replaced, 1);
        assert_eq!(segment(&mut outline, [1, 2], 9).1, [Some(2); 4]);
        assert_eq!(outline.steps.len(), 1);
        // One that is dropped is gone, and the structure is not asked about again so soon.
        outline.drop_plan(first.plan);
        assert_eq!(outline.counts().dropped, 0);
        outline.drop_plan(second.plan);
        let (question, places) = segment(&mut outline, [1, 2], 9);
        assert_eq!((question, places), (None, vec![None; 4]));
        assert!(outline.steps.is_empty());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_no_plan() {
        let mut outline = started();
        let question = segment(&mut outline, [1, 2], 9).0.unwrap();
        outline.answered(question.plan + 7, &[0; 4], Vec::new());
        outline.answered(question.plan, &[0; 5], Vec::new());
        assert_eq!(segment(&mut outline, [1, 2], 9).1, [None; 4]);
        assert_eq!(outline.counts().plans, 0);
    }

    #[test]
    fn plans_are_bounded_and_the_oldest_goes() {
        let mut outline = started();
        for op in 0..PLANS_MAX as u32 + 10 {
            let question = segment(&mut outline, [1, 2], 100 + op).0.unwrap();
            outline.answered(question.plan, &[1; 4], Vec::new());
        }
        assert_eq!(outline.plans.len(), PLANS_MAX);
        let places = segment(&mut outline, [1, 2], 100).1;
        assert_eq!(places[2], None);
        outline.forget_plans();
        assert!(outline.places.is_empty());
    }
}
