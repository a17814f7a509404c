//! What the operators are for, and what kind of work a segment is.

use genie_srg::{Modality, Phase, WorkloadClass};

use super::cost::is_attention;
use super::graph::Graph;
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
/// In-place operators that only optimisers use on a model's own weights.
const OPTIMIZER: [&str; 4] = ["addcdiv_", "addcmul_", "lerp_", "_fused_adamw_"];
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

/// Whether an operator computes gradients.
#[must_use]
pub fn is_backward(name: &str) -> bool {
    name.contains("_backward")
}

fn is_optimizer(name: &str) -> bool {
    name.starts_with("_foreach_") || name.starts_with("_fused_") || OPTIMIZER.contains(&name)
}

/// What was seen in a segment.
#[derive(Debug, Default)]
struct Seen {
    attentions: usize,
    /// Query tokens of the longest attention.
    queries: i64,
    convolutions: usize,
    lookups: usize,
    /// Most rows of a table that is looked up.
    rows: i64,
    /// Most columns that a product made.
    columns: i64,
    /// By how much a product widened at most.
    widens: i64,
    softmaxes: usize,
    products: usize,
    norms: usize,
    backward: usize,
    optimizer: usize,
    filling: usize,
    operators: usize,
    grows_cache: bool,
}

impl Seen {
    fn of(graph: &Graph) -> Self {
        let mut seen = Self {
            grows_cache: grows_cache(graph),
            ..Self::default()
        };
        for operator in &graph.operators {
            let (name, tensors) = (operator.name.as_str(), &operator.arguments.tensors);
            let result = operator.results.first();
            match name {
                "fetch" => continue,
                _ if is_backward(name) => seen.backward += 1,
                _ if is_optimizer(name) => seen.optimizer += 1,
                _ if is_attention(name) => {
                    seen.attentions += 1;
                    let queries = tensors.first().map_or(1, |query| query.dim_from_end(1));
                    seen.queries = seen.queries.max(queries);
                }
                "convolution" | "conv1d" | "conv2d" | "conv3d" => seen.convolutions += 1,
                "embedding" | "_embedding_bag" | "embedding_bag" => {
                    seen.lookups += 1;
                    let rows = tensors.first().and_then(|table| table.dims.first());
                    seen.rows = seen.rows.max(rows.copied().unwrap_or(0));
                }
                "_softmax" | "softmax" => seen.softmaxes += 1,
                "mm" | "addmm" | "bmm" | "baddbmm" | "linear" | "matmul" => {
                    seen.products += 1;
                    let columns = result.map_or(0, |result| result.dim_from_end(0));
                    seen.columns = seen.columns.max(columns);
                    // A bias comes first in `addmm`, and is as wide as the result.
                    let inner = tensors.iter().map(|tensor| tensor.dim_from_end(0)).min();
                    seen.widens = seen.widens.max(columns / inner.unwrap_or(1).max(1));
                }
                _ if name.contains("_norm") => seen.norms += 1,
                _ if FILLING.contains(&name) => seen.filling += 1,
                _ => {}
            }
            seen.operators += 1;
        }
        seen
    }

    /// Attention, in one operator or written out.
    fn attends(&self) -> bool {
        self.attentions > 0 || (self.softmaxes > 0 && self.products > 2 * self.softmaxes)
    }

    /// A product with as many columns as a table has rows, or a very wide one: logits over a
    /// vocabulary.
    fn predicts_tokens(&self) -> bool {
        (self.rows > 0 && self.columns == self.rows) || self.widens >= WIDENS_MIN
    }

    fn workload(&self) -> Workload {
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
        } else if self.attends() && self.grows_cache {
            let one_token = self.attentions == 0 || self.queries == 1;
            if one_token {
                (Class::LlmDecode, 0.95)
            } else {
                (Class::LlmPrefill, 0.8)
            }
        } else if self.attends() && self.predicts_tokens() {
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
}

/// Marks nodes with phase and modality; says what kind of work it all is.
pub fn annotate(graph: &mut Graph) -> Workload {
    let seen = Seen::of(graph);
    let workload = seen.workload();
    let body = match workload.class {
        WorkloadClass::LlmDecode => Phase::Decode,
        WorkloadClass::LlmPrefill => Phase::Prefill,
        _ if seen.operators > 0 && seen.filling == seen.operators => Phase::Initialization,
        WorkloadClass::Unknown => Phase::Unknown,
        _ => Phase::Forward,
    };
    let modality = match workload.class {
        WorkloadClass::LlmDecode | WorkloadClass::LlmPrefill => Modality::Text,
        WorkloadClass::Vision => Modality::Vision,
        WorkloadClass::Recommendation => Modality::Tabular,
        WorkloadClass::Embedding if seen.lookups > 0 => Modality::Text,
        _ => Modality::Unknown,
    };
    // A training step runs forward, backward and optimiser in this order.
    let mut stage = body;
    for operator in &graph.operators {
        let name = operator.name.as_str();
        if workload.class == WorkloadClass::Training {
            if is_backward(name) && stage != Phase::Optimizer {
                stage = Phase::Backward;
            } else if is_optimizer(name) {
                stage = Phase::Optimizer;
            }
        }
        let phase = match name {
            "embedding" | "_embedding_bag" | "embedding_bag" if stage != Phase::Backward => {
                Phase::Embedding
            }
            _ if SAMPLING.contains(&name) && matches!(stage, Phase::Decode | Phase::Prefill) => {
                Phase::Sampling
            }
            _ => stage,
        };
        let node = &mut graph.srg.nodes[operator.node];
        node.phase = phase.into();
        node.modality = modality.into();
    }
    workload
}
