//! The folder that `/sys` and `/proc` are read from.

use std::io;
use std::path::{Path, PathBuf};

/// Why it can't be told what is there.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A file of `/sys` or `/proc` can't be read.
    #[error("{path}: can't be read; are /sys and /proc mounted here?")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file that should hold one number holds something else.
    #[error("{path}: should hold a number and holds {text:?}; is this the kernel's sysfs?")]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// Its first characters.
        text: String,
    },
}

/// Where `sys` and `proc` are: `/` on a machine, a folder of files in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self::system()
    }
}

impl Root {
    /// This machine's own.
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A folder that has `sys` and `proc` in it.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The path of `relative`, such as `proc/mounts`, below this root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.join(relative)
    }

    /// A whole small file as text. The kernel escapes odd bytes in `/proc/mounts`, not all of them;
    /// what is not UTF-8 is replaced.
    pub(crate) fn text(path: &Path) -> Result<String, FindError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(FindError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// A file that holds one number, as most of sysfs does.
    pub(crate) fn number(path: &Path) -> Result<u64, FindError> {
        let text = Self::text(path)?;
        text.trim().parse().map_err(|_| FindError::NotANumber {
            path: path.to_owned(),
            text: text.trim().chars().take(40).collect(),
        })
    }

    /// The value in bytes of `key` in a file like `/proc/meminfo`; none if file or key is absent.
    /// A node's own file has lines that begin with `Node 0`.
    pub(crate) fn meminfo(path: &Path, key: &str) -> Option<u64> {
        let text = Self::text(path).ok()?;
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            if name.split_whitespace().next_back()? != key {
                return None;
            }
            let kib: u64 = value.trim().trim_end_matches("kB").trim().parse().ok()?;
            kib.checked_mul(1024)
        })
    }
}
