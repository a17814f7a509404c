//! More huge pages in a pool, and back when the guard goes.
//!
//! After `admin-guide/mm/hugetlbpage.rst`: a write to a node's `nr_hugepages` makes the kernel
//! find that many pages, and it keeps what it could find without an error. So each write is read
//! back. The number is shared by all programs; each [`Reservation`] therefore gives back what it
//! added and not what it once read, and changes are made under a lock on the file, so that two
//! programs that do this at once each restore their own share.

mod files;
mod plan;

use std::io;
use std::path::PathBuf;

use crate::find::Inventory;
use crate::numa::NodeId;
use crate::page::PageSize;
use crate::root::{FindError, Root};

pub use plan::{Plan, Step};

/// Pages that are to be free for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReserveRequest {
    /// The size of each page.
    pub page: PageSize,
    /// How many shall be free, those that are free already among them.
    pub pages: u64,
    /// On which node; spread over all if none.
    pub node: Option<NodeId>,
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// What is there can't be told.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The machine or its kernel doesn't have pages of this size.
    #[error("{path}: this machine has no pages of {page}; it has {have}")]
    NoSuchPage {
        /// Where they would be.
        path: PathBuf,
        /// The size asked for.
        page: PageSize,
        /// The sizes it has.
        have: String,
    },
    /// No such node.
    #[error("{path}: there is no node {node}; `genie-hugepages status` lists them")]
    NoSuchNode {
        /// Where it would be.
        path: PathBuf,
        /// The node asked for.
        node: NodeId,
    },
    /// No permission to change the pool: not root, or `/sys` is read-only as in a container.
    #[error("{path}: may not be changed; as root, and outside a container: echo {pages} > {path}")]
    Denied {
        /// The file.
        path: PathBuf,
        /// What would have been written.
        pages: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another program held the file for too long.
    #[error("{path}: another program is changing it; `fuser {path}` names it; try again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{path}: can't be changed to {pages} pages")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        pages: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What was added to one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// None on a kernel without NUMA.
    pub node: Option<NodeId>,
    /// Its `nr_hugepages`.
    pub file: PathBuf,
    /// How many pages were there before.
    pub before: u64,
    /// How many came.
    pub pages: u64,
    /// How many to take off `nr_hugepages` when they are given back.
    owed: u64,
}

/// Pages that this process added to the pools. When it goes, they are given back: a pool that
/// nobody else changed is then as it was found. Pages that are still mapped then leave with their
/// mapping. A process that is killed gives nothing back.
#[derive(Debug)]
#[must_use = "dropping it gives the pages back"]
pub struct Reservation {
    plan: Plan,
    added: Vec<Added>,
}

/// Makes sure that `request.pages` are free, as far as they can be had.
///
/// Getting fewer is no error: see [`Reservation::short`]. What was already added is given back if
/// a later node fails.
///
/// # Errors
/// See [`ReserveError`].
pub fn reserve(root: &Root, request: &ReserveRequest) -> Result<Reservation, ReserveError> {
    let plan = Plan::new(root, &Inventory::read(root)?, request)?;
    reserve_with(plan, &mut files::write)
}

/// The same with another hand that writes, which a test makes as mean as a kernel short of memory.
fn reserve_with(plan: Plan, write: &mut files::Write<'_>) -> Result<Reservation, ReserveError> {
    let mut reservation = Reservation {
        added: Vec::with_capacity(plan.steps.len()),
        plan,
    };
    let mut short = 0;
    for step in &reservation.plan.steps {
        let grown = files::grow(&step.file, step.add, write)?;
        short += step.add - grown.came;
        reservation.added.push(Added {
            node: step.node,
            file: step.file.clone(),
            before: grown.before,
            pages: grown.came,
            owed: grown.owed,
        });
    }
    // What one node could not give, the others may, if the request names none.
    for (step, added) in reservation.plan.steps.iter().zip(&mut reservation.added) {
        let more = short.min(step.room.saturating_sub(step.add));
        if more > 0 && added.pages == step.add {
            let grown = files::grow(&step.file, more, write)?;
            added.pages += grown.came;
            added.owed += grown.owed;
            short -= grown.came;
        }
    }
    Ok(reservation)
}

impl Reservation {
    /// What was to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What was added, by pool.
    pub fn added(&self) -> &[Added] {
        &self.added
    }

    /// How many pages were added in all.
    pub fn added_pages(&self) -> u64 {
        self.added.iter().map(|added| added.pages).sum()
    }

    /// How many of the pages asked for are not there. The kernel found no room for them (memory
    /// is fragmented, most often: reserve at boot), or they were withheld ([`Plan::withheld`]).
    pub fn short(&self) -> u64 {
        (self.plan.missing).saturating_sub(self.added_pages())
    }

    /// Leaves the pages in their pools when this goes, for programs to come.
    pub fn keep(mut self) -> Vec<Added> {
        std::mem::take(&mut self.added)
    }

    /// Gives the pages back now.
    ///
    /// # Errors
    /// A pool could not be changed; the others were, if they could.
    pub fn restore(mut self) -> Result<(), ReserveError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), ReserveError> {
        let mut result = Ok(());
        for added in self.added.drain(..).filter(|added| added.owed > 0) {
            let shrunk = files::shrink(&added.file, added.owed, &mut files::write);
            if result.is_ok() {
                result = shrunk;
            } else if let Err(error) = shrunk {
                tracing::warn!(%error, "huge pages stay reserved");
            }
        }
        result
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!(%error, "huge pages stay reserved");
        }
    }
}

#[cfg(test)]
mod tests;
