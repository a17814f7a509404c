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
    enough(Path::new(HUGEPAGES), args.memory_mib)?;
    // In memory, the EAL maps hugepages without a file; else it needs a mounted hugetlbfs.
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !args.in_memory && !has_hugetlbfs(&mounts) {
        return Err(EalError::HugepagesNotMounted);
    }
    Ok(())
}

/// Whether so many MiB of hugepages are free, or one page where no number is asked for. A size of
/// which the kernel makes more when it is asked has enough.
fn enough(sizes: &Path, wanted_mib: Option<u32>) -> Result<(), EalError> {
    let mut free_kib = 0_u64;
    for size in fs::read_dir(sizes).into_iter().flatten().flatten() {
        let number = |file: &str| {
            let text = fs::read_to_string(size.path().join(file)).ok();
            text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        if number("nr_overcommit_hugepages") > 0_u64 {
            return Ok(());
        }
        let name = size.file_name();
        let kib = name.to_str().and_then(page_kib).unwrap_or(0);
        // What is promised to others is not free for long.
        let pages = number("free_hugepages").saturating_sub(number("resv_hugepages"));
        free_kib = free_kib.saturating_add(kib.saturating_mul(pages));
    }
    match wanted_mib {
        _ if free_kib == 0 => Err(EalError::NoHugepages),
        Some(wanted_mib) if free_kib >> 10 < u64::from(wanted_mib) => Err(EalError::FewHugepages {
            free_mib: free_kib >> 10,
            wanted_mib,
        }),
        _ => Ok(()),
    }
}

/// Of `hugepages-2048kB`.
fn page_kib(folder: &str) -> Option<u64> {
    let size = folder.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    size.parse().ok()
}

fn has_hugetlbfs(mounts: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("hugetlbfs"))
}

#[cfg(test)]
mod tests {
    use super::{enough, has_hugetlbfs};
    use crate::EalError;

    #[test]
    fn hugepages_are_counted_over_their_sizes() {
        let root = std::env::temp_dir().join(format!("genie-hugepages-{}", std::process::id()));
        let file = |size: &str, name: &str, text: &str| {
            std::fs::create_dir_all(root.join(size)).unwrap();
            std::fs::write(root.join(size).join(name), text).unwrap();
        };
        for size in ["hugepages-2048kB", "hugepages-32768kB"] {
            file(size, "free_hugepages", "0\n");
        }
        assert_eq!(enough(&root, None), Err(EalError::NoHugepages));
        assert_eq!(enough(&root, Some(8)), Err(EalError::NoHugepages));
        file("hugepages-2048kB", "free_hugepages", "3\n");
        assert_eq!(enough(&root, None), Ok(()));
        assert_eq!(enough(&root, Some(6)), Ok(()));
        let few = |free_mib, wanted_mib| {
            Err(EalError::FewHugepages {
                free_mib,
                wanted_mib,
            })
        };
        assert_eq!(enough(&root, Some(7)), few(6, 7));
        file("hugepages-32768kB", "free_hugepages", "2\n");
        assert_eq!(enough(&root, Some(70)), Ok(()));
        // Somebody has mapped some of them and not touched them yet.
        file("hugepages-32768kB", "resv_hugepages", "1\n");
        assert_eq!(enough(&root, Some(70)), few(38, 70));
        file("hugepages-2048kB", "nr_overcommit_hugepages", "1\n");
        assert_eq!(enough(&root, Some(70)), Ok(()));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(enough(&root, None), Err(EalError::NoHugepages));
    }

    #[test]
    fn a_mount_is_known_by_its_type() {
        assert!(has_hugetlbfs(
            "x / ext4 rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\n"
        ));
        assert!(!has_hugetlbfs("hugetlbfs /mnt tmpfs rw 0 0\n"));
    }
}
