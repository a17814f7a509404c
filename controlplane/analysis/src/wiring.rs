//! Who makes what an operator takes, and who takes what it makes.

use std::iter;

use super::graph::{Graph, Operator};

/// No operator of the graph: a storage from before, or one that nothing was done with.
pub const NOBODY: u32 = u32::MAX;

/// The wires of a graph. Operators are named by their place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Of all inputs of all operators: who wrote that storage last before.
    sources: Vec<u32>,
    /// Where an operator's inputs begin there, and where the last one's end.
    first: Vec<u32>,
    /// Who takes what an operator makes or writes, and as which input.
    takers: Vec<(u32, u16)>,
    /// Where an operator's takers begin there.
    taken: Vec<u32>,
}

impl Wiring {
    /// Of a graph, in time that is linear in its inputs.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let count = graph.operators.len();
        let mut writer = vec![NOBODY; graph.storages.len()];
        let mut wiring = Self::default();
        let mut takers = vec![0_u32; count + 1];
        for (at, operator) in graph.operators.iter().enumerate() {
            wiring.first.push(wiring.sources.len() as u32);
            for &storage in &operator.inputs {
                let source = writer[storage];
                wiring.sources.push(source);
                if source != NOBODY {
                    takers[source as usize] += 1;
                }
            }
            let written = (0..operator.inputs.len()).filter(|&input| operator.writes(input));
            for input in written {
                writer[operator.inputs[input]] = at as u32;
            }
            for &made in &operator.outputs {
                writer[made] = at as u32;
            }
        }
        wiring.first.push(wiring.sources.len() as u32);
        wiring.taken = Vec::with_capacity(count + 1);
        let mut at = 0;
        for &of_one in &takers[..count] {
            wiring.taken.push(at);
            at += of_one;
        }
        wiring.taken.push(at);
        wiring.takers = vec![(0, 0); at as usize];
        let mut next = wiring.taken.clone();
        for (operator, inputs) in wiring.first.windows(2).enumerate() {
            for input in inputs[0]..inputs[1] {
                let source = wiring.sources[input as usize];
                if source != NOBODY {
                    let place = &mut next[source as usize];
                    let as_input = u16::try_from(input - inputs[0]).unwrap_or(u16::MAX);
                    wiring.takers[*place as usize] = (operator as u32, as_input);
                    *place += 1;
                }
            }
        }
        wiring
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let numbers = self.sources.capacity() + self.first.capacity() + self.taken.capacity();
        numbers * size_of::<u32>() + self.takers.capacity() * size_of::<(u32, u16)>()
    }

    /// Who wrote each of an operator's inputs.
    #[must_use]
    pub fn sources(&self, operator: usize) -> &[u32] {
        &self.sources[self.first[operator] as usize..self.first[operator + 1] as usize]
    }

    /// Who wrote one of them; [`NOBODY`] also where there is no such input.
    #[must_use]
    pub fn source(&self, operator: usize, input: usize) -> u32 {
        self.sources(operator).get(input).copied().unwrap_or(NOBODY)
    }

    /// Who takes what an operator makes or writes, in order.
    #[must_use]
    pub fn takers(&self, operator: usize) -> &[(u32, u16)] {
        &self.takers[self.taken[operator] as usize..self.taken[operator + 1] as usize]
    }
}

/// Whether what an operator takes as `input` is from before the graph, and never written before in it.
#[must_use]
pub fn is_external(graph: &Graph, wiring: &Wiring, operator: usize, input: usize) -> bool {
    wiring.source(operator, input) == NOBODY
        && (graph.operators[operator].inputs.get(input))
            .is_some_and(|&storage| graph.storages[storage].external.is_some())
}

/// Which input of an operator carries the value that it passes on, where it changes only how it looks:
/// of a mask the values, of a `cat` the last, of a product with a weight what is no weight.
#[must_use]
pub fn carries(graph: &Graph, wiring: &Wiring, operator: usize) -> Option<usize> {
    let Operator { name, inputs, .. } = &graph.operators[operator];
    let last = inputs.len().checked_sub(1)?;
    let usual = match name.as_str() {
        "cat" | "stack" | "copy_" | "_index_put_impl_" | "index_copy_" | "index_copy"
        | "slice_scatter" | "select_scatter" | "index_put_" | "index_put" | "scatter"
        | "scatter_" => last,
        "where" if last >= 1 => 1,
        _ => 0,
    };
    if usual == 0 && wiring.source(operator, 0) == NOBODY {
        let made = wiring
            .sources(operator)
            .iter()
            .position(|&source| source != NOBODY);
        return Some(made.unwrap_or(0));
    }
    Some(usual)
}

/// Who made an input, who made what that passes on, and so on, the nearest first.
pub fn behind<'a>(
    graph: &'a Graph,
    wiring: &'a Wiring,
    operator: usize,
    input: usize,
) -> impl Iterator<Item = usize> + 'a {
    let maker = move |operator: usize, input: usize| match wiring.source(operator, input) {
        NOBODY => None,
        source => Some(source as usize),
    };
    iter::successors(maker(operator, input), move |&at| {
        maker(at, carries(graph, wiring, at)?)
    })
}
