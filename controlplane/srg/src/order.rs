//! How the nodes hang together, and the topological order.

use std::collections::HashMap;

use crate::Srg;

/// The wiring of a graph, by position in the listing of nodes (`node`) and of edges (`edge`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wiring {
    /// Node id to node.
    pub by_id: HashMap<u64, usize>,
    /// For each edge its producer node.
    pub producer: Vec<usize>,
    /// Edges grouped by consumer, each group by input index; group `node` is `starts[node]..starts[node + 1]`.
    incoming: Vec<usize>,
    starts: Vec<usize>,
    /// Nodes in topological order.
    pub order: Vec<usize>,
    /// For each node its place in the topological order.
    pub position: Vec<usize>,
}

impl Wiring {
    /// `ends` gives each edge's producer and consumer node. The error is a node that lies in a cycle.
    /// O(nodes + edges), but for sorting the arguments of each node.
    pub fn new(
        srg: &Srg,
        by_id: HashMap<u64, usize>,
        ends: &[(usize, usize)],
    ) -> Result<Self, usize> {
        let nodes = srg.nodes.len();
        let mut starts = vec![0; nodes + 1];
        for &(_, consumer) in ends {
            starts[consumer + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut next = starts.clone();
        let mut incoming = vec![0; ends.len()];
        for (edge, &(_, consumer)) in ends.iter().enumerate() {
            incoming[next[consumer]] = edge;
            next[consumer] += 1;
        }
        for node in 0..nodes {
            incoming[starts[node]..starts[node + 1]]
                .sort_by_key(|&edge| srg.edges[edge].input_index);
        }

        let producer = ends.iter().map(|&(producer, _)| producer).collect();
        let mut wiring = Self {
            by_id,
            producer,
            incoming,
            starts,
            order: vec![],
            position: vec![0; nodes],
        };
        wiring.order = wiring.sort()?;
        for (position, &node) in wiring.order.iter().enumerate() {
            wiring.position[node] = position;
        }
        Ok(wiring)
    }

    /// The edges into a node, by input index.
    pub fn incoming(&self, node: usize) -> &[usize] {
        &self.incoming[self.starts[node]..self.starts[node + 1]]
    }

    /// Depth first with a stack of its own, since a graph may be as deep as it has nodes: the nodes as
    /// listed, each after those of its producers that were not yet placed, in argument order. So a
    /// listing that is topological already stays as it is.
    fn sort(&self) -> Result<Vec<usize>, usize> {
        #[derive(Clone, Copy)]
        enum Mark {
            New,
            OnPath,
            Placed,
        }
        let nodes = self.position.len();
        let mut marks = vec![Mark::New; nodes];
        let mut order = Vec::with_capacity(nodes);
        // A node and how many of its edges were followed.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for root in 0..nodes {
            if matches!(marks[root], Mark::New) {
                marks[root] = Mark::OnPath;
                path.push((root, 0));
            }
            while let Some((node, followed)) = path.last_mut() {
                let Some(&edge) = self.incoming(*node).get(*followed) else {
                    marks[*node] = Mark::Placed;
                    order.push(*node);
                    path.pop();
                    continue;
                };
                *followed += 1;
                let producer = self.producer[edge];
                match marks[producer] {
                    Mark::New => {
                        marks[producer] = Mark::OnPath;
                        path.push((producer, 0));
                    }
                    Mark::OnPath => return Err(producer),
                    Mark::Placed => {}
                }
            }
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Dtype, Edge, Node, Srg, SrgError, limits, validate};

    fn graph(nodes: &[u64], edges: &[(u64, u64, u32)]) -> Srg {
        let mut srg = Srg::new();
        for &id in nodes {
            srg.add_node(Node::operator(id, "aten::relu"));
        }
        for &(from, to, input) in edges {
            srg.add_edge(Edge::tensor((from, 0), (to, input), Dtype::Float, &[1]));
        }
        srg
    }

    fn order(srg: &Srg) -> Vec<u64> {
        validate(srg)
            .expect("valid")
            .topological_order()
            .map(|node| node.id)
            .collect()
    }

    #[test]
    fn topological_listing_stays_as_it_is() {
        assert_eq!(
            order(&graph(&[9, 3, 7, 1], &[(9, 1, 1), (3, 1, 0)])),
            [9, 3, 7, 1]
        );
    }

    #[test]
    fn producers_come_before_consumers_in_argument_order() {
        let edges = [(2, 1, 1), (3, 1, 0), (4, 2, 0)];
        assert_eq!(order(&graph(&[1, 2, 3, 4], &edges)), [3, 4, 2, 1]);
    }

    #[test]
    fn listing_of_edges_does_not_matter() {
        let mut edges = [(2, 1, 1), (3, 1, 0), (4, 2, 0)];
        edges.reverse();
        assert_eq!(order(&graph(&[1, 2, 3, 4], &edges)), [3, 4, 2, 1]);
    }

    #[test]
    fn cycle_names_a_node_in_it() {
        // 1 and 2 hang on the cycle of 3, 4 and 5 and are not in it.
        let srg = graph(
            &[1, 2, 3, 4, 5],
            &[(3, 4, 0), (4, 5, 0), (5, 3, 0), (3, 2, 0), (2, 1, 0)],
        );
        let Err(SrgError::Cycle { node }) = validate(&srg) else {
            panic!("accepted")
        };
        assert!([3, 4, 5].contains(&node), "{node}");
    }

    #[test]
    fn node_that_feeds_itself_is_a_cycle() {
        assert_eq!(
            validate(&graph(&[6], &[(6, 6, 0)])),
            Err(SrgError::Cycle { node: 6 })
        );
    }

    #[test]
    fn deepest_graph_needs_no_deep_stack() {
        // Listed backwards, so that the first node reaches all others.
        let ids: Vec<u64> = (0..limits::MAX_NODES as u64).rev().collect();
        let edges: Vec<_> = ids.iter().skip(1).map(|&id| (id, id + 1, 0)).collect();
        let forward: Vec<u64> = ids.iter().rev().copied().collect();
        assert_eq!(order(&graph(&ids, &edges)), forward);
    }
}
