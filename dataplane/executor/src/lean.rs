//! Keeps the waiting zygote small: loading libtorch reads tens of megabytes of its files once
//! (relocations, symbols, start-up code), and none of that is needed while waiting.

/// Forgets pages that are unchanged from their files; the page cache still has them, and they
/// come back when they are touched. Children don't inherit such pages anyway.
pub fn forget_clean_pages() {
    let Ok(text) = std::fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, len) in clean_mappings(&text) {
        // SAFETY: the range is one mapping of a file, not writable, of which the kernel says
        // that no page differs from the file. Forgetting its pages changes no byte.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Mappings of files, not writable, without a changed page, as (start, length).
fn clean_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = file_mapping(line) {
            current = range;
        } else if let Some(rest) = line.strip_prefix("Anonymous:") {
            // Relocated pages that were made read-only afterwards are counted here.
            if let Some(range) = current.take()
                && rest.trim() == "0 kB"
            {
                found.push(range);
            }
        }
    }
    found
}

/// `None` if the line is no header of a mapping; `Some(None)` if the mapping is to be kept.
fn file_mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let (flags, path) = (fields.next()?, fields.nth(3));
    let file = path.is_some_and(|path| path.starts_with('/'));
    let keep = !file || flags.contains('w') || !flags.ends_with('p');
    Some((!keep).then(|| (start, end.saturating_sub(start))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_pages_of_files_are_forgotten() {
        let smaps = "\
00001000-00003000 r-xp 00000000 fe:00 12  /lib/libtorch_cpu.so
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00003000-00004000 r--p 00002000 fe:00 12  /lib/libtorch_cpu.so
Anonymous:             4 kB
00004000-00005000 rw-p 00003000 fe:00 12  /lib/libtorch_cpu.so
Anonymous:             0 kB
00005000-00006000 r--p 00000000 00:00 0
Anonymous:             0 kB
00006000-00007000 r--s 00000000 00:01 7  /memfd:genie (deleted)
Anonymous:             0 kB
00007000-00008000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
";
        assert_eq!(clean_mappings(smaps), [(0x1000, 0x2000)]);
    }

    #[test]
    fn the_process_goes_on_afterwards() {
        forget_clean_pages();
        assert!(crate::ffi::torch_version().starts_with("2."));
    }
}
