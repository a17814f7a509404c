//! A segment's template as an SRG.

use std::collections::HashMap;

use genie_session::WireError;
use genie_session::plan::{RecordTemplate, Template};
use genie_session::record::Kind;
use genie_session::skeleton::{self, ResultItem, flag};
use genie_session::varint::put_i64;
use genie_srg::{Dtype, Edge, Layout, Node, Srg, ValidSrg, limits};

use super::arguments::{Arguments, Tensor};
use super::names::Names;
use super::{AnalysisError, Fingerprint};

/// Ids of storages that the segment made, in the graph: above all that a session gives out.
const LOCAL_ID: u64 = 1 << 48;
/// Storages of a segment: as many as there may be edges to use them.
const STORAGES_MAX: usize = limits::MAX_EDGES;

/// A storage of the segment.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// As the session numbers it, if it is from before the segment.
    pub external: Option<u64>,
    /// Its input node (an index), likewise.
    pub input: Option<usize>,
    /// In the graph.
    pub id: u64,
    /// Node (an index) and output that made its present version.
    pub made_by: Option<(usize, u32)>,
    /// Counts writes.
    pub version: u64,
    /// The operator (an index) that uses it last.
    pub last_use: Option<usize>,
    /// Freed within the segment.
    pub freed: bool,
    /// The client looks at it.
    pub fetched: bool,
}

/// What whoever records knows of an operator besides the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Autograd recorded it for a forward. `None`: nobody can tell.
    pub is_backward: Option<bool>,
    /// The segment, counted from 0.
    pub segment: u32,
}

/// One operator of the segment.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Index of its node in the graph.
    pub node: usize,
    /// Without namespace and overload: `add`, `relu_`.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// The storage of each tensor argument.
    pub inputs: Vec<usize>,
    /// Results with a storage of their own.
    pub results: Vec<Tensor>,
    /// Their storages.
    pub outputs: Vec<usize>,
    /// What else is known of it.
    pub known: Known,
}

impl Operator {
    /// Whether it writes argument `index`.
    #[must_use]
    pub fn writes(&self, index: usize) -> bool {
        self.arguments
            .tensors
            .get(index)
            .is_some_and(|tensor| tensor.flags & flag::WRITE != 0)
    }

    /// Of a convolution, the first of its strides.
    #[must_use]
    pub fn stride(&self) -> i64 {
        let first = self.arguments.integers.first();
        first
            .and_then(|stride| stride.first())
            .copied()
            .unwrap_or(1)
    }

    /// Whether it writes any argument.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        (0..self.arguments.tensors.len()).any(|index| self.writes(index))
    }
}

/// A segment as a graph, with what analysis asks for at hand.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Of the structure.
    pub fingerprint: Fingerprint,
    /// The graph, valid before annotations.
    pub srg: Srg,
    /// Its operators, in order.
    pub operators: Vec<Operator>,
    /// Its storages.
    pub storages: Vec<Storage>,
}

impl Graph {
    /// Reads a segment.
    ///
    /// # Errors
    /// Bytes that are not a template, or a template that makes no valid graph.
    pub fn read(segment: &[u8]) -> Result<Self, AnalysisError> {
        Self::of(&Template::decode(segment)?)
    }

    /// The graph of a template.
    ///
    /// # Errors
    /// As [`Graph::read`].
    pub fn of(template: &Template) -> Result<Self, AnalysisError> {
        let mut reader = Reader::default();
        // The first definition of a number counts, as on the node.
        for (op, name) in template.operators.iter().rev() {
            reader.operators.insert(*op, name);
        }
        for record in &template.records {
            reader.record(template, record)?;
        }
        reader.builder.finish()
    }
}

/// From a template to a graph.
#[derive(Default)]
struct Reader<'a> {
    builder: Builder,
    /// Names of operators, by number.
    operators: HashMap<u32, &'a str>,
    storages: Names,
}

impl Reader<'_> {
    fn record(
        &mut self,
        template: &Template,
        record: &RecordTemplate,
    ) -> Result<(), AnalysisError> {
        for &free in &record.frees {
            // Relative to the segment: what came before it is negative, and lives as it did.
            let local = usize::try_from(free)
                .ok()
                .and_then(|free| self.storages.local(free));
            if let Some(storage) = local {
                self.builder.free(storage);
            }
        }
        let numbers = template
            .numbers
            .get(record.numbers())
            .ok_or(WireError::Truncated)?;
        let shape = &record.shape;
        let (ids, rest) = numbers
            .split_at_checked(shape.externals)
            .ok_or(WireError::Truncated)?;
        let builder = &mut self.builder;
        builder.has_room(shape.externals, shape.refs.len(), shape.fresh)?;
        let inputs = self
            .storages
            .resolve(&shape.refs, ids, |id| builder.external(id))?;
        let (params, rest) = rest
            .split_at_checked(shape.counts.params)
            .ok_or(WireError::Truncated)?;
        let (data, tail_numbers) = rest
            .split_at_checked(shape.counts.data)
            .ok_or(WireError::Truncated)?;
        let skeleton = record
            .structure
            .get(shape.skeleton.clone())
            .ok_or(WireError::Truncated)?;
        let tail = record
            .structure
            .get(shape.tail..)
            .ok_or(WireError::Truncated)?;
        let made = self.builder.call(&Call {
            kind: record.kind,
            name: self.operators.get(&record.op).copied(),
            skeleton,
            inputs: &inputs,
            params,
            data,
            tail,
            tail_numbers,
            fresh: shape.fresh,
            is_backward: None,
        })?;
        made.into_iter()
            .for_each(|storage| self.storages.make(storage));
        Ok(())
    }
}

/// A record whose storages are known.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it does.
    pub kind: Kind,
    /// The operator's name, if it runs one.
    pub name: Option<&'a str>,
    /// Its arguments.
    pub skeleton: &'a [u8],
    /// Storages of tensor arguments, as the builder numbers them.
    pub inputs: &'a [usize],
    /// Integers that decide shapes.
    pub params: &'a [i64],
    /// Numbers that don't.
    pub data: &'a [i64],
    /// Its results.
    pub tail: &'a [u8],
    /// Their sizes.
    pub tail_numbers: &'a [i64],
    /// Storages that it makes.
    pub fresh: u64,
    /// Whether autograd recorded it.
    pub is_backward: Option<bool>,
}

/// Makes a graph, a record at a time.
pub struct Builder {
    graph: Graph,
    locals: u64,
    segment: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            graph: Graph {
                srg: Srg::new(),
                ..Graph::default()
            },
            locals: 0,
            segment: 0,
        }
    }
}

fn add_node(graph: &mut Graph, mut node: Node) -> usize {
    let index = graph.srg.nodes.len();
    node.id = index as u64;
    graph.srg.add_node(node);
    index
}

impl Builder {
    /// A storage from before.
    pub fn external(&mut self, id: u64) -> usize {
        let node = self.node(Node::input(0, ""));
        self.graph.storages.push(Storage {
            external: Some(id),
            id: id.min(LOCAL_ID - 1),
            input: Some(node),
            made_by: Some((node, 0)),
            ..Storage::default()
        });
        self.graph.storages.len() - 1
    }

    /// A storage dies.
    pub fn free(&mut self, storage: usize) {
        if let Some(storage) = self.graph.storages.get_mut(storage) {
            storage.freed = true;
        }
    }

    /// A segment has ended.
    pub fn cut(&mut self) {
        self.segment += 1;
    }

    /// The operator that comes next, by its index.
    #[must_use]
    pub fn next(&self) -> usize {
        self.graph.operators.len()
    }

    /// Adds a record; gives the storages that it makes.
    ///
    /// # Errors
    /// What is no record. A graph has room for all of it ([`Builder::has_room`] says so first).
    pub fn call(&mut self, call: &Call<'_>) -> Result<Vec<usize>, AnalysisError> {
        let arguments = Arguments::read(call.skeleton, call.params)?;
        match call.kind {
            Kind::Op | Kind::CallSync => {
                let name = call.name;
                let name = name.ok_or(WireError::Malformed("an operator without a name"))?;
                // What a synchronous operator makes only the node can tell.
                let results = match call.kind {
                    Kind::Op => results(call.tail, call.tail_numbers)?,
                    _ => Vec::new(),
                };
                // What decides the structure besides the arguments: kind and results.
                let whole = [&[call.kind as u8], call.skeleton, call.tail].concat();
                let mut parameters = Vec::new();
                let numbers = call.data.iter().chain(call.tail_numbers);
                numbers
                    .chain(call.params)
                    .for_each(|&number| put_i64(&mut parameters, number));
                let node = Node::operator(0, name).with_call(whole, parameters);
                return Ok(self.operator(node, bare(name), arguments, results, call));
            }
            Kind::Upload => {
                let node = self.node(Node::input(0, "upload"));
                for &storage in call.inputs {
                    self.written(storage, node, 0);
                }
                // Without a storage it makes one.
                return Ok((0..call.fresh)
                    .map(|_| {
                        let storage = self.local();
                        self.written(storage, node, 0);
                        storage
                    })
                    .collect());
            }
            Kind::Alloc => {
                let storage = self.local();
                let node = self.node(Node::operator(0, "genie::alloc"));
                self.written(storage, node, 0);
                return Ok(vec![storage]);
            }
            Kind::Fetch => {
                for &storage in call.inputs {
                    self.graph.storages[storage].fetched = true;
                }
                let node = Node::operator(0, "genie::fetch").with_call(call.skeleton, Vec::new());
                return Ok(self.operator(node, "fetch", arguments, Vec::new(), call));
            }
            Kind::Send => {
                let node = Node::operator(0, "genie::send").with_call(call.skeleton, Vec::new());
                return Ok(self.operator(node, "send", arguments, Vec::new(), call));
            }
            Kind::Recv => {
                let storage = self.local();
                let node = self.node(Node::input(0, "recv"));
                self.written(storage, node, 0);
                return Ok(vec![storage]);
            }
            // A storage that grows keeps what it holds.
            Kind::Resize | Kind::Barrier | Kind::Cut | Kind::Frees => {}
        }
        Ok(Vec::new())
    }

    /// Refuses what would be refused when the graph is whole, before it takes memory: so many storages from
    /// before, tensor arguments and new storages more.
    ///
    /// # Errors
    /// There is no room.
    pub fn has_room(
        &self,
        externals: usize,
        tensors: usize,
        fresh: u64,
    ) -> Result<(), AnalysisError> {
        let graph = &self.graph;
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        for (what, count, limit) in [
            (
                "nodes",
                graph.srg.nodes.len().saturating_add(externals),
                limits::MAX_NODES,
            ),
            (
                "edges",
                graph.srg.edges.len().saturating_add(tensors),
                limits::MAX_EDGES,
            ),
            (
                "storages",
                graph.storages.len().saturating_add(fresh),
                STORAGES_MAX,
            ),
        ] {
            if count > limit {
                return Err(AnalysisError::TooLarge { what, count, limit });
            }
        }
        Ok(())
    }

    /// The graph.
    ///
    /// # Errors
    /// It is not valid.
    pub fn finish(self) -> Result<Graph, AnalysisError> {
        let mut graph = self.graph;
        let valid = ValidSrg::try_from(graph.srg)?;
        graph.fingerprint = super::fingerprint_of(&valid);
        graph.srg = valid.into_srg();
        Ok(graph)
    }

    fn node(&mut self, node: Node) -> usize {
        add_node(&mut self.graph, node)
    }

    /// A storage that the segment makes.
    fn local(&mut self) -> usize {
        self.graph.storages.push(Storage {
            id: LOCAL_ID + self.locals,
            ..Storage::default()
        });
        self.locals += 1;
        self.graph.storages.len() - 1
    }

    fn written(&mut self, storage: usize, node: usize, output: u32) {
        let storage = &mut self.graph.storages[storage];
        storage.version += 1;
        storage.made_by = Some((node, output));
    }

    fn operator(
        &mut self,
        node: Node,
        name: &str,
        arguments: Arguments,
        results: Vec<Tensor>,
        call: &Call<'_>,
    ) -> Vec<usize> {
        let node = self.node(node);
        let index = self.graph.operators.len();
        for (input, (tensor, &storage)) in arguments.tensors.iter().zip(call.inputs).enumerate() {
            self.edge(node, input as u32, tensor, storage);
            self.graph.storages[storage].last_use = Some(index);
        }
        let outputs: Vec<usize> = (0..call.fresh).map(|_| self.local()).collect();
        let made = outputs.iter().copied();
        let overwritten = arguments.tensors.iter().zip(call.inputs);
        let overwritten = overwritten.filter(|(tensor, _)| tensor.flags & flag::WRITE != 0);
        let all: Vec<usize> = made
            .chain(overwritten.map(|(_, &storage)| storage))
            .collect();
        for (output, storage) in all.into_iter().enumerate() {
            self.written(storage, node, output as u32);
        }
        self.graph.operators.push(Operator {
            node,
            name: name.to_owned(),
            arguments,
            inputs: call.inputs.to_vec(),
            results,
            outputs: outputs.clone(),
            known: Known {
                is_backward: call.is_backward,
                segment: self.segment,
            },
        });
        outputs
    }

    fn edge(&mut self, consumer: usize, input: u32, tensor: &Tensor, storage: usize) {
        let storage = &self.graph.storages[storage];
        // Types without a size in bytes can't be described; such a tensor is wired nowhere.
        let (Some(dtype), Some((producer, output))) =
            (Dtype::from_scalar_type(tensor.dtype), storage.made_by)
        else {
            return;
        };
        let to = (consumer as u64, input);
        let edge = Edge::tensor((producer as u64, output), to, dtype, &tensor.dims)
            .with_layout(Layout::strided(tensor.strides.clone(), tensor.offset))
            .with_storage(storage.id, storage.version);
        self.graph.srg.add_edge(edge);
    }
}

/// Fresh results of a result skeleton.
fn results(skeleton: &[u8], numbers: &[i64]) -> Result<Vec<Tensor>, WireError> {
    let mut numbers = numbers;
    let mut results = Vec::new();
    for item in skeleton::results(skeleton) {
        let item = item?;
        let (taken, rest) = numbers
            .split_at_checked(item.counts().params)
            .ok_or(WireError::Truncated)?;
        numbers = rest;
        match item {
            ResultItem::Fresh { dtype, ndim } => {
                let (dims, strides) = taken.split_at(usize::from(ndim));
                results.push(Tensor {
                    dtype,
                    dims: dims.to_vec(),
                    strides: strides.to_vec(),
                    ..Tensor::default()
                });
            }
            ResultItem::None | ResultItem::Alias { .. } | ResultItem::List { .. } => {}
        }
    }
    Ok(results)
}

/// `aten::add.Tensor` is `add`.
fn bare(name: &str) -> &str {
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    name.split_once('.').map_or(name, |(name, _)| name)
}
