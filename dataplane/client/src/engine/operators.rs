//! Operators besides libtorch's own, which nodes have loaded from libraries that their operators name.

use std::collections::HashMap;

use genie_control_api::v1::OpenSessionReply;

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
    /// Whether the device at `index` has the operator of this name and schema; of a pool, whether all have.
    pub fn offers(&self, index: usize, name: &str, schema: &str) -> Offered {
        let mut found = Offered::No;
        for lane in self.on(index) {
            found = match lane.operators.0.get(name) {
                None => return Offered::No,
                Some(theirs) if theirs != schema => return Offered::Another,
                Some(_) => Offered::Yes,
            };
        }
        found
    }

    /// The schemas that the device at `index` has from libraries, sorted; of a pool, those that all have.
    pub fn offered(&self, index: usize) -> Vec<String> {
        let Some(first) = self.on(index).next() else {
            return Vec::new();
        };
        let all = first.operators.0.iter();
        let everywhere = all.filter(|(name, schema)| {
            let offered = self.offers(index, name, schema);
            offered == Offered::Yes
        });
        let mut schemas: Vec<_> = everywhere.map(|(_, schema)| schema.clone()).collect();
        schemas.sort();
        schemas
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
