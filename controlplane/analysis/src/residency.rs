//! What lives where and for how long: weights, caches, results.

use std::collections::{HashMap, HashSet};

use genie_srg::{Phase, Residency};

use super::graph::{Graph, Operator};
use super::operators::{Class, is_backward};
use super::reading::{Facts, Reading};
use super::roles::Role;

/// Storages of a session whose use is remembered.
pub const STORAGES_MAX: usize = 1 << 16;
/// Segments that must have read a storage, and none written it, before it counts as a weight.
const READS_MIN: u32 = 2;

/// How a session's storages were used, over its segments.
#[derive(Clone, Debug, Default)]
pub struct History {
    uses: HashMap<u64, Use>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    reads: u32,
    written: bool,
}

impl History {
    /// Takes a segment into account; gives which of its storages several segments read and none
    /// ever wrote.
    pub fn observe(&mut self, graph: &Graph) -> HashSet<u64> {
        let mut constants = HashSet::new();
        for storage in &graph.storages {
            let Some(id) = storage.external else { continue };
            if self.uses.len() >= STORAGES_MAX && !self.uses.contains_key(&id) {
                self.make_room();
                if self.uses.len() >= STORAGES_MAX {
                    continue;
                }
            }
            let known = self.uses.entry(id).or_default();
            known.reads = known.reads.saturating_add(1);
            known.written |= storage.version > 0;
            if known.reads >= READS_MIN && !known.written {
                constants.insert(id);
            }
        }
        constants
    }

    /// Forgets what is no weight so far.
    fn make_room(&mut self) {
        self.uses
            .retain(|_, known| known.reads >= READS_MIN && !known.written);
    }

    /// Storages whose use is remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.uses.len()
    }

    /// True when nothing was observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }
}

/// As uses and positions tell.
fn by_use(graph: &mut Graph, constants: &HashSet<u64>) {
    let training = graph
        .operators
        .iter()
        .any(|operator| is_backward(&operator.name));
    let mut of_node: HashMap<usize, Residency> = HashMap::new();
    for storage in &graph.storages {
        let Some(id) = storage.external else { continue };
        let Some(node) = storage.input else { continue };
        let residency = if constants.contains(&id) {
            Residency::Weight
        } else {
            Residency::Input
        };
        of_node.insert(node, residency);
    }
    for operator in &graph.operators {
        for (index, &storage) in operator.inputs.iter().enumerate() {
            let storage = &graph.storages[storage];
            if let Some(node) = storage.input
                && storage.version == 0
                && is_weight_argument(operator, index)
            {
                of_node.insert(node, Residency::Weight);
            }
        }
        let residency = of_results(graph, operator, training);
        of_node.insert(operator.node, residency);
    }
    for (node, residency) in of_node {
        graph.srg.nodes[node].residency = residency.into();
    }
}

/// Marks nodes with what becomes of what they make, and inputs with what they are. `constants` are storages
/// that nobody ever wrote.
pub fn annotate(graph: &mut Graph, facts: &Facts, reading: &Reading, constants: &HashSet<u64>) {
    by_use(graph, constants);
    let mut of_node: Vec<(usize, Residency)> = Vec::new();
    for (at, operator) in graph.operators.iter().enumerate() {
        let input = |index: usize| -> Option<usize> {
            let &storage = operator.inputs.get(index)?;
            graph.storages[storage].input
        };
        match reading.roles[at] {
            Role::CacheUpdate => {
                of_node.push((operator.node, Residency::KvCache));
                of_node.extend(input(0).map(|node| (node, Residency::KvCache)));
            }
            Role::TokenEmbedding | Role::Table | Role::PooledRows => {
                of_node.extend(input(0).map(|node| (node, Residency::EmbeddingTable)));
            }
            Role::Cell if reading.phases[at] == Phase::Decode => {
                of_node.push((operator.node, Residency::RecurrentState));
            }
            _ => {}
        }
        // Running statistics are read or written besides scale and shift.
        if operator.name.contains("batch_norm") && facts.classes[at] == Class::Norm {
            let buffers = [3, 4].into_iter().filter_map(input);
            of_node.extend(buffers.map(|node| (node, Residency::Buffer)));
        }
    }
    for (node, residency) in of_node {
        graph.srg.nodes[node].residency = residency.into();
    }
}

fn of_results(graph: &Graph, operator: &Operator, training: bool) -> Residency {
    let phase = graph.srg.nodes[operator.node].phase();
    let made = operator
        .outputs
        .iter()
        .map(|&storage| &graph.storages[storage]);
    let (mut kept, mut fetched, mut any) = (false, false, false);
    for storage in made {
        any = true;
        kept |= !storage.freed;
        fetched |= storage.fetched;
    }
    match phase {
        Phase::Optimizer => Residency::OptimizerState,
        Phase::Backward if kept => Residency::Gradient,
        _ if fetched => Residency::Output,
        _ if any && !kept => {
            if training && phase == Phase::Forward {
                Residency::Activation
            } else {
                Residency::Ephemeral
            }
        }
        _ => Residency::Unknown,
    }
}

/// Where the operators that have weights expect them.
fn is_weight_argument(operator: &Operator, index: usize) -> bool {
    match operator.name.as_str() {
        "mm" | "linear" | "convolution" | "conv1d" | "conv2d" | "conv3d" | "bmm" => index == 1,
        "addmm" | "baddbmm" => index == 0 || index == 2,
        "embedding" | "embedding_bag" | "_embedding_bag" => index == 0,
        name if name.contains("_norm") => index > 0,
        _ => false,
    }
}

/// The storage from before the segment that this operator makes a longer copy of: how a KV cache
/// grows. (`cat` of what was there and what is new along the tokens.)
fn grown_cache(graph: &Graph, operator: &Operator) -> Option<usize> {
    let [before, new] = operator.arguments.tensors.as_slice() else {
        return None;
    };
    if operator.name != "cat" || operator.results.len() != 1 {
        return None;
    }
    let (before, new) = (&before.dims, &new.dims);
    let differing = before.iter().zip(new).filter(|(a, b)| a != b).count();
    let is_cache = before.len() >= 3 && before.len() == new.len() && differing <= 1;
    operator
        .inputs
        .first()
        .copied()
        .filter(|&storage| is_cache && graph.storages[storage].external.is_some())
}

/// Operators that write some rows of their first argument, which lie where another argument says.
const ROW_WRITES: [&str; 6] = [
    "index_copy_",
    "index_put_",
    "_index_put_impl_",
    "index_add_",
    "scatter_",
    "scatter_add_",
];

/// Storages from before the segment, by their ids, that a cycle hands to the next: caches, a little longer
/// or with some rows written; in training, parameters, which the segment uses as weights and writes.
/// `bytes` tells the size of each.
#[must_use]
pub fn states(graph: &Graph, bytes: impl Fn(u64) -> u64) -> HashSet<u64> {
    let mut states = parameters(graph);
    if graph.operators.iter().any(|op| is_backward(&op.name)) {
        return states;
    }
    let external = |storage: usize| graph.storages[storage].external;
    let read = read(graph);
    for operator in &graph.operators {
        states.extend(grown_cache(graph, operator).and_then(external));
        for (index, (tensor, &storage)) in
            (operator.arguments.tensors.iter().zip(&operator.inputs)).enumerate()
        {
            let Some(id) = external(storage).filter(|_| operator.writes(index)) else {
                continue;
            };
            let of_rows = index == 0 && ROW_WRITES.contains(&operator.name.as_str());
            let of_part = operator.name == "copy_" && tensor.bytes() < bytes(id);
            if tensor.dims.len() >= 3 && (of_rows || of_part) && read.contains(&storage) {
                states.insert(id);
            }
        }
    }
    states
}

/// Weights that the segment writes.
fn parameters(graph: &Graph) -> HashSet<u64> {
    let (mut weights, mut written) = (HashSet::new(), HashSet::new());
    for operator in &graph.operators {
        for (index, &storage) in operator.inputs.iter().enumerate() {
            let Some(id) = graph.storages[storage].external else {
                continue;
            };
            if operator.writes(index) {
                written.insert(id);
            } else if is_weight_argument(operator, index) {
                weights.insert(id);
            }
        }
    }
    weights.intersection(&written).copied().collect()
}

/// Storages that an operator of the segment reads.
fn read(graph: &Graph) -> HashSet<usize> {
    let of = |operator: &Operator| {
        let inputs = operator.inputs.iter().enumerate();
        let read = inputs.filter(|&(index, _)| !operator.writes(index));
        read.map(|(_, &storage)| storage).collect::<Vec<_>>()
    };
    graph.operators.iter().flat_map(of).collect()
}
