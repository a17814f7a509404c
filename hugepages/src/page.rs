//! Sizes: of a page, and of an amount of memory.

use std::fmt;
use std::str::FromStr;

/// A size that can't be used, as a person typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No unit: `1024` could be bytes, pages or megabytes.
    #[error("{0}: name a unit, as in 512MiB or 1GiB")]
    NoUnit(String),
    /// Not digits and one of K, M, G, T.
    #[error("{0}: not a size; write a whole number and a unit, as in 512MiB or 1GiB")]
    NotASize(String),
    /// Zero, or more than 64 bits of bytes.
    #[error("{0}: must be more than nothing and less than 16 EiB")]
    OutOfRange(String),
    /// Not a power of two, or too small or too large for any machine.
    #[error("{0}: a huge page's size is a power of two from 16KiB to 1TiB, as 2MiB or 1GiB")]
    NotAPage(String),
}

/// An amount of memory in bytes, never zero. Written and parsed in powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// One gibibyte.
    pub const GIB: Self = Self(1 << 30);

    /// `bytes`, unless it is zero.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes != 0).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many pages of this size hold it.
    pub fn in_pages(self, page: PageSize) -> u64 {
        self.0.div_ceil(page.bytes())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&human(self.0))
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// `2MiB`, `2M`, `2MB` and `2m` are all 2 x 1024 x 1024 bytes, as the kernel reads them.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" if !digits.is_empty() => return Err(SizeError::NoUnit(text.to_owned())),
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(SizeError::NotASize(text.to_owned())),
        };
        if digits.is_empty() {
            return Err(SizeError::NotASize(text.to_owned()));
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(1 << shift))
            .and_then(Self::new)
            .ok_or_else(|| SizeError::OutOfRange(text.to_owned()))
    }
}

/// The size of a huge page: a power of two. Which ones there are depends on machine and kernel:
/// 2 MiB and 1 GiB on x86-64; 64 KiB, 2 MiB, 32 MiB and 1 GiB on ARM with 4 KiB base pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u64);

impl PageSize {
    /// 2 MiB.
    pub const MIB_2: Self = Self(2 << 20);
    /// 1 GiB.
    pub const GIB_1: Self = Self(1 << 30);

    const BYTES_MIN: u64 = 16 << 10;
    const BYTES_MAX: u64 = 1 << 40;

    /// A page of so many bytes, if that can be a huge page's size.
    pub fn new(bytes: u64) -> Option<Self> {
        let fits = (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes);
        (fits && bytes.is_power_of_two()).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// `hugepages-2048kB`: its folder in sysfs.
    pub fn folder(self) -> String {
        format!("hugepages-{}kB", self.0 >> 10)
    }

    /// The size that a sysfs folder stands for.
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Self::new(kib.parse::<u64>().ok()?.checked_mul(1024)?)
    }

    /// `2M`: as boot parameters and mount options name it.
    pub fn kernel_name(self) -> String {
        human(self.0).trim_end_matches("iB").to_owned()
    }

    /// The bits of `memfd_create` that ask for this size: its logarithm, shifted by
    /// `MFD_HUGE_SHIFT` (26).
    pub(crate) fn memfd_bits(self) -> u32 {
        self.0.trailing_zeros() << 26
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&human(self.0))
    }
}

impl FromStr for PageSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bytes = ByteSize::from_str(text)?.bytes();
        Self::new(bytes).ok_or_else(|| SizeError::NotAPage(text.trim().to_owned()))
    }
}

/// The largest unit that divides `bytes`.
fn human(bytes: u64) -> String {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(
            || format!("{bytes}B"),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_kernel_reads_them() {
        for (text, bytes) in [
            ("2MiB", 2 << 20),
            ("2M", 2 << 20),
            ("1g", 1 << 30),
            (" 64 kb ", 64 << 10),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_a_reason() {
        for text in ["", "M", "1.5G", "-1G", "1X", "1Gi B", "G1"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(matches!(error, SizeError::NotASize(_)), "{text}: {error}");
        }
        assert!(matches!(
            "1024".parse::<ByteSize>(),
            Err(SizeError::NoUnit(_))
        ));
        for text in ["0M", "99999999999T", "99999999999999999999999G"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(matches!(error, SizeError::OutOfRange(_)), "{text}: {error}");
        }
        for text in ["3M", "4K", "2T"] {
            let error = text.parse::<PageSize>().unwrap_err();
            assert!(matches!(error, SizeError::NotAPage(_)), "{text}: {error}");
        }
    }

    #[test]
    fn a_page_has_its_names() {
        assert_eq!(PageSize::MIB_2.folder(), "hugepages-2048kB");
        assert_eq!(
            PageSize::from_folder("hugepages-1048576kB"),
            Some(PageSize::GIB_1)
        );
        assert_eq!(PageSize::from_folder("hugepages-3kB"), None);
        assert_eq!(
            PageSize::from_folder("hugepages-18446744073709551615kB"),
            None
        );
        assert_eq!(PageSize::GIB_1.kernel_name(), "1G");
        assert_eq!(PageSize::MIB_2.to_string(), "2MiB");
        assert_eq!(PageSize::MIB_2.memfd_bits(), 21 << 26);
        assert_eq!(ByteSize(3 << 20).in_pages(PageSize::MIB_2), 2);
    }
}
