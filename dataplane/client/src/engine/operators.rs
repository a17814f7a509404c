//! Operators besides libtorch's own, which nodes have loaded from libraries that their operators name.

use std::collections::{BTreeSet, HashMap};

use genie_control_api::v1::OpenSessionReply;
use genie_session::places::Set;

use super::Session;

/// Those of one node that are remembered.
const OPERATORS_MAX: usize = 4096;
/// Longest schema of one, in bytes.
const SCHEMA_MAX: usize = 4096;

/// What a node has from libraries: schemas, by the operators' names.
#[derive(Debug, Default)]
pub struct Operators(HashMap<String, String>);

impl Operators {
    pub(super) fn of(opened: &OpenSessionReply) -> Self {
        let schemas = opened.operator_libraries.iter().flat_map(|of| &of.schemas);
        let known = schemas.filter(|schema| schema.len() <= SCHEMA_MAX);
        let named = known.filter_map(|schema| {
            let (name, _) = schema.split_once('(')?;
            Some((name.to_owned(), schema.clone()))
        });
        Self(named.take(OPERATORS_MAX).collect())
    }
}

/// Whether an operator can run on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Its node has not loaded it.
    No,
    /// It has.
    Yes,
    /// It has one of this name, with another schema.
    Another,
}

impl Session {
    /// Whether the device at `index` has the operator of this name and schema; of a pool, whether any has:
    /// it runs there.
    pub fn offers(&self, index: usize, name: &str, schema: &str) -> Offered {
        let (mut having, mut lanes, mut found) = (Set::EMPTY, 0, Offered::No);
        for lane in self.on(index) {
            lanes += 1;
            match lane.operators.0.get(name) {
                Some(theirs) if theirs == schema => having = having.with(lane.index),
                Some(_) => found = Offered::Another,
                None => {}
            }
        }
        if self.is_pool() && !having.is_empty() && having.iter().count() < lanes {
            self.live_on(name, having);
        }
        // Who had it may be gone.
        let mut having = having.iter();
        match having.any(|at| !self.lanes()[at].is_lost()) {
            true => Offered::Yes,
            false => found,
        }
    }

    /// The schemas that the device at `index` has from libraries, sorted; of a pool, those that any has.
    pub fn offered(&self, index: usize) -> Vec<String> {
        let all = self.on(index).filter(|lane| !lane.is_lost());
        let all = all.flat_map(|lane| lane.operators.0.values().cloned());
        let schemas: BTreeSet<String> = all.collect();
        schemas.into_iter().collect()
    }

    /// Whether the device at `index` is its node's CPU; of a pool, whether all are.
    #[must_use]
    pub fn computes_on_cpu(&self, index: usize) -> bool {
        let mut asked = self.on(index).peekable();
        asked.peek().is_some() && asked.all(super::Lane::is_host)
    }

    fn on(&self, index: usize) -> impl Iterator<Item = &super::Lane> {
        let pool = self.is_pool();
        let lanes = self.lanes().iter().enumerate();
        lanes
            .filter(move |(at, _)| pool || *at == index)
            .map(|(_, lane)| lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genie_control_api::v1::OperatorLibrary;

    #[test]
    fn a_hostile_node_is_remembered_in_bounds() {
        let long = format!("a::long({}) -> ()", "Tensor x, ".repeat(SCHEMA_MAX));
        let mut schemas = vec![String::new(), "a::nothing".to_owned(), long];
        schemas.extend((0..2 * OPERATORS_MAX).map(|at| format!("a::b{at}(Tensor x) -> Tensor")));
        let opened = OpenSessionReply {
            operator_libraries: vec![OperatorLibrary {
                name: "a.so".into(),
                schemas,
            }],
            ..Default::default()
        };
        let known = Operators::of(&opened);
        assert_eq!(known.0.len(), OPERATORS_MAX);
        assert_eq!(known.0["a::b7"], "a::b7(Tensor x) -> Tensor");
        assert!(!known.0.contains_key("a::long") && !known.0.contains_key("a::nothing"));
    }
}
