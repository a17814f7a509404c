//! Packet memory on the NUMA node of its port.

use std::cell::Cell;

use genie_direct::PayloadError;
use genie_dpdk::MempoolError;
use genie_hugepages::NodeId;

use super::LINK_MEMORY_MIB;

/// The node that pools are made on, while it has memory.
pub(super) struct Near(Cell<Option<NodeId>>);

impl Near {
    pub(super) fn new(node: Option<NodeId>) -> Self {
        Self(Cell::new(node))
    }

    /// Makes a pool there. Where the node has no memory left it comes from any, and so do all that
    /// follow; that is said once.
    pub(super) fn make<T, E: OutOfMemory>(
        &self,
        mut make: impl FnMut(Option<u32>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(node) = self.0.get() else {
            return make(None);
        };
        match make(Some(u32::from(node.number()))) {
            Err(error) if error.is_out_of_memory() => {
                let made = make(None)?;
                self.0.set(None);
                tracing::warn!(
                    "packets are not on their port's NUMA node {node}, which has no huge pages left, \
                     but on another, and each is fetched from there: `genie-hugepages reserve \
                     {LINK_MEMORY_MIB}MiB --node {node}` and a restart of the daemon mend it"
                );
                Ok(made)
            }
            made => made,
        }
    }
}

/// An error that other memory may mend.
pub(super) trait OutOfMemory {
    fn is_out_of_memory(&self) -> bool;
}

impl OutOfMemory for MempoolError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::NoMemory(_))
    }
}

impl OutOfMemory for PayloadError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Pool(error) if error.is_out_of_memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_on_the_ports_node_while_it_has_memory() {
        let full = || Err(MempoolError::NoMemory("it".to_owned()));
        let asked = |near: &Near, room: &[Option<u32>]| {
            let mut asked = Vec::new();
            let made = near.make(|node| {
                asked.push(node);
                if room.contains(&node) { Ok(()) } else { full() }
            });
            (asked, made.is_ok())
        };
        let near = Near::new(NodeId::new(1));
        assert_eq!(asked(&near, &[Some(1)]), (vec![Some(1)], true));
        // Neither there nor elsewhere: the next one is tried there again.
        assert_eq!(asked(&near, &[]), (vec![Some(1), None], false));
        assert_eq!(asked(&near, &[None]), (vec![Some(1), None], true));
        assert_eq!(asked(&near, &[Some(1), None]), (vec![None], true));
        // Another error is not one of the node.
        let near = Near::new(NodeId::new(1));
        let mut tries = 0;
        let taken = near.make(|_| {
            tries += 1;
            Err::<(), _>(MempoolError::NameTaken("it".to_owned()))
        });
        assert_eq!((taken.is_err(), tries), (true, 1));
        let nowhere = Near::new(None);
        assert_eq!(asked(&nowhere, &[None]), (vec![None], true));
    }
}
