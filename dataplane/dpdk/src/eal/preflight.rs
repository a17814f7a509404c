//! What the EAL would stumble over, found before it starts, since its own error numbers don't tell
//! these apart.

use std::fs;
use std::path::Path;

use super::EalError;
use super::args::EalArgs;

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// Checks that the memory asked for can be had at all.
///
/// <https://doc.dpdk.org/guides/linux_gsg/sys_reqs.html#use-of-hugepages-in-the-linux-environment>
pub(super) fn check(args: &EalArgs) -> Result<(), EalError> {
    if !args.hugepages {
        return Ok(());
    }
    if !any_hugepage(Path::new(HUGEPAGES)) {
        return Err(EalError::NoHugepages);
    }
    // In memory, the EAL maps hugepages without a file; else it needs a mounted hugetlbfs.
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !args.in_memory && !has_hugetlbfs(&mounts) {
        return Err(EalError::HugepagesNotMounted);
    }
    Ok(())
}

/// Whether some size of hugepage has a free page, or may get one when it is asked for.
fn any_hugepage(sizes: &Path) -> bool {
    let Ok(sizes) = fs::read_dir(sizes) else {
        return false;
    };
    sizes.flatten().any(|size| {
        ["free_hugepages", "nr_overcommit_hugepages"]
            .iter()
            .filter_map(|file| fs::read_to_string(size.path().join(file)).ok())
            .any(|count| count.trim().parse::<u64>().is_ok_and(|count| count > 0))
    })
}

fn has_hugetlbfs(mounts: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("hugetlbfs"))
}

#[cfg(test)]
mod tests {
    use super::{any_hugepage, has_hugetlbfs};

    #[test]
    fn hugepages_are_counted_over_their_sizes() {
        let root = std::env::temp_dir().join(format!("genie-hugepages-{}", std::process::id()));
        for (size, free) in [("hugepages-2048kB", "0\n"), ("hugepages-1048576kB", "0\n")] {
            std::fs::create_dir_all(root.join(size)).unwrap();
            std::fs::write(root.join(size).join("free_hugepages"), free).unwrap();
        }
        assert!(!any_hugepage(&root));
        std::fs::write(root.join("hugepages-2048kB/free_hugepages"), "3\n").unwrap();
        assert!(any_hugepage(&root));
        std::fs::remove_dir_all(&root).unwrap();
        assert!(!any_hugepage(&root));
    }

    #[test]
    fn a_mount_is_known_by_its_type() {
        assert!(has_hugetlbfs(
            "x / ext4 rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\n"
        ));
        assert!(!has_hugetlbfs("hugetlbfs /mnt tmpfs rw 0 0\n"));
    }
}
