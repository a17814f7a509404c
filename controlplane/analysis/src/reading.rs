//! What a graph with these sizes is: the phase and modality of each operator, and the kind of work.

use genie_srg::{Modality, Phase};

use super::attention::{self, Attention, Kept};
use super::graph::Graph;
use super::lineage::{self, Found, Kinds, Lineage};
use super::operators::{Class, class_of, factors};
use super::roles::{self, Role};
use super::wiring::{NOBODY, Wiring};

/// A chunk of so many places behind a cache, at most, is a guess that is being verified: decoding.
const SPECULATED_MAX: i64 = 16;
/// A product that widens by so much makes logits over a vocabulary: feed-forward layers widen by 4.
const WIDENS_MIN: i64 = 16;
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
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Llm,
        Self::Vision,
        Self::Recsys,
        Self::Multimodal,
        Self::Audio,
        Self::Training,
        Self::Other,
    ];

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

/// What follows from a graph's structure alone, whatever the sizes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who makes what.
    pub wiring: Wiring,
    /// What operators do.
    pub classes: Vec<Class>,
    /// Where values come from.
    pub lineage: Lineage,
    /// Where queries attend to keys.
    pub attentions: Vec<Attention>,
    /// What operators are for.
    pub roles: Vec<Role>,
}

impl Facts {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let wiring = Wiring::of(graph);
        let classes: Vec<Class> = (graph.operators.iter())
            .map(|operator| class_of(&operator.name))
            .collect();
        let lineage = lineage::of(graph, &wiring, &classes);
        let attentions = attention::find(graph, &wiring, &classes);
        let roles = roles::of(graph, &wiring, &classes, &attentions, &lineage);
        Self {
            wiring,
            classes,
            lineage,
            attentions,
            roles,
        }
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
    /// Of each operator, with what sizes say.
    pub roles: Vec<Role>,
}

impl Reading {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph, facts: &Facts) -> Self {
        let reader = Reader { graph, facts };
        let training = reader.training();
        let logits = reader.logits();
        let mut roles = facts.roles.clone();
        for &at in &logits {
            roles[at] = Role::Logits;
        }
        let is_training = training.contains(&Stage::Backward);
        let sampled = if is_training {
            vec![false; roles.len()]
        } else {
            reader.sampled(&logits)
        };
        let passes = reader.passes(!logits.is_empty());
        let (workload, confidence) = reader.workload(is_training, !logits.is_empty(), &passes);
        let mut phases = Vec::with_capacity(roles.len());
        for (at, role) in roles.iter_mut().enumerate() {
            let phase = match training[at] {
                Stage::Backward => Phase::Backward,
                Stage::Optimizer => Phase::Optimizer,
                Stage::Forward if sampled[at] => {
                    if *role == Role::None {
                        *role = Role::Sampling;
                    }
                    Phase::Sampling
                }
                Stage::Forward => reader.phase(at, workload, is_training, passes[at]),
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
            modalities: reader.modalities(workload),
            workload,
            confidence,
            phases,
            roles,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Forward,
    Backward,
    Optimizer,
}

/// What kind of pass an operator is in, as the attention next to it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pass {
    #[default]
    Unknown,
    Prefill,
    Decode,
    Encode,
}

struct Reader<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
}

impl Reader<'_> {
    fn kinds(&self, at: usize) -> Kinds {
        self.facts.lineage.kinds[at]
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
            let is_root = class == Class::Lookup
                || matches!(
                    class,
                    Class::Convolution | Class::Product | Class::Attention | Class::Recurrent
                );
            let of_gradients = (facts.wiring.sources(at).iter())
                .any(|&source| source != NOBODY && grad[source as usize]);
            stages[at] = if operator.known.is_backward == Some(true) || class == Class::Backward {
                has_begun = true;
                Stage::Backward
            } else if class == Class::Optimizer && (has_begun || operator.inputs.len() > 1) {
                Stage::Optimizer
            } else if of_gradients {
                match (is_known, class) {
                    (true, _) => Stage::Optimizer,
                    (false, _) if operator.is_in_place() && !is_root => Stage::Optimizer,
                    (false, _) => Stage::Backward,
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

    /// Products with as many columns as a table of tokens has rows, or very wide ones that no product takes.
    fn logits(&self) -> Vec<usize> {
        let facts = self.facts;
        let tables = facts
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
            matches!(facts.roles[at], Role::None | Role::Router | Role::Up)
                && !(facts.wiring.takers(at).iter())
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
            let sources = facts.wiring.sources(at);
            sampled[at] = sources
                .iter()
                .any(|&source| source != NOBODY && sampled[source as usize])
                && self.is_behind_choice(at, sources, &sampled);
        }
        for &at in logits {
            sampled[at] = false;
        }
        sampled
    }

    /// Whether most of what it takes is of the sampling; else the next pass has begun with it.
    fn is_behind_choice(&self, _at: usize, sources: &[u32], sampled: &[bool]) -> bool {
        let of = |wanted: bool| {
            sources
                .iter()
                .filter(|&&s| s != NOBODY && sampled[s as usize] == wanted)
                .count()
        };
        of(true) >= of(false)
    }

    /// The pass of each operator: of the attention that it leads to first, else of the one before it.
    fn passes(&self, predicts: bool) -> Vec<Pass> {
        let facts = self.facts;
        let count = facts.classes.len();
        let mut of_attention = vec![Pass::Unknown; count];
        let is_causal_text = facts.attentions.iter().any(|one| one.kept != Kept::Nowhere);
        for attention in &facts.attentions {
            let pass = self.pass(attention, predicts, is_causal_text);
            of_attention[attention.center as usize] = pass;
            of_attention[attention.context as usize] = pass;
        }
        let mut passes = of_attention.clone();
        // Behind: by what takes it first.
        for at in (0..count).rev() {
            if passes[at] != Pass::Unknown {
                continue;
            }
            let mut takers = facts.wiring.takers(at).iter();
            let next = takers.find_map(|&(taker, input)| {
                let is_ids = facts.classes[taker as usize] == Class::Lookup && input == 1;
                let pass = passes[taker as usize];
                (!is_ids && pass != Pass::Unknown).then_some(pass)
            });
            passes[at] = next.unwrap_or_default();
        }
        // Before: by the last of what it takes.
        for at in 0..count {
            if passes[at] != Pass::Unknown {
                continue;
            }
            let sources = facts
                .wiring
                .sources(at)
                .iter()
                .filter(|&&source| source != NOBODY);
            let last = sources.max().map(|&source| passes[source as usize]);
            passes[at] = last.unwrap_or_default();
        }
        if facts.attentions.is_empty() {
            self.recurrent_passes(&mut passes, predicts);
        }
        passes
    }

    fn pass(&self, attention: &Attention, predicts: bool, caches: bool) -> Pass {
        let (queries, keys) = attention.lengths(self.graph);
        let (query, key) = (attention.query, attention.key);
        let kinds = |product: Option<u32>| product.map(|at| self.kinds(at as usize));
        if let (Some(of_query), Some(of_key)) = (kinds(query), kinds(key))
            && of_query != of_key
            && attention.kept == Kept::Nowhere
        {
            // Across: what its neighbours are.
            return Pass::Unknown;
        }
        let is_causal = attention.is_causal
            || (attention.mask).is_some_and(|mask| self.facts.lineage.orders[mask as usize]);
        match attention.kept {
            Kept::Before if queries == 1 => Pass::Decode,
            Kept::Before if queries <= SPECULATED_MAX && keys >= 2 * queries => Pass::Decode,
            Kept::Before | Kept::Begun => Pass::Prefill,
            Kept::Nowhere if is_causal && (predicts || caches) => Pass::Prefill,
            Kept::Nowhere if is_causal => Pass::Prefill,
            Kept::Nowhere if query.is_some() => Pass::Encode,
            Kept::Nowhere => Pass::Unknown,
        }
    }

    /// Without attention: by how many tokens are looked up at a time.
    fn recurrent_passes(&self, passes: &mut [Pass], predicts: bool) {
        if !predicts {
            return;
        }
        let tokens = self
            .facts
            .lineage
            .lookups
            .iter()
            .filter(|(_, found)| *found == Found::Token);
        let mut starts: Vec<(usize, Pass)> = tokens
            .map(|&(at, _)| {
                let ids = self.graph.operators[at as usize].arguments.tensors.get(1);
                let length = ids.map_or(1, |ids| ids.dim_from_end(0));
                (
                    at as usize,
                    if length == 1 {
                        Pass::Decode
                    } else {
                        Pass::Prefill
                    },
                )
            })
            .collect();
        starts.sort_unstable_by_key(|&(at, _)| at);
        let Some(&first) = starts.first() else { return };
        let mut starts = starts.into_iter().peekable();
        let mut pass = first.1;
        for (at, of_one) in passes.iter_mut().enumerate() {
            while let Some((_, next)) = starts.next_if(|&(start, _)| start <= at) {
                pass = next;
            }
            *of_one = pass;
        }
    }

    fn phase(&self, at: usize, workload: Workload, is_training: bool, pass: Pass) -> Phase {
        let class = self.facts.classes[at];
        let kinds = self.kinds(at);
        if class == Class::Lookup && self.facts.lineage.found(at as u32) != Some(Found::Position) {
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
                if self.facts.roles[at] == Role::Upsample || self.is_behind_upsample(at) {
                    Phase::VisionDecode
                } else {
                    Phase::VisionEncode
                }
            }
            (Pass::Encode, _) if senses.count() <= 1 && senses != Kinds::default() => Phase::Encode,
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
            if self.facts.roles[here] == Role::Upsample {
                return true;
            }
            if self.facts.roles[here] == Role::Downsample {
                return false;
            }
        }
        false
    }

    fn modalities(&self, workload: Workload) -> Vec<Modality> {
        let of = |kinds: Kinds| match kinds.senses() {
            Kinds::TEXT => Modality::Text,
            Kinds::VISION => Modality::Vision,
            Kinds::AUDIO => Modality::Audio,
            senses if senses.count() > 1 => Modality::Multimodal,
            _ if kinds.has(Kinds::TABULAR) => Modality::Tabular,
            _ => Modality::Unknown,
        };
        let mut found: Vec<Modality> = self.facts.lineage.kinds.iter().copied().map(of).collect();
        // What has no input of its own serves what takes it.
        for at in (0..found.len()).rev() {
            if found[at] == Modality::Unknown {
                let mut takers = self.facts.wiring.takers(at).iter();
                let next = takers.find_map(|&(taker, _)| {
                    Some(found[taker as usize]).filter(|&of| of != Modality::Unknown)
                });
                found[at] = next.unwrap_or(match workload {
                    Workload::Recsys => Modality::Tabular,
                    _ => Modality::Unknown,
                });
            }
        }
        found
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
            let of = facts
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
        let categories = facts
            .lineage
            .lookups
            .iter()
            .filter(|(_, found)| *found == Found::Category);
        let tables = categories.count();
        let attends = !facts.attentions.is_empty();
        let caches = facts.attentions.iter().any(|one| one.kept != Kept::Nowhere);
        let has_pass = passes.iter().any(|&pass| pass != Pass::Unknown);
        let products = count(Class::Product);
        match (is_in(text), is_in(vision), is_in(audio)) {
            (true, true, _) => (Workload::Multimodal, 0.9),
            (_, false, true) => (Workload::Audio, if text > 0.0 { 0.9 } else { 0.85 }),
            (_, true, true) => (Workload::Multimodal, 0.6),
            (false, true, false) => (
                Workload::Vision,
                if count(Class::Convolution) > 2 || attends {
                    0.92
                } else {
                    0.75
                },
            ),
            (true, false, false) => match () {
                () if attends && (caches || predicts) => (Workload::Llm, 0.95),
                () if attends => (Workload::Llm, 0.88),
                () if predicts && has_pass => (Workload::Llm, 0.88),
                () if tables > 0 && products > 0 => (Workload::Recsys, 0.7),
                () if predicts => (Workload::Llm, 0.7),
                () => (Workload::Llm, 0.55),
            },
            (false, false, false) => match () {
                () if tables >= 2 && products > 0 => (Workload::Recsys, 0.9),
                () if tables == 1 && products > 0 => (Workload::Recsys, 0.6),
                () => (Workload::Other, if products > 0 { 0.72 } else { 0.5 }),
            },
        }
    }
}
