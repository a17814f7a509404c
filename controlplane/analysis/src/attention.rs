//! Where queries attend to keys: in one operator, or written out as product, softmax, product.

use super::graph::Graph;
use super::operators::{Class, factors};
use super::wiring::{NOBODY, Wiring, behind, carries, is_external};

/// Operators between a product and what takes its result, at most: heads are split, turned and scaled there.
const STEPS_MAX: usize = 48;
/// Of takers so many are asked what they do with what they take.
const TAKERS_MAX: usize = 8;

/// What keys and values are kept in between requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: they are of this pass alone.
    #[default]
    Nowhere,
    /// A cache that begins here.
    Begun,
    /// A cache that was there before.
    Before,
}

/// One attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The operator that does all, or the softmax.
    pub center: u32,
    /// The product of queries and keys, where it is written out.
    pub scores: Option<u32>,
    /// The operator that weighs values: `center` where one does all.
    pub context: u32,
    /// The products that made query, key and value.
    pub query: Option<u32>,
    /// Likewise.
    pub key: Option<u32>,
    /// Likewise.
    pub value: Option<u32>,
    /// What applies the mask takes it from there.
    pub mask: Option<u32>,
    /// It is told to look at earlier places only.
    pub is_causal: bool,
    /// Where its keys live.
    pub kept: Kept,
    /// Operators that make its caches longer, or write into them.
    pub caches: Vec<u32>,
    /// Which inputs of which operators are query and key.
    query_at: (u32, usize),
    key_at: (u32, usize),
}

impl Attention {
    /// How many places ask, and how many are asked.
    #[must_use]
    pub fn lengths(&self, graph: &Graph) -> (i64, i64) {
        let of = |(operator, input): (u32, usize)| {
            graph.operators[operator as usize]
                .arguments
                .tensors
                .get(input)
        };
        let query = of(self.query_at).map_or(1, |query| query.dim_from_end(1));
        let keys = of(self.key_at).map_or(1, |key| match self.scores {
            // There the keys are turned.
            Some(_) => key.dim_from_end(0),
            None => key.dim_from_end(1),
        });
        (query, keys)
    }
}

/// All of a graph.
#[must_use]
pub fn find(graph: &Graph, wiring: &Wiring, classes: &[Class]) -> Vec<Attention> {
    let mut found = Vec::new();
    for (at, class) in classes.iter().enumerate() {
        match class {
            Class::Attention => found.extend(in_one(graph, wiring, classes, at)),
            Class::Softmax => found.extend(written_out(graph, wiring, classes, at)),
            _ => {}
        }
    }
    found
}

fn in_one(graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> Option<Attention> {
    let operator = &graph.operators[at];
    if operator.inputs.len() < 3 {
        return None;
    }
    let back = |input| traced(graph, wiring, classes, at, input);
    let (query, key, value) = (back(0), back(1), back(2));
    let mask = wiring.source(at, 3);
    let kept = key.kept_for(query.product);
    Some(Attention {
        center: at as u32,
        scores: None,
        context: at as u32,
        query: query.product,
        key: key.product,
        value: value.product,
        mask: (mask != NOBODY).then_some(mask),
        // One of them is told besides, before it, whether sums are wanted.
        is_causal: (operator.arguments.booleans)
            .get(usize::from(operator.name.contains("efficient")))
            .is_some_and(|&is| is),
        kept,
        caches: [key.caches, value.caches].concat(),
        query_at: (at as u32, 0),
        key_at: (at as u32, 1),
    })
}

/// Softmax of a product of two activations, that weighs a third.
fn written_out(graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> Option<Attention> {
    let (scores, mask) = scores_of(graph, wiring, classes, at)?;
    let (q, k) = factors(&graph.operators[scores].name);
    if is_external(graph, wiring, scores, k) {
        return None;
    }
    let context = weighs(wiring, classes, at)?;
    let (_, v) = factors(&graph.operators[context].name);
    let back = |operator, input| traced(graph, wiring, classes, operator, input);
    let (query, key, value) = (back(scores, q), back(scores, k), back(context, v));
    let kept = key.kept_for(query.product);
    Some(Attention {
        center: at as u32,
        scores: Some(scores as u32),
        context: context as u32,
        query: query.product,
        key: key.product,
        value: value.product,
        mask,
        is_causal: false,
        kept,
        caches: [key.caches, value.caches].concat(),
        query_at: (scores as u32, q),
        key_at: (scores as u32, k),
    })
}

/// The product that a softmax is of, past scales and masks; and what made the mask.
fn scores_of(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    softmax: usize,
) -> Option<(usize, Option<u32>)> {
    let mut mask = None;
    for source in behind(graph, wiring, softmax, 0).take(STEPS_MAX) {
        match classes[source] {
            Class::Product => return Some((source, mask)),
            Class::Pointwise | Class::Movement => {}
            _ => return None,
        }
        let input = carries(graph, wiring, source)?;
        let others = wiring.sources(source).iter().enumerate();
        let mut others = others.filter(|&(other, &by)| other != input && by != NOBODY);
        mask = mask.or(others.next().map(|(_, &by)| by));
    }
    None
}

/// The product that takes what the softmax at `at` makes as its first factor.
fn weighs(wiring: &Wiring, classes: &[Class], at: usize) -> Option<usize> {
    let mut at = at;
    for _ in 0..6 {
        let takers = wiring.takers(at).iter().take(TAKERS_MAX);
        let mut next = None;
        for &(taker, input) in takers {
            match classes[taker as usize] {
                Class::Product if input <= 1 => return Some(taker as usize),
                Class::Movement | Class::Pointwise => next = next.or(Some(taker as usize)),
                _ => {}
            }
        }
        at = next?;
    }
    None
}

#[derive(Default)]
struct Traced {
    product: Option<u32>,
    kept: Kept,
    caches: Vec<u32>,
}

impl Traced {
    /// What was begun before the query was made is there already.
    fn kept_for(&self, query: Option<u32>) -> Kept {
        match (self.kept, query, self.caches.first()) {
            (Kept::Begun, Some(query), Some(&cache)) if cache < query => Kept::Before,
            (kept, ..) => kept,
        }
    }
}

/// From an input back to the product that made it, past the cache that it was put into.
fn traced(
    graph: &Graph,
    wiring: &Wiring,
    classes: &[Class],
    operator: usize,
    input: usize,
) -> Traced {
    let mut found = Traced::default();
    // Those that may lengthen a cache: whether they do is known once the product is.
    let mut joined: Vec<usize> = Vec::new();
    for source in behind(graph, wiring, operator, input).take(STEPS_MAX) {
        let operator = &graph.operators[source];
        match classes[source] {
            Class::Product | Class::Convolution => {
                found.product = Some(source as u32);
                break;
            }
            Class::Pointwise | Class::Norm | Class::Other => {}
            Class::Movement => {
                let name = operator.name.as_str();
                let writes = operator.writes(0) && operator.inputs.len() > 1;
                if name == "cat" {
                    joined.push(source);
                } else if writes && (name != "copy_" || is_part(operator)) {
                    writes_rows(graph, wiring, classes, source, &mut found);
                }
            }
            _ => break,
        }
    }
    for cat in joined {
        let operator = &graph.operators[cat];
        let before = wiring.source(cat, 0);
        let is_empty = (operator.arguments.tensors.first()).is_some_and(|t| t.elements() == 0);
        let is_older = match found.product {
            // A buffer is put before what it is joined with; halves that are turned are made after it.
            Some(product) => before == NOBODY || before < product,
            None => before == NOBODY,
        };
        if is_older {
            found.caches.push(cat as u32);
            found.kept = if is_empty { Kept::Begun } else { Kept::Before };
        }
    }
    found
}

/// Whether a copy goes to a part of a storage: its target is strided otherwise than a whole one.
fn is_part(operator: &super::graph::Operator) -> bool {
    let Some(target) = operator.arguments.tensors.first() else {
        return false;
    };
    let mut whole = 1;
    let contiguous = target
        .dims
        .iter()
        .zip(&target.strides)
        .rev()
        .all(|(&size, &stride)| {
            let is = size == 1 || stride == whole;
            whole *= size.max(1);
            is
        });
    target.offset != 0 || !contiguous
}

fn writes_rows(graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize, found: &mut Traced) {
    let before = wiring.source(at, 0);
    found.kept = match before {
        NOBODY if is_external(graph, wiring, at, 0) => Kept::Before,
        NOBODY => Kept::Begun,
        before if classes[before as usize] == Class::Filling => Kept::Begun,
        _ => Kept::Before,
    };
    found.caches.push(at as u32);
}
