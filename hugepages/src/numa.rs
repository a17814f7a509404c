//! NUMA nodes: their names, and binding memory to one.
//!
//! After `mbind(2)`, `get_mempolicy(2)`, `set_mempolicy(2)` and
//! `admin-guide/mm/numa_memory_policy.rst`. glibc has no wrappers for these calls (libnuma has), so
//! they are made by number.

use std::fmt;
use std::marker::PhantomData;

use nix::errno::Errno;

/// A NUMA node by the kernel's number, below [`NodeId::COUNT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u16);

impl NodeId {
    /// The kernel's `MAX_NUMNODES` is at most 1024 (`CONFIG_NODES_SHIFT` 10).
    pub const COUNT_MAX: u16 = 1024;

    /// Node `number`, if the kernel could have it.
    pub fn new(number: u16) -> Option<Self> {
        (number < Self::COUNT_MAX).then_some(Self(number))
    }

    /// The kernel's number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The node that `node3`, a folder of sysfs, stands for.
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        Self::new(name.strip_prefix("node")?.parse().ok()?)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How strictly memory is to be on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// There or an error (`MPOL_BIND`): for huge pages, whose pool is counted.
    Only,
    /// There while it has room (`MPOL_PREFERRED`): a full node must not start the OOM killer.
    Preferred,
}

// linux/mempolicy.h; not in the libc crate.
const MPOL_F_NODE: libc::c_long = 1;
const MPOL_F_ADDR: libc::c_long = 2;

const WORD_BITS: usize = libc::c_ulong::BITS as usize;
const WORDS: usize = NodeId::COUNT_MAX as usize / WORD_BITS;

/// The set that has `node` only, as the kernel takes it.
fn only(node: NodeId) -> [libc::c_ulong; WORDS] {
    let mut mask = [0; WORDS];
    let number = usize::from(node.0);
    if let Some(word) = mask.get_mut(number / WORD_BITS) {
        *word |= 1 << (number % WORD_BITS);
    }
    mask
}

/// Sets the policy of `[address, address + len)`, before its pages are there.
pub(crate) fn bind(address: *mut u8, len: usize, node: NodeId, how: Bind) -> Result<(), Errno> {
    let mask = only(node);
    let mode = match how {
        Bind::Only => libc::MPOL_BIND,
        Bind::Preferred => libc::MPOL_PREFERRED,
    };
    // SAFETY: the kernel reads `maxnode - 1` bits of `mask`, which are all in the array, and
    // changes no byte of the range: a policy says only where its future pages come from. A range
    // that is not mapped is answered with EFAULT.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            address,
            len,
            libc::c_long::from(mode),
            mask.as_ptr(),
            WORDS * WORD_BITS + 1,
            0_u64,
        )
    };
    Errno::result(result).map(drop)
}

/// The node on which the page at `address` is; none where the kernel can't tell (no NUMA, a
/// filter on system calls). The page must be populated.
pub(crate) fn node_of(address: *mut u8) -> Option<NodeId> {
    let mut node: libc::c_int = -1;
    // SAFETY: the kernel writes one int to `node`, and no mask, for that pointer is null; it looks
    // at `address` and doesn't change it, and an address that is not mapped is answered with
    // EFAULT.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut node,
            std::ptr::null_mut::<libc::c_ulong>(),
            0_usize,
            address,
            MPOL_F_NODE | MPOL_F_ADDR,
        )
    };
    Errno::result(result).ok()?;
    NodeId::new(u16::try_from(node).ok()?)
}

/// While this lives, pages that the calling thread touches first come from a node, as long as it
/// has room. A policy that the process was started with (`numactl`) is left as it is.
///
/// Invariant: it never leaves the thread that made it (it is not `Send`), whose policy was to take
/// what is local: the default, or the same by name, which libnuma leaves behind in DPDK's callers.
#[derive(Debug)]
pub struct Preferred(PhantomData<*const ()>);

impl Preferred {
    /// Prefers `node` from now on. `None`: the thread has a policy already, or this kernel none.
    #[must_use]
    pub fn set(node: NodeId) -> Option<Self> {
        if !matches!(policy()?, libc::MPOL_DEFAULT | libc::MPOL_LOCAL) {
            return None;
        }
        set_policy(libc::MPOL_PREFERRED, &only(node))
            .inspect_err(|errno| tracing::debug!(%node, %errno, "memory from any node"))
            .ok()?;
        Some(Self(PhantomData))
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        // The default takes no nodes; it, or what does the same, was in force before.
        let _ = set_policy(libc::MPOL_DEFAULT, &[]);
    }
}

/// The calling thread's policy.
fn policy() -> Option<libc::c_int> {
    let mut mode: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `mode` and no mask, and looks at no address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            std::ptr::null_mut::<libc::c_ulong>(),
            0_usize,
            std::ptr::null_mut::<u8>(),
            0_usize,
        )
    };
    Errno::result(result).ok()?;
    Some(mode)
}

fn set_policy(mode: libc::c_int, nodes: &[libc::c_ulong]) -> Result<(), Errno> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        nodes => (nodes.as_ptr(), nodes.len() * WORD_BITS + 1),
    };
    // SAFETY: the kernel reads `bits - 1` bits of the mask, which are all in the slice, or none. Only
    // where future pages come from changes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::c_long::from(mode),
            mask,
            bits,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_prefers_a_node_for_a_while() {
        let node = NodeId::new(0).unwrap();
        if policy() != Some(libc::MPOL_DEFAULT) {
            return println!("skipped: no NUMA here, or a policy already");
        }
        let first = Preferred::set(node).expect("node 0 has memory");
        assert_eq!(policy(), Some(libc::MPOL_PREFERRED));
        assert!(Preferred::set(node).is_none(), "it is somebody else's");
        let page = vec![1_u8; 1 << 20];
        assert_eq!(node_of(page.as_ptr().cast_mut()), Some(node));
        drop(first);
        assert_eq!(policy(), Some(libc::MPOL_DEFAULT));
        set_policy(libc::MPOL_LOCAL, &[]).unwrap();
        assert!(Preferred::set(node).is_some(), "libnuma was here");
        assert_eq!(policy(), Some(libc::MPOL_DEFAULT));
        let absent = NodeId::new(1000).unwrap();
        assert!(Preferred::set(absent).is_none());
        assert_eq!(policy(), Some(libc::MPOL_DEFAULT));
    }

    #[test]
    fn a_node_is_what_the_kernel_could_have() {
        assert_eq!(NodeId::from_folder("node12").map(NodeId::number), Some(12));
        for name in [
            "node",
            "node-1",
            "nodes1",
            "node1024",
            "node99999",
            "online",
        ] {
            assert_eq!(NodeId::from_folder(name), None, "{name}");
        }
    }
}
