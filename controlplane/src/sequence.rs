//! One node's part of a plan.

use std::sync::Arc;

use genie_srg::{Caching, Launch, Lifetime, Sequence, Step, step};

use crate::analysis::graph::Graph;

/// A plan as a node installs it.
#[derive(Clone, Debug)]
pub struct PlanForNode {
    /// As the client numbered it, unique in the session.
    pub id: u32,
    /// The recorded segment, as `genie_session::plan` encodes it: what the executor replays.
    pub template: Arc<[u8]>,
    /// What the node does, in order.
    pub sequence: Arc<Sequence>,
}

/// Everything on one device, in the order of capture.
///
/// A step waits for those that made or still read what it reads or writes; in the conservative
/// sequence each waits for the one before it, and nothing is dropped.
#[must_use]
pub fn for_one_node(graph: &Graph, conservative: bool) -> Sequence {
    let mut sequence = Sequence::default();
    // By storage: the step that wrote it last, and those that read it since.
    let mut writer = vec![None; graph.storages.len()];
    let mut readers = vec![Vec::new(); graph.storages.len()];
    for (index, operator) in graph.operators.iter().enumerate() {
        let step = index as u32;
        let mut after = Vec::new();
        if conservative {
            after.extend(step.checked_sub(1));
        } else {
            for (input, &storage) in operator.inputs.iter().enumerate() {
                after.extend(writer[storage]);
                if operator.writes(input) {
                    after.append(&mut readers[storage]);
                    writer[storage] = Some(step);
                } else {
                    readers[storage].push(step);
                }
            }
            after.retain(|&earlier| earlier != step);
            after.sort_unstable();
            after.dedup();
        }
        for &storage in &operator.outputs {
            writer[storage] = Some(step);
        }
        let slots = |storages: &[usize]| storages.iter().map(|&storage| storage as u32).collect();
        sequence.steps.push(Step {
            action: Some(step::Action::Launch(Launch {
                // Nodes are listed in a topological order, and stay in it.
                position: operator.node as u32,
                device: 0,
                inputs: slots(&operator.inputs),
                outputs: slots(&operator.outputs),
            })),
            after,
        });
        for &storage in &operator.outputs {
            let known = &graph.storages[storage];
            let dies = known.freed && !conservative;
            sequence.lifetimes.push(Lifetime {
                slot: storage as u32,
                first_step: step,
                last_step: if dies {
                    known.last_use.map(|last| last as u32).or(Some(step))
                } else {
                    None
                },
                caching: if dies { Caching::Drop } else { Caching::Keep }.into(),
            });
        }
    }
    sequence
}
