//! What a graph with these sizes is: the phase and modality of each operator, and the kind of work.

use std::collections::HashSet;

use genie_srg::{Modality, Phase};

use super::attention::{self, Attention, Kept};
use super::graph::Graph;
use super::lineage::{self, Found, Kinds, Lineage};
use super::operators::{Class, class_of, factors};
use super::passes::{Pass, Passes, Stream, Vote};
use super::roles::{self, Role};
use super::wiring::{NOBODY, Wiring, carries, is_external};

/// A chunk of so many places behind a cache, at most, is a guess that is being verified: decoding.
const SPECULATED_MAX: i64 = 16;
/// A product that widens by so much makes logits over a vocabulary: feed-forward layers widen by 4.
const WIDENS_MIN: i64 = 16;
/// Operators of a model that looks up fields and does nothing along them, at most.
const FIELDS_MAX: usize = 400;
/// Of a graph's operators the part that a kind of input must be behind, to count.
const SHARE_MIN: f64 = 0.02;

/// The kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Language.
    Llm,
    /// Images and video.
    Vision,
    /// Recommendation: tables of categories.
    Recsys,
    /// Several kinds of input.
    Multimodal,
    /// Sound.
    Audio,
    /// Weights are changed.
    Training,
    /// None of these.
    #[default]
    Other,
}

impl Workload {
    /// As users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Vision => "vision",
            Self::Recsys => "recsys",
            Self::Multimodal => "multimodal",
            Self::Audio => "audio",
            Self::Training => "training",
            Self::Other => "other",
        }
    }
}

/// What follows from a graph's structure alone, whatever the sizes: remembered by its fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who makes what.
    pub wiring: Wiring,
    /// What operators do.
    pub classes: Vec<Class>,
}

impl Facts {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let operators = graph.operators.iter();
        Self {
            wiring: Wiring::of(graph),
            classes: operators.map(|operator| class_of(&operator.name)).collect(),
        }
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.wiring.bytes() + self.classes.capacity() * size_of::<Class>()
    }
}

/// What a graph is.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The kind of work.
    pub workload: Workload,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
    /// Of each operator.
    pub phases: Vec<Phase>,
    /// Of each operator.
    pub modalities: Vec<Modality>,
    /// Of each operator.
    pub roles: Vec<Role>,
    /// Where queries attend to keys.
    pub attentions: Vec<Attention>,
}

impl Reading {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph, facts: &Facts) -> Self {
        let (wiring, classes) = (&facts.wiring, &facts.classes);
        let lineage = lineage::of(graph, wiring, classes);
        let attentions = attention::find(graph, wiring, classes);
        let alone = roles::of(graph, wiring, classes, &attentions, &lineage);
        let reader = Reader {
            graph,
            facts,
            lineage: &lineage,
            attentions: &attentions,
            roles: &alone,
        };
        let training = reader.training();
        let logits = reader.logits();
        let mut roles = alone.clone();
        for &at in &logits {
            roles[at] = Role::Logits;
        }
        let is_training = reader.is_training(&training);
        let sampled = if is_training {
            vec![false; roles.len()]
        } else {
            reader.sampled(&logits)
        };
        let passes = reader.passes(!logits.is_empty());
        let (workload, confidence) = reader.workload(is_training, !logits.is_empty(), &passes);
        let served = reader.served();
        let mut phases = Vec::with_capacity(roles.len());
        for (at, role) in roles.iter_mut().enumerate() {
            let phase = match training[at] {
                Stage::Backward => Phase::Backward,
                Stage::Optimizer => Phase::Optimizer,
                Stage::Forward if sampled[at] => {
                    if matches!(*role, Role::None | Role::Residual | Role::Norm) {
                        *role = Role::Sampling;
                    }
                    Phase::Sampling
                }
                Stage::Forward => reader.phase(at, served[at], workload, is_training, passes[at]),
            };
            match (phase, *role) {
                (Phase::Backward, Role::None | Role::Residual) => *role = Role::Gradient,
                (Phase::Optimizer, Role::None | Role::Residual) => *role = Role::OptimizerStep,
                (Phase::Initialization, Role::None) => *role = Role::Initialization,
                _ => {}
            }
            phases.push(phase);
        }
        Self {
            modalities: (served.iter())
                .map(|&kinds| Reader::modality(workload, kinds))
                .collect(),
            workload,
            confidence,
            phases,
            roles,
            attentions,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Forward,
    Backward,
    Optimizer,
}

/// Whether it is more than the looks of an input.
fn is_heavy(class: Class) -> bool {
    matches!(
        class,
        Class::Product | Class::Convolution | Class::Attention | Class::Recurrent
    )
}

struct Reader<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    lineage: &'a Lineage,
    attentions: &'a [Attention],
    roles: &'a [Role],
}

impl Reader<'_> {
    fn kinds(&self, at: usize) -> Kinds {
        self.lineage.kinds[at]
    }

    /// Forward, backward and optimiser: as autograd says, else by names and order.
    fn training(&self) -> Vec<Stage> {
        let facts = self.facts;
        let count = facts.classes.len();
        let mut stages = vec![Stage::Forward; count];
        let is_known = (self.graph.operators.iter()).any(|op| op.known.is_backward.is_some());
        // What gradients are in.
        let mut grad = vec![false; count];
        let mut has_begun = false;
        for at in 0..count {
            let class = facts.classes[at];
            let operator = &self.graph.operators[at];
            let of_gradients = (facts.wiring.sources(at).iter())
                .any(|&source| source != NOBODY && grad[source as usize]);
            let is_backward = match operator.known.is_backward {
                Some(is_backward) => is_backward,
                None => class == Class::Backward,
            };
            stages[at] = if is_backward {
                has_begun = true;
                Stage::Backward
            } else if class == Class::Optimizer && (has_begun || operator.inputs.len() > 1) {
                Stage::Optimizer
            } else if of_gradients {
                let begins_again = class == Class::Lookup || is_heavy(class);
                match is_known || (operator.is_in_place() && !begins_again) {
                    true => Stage::Optimizer,
                    false => Stage::Backward,
                }
            } else {
                Stage::Forward
            };
            // Weights that were changed by gradients are weights again.
            grad[at] = stages[at] == Stage::Backward
                || (stages[at] == Stage::Optimizer && !operator.is_in_place());
        }
        stages
    }

    /// Whether gradients of weights are computed, and not only of what a model is given.
    fn is_training(&self, stages: &[Stage]) -> bool {
        if stages.contains(&Stage::Optimizer) {
            return true;
        }
        let mut shapes = HashSet::new();
        for (at, operator) in self.graph.operators.iter().enumerate() {
            let weights = match self.facts.classes[at] {
                Class::Product | Class::Convolution => 1..3,
                Class::Norm | Class::Recurrent => 1..operator.inputs.len(),
                Class::Lookup => 0..1,
                _ => continue,
            };
            for input in weights {
                if is_external(self.graph, &self.facts.wiring, at, input)
                    && let Some(weight) = operator.arguments.tensors.get(input)
                {
                    shapes.insert(weight.dims.clone());
                    shapes.insert(weight.dims.iter().rev().copied().collect());
                }
            }
        }
        let gradients = self.graph.operators.iter().zip(stages);
        let mut gradients = gradients.filter(|(_, stage)| **stage == Stage::Backward);
        gradients.any(|(operator, _)| {
            operator
                .results
                .iter()
                .any(|result| shapes.contains(&result.dims))
        })
    }

    /// Products with as many columns as a table of tokens has rows, or very wide ones that no product takes.
    fn logits(&self) -> Vec<usize> {
        let facts = self.facts;
        let tables = self
            .lineage
            .lookups
            .iter()
            .filter(|(_, found)| *found == Found::Token);
        let rows = |&(at, _): &(u32, Found)| {
            let table = self.graph.operators[at as usize]
                .arguments
                .tensors
                .first()?;
            table.dims.first().copied()
        };
        let mut rows: Vec<i64> = tables.filter_map(rows).collect();
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() {
            return Vec::new();
        }
        let is_logits = |&at: &usize| {
            if facts.classes[at] != Class::Product || !self.kinds(at).has(Kinds::TEXT) {
                return false;
            }
            let operator = &self.graph.operators[at];
            if operator.known.is_backward == Some(true) {
                return false;
            }
            let columns = operator
                .results
                .first()
                .map_or(0, |result| result.dim_from_end(0));
            let (data, _) = factors(&operator.name);
            let inner = operator
                .arguments
                .tensors
                .get(data)
                .map_or(1, |t| t.dim_from_end(0));
            let is_wide = columns / inner.max(1) >= WIDENS_MIN;
            if rows.binary_search(&columns).is_err() && !is_wide {
                return false;
            }
            matches!(
                self.roles[at],
                Role::None | Role::Router | Role::Up | Role::AttentionOutput
            ) && !(facts.wiring.takers(at).iter())
                .any(|&(taker, _)| facts.classes[taker as usize] == Class::Product)
        };
        (0..facts.classes.len()).filter(is_logits).collect()
    }

    /// What hangs on logits, until the next lookup.
    fn sampled(&self, logits: &[usize]) -> Vec<bool> {
        let facts = self.facts;
        let mut sampled = vec![false; facts.classes.len()];
        for &at in logits {
            sampled[at] = true;
        }
        for at in 0..sampled.len() {
            if sampled[at]
                || matches!(
                    facts.classes[at],
                    Class::Lookup
                        | Class::Attention
                        | Class::Product
                        | Class::Convolution
                        | Class::Norm
                )
            {
                continue;
            }
            if self.roles[at] == Role::CacheUpdate {
                continue;
            }
            let is_sampled = |source: u32| source != NOBODY && sampled[source as usize];
            // Rows of a cache that are picked by what was chosen are the cache's.
            sampled[at] = match facts.classes[at] {
                Class::Movement => carries(self.graph, &facts.wiring, at)
                    .is_some_and(|input| is_sampled(facts.wiring.source(at, input))),
                _ => facts
                    .wiring
                    .sources(at)
                    .iter()
                    .any(|&source| is_sampled(source)),
            };
        }
        for &at in logits {
            sampled[at] = false;
        }
        sampled
    }

    fn pass_of(&self, attention: &Attention) -> Vote {
        let (queries, keys) = attention.lengths(self.graph);
        let kinds = |product: Option<u32>| product.map(|at| self.kinds(at as usize));
        let is_across = matches!(
            (kinds(attention.query), kinds(attention.key)),
            (Some(query), Some(key)) if query != key
        );
        let is_causal = attention.is_causal
            || (attention.mask).is_some_and(|mask| self.lineage.orders[mask as usize]);
        match attention.kept {
            Kept::Before if queries == 1 => Vote::Kept(Pass::Decode),
            Kept::Before if queries <= SPECULATED_MAX && keys >= 2 * queries => {
                Vote::Kept(Pass::Decode)
            }
            Kept::Before | Kept::Begun => Vote::Kept(Pass::Prefill),
            Kept::Nowhere if is_across => Vote::Nothing,
            Kept::Nowhere if is_causal => Vote::Causal,
            Kept::Nowhere => Vote::Both,
        }
    }

    /// The pass of each operator: passes begin where input comes in, and are what their attention says.
    fn passes(&self, predicts: bool) -> Vec<Pass> {
        let facts = self.facts;
        let mut passes = Passes::default();
        let mut of_operator = vec![None; facts.classes.len()];
        let mut roots = self.lineage.roots.iter().peekable();
        for (at, &class) in facts.classes.iter().enumerate() {
            let kinds = self.kinds(at).senses();
            let stream = Stream::of(kinds);
            while let Some(&(_, of)) = roots.next_if(|&&(root, _)| root as usize <= at) {
                passes.root(Stream::of(of.senses()), self.length(at));
            }
            let Some(stream) = stream else { continue };
            of_operator[at] = passes.here(stream, is_heavy(class));
        }
        for attention in self.attentions {
            if let Some(pass) = of_operator[attention.context as usize] {
                passes.vote(pass, self.pass_of(attention));
            }
        }
        // What comes from no input serves who takes it first.
        for at in (0..of_operator.len()).rev() {
            if of_operator[at].is_none() {
                let takers = facts.wiring.takers(at).iter();
                of_operator[at] = takers
                    .filter_map(|&(taker, _)| of_operator[taker as usize])
                    .min();
            }
        }
        let of = |pass: Option<usize>| pass.map_or(Pass::Unknown, |at| passes.is(at, predicts));
        of_operator.into_iter().map(of).collect()
    }

    /// Tokens of each row, where `at` looks some up.
    fn length(&self, at: usize) -> i64 {
        let ids = self.graph.operators[at].arguments.tensors.get(1);
        ids.map_or(1, |ids| ids.dim_from_end(0))
    }

    fn phase(
        &self,
        at: usize,
        kinds: Kinds,
        workload: Workload,
        is_training: bool,
        pass: Pass,
    ) -> Phase {
        let class = self.facts.classes[at];
        if class == Class::Lookup && self.lineage.found(at as u32) != Some(Found::Position) {
            return Phase::Embedding;
        }
        if is_training {
            return Phase::Forward;
        }
        let senses = kinds.senses();
        match (pass, workload) {
            (Pass::Prefill, Workload::Llm | Workload::Multimodal | Workload::Audio) => {
                Phase::Prefill
            }
            (Pass::Decode, Workload::Llm | Workload::Multimodal | Workload::Audio) => Phase::Decode,
            (_, Workload::Multimodal) if senses.count() > 1 => Phase::Fusion,
            (_, Workload::Vision | Workload::Multimodal) if senses == Kinds::VISION => {
                if self.roles[at] == Role::Upsample || self.is_behind_upsample(at) {
                    Phase::VisionDecode
                } else {
                    Phase::VisionEncode
                }
            }
            (Pass::Encode, _) if senses.count() <= 1 => Phase::Encode,
            (_, Workload::Audio) if senses == Kinds::AUDIO => Phase::Encode,
            _ if class == Class::Filling && !self.leads_anywhere(at) => Phase::Initialization,
            _ => Phase::Forward,
        }
    }

    fn leads_anywhere(&self, at: usize) -> bool {
        !self.facts.wiring.takers(at).is_empty()
    }

    /// Whether what it takes was made larger just before.
    fn is_behind_upsample(&self, at: usize) -> bool {
        let mut here = at;
        for _ in 0..6 {
            let source = self.facts.wiring.source(here, 0);
            if source == NOBODY {
                return false;
            }
            here = source as usize;
            if self.roles[here] == Role::Upsample {
                return true;
            }
            if self.roles[here] == Role::Downsample {
                return false;
            }
        }
        false
    }

    /// Which kinds of input each operator has to do with: what has none of its own serves what takes it.
    fn served(&self) -> Vec<Kinds> {
        let mut served = self.lineage.kinds.clone();
        for at in (0..served.len()).rev() {
            if served[at] == Kinds::default() || served[at] == Kinds::SERIES {
                let takers = self.facts.wiring.takers(at).iter();
                let mut of = takers.map(|&(taker, _)| served[taker as usize]);
                let found = of.find(|of| of.senses() != Kinds::default() || of.has(Kinds::TABULAR));
                served[at] = found.unwrap_or(served[at]);
            }
        }
        served
    }

    fn modality(workload: Workload, kinds: Kinds) -> Modality {
        match kinds.senses() {
            Kinds::TEXT => Modality::Text,
            Kinds::VISION => Modality::Vision,
            Kinds::AUDIO => Modality::Audio,
            senses if senses.count() > 1 => Modality::Multimodal,
            _ if kinds.has(Kinds::TABULAR) || workload == Workload::Recsys => Modality::Tabular,
            _ => Modality::Unknown,
        }
    }

    fn workload(&self, is_training: bool, predicts: bool, passes: &[Pass]) -> (Workload, f64) {
        let facts = self.facts;
        let count = |class: Class| facts.classes.iter().filter(|&&of| of == class).count();
        let total = facts.classes.len();
        if total == 0 {
            return (Workload::Other, 0.0);
        }
        if is_training {
            let backward = count(Class::Backward);
            return (Workload::Training, if backward > 1 { 0.97 } else { 0.8 });
        }
        let share = |kind: Kinds| {
            let of = self
                .lineage
                .kinds
                .iter()
                .filter(|kinds| kinds.has(kind))
                .count();
            of as f64 / total as f64
        };
        let (text, vision, audio) = (
            share(Kinds::TEXT),
            share(Kinds::VISION),
            share(Kinds::AUDIO),
        );
        let is_in = |share: f64| share >= SHARE_MIN;
        let categories = self
            .lineage
            .lookups
            .iter()
            .filter(|(_, found)| *found == Found::Category);
        let tables = categories.count();
        let attends = !self.attentions.is_empty();
        let caches = self.attentions.iter().any(|one| one.kept != Kept::Nowhere);
        let has_pass = passes.iter().any(|&pass| pass != Pass::Unknown);
        let products = count(Class::Product);
        match (is_in(text), is_in(vision), is_in(audio)) {
            (true, true, _) => (Workload::Multimodal, 0.9),
            (_, false, true) => (Workload::Audio, if text > 0.0 { 0.9 } else { 0.85 }),
            (_, true, true) => (Workload::Multimodal, 0.6),
            (false, true, false) => (
                Workload::Vision,
                if count(Class::Convolution) > 2 || attends || self.roles.contains(&Role::Patchify)
                {
                    0.92
                } else {
                    0.65
                },
            ),
            (true, false, false) => match () {
                () if attends && (caches || predicts) => (Workload::Llm, 0.95),
                () if attends => (Workload::Llm, 0.88),
                () if predicts && has_pass => (Workload::Llm, 0.88),
                () if tables > 0 && products > 0 => (Workload::Recsys, 0.75),
                // Fields of rows, side by side: nothing is done along them.
                () if !predicts
                    && products > 0
                    && count(Class::Convolution) + count(Class::Recurrent) == 0
                    && total < FIELDS_MAX =>
                {
                    (Workload::Recsys, 0.72)
                }
                () if predicts => (Workload::Llm, 0.7),
                () => (Workload::Llm, 0.55),
            },
            (false, false, false) => match () {
                () if tables >= 2 && products > 0 => (Workload::Recsys, 0.9),
                () if tables == 1 && products > 0 => (Workload::Recsys, 0.6),
                () if attends => (Workload::Other, 0.6),
                () => (Workload::Other, if products > 0 { 0.72 } else { 0.5 }),
            },
        }
    }
}
