//! The EAL's arguments, checked once.

use std::ffi::CString;
use std::path::PathBuf;
use std::str::FromStr;

use crate::port::address::{PciAddress, PciAddressError};

/// More than any host has; a number above it is a slip of the pen.
const MEMORY_MIB_MAX: u32 = 16 << 20;
const FILE_PREFIX_MAX: usize = 64;

/// What may be said to the EAL. [`EalOptions::validate`] makes [`EalArgs`] of it.
///
/// <https://doc.dpdk.org/guides/linux_gsg/linux_eal_parameters.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalOptions {
    /// Memory from hugepages; without, from ordinary pages (`--no-huge`).
    pub hugepages: bool,
    /// Memory to reserve at the start, in MiB (`-m`).
    pub memory_mib: Option<u32>,
    /// Nothing is shared with other processes, no files are made (`--in-memory`).
    pub in_memory: bool,
    /// PCI devices that may be used.
    pub pci: PciAccess,
    /// The core that the EAL's own thread sits on (`-l`). Without, the first that is allowed.
    pub main_core: Option<u16>,
    /// Tells apart primary processes that share a host (`--file-prefix`).
    pub file_prefix: Option<String>,
    /// A driver or a folder of them, instead of the built-in path (`-d`).
    pub driver_path: Option<PathBuf>,
    /// How devices address memory (`--iova-mode`).
    pub iova: Option<IovaMode>,
    /// DPDK's telemetry socket (`--no-telemetry` unless set).
    pub telemetry: bool,
    /// 1 (emergency) to 8 (debug).
    pub log_level: u8,
}

/// PCI devices that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciAccess {
    /// None (`--no-pci`).
    None,
    /// Those that are bound to a user-space driver.
    All,
    /// These (`-a`).
    Only(Vec<PciAddress>),
}

/// How devices address memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IovaMode {
    /// Physical addresses: root, no IOMMU.
    Physical,
    /// Virtual addresses: an IOMMU, or no device at all.
    Virtual,
}

/// Why arguments were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EalArgsError {
    /// Not among those that Genie passes on.
    #[error("EAL argument {0:?} is not supported")]
    Unknown(String),
    /// The argument needs a value.
    #[error("EAL argument {0} needs a value")]
    NoValue(&'static str),
    /// The value can't be read or is out of bounds.
    #[error("EAL argument {argument}: {value:?} must be {expected}")]
    Value {
        /// The argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The address of a PCI device can't be read.
    #[error("EAL argument -a: {0}")]
    Pci(#[from] PciAddressError),
    /// Two arguments exclude each other.
    #[error("EAL arguments {0} and {1} exclude each other")]
    Conflict(&'static str, &'static str),
}

impl Default for EalOptions {
    /// Hugepages, nothing shared, no PCI device, warnings only.
    fn default() -> Self {
        Self {
            hugepages: true,
            memory_mib: None,
            in_memory: true,
            pci: PciAccess::None,
            main_core: None,
            file_prefix: None,
            driver_path: None,
            iova: None,
            telemetry: false,
            log_level: 5,
        }
    }
}

impl EalOptions {
    /// Without hugepages, PCI devices or files: what runs anywhere.
    pub fn anywhere(memory_mib: u32) -> Self {
        Self {
            hugepages: false,
            memory_mib: Some(memory_mib),
            iova: Some(IovaMode::Virtual),
            ..Self::default()
        }
    }

    /// Checks every value.
    pub fn validate(self) -> Result<EalArgs, EalArgsError> {
        let mut words = vec!["genie".to_owned()];
        let mut say = |word: &str| words.push(word.to_owned());
        if !self.hugepages {
            say("--no-huge");
        }
        if self.in_memory {
            // 22.11 refuses both at once: there, ordinary pages are "legacy memory". What is left
            // of --in-memory without hugepages is that no files are shared.
            say(if self.hugepages {
                "--in-memory"
            } else {
                "--no-shconf"
            });
        }
        if let Some(memory) = self.memory_mib {
            if !(1..=MEMORY_MIB_MAX).contains(&memory) {
                return Err(value("-m", memory, "1 to 16777216 MiB"));
            }
            say("-m");
            say(&memory.to_string());
        }
        match &self.pci {
            PciAccess::None => say("--no-pci"),
            PciAccess::All => {}
            PciAccess::Only(addresses) => {
                if addresses.is_empty() {
                    return Err(EalArgsError::NoValue("-a"));
                }
                for address in addresses {
                    say("-a");
                    say(&address.to_string());
                }
            }
        }
        if let Some(core) = self.main_core {
            if u32::from(core) >= genie_dpdk_sys::GENIE_LCORE_MAX {
                return Err(value("-l", core, "a core below DPDK's limit"));
            }
            say("-l");
            say(&core.to_string());
        }
        if let Some(prefix) = &self.file_prefix {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if prefix.is_empty() || prefix.len() > FILE_PREFIX_MAX || !prefix.chars().all(plain) {
                let expected = "1 to 64 letters, digits, dashes or underscores";
                return Err(value("--file-prefix", prefix, expected));
            }
            say("--file-prefix");
            say(prefix);
        }
        if let Some(path) = &self.driver_path {
            match path.to_str() {
                Some(text) if path.is_absolute() => {
                    say("-d");
                    say(text);
                }
                _ => return Err(value("-d", path.display(), "an absolute path in UTF-8")),
            }
        }
        if let Some(iova) = self.iova {
            say("--iova-mode");
            say(match iova {
                IovaMode::Physical => "pa",
                IovaMode::Virtual => "va",
            });
        }
        if !self.telemetry {
            say("--no-telemetry");
        }
        if !(1..=8).contains(&self.log_level) {
            return Err(value("--log-level", self.log_level, "1 to 8"));
        }
        say("--log-level");
        say(&self.log_level.to_string());
        let c_string = |word: String| {
            CString::new(word.clone()).map_err(|_| value("-d", word, "a path without NUL"))
        };
        let words = words.into_iter().map(c_string).collect::<Result<_, _>>()?;
        Ok(EalArgs {
            words,
            hugepages: self.hugepages,
            memory_mib: self.memory_mib,
            in_memory: self.in_memory,
            main_core: self.main_core,
            software_only: !self.hugepages && self.pci == PciAccess::None,
        })
    }
}

/// Arguments that were checked. The only way to [`crate::Eal::start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalArgs {
    pub(super) words: Vec<CString>,
    pub(super) hugepages: bool,
    pub(super) memory_mib: Option<u32>,
    pub(super) in_memory: bool,
    pub(super) main_core: Option<u16>,
    /// No hugepages and no PCI.
    pub(super) software_only: bool,
}

impl EalArgs {
    /// Reads arguments as a DPDK application takes them, from a configuration for example.
    /// Those that Genie does not know are refused.
    ///
    /// ```
    /// use genie_dpdk::{EalArgs, EalArgsError};
    /// assert!(EalArgs::parse(["--no-huge", "--in-memory", "--no-pci", "-m", "64"]).is_ok());
    /// assert!(matches!(EalArgs::parse(["--huge"]), Err(EalArgsError::Unknown(_))));
    /// ```
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, EalArgsError> {
        let mut options = EalOptions {
            in_memory: false,
            pci: PciAccess::All,
            telemetry: true,
            ..EalOptions::default()
        };
        let (mut allowed, mut no_pci) = (Vec::new(), false);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, mut attached) = match word.split_once('=') {
                Some((name, rest)) if name.starts_with("--") => (name, Some(rest)),
                _ => (word, None),
            };
            let mut next = |name| {
                let value = attached.take().or_else(|| words.next());
                value.ok_or(EalArgsError::NoValue(name))
            };
            match name {
                "--no-huge" => options.hugepages = false,
                "--in-memory" => options.in_memory = true,
                "--no-pci" => no_pci = true,
                "--no-telemetry" => options.telemetry = false,
                "-m" => options.memory_mib = Some(number("-m", next("-m")?)?),
                "-l" => options.main_core = Some(number("-l", next("-l")?)?),
                "-a" | "--allow" => allowed.push(next("-a")?.parse()?),
                "-d" => options.driver_path = Some(next("-d")?.into()),
                "--file-prefix" => options.file_prefix = Some(next("--file-prefix")?.to_owned()),
                "--log-level" => {
                    options.log_level = number("--log-level", next("--log-level")?)?;
                }
                "--iova-mode" => {
                    options.iova = Some(match next("--iova-mode")? {
                        "pa" => IovaMode::Physical,
                        "va" => IovaMode::Virtual,
                        other => return Err(value("--iova-mode", other, "pa or va")),
                    });
                }
                _ => return Err(EalArgsError::Unknown(word.to_owned())),
            }
            if attached.is_some() {
                return Err(EalArgsError::Unknown(word.to_owned()));
            }
        }
        options.pci = match (no_pci, allowed.is_empty()) {
            (true, false) => return Err(EalArgsError::Conflict("--no-pci", "-a")),
            (true, true) => PciAccess::None,
            (false, false) => PciAccess::Only(allowed),
            (false, true) => PciAccess::All,
        };
        options.validate()
    }
}

fn number<T: FromStr>(argument: &'static str, text: &str) -> Result<T, EalArgsError> {
    text.parse()
        .map_err(|_| value(argument, text, "a number in range"))
}

fn value(
    argument: &'static str,
    value: impl std::fmt::Display,
    expected: &'static str,
) -> EalArgsError {
    EalArgsError::Value {
        argument,
        value: value.to_string(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::{EalArgs, EalArgsError, EalOptions};

    #[test]
    fn words_come_out_as_they_went_in() {
        let words = ["--in-memory", "-m", "64", "--no-pci", "-l", "1"];
        let args = EalArgs::parse(words).unwrap();
        let out: Vec<_> = args
            .words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        assert_eq!(out[0], "genie");
        assert_eq!(out[1..7], words);
    }

    #[test]
    fn malformed_arguments_are_told_apart() {
        let refused = |words: &[&str]| EalArgs::parse(words.iter().copied()).unwrap_err();
        assert_eq!(refused(&["--oops"]), EalArgsError::Unknown("--oops".into()));
        assert_eq!(refused(&["-m"]), EalArgsError::NoValue("-m"));
        assert!(matches!(
            refused(&["-m", "many"]),
            EalArgsError::Value { .. }
        ));
        assert!(matches!(refused(&["-m", "0"]), EalArgsError::Value { .. }));
        assert!(matches!(
            refused(&["-l", "999"]),
            EalArgsError::Value { .. }
        ));
        assert!(matches!(refused(&["-a", "zz:00.0"]), EalArgsError::Pci(_)));
        assert!(matches!(
            refused(&["--file-prefix=../x"]),
            EalArgsError::Value { .. }
        ));
        assert!(matches!(
            refused(&["--no-huge=1"]),
            EalArgsError::Unknown(_)
        ));
        let both = ["--no-pci", "-a", "0000:01:00.0"];
        assert!(matches!(refused(&both), EalArgsError::Conflict(..)));
    }

    #[test]
    fn a_nul_in_a_path_is_refused() {
        let options = EalOptions {
            driver_path: Some("/a\0b".into()),
            ..EalOptions::default()
        };
        assert!(matches!(
            options.validate(),
            Err(EalArgsError::Value { .. })
        ));
    }
}
