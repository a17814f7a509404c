//! Which of DPDK's libraries this process has loaded.

use std::fs;

/// What DPDK's drivers stand on; where it is no library of its own nothing is known of the others.
const EAL: &str = "librte_eal.so";

/// Whether no library whose name starts so, `librte_net_memif.so` for example, was among the
/// plug-ins that the EAL has loaded. False where that can't be known.
pub(crate) fn is_missing(library: &str) -> bool {
    fs::read_to_string("/proc/self/maps").is_ok_and(|maps| lacks(&maps, library))
}

fn lacks(maps: &str, library: &str) -> bool {
    let has = |name: &str| {
        maps.lines()
            .filter_map(|line| line.rsplit_once('/'))
            .any(|(_, file)| file.starts_with(name))
    };
    has(EAL) && !has(library)
}

#[cfg(test)]
mod tests {
    use super::lacks;

    #[test]
    fn libraries_are_known_by_the_files_that_are_mapped() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/librte_eal.so.23.0\n\
                    7f02-7f03 r-xp 00000000 08:01 13 /usr/lib/dpdk/librte_net_ring.so.23.0\n\
                    7f04-7f05 rw-p 00000000 00:00 0 [heap]\n";
        assert!(!lacks(maps, "librte_net_ring.so"));
        assert!(lacks(maps, "librte_net_memif.so"));
        assert!(lacks(maps, "librte_mempool_"));
        assert!(!lacks(
            "7f04-7f05 rw-p 00000000 00:00 0 [heap]\n",
            "librte_mempool_"
        ));
    }
}
