//! What the operators are for, and what kind of work a segment is.

use genie_srg::{Modality, Phase, WorkloadClass};

use super::graph::Graph;
use super::operators::{
    is_attention, is_backward, is_convolution, is_lookup, is_optimizer, is_product,
};
use super::residency::grows_cache;

/// Operators that draw the next token.
const SAMPLING: [&str; 5] = ["argmax", "multinomial", "topk", "sort", "cumsum"];
/// Operators that only make or fill values.
const FILLING: [&str; 14] = [
    "alloc",
    "empty",
    "zeros",
    "ones",
    "full",
    "fill_",
    "zero_",
    "normal_",
    "uniform_",
    "copy_",
    "arange",
    "bernoulli_",
    "randn",
    "rand",
];
/// Lookups without attention that make it a recommendation.
const TABLES_MIN: usize = 4;
/// A product that widens by so much makes logits over a vocabulary: feed-forward layers widen by 4.
const WIDENS_MIN: i64 = 16;
/// Convolutions that make it vision without doubt.
const CONVOLUTIONS_MIN: usize = 3;

/// What kind of work it is, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// The kind.
    pub class: WorkloadClass,
    /// From 0 to 1.
    pub confidence: f64,
}

/// What a segment's structure says of it: a function of what the fingerprint covers, so it can be
/// remembered by that. No sizes, no ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    attentions: usize,
    convolutions: usize,
    lookups: usize,
    softmaxes: usize,
    products: usize,
    backward: usize,
    optimizer: usize,
    filling: usize,
    operators: usize,
    /// What each operator is for, as far as it doesn't hang on the kind of work.
    roles: Vec<Role>,
}

/// What an operator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Body,
    Backward,
    Optimizer,
    Lookup,
    Sampling,
}

impl Structure {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let mut seen = Self::default();
        for operator in &graph.operators {
            let name = operator.name.as_str();
            seen.roles.push(match name {
                _ if is_backward(name) => Role::Backward,
                _ if is_optimizer(name) => Role::Optimizer,
                "embedding" | "_embedding_bag" | "embedding_bag" => Role::Lookup,
                _ if SAMPLING.contains(&name) => Role::Sampling,
                _ => Role::Body,
            });
            match name {
                "fetch" => continue,
                _ if is_backward(name) => seen.backward += 1,
                _ if is_optimizer(name) => seen.optimizer += 1,
                _ if is_attention(name) => seen.attentions += 1,
                _ if is_convolution(name) => seen.convolutions += 1,
                _ if is_lookup(name) => seen.lookups += 1,
                "_softmax" | "softmax" => seen.softmaxes += 1,
                _ if is_product(name) => seen.products += 1,
                _ if FILLING.contains(&name) => seen.filling += 1,
                _ => {}
            }
            seen.operators += 1;
        }
        seen
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.roles.capacity() * size_of::<Role>()
    }

    /// Attention, in one operator or written out.
    fn attends(&self) -> bool {
        self.attentions > 0 || (self.softmaxes > 0 && self.products > 2 * self.softmaxes)
    }

    /// What kind of work it is, with these sizes.
    #[must_use]
    pub fn workload(&self, sizes: &Sizes) -> Workload {
        use WorkloadClass as Class;
        let (class, confidence) = if self.operators == 0 {
            (Class::Unknown, 0.0)
        } else if self.backward > 0 {
            (Class::Training, if self.backward > 3 { 0.95 } else { 0.75 })
        } else if self.optimizer > 0 && self.optimizer * 2 >= self.operators {
            (Class::Training, 0.8)
        } else if self.attends() && self.convolutions > 0 && self.lookups > 0 {
            (Class::Multimodal, 0.75)
        } else if self.attends() && self.convolutions > 0 {
            (Class::Vision, 0.85)
        } else if self.attends() && sizes.grows_cache {
            let one_token = self.attentions == 0 || sizes.queries == 1;
            if one_token {
                (Class::LlmDecode, 0.95)
            } else {
                (Class::LlmPrefill, 0.8)
            }
        } else if self.attends() && sizes.predict_tokens() {
            (Class::LlmPrefill, 0.85)
        } else if self.attends() && self.lookups > 0 {
            (Class::Embedding, 0.8)
        } else if self.convolutions >= CONVOLUTIONS_MIN {
            (Class::Vision, 0.9)
        } else if !self.attends() && self.lookups >= TABLES_MIN && self.products > 0 {
            (Class::Recommendation, 0.75)
        } else if self.convolutions > 0 {
            (Class::Vision, 0.6)
        } else if self.attends() {
            (Class::Embedding, 0.5)
        } else {
            (Class::Unknown, 0.3)
        };
        Workload { class, confidence }
    }

    /// The phase of each operator, in order, where the whole is this kind of work.
    pub fn phases(&self, class: WorkloadClass) -> impl Iterator<Item = Phase> {
        let body = match class {
            WorkloadClass::LlmDecode => Phase::Decode,
            WorkloadClass::LlmPrefill => Phase::Prefill,
            _ if self.operators > 0 && self.filling == self.operators => Phase::Initialization,
            WorkloadClass::Unknown => Phase::Unknown,
            _ => Phase::Forward,
        };
        // A training step runs forward, backward and optimiser in this order.
        let mut stage = body;
        self.roles.iter().map(move |role| {
            if class == WorkloadClass::Training {
                if *role == Role::Backward && stage != Phase::Optimizer {
                    stage = Phase::Backward;
                } else if *role == Role::Optimizer {
                    stage = Phase::Optimizer;
                }
            }
            match role {
                Role::Lookup if stage != Phase::Backward => Phase::Embedding,
                Role::Sampling if matches!(stage, Phase::Decode | Phase::Prefill) => {
                    Phase::Sampling
                }
                _ => stage,
            }
        })
    }

    fn modality(&self, class: WorkloadClass) -> Modality {
        match class {
            WorkloadClass::LlmDecode | WorkloadClass::LlmPrefill => Modality::Text,
            WorkloadClass::Vision => Modality::Vision,
            WorkloadClass::Recommendation => Modality::Tabular,
            WorkloadClass::Embedding if self.lookups > 0 => Modality::Text,
            _ => Modality::Unknown,
        }
    }
}

/// What a segment's sizes say of it: another instance of the same structure may have others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Query tokens of the longest attention.
    queries: i64,
    /// Most rows of a table that is looked up.
    rows: i64,
    /// Most columns that a product made.
    columns: i64,
    /// By how much a product widened at most.
    widens: i64,
    grows_cache: bool,
}

impl Sizes {
    /// Of a graph.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let mut sizes = Self {
            grows_cache: grows_cache(graph),
            ..Self::default()
        };
        for operator in &graph.operators {
            let (name, tensors) = (operator.name.as_str(), &operator.arguments.tensors);
            if is_backward(name) || is_optimizer(name) {
                continue;
            }
            if is_attention(name) {
                let queries = tensors.first().map_or(1, |query| query.dim_from_end(1));
                sizes.queries = sizes.queries.max(queries);
            } else if is_lookup(name) {
                let rows = tensors.first().and_then(|table| table.dims.first());
                sizes.rows = sizes.rows.max(rows.copied().unwrap_or(0));
            } else if is_product(name) {
                let result = operator.results.first();
                let columns = result.map_or(0, |result| result.dim_from_end(0));
                sizes.columns = sizes.columns.max(columns);
                // A bias comes first in `addmm`, and is as wide as the result.
                let inner = tensors.iter().map(|tensor| tensor.dim_from_end(0)).min();
                sizes.widens = sizes.widens.max(columns / inner.unwrap_or(1).max(1));
            }
        }
        sizes
    }

    /// A product with as many columns as a table has rows, or a very wide one: logits over a
    /// vocabulary.
    fn predict_tokens(&self) -> bool {
        (self.rows > 0 && self.columns == self.rows) || self.widens >= WIDENS_MIN
    }
}

/// Marks nodes with phase and modality.
pub fn annotate(graph: &mut Graph, structure: &Structure, class: WorkloadClass) {
    let modality = structure.modality(class);
    for (operator, phase) in graph.operators.iter().zip(structure.phases(class)) {
        let node = &mut graph.srg.nodes[operator.node];
        node.phase = phase.into();
        node.modality = modality.into();
    }
}
