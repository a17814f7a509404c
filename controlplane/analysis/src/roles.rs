//! What each operator is for, by what it is wired to.

use super::attention::Attention;
use super::graph::Graph;
use super::lineage::{Found, Lineage};
use super::operators::{Class, factors, is_activation, is_bag};
use super::wiring::{NOBODY, Wiring, behind, is_external};

/// Steps from a product to what it is joined with, at most.
const STEPS_MAX: usize = 12;
/// Operators between two products of a feed-forward block, at most.
const REGION_MAX: usize = 24;

/// What an operator is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "as_str says it")]
pub enum Role {
    #[default]
    None,
    Query,
    Key,
    Value,
    Scores,
    Weights,
    Context,
    AttentionOutput,
    Mask,
    CacheUpdate,
    Up,
    Gate,
    Down,
    Activation,
    Router,
    TokenEmbedding,
    PositionEmbedding,
    Table,
    PooledRows,
    Logits,
    Sampling,
    Norm,
    Residual,
    Patchify,
    Convolution,
    Downsample,
    Upsample,
    Pool,
    Cell,
    Loss,
    Gradient,
    OptimizerStep,
    Initialization,
}

impl Role {
    /// As a graph has it; empty for none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Query => "attention.query",
            Self::Key => "attention.key",
            Self::Value => "attention.value",
            Self::Scores => "attention.scores",
            Self::Weights => "attention.softmax",
            Self::Context => "attention.context",
            Self::AttentionOutput => "attention.output",
            Self::Mask => "attention.mask",
            Self::CacheUpdate => "attention.cache_update",
            Self::Up => "feed_forward.up",
            Self::Gate => "feed_forward.gate",
            Self::Down => "feed_forward.down",
            Self::Activation => "feed_forward.activation",
            Self::Router => "experts.router",
            Self::TokenEmbedding => "embedding.token",
            Self::PositionEmbedding => "embedding.position",
            Self::Table => "embedding.table",
            Self::PooledRows => "embedding.pooled_rows",
            Self::Logits => "logits",
            Self::Sampling => "sampling",
            Self::Norm => "norm",
            Self::Residual => "residual",
            Self::Patchify => "patchify",
            Self::Convolution => "convolution",
            Self::Downsample => "downsample",
            Self::Upsample => "upsample",
            Self::Pool => "pool",
            Self::Cell => "recurrent.cell",
            Self::Loss => "loss",
            Self::Gradient => "gradient",
            Self::OptimizerStep => "optimizer.step",
            Self::Initialization => "initialization",
        }
    }
}

/// All roles of a graph that its wiring tells.
#[must_use]
pub fn of(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    attentions: &[Attention],
    lineage: &Lineage,
) -> Vec<Role> {
    let mut roles: Vec<Role> = (0..classes.len())
        .map(|at| alone(graph, classes, lineage, at))
        .collect();
    for attention in attentions {
        attend(graph, wiring, classes, attention, &mut roles);
    }
    routers(wiring, classes, &mut roles);
    for at in 0..classes.len() {
        if classes[at] == Class::Product && roles[at] == Role::None {
            feed_forward(graph, wiring, classes, at, &mut roles);
        }
    }
    for (at, role) in roles.iter_mut().enumerate() {
        if *role == Role::None && is_residual(graph, wiring, classes, at) {
            *role = Role::Residual;
        }
    }
    norms(graph, wiring, classes, &mut roles);
    roles
}

/// What an operator is for wherever it stands.
fn alone(graph: &Graph, classes: &[Class], lineage: &Lineage, at: usize) -> Role {
    let operator = &graph.operators[at];
    match classes[at] {
        Class::Lookup => match lineage.found(at as u32) {
            Some(Found::Token) => Role::TokenEmbedding,
            Some(Found::Position) => Role::PositionEmbedding,
            _ if is_bag(&operator.name) => Role::PooledRows,
            _ => Role::Table,
        },
        Class::Attention => Role::Context,
        Class::Norm => Role::Norm,
        Class::Pool => Role::Pool,
        Class::Resample => Role::Upsample,
        Class::Recurrent => Role::Cell,
        Class::Loss => Role::Loss,
        Class::Backward => Role::Gradient,
        Class::Optimizer => Role::OptimizerStep,
        Class::Convolution => convolution(graph, lineage, at),
        _ => Role::None,
    }
}

/// A convolution whose window is its stride cuts patches; one with a stride makes less of more.
fn convolution(graph: &Graph, lineage: &Lineage, at: usize) -> Role {
    let operator = &graph.operators[at];
    let stride = operator.stride();
    let window = operator
        .arguments
        .tensors
        .get(1)
        .map_or(1, |weight| weight.dim_from_end(0));
    let is_transposed = operator.name.starts_with("conv_transpose")
        || operator.arguments.booleans.first().is_some_and(|&is| is);
    let is_root = lineage.is_root(at as u32);
    match () {
        () if is_transposed => Role::Upsample,
        () if is_root && stride > 1 && stride == window => Role::Patchify,
        () if stride > 1 => Role::Downsample,
        () => Role::Convolution,
    }
}

fn attend(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    attention: &Attention,
    roles: &mut [Role],
) {
    let mut give = |operator: Option<u32>, role| {
        if let Some(operator) = operator {
            roles[operator as usize] = role;
        }
    };
    give(
        attention
            .mask
            .filter(|&mask| classes[mask as usize] != Class::Product),
        Role::Mask,
    );
    // One product may make all three: then it is the query's.
    give(attention.value, Role::Value);
    give(attention.key, Role::Key);
    give(attention.query, Role::Query);
    give(attention.scores, Role::Scores);
    if attention.scores.is_some() {
        give(Some(attention.center), Role::Weights);
    }
    give(Some(attention.context), Role::Context);
    for &cache in &attention.caches {
        give(Some(cache), Role::CacheUpdate);
    }
    let output = product_ahead(wiring, classes, attention.context as usize);
    if let Some(output) = output.filter(|&at| takes_weight(graph, wiring, at)) {
        roles[output] = Role::AttentionOutput;
    }
}

/// Whether a product's second factor is from before.
fn takes_weight(graph: &Graph, wiring: &Wiring, at: usize) -> bool {
    let (_, weight) = factors(&graph.operators[at].name);
    is_external(graph, wiring, at, weight)
}

/// The first product that takes what `at` makes, past what only changes how that looks.
fn product_ahead(wiring: &Wiring, classes: &[Class], at: usize) -> Option<usize> {
    let mut at = at;
    for _ in 0..STEPS_MAX {
        let mut next = None;
        for &(taker, _) in wiring.takers(at).iter().take(4) {
            match classes[taker as usize] {
                Class::Product => return Some(taker as usize),
                Class::Movement | Class::Pointwise | Class::Norm => {
                    next = next.or(Some(taker as usize));
                }
                _ => {}
            }
        }
        at = next?;
    }
    None
}

/// What feeds a softmax or a sigmoid whose largest values are picked says which experts work; what is
/// gathered by them goes through these.
fn routers(wiring: &Wiring, classes: &[Class], roles: &mut [Role]) {
    for at in 0..classes.len() {
        if classes[at] != Class::Sampling {
            continue;
        }
        // Back to the product.
        let mut here = at;
        let mut passed = false;
        for _ in 0..STEPS_MAX {
            let source = wiring.source(here, 0);
            if source == NOBODY {
                break;
            }
            here = source as usize;
            match classes[here] {
                Class::Softmax => passed = true,
                Class::Product => {
                    let weighs = wiring.takers(at).iter().any(|&(taker, _)| {
                        !matches!(classes[taker as usize], Class::Look | Class::Lookup)
                    });
                    if weighs
                        && (passed || wiring.takers(at).len() > 1)
                        && roles[here] == Role::None
                        && leads_to_product(wiring, classes, at)
                    {
                        roles[here] = Role::Router;
                    }
                    break;
                }
                Class::Pointwise | Class::Movement | Class::Reduction => {}
                _ => break,
            }
        }
    }
}

/// Whether another product hangs on what `at` makes, within a few steps and before the next lookup.
fn leads_to_product(wiring: &Wiring, classes: &[Class], at: usize) -> bool {
    let mut edge = vec![at];
    let mut seen = 0;
    while let Some(here) = edge.pop() {
        for &(taker, _) in wiring.takers(here).iter().take(6) {
            seen += 1;
            match classes[taker as usize] {
                Class::Product => return true,
                Class::Lookup => {}
                _ if seen < 64 => edge.push(taker as usize),
                _ => return false,
            }
        }
    }
    false
}

/// A product, something for each element, and another product: a feed-forward block.
fn feed_forward(graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize, roles: &mut [Role]) {
    // What is computed of the product alone, element by element; and by another that it is joined with.
    let mut region = vec![at];
    let (mut activation, mut joined, mut next) = (None, None, 0);
    while let Some(&here) = region.get(next) {
        next += 1;
        for &(taker, input) in wiring.takers(here) {
            let taker = taker as usize;
            let operator = &graph.operators[taker];
            match classes[taker] {
                Class::Product => {
                    let (data, _) = factors(&operator.name);
                    if usize::from(input) != data || !takes_weight(graph, wiring, taker) {
                        continue;
                    }
                    let (Some(activation), Role::None) = (activation, roles[taker]) else {
                        return;
                    };
                    roles[taker] = Role::Down;
                    roles[activation] = Role::Activation;
                    let other: Option<usize> = joined;
                    let other = other.filter(|&other| roles[other] == Role::None && other != at);
                    roles[at] = if other.is_some() {
                        Role::Gate
                    } else {
                        Role::Up
                    };
                    if let Some(other) = other {
                        roles[other] = Role::Up;
                    }
                    return;
                }
                Class::Pointwise | Class::Movement if !region.contains(&taker) => {
                    let mut joins = None;
                    let inputs = wiring.sources(taker).iter().enumerate();
                    let is_of_it = inputs.into_iter().all(|(at, &source)| {
                        source == NOBODY || region.contains(&(source as usize)) || {
                            joins = product_behind(graph, wiring, classes, taker, at);
                            operator.name.starts_with("mul") && joins.is_some()
                        }
                    });
                    if !is_of_it || region.len() > REGION_MAX {
                        continue;
                    }
                    joined = joined.or(joins);
                    if is_activation(&operator.name) {
                        activation = activation.or(Some(taker));
                    }
                    region.push(taker);
                }
                _ => {}
            }
        }
    }
}

/// The product that made an input, past what changes each element.
fn product_behind(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    at: usize,
    input: usize,
) -> Option<usize> {
    for source in behind(graph, wiring, at, input).take(STEPS_MAX) {
        match classes[source] {
            Class::Product => return Some(source),
            Class::Pointwise | Class::Movement => {}
            _ => return None,
        }
    }
    None
}

/// A sum of what a layer made and what it was made from, or of two layers' results.
fn is_residual(graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> bool {
    let operator = &graph.operators[at];
    if classes[at] != Class::Pointwise || !operator.name.starts_with("add") {
        return false;
    }
    let ([left, right, ..], [a, b, ..]) =
        (operator.arguments.tensors.as_slice(), wiring.sources(at))
    else {
        return false;
    };
    if left.dims != right.dims || left.dims.len() < 2 || *a == NOBODY || *b == NOBODY {
        return false;
    }
    let layer = |input| layer_behind(graph, wiring, classes, at, input);
    let (one, other) = (layer(0), layer(1));
    // Halves of a turned vector are of one product.
    one != other && (one.is_some() || other.is_some())
}

/// The product, convolution or the like that an input is of, past norms and what changes each element.
fn layer_behind(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    at: usize,
    input: usize,
) -> Option<usize> {
    for source in behind(graph, wiring, at, input).take(STEPS_MAX) {
        match classes[source] {
            Class::Product | Class::Convolution | Class::Attention | Class::Recurrent => {
                return Some(source);
            }
            Class::Pointwise | Class::Movement | Class::Norm | Class::Pool | Class::Other => {}
            _ => return None,
        }
    }
    None
}

/// A norm that is written out: squares, their mean, its root, and what is scaled by it.
fn norms(graph: &Graph, wiring: &Wiring, classes: &[Class], roles: &mut [Role]) {
    for at in 0..classes.len() {
        if graph.operators[at].name != "rsqrt" {
            continue;
        }
        let mut here = at;
        for _ in 0..5 {
            if roles[here] == Role::None || roles[here] == Role::Activation {
                roles[here] = Role::Norm;
            }
            if matches!(
                graph.operators[here].name.as_str(),
                "pow" | "var" | "square"
            ) {
                break;
            }
            let source = wiring.source(here, 0);
            if source == NOBODY
                || !matches!(
                    classes[source as usize],
                    Class::Pointwise | Class::Reduction
                )
            {
                break;
            }
            here = source as usize;
        }
        let mut here = at;
        for _ in 0..3 {
            let next = wiring.takers(here).iter().find(|(taker, _)| {
                classes[*taker as usize] == Class::Pointwise
                    || graph.operators[*taker as usize].name == "_to_copy"
            });
            let Some(&(taker, _)) = next else { break };
            here = taker as usize;
            if roles[here] == Role::None {
                roles[here] = Role::Norm;
            }
        }
    }
}
