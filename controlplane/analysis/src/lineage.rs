//! Which kinds of input an operator's values come from.

use std::collections::HashSet;

use super::graph::{Graph, Operator};
use super::operators::{Class, is_bag};
use super::wiring::{NOBODY, Wiring, behind, is_external};

/// Steps from ids to where they were counted, at most.
const COUNTED_MAX: usize = 8;
/// Steps from ids to what the program brought, at most.
const OUTSIDE_MAX: usize = 16;

/// Kinds of input, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub u8);

impl Kinds {
    /// Tokens.
    pub const TEXT: Self = Self(1);
    /// Pixels.
    pub const VISION: Self = Self(2);
    /// Samples of sound, or its spectrum.
    pub const AUDIO: Self = Self(4);
    /// Categories and numbers of rows.
    pub const TABULAR: Self = Self(8);
    /// A sequence of measurements.
    pub const SERIES: Self = Self(16);

    /// Whether it has all of `other`.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0 && other.0 != 0
    }

    /// Of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tokens, pixels and sound only.
    #[must_use]
    pub fn senses(self) -> Self {
        Self(self.0 & 7)
    }

    /// Kinds in it.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A token's row.
    Token,
    /// A place's.
    Position,
    /// A category's.
    Category,
}

/// Of all operators.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// What each comes from.
    pub kinds: Vec<Kinds>,
    /// What each lookup finds, by operator, in order.
    pub lookups: Vec<(u32, Found)>,
    /// Where kinds begin, by operator, in order.
    pub roots: Vec<(u32, Kinds)>,
    /// Operators whose values say which of two places is the earlier.
    pub orders: Vec<bool>,
    /// Storages of tables that ids of the program are looked up in.
    told: HashSet<usize>,
    /// Storages of tables that are weights of products, too: these predict tokens.
    tied: HashSet<usize>,
}

/// Finds where all values come from, in one pass.
#[must_use]
pub fn of(graph: &Graph, wiring: &Wiring, classes: &[Class]) -> Lineage {
    let mut lineage = Lineage {
        kinds: vec![Kinds::default(); classes.len()],
        orders: vec![false; classes.len()],
        ..Lineage::default()
    };
    (lineage.told, lineage.tied) = lineage.tables(graph, wiring, classes);
    for at in 0..classes.len() {
        let kinds = lineage.at(graph, wiring, classes, at);
        lineage.kinds[at] = kinds;
        lineage.orders[at] = lineage.orders(graph, wiring, classes, at);
    }
    lineage
}

impl Lineage {
    /// Tables that ids of the program are looked up in, and those that predict.
    fn tables(
        &self,
        graph: &Graph,
        wiring: &Wiring,
        classes: &[Class],
    ) -> (HashSet<usize>, HashSet<usize>) {
        let (mut looked_up, mut predict) = (HashSet::new(), HashSet::new());
        let mut found = HashSet::new();
        for (at, operator) in graph.operators.iter().enumerate() {
            match classes[at] {
                Class::Product => predict.extend(operator.inputs.get(1..).unwrap_or_default()),
                Class::Lookup => {
                    let Some(&table) = operator.inputs.first() else {
                        continue;
                    };
                    looked_up.insert(table);
                    let ids = wiring.source(at, 1);
                    let is_told = ids == NOBODY
                        || (!counts(graph, wiring, at)
                            && self.comes_from_outside(graph, wiring, classes, ids));
                    if is_told {
                        found.insert(table);
                    }
                }
                _ => {}
            }
        }
        let tied = looked_up.intersection(&predict).copied().collect();
        (found, tied)
    }

    fn kind_of(&self, source: u32) -> Kinds {
        match source {
            NOBODY => Kinds::default(),
            source => self.kinds[source as usize],
        }
    }

    /// What a lookup finds, if it is one.
    #[must_use]
    pub fn found(&self, at: u32) -> Option<Found> {
        let place = self
            .lookups
            .binary_search_by_key(&at, |&(lookup, _)| lookup);
        place.ok().map(|place| self.lookups[place].1)
    }

    /// Whether a kind of input begins there.
    #[must_use]
    pub fn is_root(&self, at: u32) -> bool {
        self.root(at).is_ok()
    }

    fn root(&self, at: u32) -> Result<usize, usize> {
        self.roots.binary_search_by_key(&at, |&(root, _)| root)
    }

    /// Kinds begin at `at`, if there are any.
    fn begin(&mut self, at: usize, kinds: Kinds) -> Kinds {
        if kinds != Kinds::default() {
            self.roots.push((at as u32, kinds));
        }
        kinds
    }

    /// A lookup that was taken for something else finds places.
    fn is_position(&mut self, at: u32) {
        let place = self
            .lookups
            .binary_search_by_key(&at, |&(lookup, _)| lookup);
        if let Ok(place) = place {
            self.lookups[place].1 = Found::Position;
        }
        if let Ok(place) = self.root(at) {
            self.roots.remove(place);
        }
        self.kinds[at as usize] = Kinds::default();
    }

    fn at(&mut self, graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> Kinds {
        let operator = &graph.operators[at];
        let sources = wiring.sources(at);
        let all = (sources.iter()).fold(Kinds::default(), |all, &one| all.and(self.kind_of(one)));
        match classes[at] {
            Class::Lookup => {
                let found = self.lookup(graph, wiring, classes, at);
                self.lookups.push((at as u32, found));
                let kinds = match found {
                    Found::Token => Kinds::TEXT,
                    Found::Position => Kinds::default(),
                    Found::Category => Kinds::TABULAR,
                };
                self.begin(at, kinds)
            }
            // A row of samples, cut into windows that overlap.
            _ if all == Kinds::default()
                && operator.arguments.tensors.first().is_some_and(is_windowed) =>
            {
                self.begin(at, Kinds::AUDIO)
            }
            Class::Loss if operator.name == "_ctc_loss" && all.has(Kinds::SERIES) => {
                all.and(Kinds::AUDIO)
            }
            Class::Convolution if all.senses() == Kinds::default() => {
                all.and(self.begin(at, seen_by(operator)))
            }
            // Patches of an image that is cut up by views.
            Class::Movement
                if all == Kinds::default()
                    && operator.name == "clone"
                    && operator.arguments.tensors.first().is_some_and(is_cut_up) =>
            {
                self.begin(at, Kinds::VISION)
            }
            Class::Pointwise if operator.name.starts_with("add") => {
                self.sum(graph, wiring, classes, at).unwrap_or(all)
            }
            _ => all,
        }
    }

    /// A sum of a place's row and something else is of the latter's kind.
    fn sum(
        &mut self,
        graph: &Graph,
        wiring: &Wiring,
        classes: &[Class],
        at: usize,
    ) -> Option<Kinds> {
        let (left, right) = (wiring.source(at, 0), wiring.source(at, 1));
        for (one, other) in [(left, right), (right, left)] {
            if one == NOBODY || classes[one as usize] != Class::Lookup {
                continue;
            }
            let others = self.kind_of(other);
            if others.senses() == Kinds::default() || others == self.kind_of(one) {
                continue;
            }
            let ids = graph.operators[one as usize].arguments.tensors.get(1)?;
            let rows = ids.dims.first().copied().unwrap_or(1);
            if ids.dims.len() < 2 || rows == 1 {
                self.is_position(one);
                return Some(others);
            }
        }
        None
    }

    fn lookup(&self, graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> Found {
        let operator = &graph.operators[at];
        if is_bag(&operator.name) {
            return Found::Category;
        }
        let ids = wiring.source(at, 1);
        let is_in = |of: &HashSet<usize>| {
            operator
                .inputs
                .first()
                .is_some_and(|table| of.contains(table))
        };
        let is_tied = is_in(&self.tied);
        let is_known = is_tied || is_in(&self.told);
        let made = ids != NOBODY
            && (counts(graph, wiring, at)
                || (!is_known && !self.comes_from_outside(graph, wiring, classes, ids)));
        let rank = operator
            .arguments
            .tensors
            .get(1)
            .map_or(0, |ids| ids.dims.len());
        match (made, rank) {
            (true, _) => Found::Position,
            (false, 0 | 1) if !is_tied => Found::Category,
            _ => Found::Token,
        }
    }

    /// Whether anything from before the graph is in what `at` makes, but weights.
    fn comes_from_outside(
        &self,
        graph: &Graph,
        wiring: &Wiring,
        classes: &[Class],
        at: u32,
    ) -> bool {
        let mut at = at as usize;
        for _ in 0..OUTSIDE_MAX {
            if self.kinds[at] != Kinds::default() {
                return true;
            }
            let operator = &graph.operators[at];
            let is_made = classes[at] == Class::Filling || operator.name.ends_with("_like");
            if is_made && !operator.is_in_place() {
                return false;
            }
            let mut inputs = 0..operator.inputs.len();
            if inputs.any(|input| is_external(graph, wiring, at, input)) {
                return true;
            }
            let made = wiring
                .sources(at)
                .iter()
                .filter(|&&source| source != NOBODY);
            let Some(&next) = made.max() else {
                return false;
            };
            at = next as usize;
        }
        false
    }

    /// Whether its values say which of two places is the earlier, as a mask does that hides later ones.
    fn orders(&self, graph: &Graph, wiring: &Wiring, classes: &[Class], at: usize) -> bool {
        let operator = &graph.operators[at];
        match operator.name.as_str() {
            "tril" | "triu" | "tril_" | "triu_" => true,
            "le" | "lt" | "ge" | "gt" => {
                // Of two rows of places, not of a number.
                operator.inputs.len() == 2 && self.kinds[at] == Kinds::default()
            }
            _ => {
                matches!(
                    classes[at],
                    Class::Pointwise | Class::Movement | Class::Other | Class::Filling
                ) && self.kinds[at] == Kinds::default()
                    && (wiring.sources(at).iter())
                        .any(|&source| source != NOBODY && self.orders[source as usize])
            }
        }
    }
}

/// Whether the ids of a lookup are places that were counted.
fn counts(graph: &Graph, wiring: &Wiring, lookup: usize) -> bool {
    let counted = |at: usize| matches!(graph.operators[at].name.as_str(), "cumsum" | "arange");
    behind(graph, wiring, lookup, 1)
        .take(COUNTED_MAX)
        .any(counted)
}

/// Whether a view shows the same elements in several of its rows, one of which begins within another.
fn is_windowed(tensor: &super::arguments::Tensor) -> bool {
    let ([.., size], [.., step, 1]) = (tensor.dims.as_slice(), tensor.strides.as_slice()) else {
        return false;
    };
    tensor.dims.len() >= 2 && *size >= 8 && (1..*size).contains(step) && tensor.dim_from_end(1) > 1
}

/// Whether a view shows an image in patches.
fn is_cut_up(tensor: &super::arguments::Tensor) -> bool {
    tensor.dims.len() >= 6
}

/// What a convolution sees that sees nothing that is known.
fn seen_by(operator: &Operator) -> Kinds {
    let Some(input) = operator.arguments.tensors.first() else {
        return Kinds::default();
    };
    let windows = (operator.arguments.tensors.get(1)).and_then(|weight| weight.dims.get(2..));
    match *input.dims.as_slice() {
        // One channel that is longer than high, or higher than long, is a spectrum.
        [_, 1, height, width] if height != width => Kinds::AUDIO,
        // What mixes the channels of each place sees no neighbours.
        [_, _, _, _] if windows.is_some_and(|sides| sides.iter().all(|&side| side == 1)) => {
            Kinds::default()
        }
        [_, _, _, _] | [_, _, _, _, _] => Kinds::VISION,
        [_, channels, length] if channels <= 2 && length >= 256 => Kinds::AUDIO,
        [_, channels, length] if channels >= 16 && length >= channels => Kinds::AUDIO,
        [_, _, _] if operator.stride() > 1 => Kinds::AUDIO,
        [_, _, _] => Kinds::SERIES,
        _ => Kinds::default(),
    }
}
