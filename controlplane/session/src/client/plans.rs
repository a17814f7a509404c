//! Matching what is recorded against plans, and asking for plans.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::cycles::{Start, key_of_template};
use super::{ClientLog, ClientPlan, Draft, PLAN_RECORDS_MIN, PLANS_PENDING_MAX, Submission};
use crate::limits::PLAN_AGAIN_AFTER;
use crate::plan::{PLANS_MAX, Predictor, TEMPLATE_MAX, Template};
use crate::record::Kind;

/// A record that is as a plan has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    /// What it is without the names of its storages ([`super::cycles::key_of_draft`]).
    pub key: u64,
    /// It travels in a chunk.
    pub is_planned: bool,
}

/// A plan that takes the place of shorter ones, used since a record, once it is there and its cycle begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacement {
    plan: u32,
    since: u64,
    start: Option<Start>,
}

impl ClientLog {
    /// Goes on with the expected plan, or finds another. The record travels in a chunk then, unless it is
    /// `bulk` or the plan is not installed yet.
    pub(super) fn follow(&mut self, draft: &Draft<'_>, bulk: bool) -> Option<Followed> {
        if self.off_trie {
            return None;
        }
        if let Some((plan, index)) = self.cursor
            && self.matches(plan, index, draft)
        {
            return self.advance(plan, index, draft, bulk);
        }
        let prefix = step_prefix(self.prefix, draft.kind, draft.op, &self.structure);
        if let Some(&(plan, index)) = self.trie.get(&prefix)
            && self.matches(plan, index, draft)
        {
            self.end_chunk();
            return self.advance(plan, index, draft, bulk);
        }
        // The structure up to here is nobody's prefix, so nothing longer is.
        self.leave_plans();
        None
    }

    /// The rest of the segment follows no plan.
    pub(super) fn leave_plans(&mut self) {
        self.end_chunk();
        self.cursor = None;
        self.cut_is_next = false;
        self.off_trie = true;
    }

    fn matches(&self, plan: u32, index: u32, draft: &Draft<'_>) -> bool {
        let Some(known) = self.plans.get(&u64::from(plan)) else {
            return false;
        };
        let Some(template) = known.template.records.get(index as usize) else {
            return false;
        };
        template.kind == draft.kind
            && template.op == draft.op
            && template.has_blob == draft.blob.is_some()
            && template.structure == self.structure
    }

    fn advance(
        &mut self,
        plan: u32,
        index: u32,
        draft: &Draft<'_>,
        bulk: bool,
    ) -> Option<Followed> {
        let known = self.plans.get_mut(&u64::from(plan))?;
        known.last_used = self.next_seq;
        let at = index as usize;
        self.prefix = *known.prefixes.get(at)?;
        let next = known.template.records.get(at + 1);
        self.cut_is_next = next.is_some_and(|next| next.kind == Kind::Cut);
        self.cursor = Some((plan, index + 1));
        let is_planned = known.ready && !bulk;
        if is_planned {
            if self.chunk.is_empty() {
                self.chunk_start = index;
            }
            self.chunk.push(
                known.template.records.get(at)?,
                &mut known.predictor,
                &self.numbers,
                &self.relative_frees,
                draft.blob,
            );
        }
        let key = *known.keys.get(at)?;
        Some(Followed { key, is_planned })
    }

    pub(super) fn end_chunk(&mut self) {
        if !self.chunk.is_empty()
            && let Some((plan, _)) = self.cursor
        {
            self.chunk.finish(&mut self.wire, plan, self.chunk_start);
        }
    }

    pub(super) fn end_segment(&mut self) {
        self.end_chunk();
        let whole = self.cursor.is_some_and(|(plan, next)| {
            self.plans
                .get(&u64::from(plan))
                .is_some_and(|known| known.template.records.len() == next as usize)
        });
        if self.segment_ops > 0 {
            if whole && self.segment_plain == 0 {
                self.counters.plan_hits += 1;
            } else {
                self.counters.plan_misses += 1;
                self.ask_for_plan();
            }
        }
        self.namer.cut();
        self.history
            .end_segment(self.cycles.count(), self.namer.base());
        self.segment_records = 0;
        self.segment_ops = 0;
        self.segment_bulk = 0;
        self.segment_plain = 0;
        self.prefix = 0;
        self.cursor = None;
        self.cut_is_next = false;
        self.off_trie = self.trie.is_empty();
    }

    /// Asks for the segment's plan.
    fn ask_for_plan(&mut self) {
        if self.segment_records < PLAN_RECORDS_MIN
            || self.segment_bulk * 2 > self.segment_ops
            || self.pending >= PLANS_PENDING_MAX
        {
            return;
        }
        // Past the bounds of a template (much inline data): it stays without a plan.
        if let Ok(template) = Template::captured(self.history.segment()) {
            self.ask_for(template);
        }
    }

    /// If the program repeats itself, asks for the plan of a turn, as a segment that begins where the
    /// next turn will.
    pub(super) fn ask_for_cycle(&mut self, is_followed: bool) {
        let Some(cycle) = self.cycles.found(is_followed) else {
            return;
        };
        let mut asked = None;
        for range in &cycle.segments {
            let turn_base = cycle.cut.map(|cut| cut.turn_base);
            if self.pending < PLANS_PENDING_MAX
                && let Some(told) = self.history.tell(range, turn_base)
                && let Ok(template) = Template::captured(&told)
            {
                asked = self.ask_for(template).or(asked);
            }
        }
        if is_followed && let Some(asked) = asked {
            self.replaces = Some(Replacement {
                plan: asked,
                since: self.next_seq.saturating_sub(cycle.records()),
                start: cycle.cut.map(|cut| cut.start),
            });
        }
    }

    /// Whether a plan that takes the place of shorter ones is there, and its cycle begins with `draft`.
    pub(super) fn is_replaced(&self, draft: &Draft<'_>) -> bool {
        let Some(replacement) = self.replaces else {
            return false;
        };
        let plan = self.plans.get(&u64::from(replacement.plan));
        let begins = match replacement.start {
            Some(start) => self.cycles.is_at(start, draft),
            None => self.segment_records == 0,
        };
        begins && plan.is_some_and(|known| known.ready)
    }

    /// The plans that made up what one does by itself are given up.
    pub(super) fn replace(&mut self) {
        let Some(Replacement { plan, since, .. }) = self.replaces.take() else {
            return;
        };
        let ends_by_cut = |known: &ClientPlan| {
            let last = known.template.records.last();
            last.is_some_and(|last| last.kind == Kind::Cut)
        };
        let replaced: Vec<u32> = self
            .plans
            .iter()
            .filter(|(_, known)| known.ready && known.last_used >= since && ends_by_cut(known))
            .map(|(&other, _)| other as u32)
            .filter(|&other| other != plan)
            .collect();
        for replaced in replaced {
            self.drop_plan(replaced);
        }
    }

    /// Asks for a plan, if nobody did: its number.
    fn ask_for(&mut self, mut template: Template) -> Option<u32> {
        let prefixes = prefixes(&template);
        let prefix = prefixes.last().copied().unwrap_or_default();
        let again_at = self.planned.get(&prefix);
        if again_at.is_some_and(|&at| self.next_seq < at) {
            return None;
        }
        if self.plans.len() >= PLANS_MAX {
            self.drop_oldest_plan();
        }
        if self.planned.len() >= 4 * PLANS_MAX {
            self.planned.clear();
        }
        self.planned.insert(prefix, u64::MAX);
        template.name_operators(&self.op_names);
        let segment = template.encode();
        if segment.len() > TEMPLATE_MAX {
            return None;
        }
        let plan = self.next_plan;
        self.next_plan += 1;
        self.pending += 1;
        self.submissions.push_back(Submission { plan, segment });
        let predictor = Predictor::new(&template.numbers);
        let known = ClientPlan {
            keys: template.records.iter().map(key_of_template).collect(),
            template,
            predictor,
            prefixes,
            ready: false,
            last_used: self.next_seq,
        };
        self.plans.insert(u64::from(plan), known);
        self.enter(plan);
        Some(plan)
    }

    /// The plan is found by its records from now on. Of two that share some the longer is followed, but
    /// none that is installed gives way to one that is not.
    fn enter(&mut self, plan: u32) {
        let rank = |plan: u32| {
            let plan = self.plans.get(&u64::from(plan));
            plan.map_or((false, 0), |known| (known.ready, known.prefixes.len()))
        };
        let Some(known) = self.plans.get(&u64::from(plan)) else {
            return;
        };
        let own = rank(plan);
        for (index, &prefix) in known.prefixes.iter().enumerate() {
            let owner = self.trie.entry(prefix).or_insert((plan, index as u32));
            if owner.0 != plan && rank(owner.0) < own {
                *owner = (plan, index as u32);
            }
        }
    }

    pub(super) fn drop_oldest_plan(&mut self) {
        let in_use = self.cursor.map(|(plan, _)| u64::from(plan));
        let oldest = self
            .plans
            .iter()
            .filter(|(plan, known)| known.ready && Some(**plan) != in_use)
            .min_by_key(|(_, known)| known.last_used)
            .map(|(&plan, _)| plan as u32);
        if let Some(plan) = oldest {
            self.drop_plan(plan);
        }
    }

    /// Nobody will use it any more, and the node is told.
    pub(super) fn drop_plan(&mut self, plan: u32) {
        self.forget_plan(plan);
        self.dropped_plans.push(plan);
    }

    pub(super) fn forget_plan(&mut self, plan: u32) {
        if let Some(known) = self.plans.remove(&u64::from(plan)) {
            if let Some(last) = known.prefixes.last() {
                self.planned.remove(last);
            }
            for prefix in known.prefixes {
                if self
                    .trie
                    .get(&prefix)
                    .is_some_and(|&(owner, _)| owner == plan)
                {
                    self.trie.remove(&prefix);
                }
            }
            // Prefixes that it shared with others stay reachable.
            for other in self.plans.keys().copied().collect::<Vec<_>>() {
                self.enter(other as u32);
            }
        }
    }

    /// The next segment to have planned, if one waits.
    pub fn take_submission(&mut self) -> Option<Submission> {
        self.submissions.pop_front()
    }

    /// A plan is installed at the node, or was declined.
    pub fn plan_answered(&mut self, plan: u32, installed: bool) {
        self.pending = self.pending.saturating_sub(1);
        if !installed {
            // Not asked for at every turn. And the node may install it yet, too late for whoever
            // waited: it is told that nobody will use it.
            let known = self.plans.get(&u64::from(plan));
            if let Some(last) = known.and_then(|known| known.prefixes.last().copied()) {
                self.drop_plan(plan);
                self.planned.insert(last, self.next_seq + PLAN_AGAIN_AFTER);
            }
            return;
        }
        if let Some(known) = self.plans.get_mut(&u64::from(plan)) {
            known.ready = true;
            self.enter(plan);
        }
    }
}

/// Hash of the structure up to and with each record.
pub(crate) fn prefixes(template: &Template) -> Vec<u64> {
    let mut prefix = 0;
    let records = template.records.iter();
    let hashes = records.map(|record| {
        prefix = step_prefix(prefix, record.kind, record.op, &record.structure);
        prefix
    });
    hashes.collect()
}

pub(crate) fn step_prefix(prefix: u64, kind: Kind, op: u32, structure: &[u8]) -> u64 {
    let seed = prefix ^ (u64::from(op) << 8 | kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxh3_64_with_seed(structure, seed)
}
