//! How many pages to ask of which node.

use std::path::PathBuf;

use super::{ReserveError, ReserveRequest};
use crate::find::{self, Inventory, Pool};
use crate::numa::NodeId;
use crate::page::PageSize;
use crate::root::Root;

/// What a reservation would write, and why. Making one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub request: ReserveRequest,
    /// Pages that are free already.
    pub usable: u64,
    /// Pages that are not: what is to be added.
    pub missing: u64,
    /// Of these, the pages that no step asks for, since the machine would be left without memory.
    pub withheld: u64,
    /// What to ask of each pool.
    pub steps: Vec<Step>,
}

/// What to ask of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// None on a kernel without NUMA.
    pub node: Option<NodeId>,
    /// Its `nr_hugepages`.
    pub file: PathBuf,
    /// The pages there now.
    pub before: u64,
    /// How many more to ask for.
    pub add: u64,
    /// How many more the node's memory could hold.
    pub(super) room: u64,
}

impl Plan {
    /// How to have `request.pages` free, given what is there.
    ///
    /// The kernel would take the machine's last page if told to, so a sixteenth of its memory is
    /// left alone, and what can be reclaimed beyond that is the limit.
    ///
    /// # Errors
    /// No such node, or no such page size.
    pub fn new(
        root: &Root,
        found: &Inventory,
        request: &ReserveRequest,
    ) -> Result<Self, ReserveError> {
        let ReserveRequest { page, pages, node } = *request;
        if let Some(node) = node.filter(|&node| !found.has_node(node)) {
            let path = find::node_folder(root, node);
            return Err(ReserveError::NoSuchNode { path, node });
        }
        let pools: Vec<&Pool> = found.pools_of(page, node).collect();
        if pools.is_empty() {
            let have: Vec<_> = found
                .sizes
                .iter()
                .map(|size| size.page.to_string())
                .collect();
            return Err(ReserveError::NoSuchPage {
                path: find::pool_folder(root, node, page),
                page,
                have: match have.is_empty() {
                    true => "none at all (CONFIG_HUGETLBFS)".to_owned(),
                    false => have.join(", "),
                },
            });
        }
        let usable = found.usable(page, node);
        let missing = pages.saturating_sub(usable);
        let rooms: Vec<u64> = pools.iter().map(|pool| room(root, pool)).collect();
        let wanted = missing.min(machine_room(root, page));
        let shares = spread(wanted, &rooms);
        let planned: u64 = shares.iter().sum();
        let steps = pools
            .iter()
            .zip(shares.iter().zip(rooms))
            .filter(|_| planned > 0)
            .map(|(pool, (&add, room))| Step {
                node: pool.node,
                file: find::pool_folder(root, pool.node, page).join("nr_hugepages"),
                before: pool.persistent(),
                add,
                room,
            })
            .collect();
        Ok(Self {
            request: *request,
            usable,
            missing,
            withheld: missing - planned,
            steps,
        })
    }
}

/// Even shares, and what one can't hold to the others in turn.
fn spread(pages: u64, rooms: &[u64]) -> Vec<u64> {
    let mut shares = vec![0; rooms.len()];
    let mut left = pages;
    loop {
        let open = || (0..rooms.len()).zip(rooms);
        let count = open().filter(|&(i, &room)| shares[i] < room).count() as u64;
        if left == 0 || count == 0 {
            return shares;
        }
        let even = left.div_ceil(count);
        for (share, &room) in shares.iter_mut().zip(rooms) {
            let add = even.min(room - *share).min(left);
            *share += add;
            left -= add;
        }
    }
}

/// Pages that fit into a node's free memory and clean file cache.
fn room(root: &Root, pool: &Pool) -> u64 {
    let Some(node) = pool.node else {
        return u64::MAX;
    };
    let path = find::node_folder(root, node).join("meminfo");
    let read = |key| Root::meminfo(&path, key);
    let Some((free, total)) = read("MemFree").zip(read("MemTotal")) else {
        return u64::MAX;
    };
    let cache = ["Active(file)", "Inactive(file)"]
        .into_iter()
        .filter_map(read);
    let could = cache.fold(free, u64::saturating_add);
    could.saturating_sub(total / LEFT_ALONE) / pool.page.bytes()
}

/// Pages that fit into the machine's available memory.
fn machine_room(root: &Root, page: PageSize) -> u64 {
    let path = root.path("proc/meminfo");
    let read = |key| Root::meminfo(&path, key);
    match read("MemAvailable").zip(read("MemTotal")) {
        Some((could, total)) => could.saturating_sub(total / LEFT_ALONE) / page.bytes(),
        None => u64::MAX,
    }
}

/// The share of memory that a reservation leaves alone is one in so many.
const LEFT_ALONE: u64 = 16;

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn pages_are_spread_evenly_and_within_each_nodes_room() {
        assert_eq!(spread(10, &[100, 100]), [5, 5]);
        assert_eq!(spread(5, &[100, 100]), [3, 2]);
        assert_eq!(spread(10, &[2, 100, 3]), [2, 5, 3]);
        assert_eq!(spread(10, &[1, 2]), [1, 2]);
        assert_eq!(spread(0, &[1, 2]), [0, 0]);
        assert_eq!(spread(u64::MAX, &[u64::MAX]), [u64::MAX]);
        assert_eq!(spread(1, &[]), [0_u64; 0]);
    }
}
