//! Matching what is recorded against plans, and asking for plans.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ClientLog, ClientPlan, Draft, PLAN_RECORDS_MIN, PLANS_PENDING_MAX, Submission};
use crate::limits::PLAN_AGAIN_AFTER;
use crate::plan::{PLANS_MAX, Predictor, TEMPLATE_MAX, Template};
use crate::record::Kind;

impl ClientLog {
    /// Goes on with the expected plan, or finds another; true if the record travels in a chunk.
    pub(super) fn follow(&mut self, draft: &Draft<'_>, bulk: bool) -> bool {
        if self.off_trie {
            return false;
        }
        if let Some((plan, index)) = self.cursor
            && self.matches(plan, index, draft)
        {
            self.advance(plan, index, draft, bulk);
            return !bulk;
        }
        let prefix = step_prefix(self.prefix, draft.kind, draft.op, &self.structure);
        if let Some(&(plan, index)) = self.trie.get(&prefix)
            && self.matches(plan, index, draft)
        {
            self.end_chunk();
            self.chunk_start = index;
            self.advance(plan, index, draft, bulk);
            return !bulk;
        }
        // The structure up to here is nobody's prefix, so nothing longer is.
        self.end_chunk();
        self.cursor = None;
        self.off_trie = true;
        false
    }

    pub(super) fn matches(&self, plan: u32, index: u32, draft: &Draft<'_>) -> bool {
        let Some(known) = self.plans.get(&u64::from(plan)) else {
            return false;
        };
        let Some(template) = known.template.records.get(index as usize) else {
            return false;
        };
        known.ready
            && template.kind == draft.kind
            && template.op == draft.op
            && template.has_blob == draft.blob.is_some()
            && template.structure == self.structure
    }

    pub(super) fn advance(&mut self, plan: u32, index: u32, draft: &Draft<'_>, bulk: bool) {
        let Some(known) = self.plans.get_mut(&u64::from(plan)) else {
            return;
        };
        known.last_used = self.next_seq;
        if let Some(&prefix) = known.prefixes.get(index as usize) {
            self.prefix = prefix;
        }
        if !bulk && let Some(template) = known.template.records.get(index as usize) {
            if self.chunk.is_empty() {
                self.chunk_start = index;
            }
            self.chunk.push(
                template,
                &mut known.predictor,
                &self.numbers,
                &self.relative_frees,
                draft.blob,
            );
        }
        self.cursor = Some((plan, index + 1));
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
            if whole {
                self.counters.plan_hits += 1;
            } else {
                self.counters.plan_misses += 1;
                self.ask_for_plan();
            }
        }
        self.namer.cut();
        self.segment.clear();
        self.segment_records = 0;
        self.segment_ops = 0;
        self.segment_bulk = 0;
        self.prefix = 0;
        self.cursor = None;
        self.off_trie = self.trie.is_empty();
    }

    pub(super) fn ask_for_plan(&mut self) {
        if self.segment_records < PLAN_RECORDS_MIN
            || self.segment_bulk * 2 > self.segment_ops
            || self.pending >= PLANS_PENDING_MAX
        {
            return;
        }
        // Past the bounds of a template (much inline data): it stays without a plan.
        let Ok(mut template) = Template::captured(&self.segment) else {
            return;
        };
        let prefixes = prefixes(&template);
        let prefix = prefixes.last().copied().unwrap_or_default();
        let again_at = self.planned.get(&prefix);
        if again_at.is_some_and(|&at| self.next_seq < at) {
            return;
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
            return;
        }
        let plan = self.next_plan;
        self.next_plan += 1;
        self.pending += 1;
        self.submissions.push_back(Submission { plan, segment });
        let predictor = Predictor::new(&template.numbers);
        let last_used = self.next_seq;
        let known = ClientPlan {
            template,
            predictor,
            prefixes,
            ready: false,
            last_used,
        };
        self.plans.insert(u64::from(plan), known);
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
            self.forget_plan(plan);
            self.dropped_plans.push(plan);
        }
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
            for (&other, known) in self.plans.iter().filter(|(_, known)| known.ready) {
                for (index, &prefix) in known.prefixes.iter().enumerate() {
                    self.trie
                        .entry(prefix)
                        .or_insert((other as u32, index as u32));
                }
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
            if let Some(known) = self.plans.remove(&u64::from(plan)) {
                if let Some(&last) = known.prefixes.last() {
                    self.planned.insert(last, self.next_seq + PLAN_AGAIN_AFTER);
                }
                self.dropped_plans.push(plan);
            }
            return;
        }
        if let Some(known) = self.plans.get_mut(&u64::from(plan)) {
            known.ready = true;
            for (index, &prefix) in known.prefixes.iter().enumerate() {
                self.trie.entry(prefix).or_insert((plan, index as u32));
            }
            if self.segment_records == 0 {
                self.off_trie = false;
            }
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
