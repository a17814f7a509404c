//! The operator libraries that the configuration names: whether they may be loaded at all.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use genie_control_api::v1;

/// Why one is not loaded, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Nobody can read it.
    #[error("the operator library {path} can't be read: {why}: correct `--operator-library`")]
    Unread {
        /// As configured.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A folder, or a device.
    #[error("the operator library {0} is no file: name the shared object itself")]
    NoFile(PathBuf),
    /// Its code runs here, and anybody may change it.
    #[error("the operator library {0} may be written by anybody: `chmod o-w` it")]
    Writable(PathBuf),
    /// Its loading failed.
    #[error("{0}")]
    NotLoaded(String),
}

/// The files themselves, by paths that no working folder and no search changes.
///
/// # Errors
/// Of the first that may not be loaded.
pub fn checked(configured: &[PathBuf]) -> Result<Vec<PathBuf>, LibraryError> {
    configured.iter().map(|path| one(path)).collect()
}

fn one(path: &Path) -> Result<PathBuf, LibraryError> {
    const OTHERS_WRITE: u32 = 0o002;
    let unread = |why| LibraryError::Unread {
        path: path.to_owned(),
        why,
    };
    let whole = path.canonicalize().map_err(unread)?;
    let found = fs::metadata(&whole).map_err(unread)?;
    if !found.is_file() {
        return Err(LibraryError::NoFile(path.to_owned()));
    }
    if found.permissions().mode() & OTHERS_WRITE != 0 {
        return Err(LibraryError::Writable(path.to_owned()));
    }
    Ok(whole)
}

/// What clients and operators are told of them.
#[must_use]
pub fn described(paths: &[PathBuf], schemas: Vec<Vec<String>>) -> Vec<v1::OperatorLibrary> {
    let named = paths.iter().zip(schemas);
    named
        .map(|(path, schemas)| v1::OperatorLibrary {
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            schemas,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_nobody_else_writes_are_loaded() {
        let folder = std::env::temp_dir().join(format!("genie-libraries-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("a.so");
        fs::write(&file, "").unwrap();
        assert_eq!(
            checked(std::slice::from_ref(&file)).unwrap(),
            [file.canonicalize().unwrap()]
        );
        let refused = |path: &Path| checked(&[path.to_owned()]).unwrap_err().to_string();
        assert!(refused(&folder).contains("is no file"));
        assert!(refused(&folder.join("b.so")).contains("can't be read"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(refused(&file).contains("written by anybody"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
