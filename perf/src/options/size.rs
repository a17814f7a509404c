//! Sizes as a person writes them: one, a list, or a sweep.

/// Largest message or transfer, in bytes.
pub const SIZE_MAX: u64 = 4 << 30;
/// Most sizes of one run.
const SIZES_MAX: usize = 64;

/// One or more sizes in bytes, in the order they are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<u64>);

/// Parses `64,4K,1M` and sweeps such as `4K..64M`: powers of two from the first to the last, which
/// is measured too.
pub fn parse_sizes(text: &str) -> Result<Sizes, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        let Some((first, last)) = part.split_once("..") else {
            sizes.push(parse_size(part)?);
            continue;
        };
        let (first, last) = (parse_size(first)?, parse_size(last)?);
        if first > last {
            return Err(format!("the sweep {part:?} runs backwards"));
        }
        let mut size = first;
        while size < last {
            sizes.push(size);
            size *= 2;
        }
        sizes.push(last);
    }
    if sizes.len() > SIZES_MAX {
        return Err(format!("{} sizes: {SIZES_MAX} are the most", sizes.len()));
    }
    Ok(Sizes(sizes))
}

fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let scale = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}: use KiB, MiB or GiB")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a size"))?;
    count
        .checked_mul(scale)
        .filter(|bytes| (1..=SIZE_MAX).contains(bytes))
        .ok_or_else(|| format!("{text:?} is not between 1 byte and 4 GiB"))
}

/// A size for a person.
#[must_use]
pub fn show(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<u64> {
        parse_sizes(text).unwrap().0
    }

    #[test]
    fn one_size_and_lists() {
        assert_eq!(list("64"), [64]);
        assert_eq!(list("64KiB"), [64 << 10]);
        assert_eq!(list("64,4K, 1 M"), [64, 4 << 10, 1 << 20]);
    }

    #[test]
    fn a_sweep_doubles_and_ends_where_it_says() {
        assert_eq!(list("4K..32K"), [4096, 8192, 16384, 32768]);
        assert_eq!(list("3..10"), [3, 6, 10]);
        assert_eq!(list("1M..1M"), [1 << 20]);
        assert_eq!(list("1,2..4"), [1, 2, 4]);
        assert_eq!(list("1..4G").len(), 33);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "", "x", "0", "5TiB", "8GiB", "-1", "1,", "8..4", "..4", "4..",
        ] {
            assert!(parse_sizes(bad).is_err(), "{bad}");
        }
        let many = vec!["1"; SIZES_MAX + 1].join(",");
        assert!(parse_sizes(&many).is_err());
    }

    #[test]
    fn sizes_are_shown_as_they_are() {
        assert_eq!(show(64), "64 B");
        assert_eq!(show(1536), "1536 B");
        assert_eq!(show(64 << 10), "64 KiB");
        assert_eq!(show(1 << 20), "1 MiB");
        assert_eq!(show(4 << 30), "4 GiB");
    }
}
