//! Where libtorch and the executor are.

use std::path::{Path, PathBuf};

/// In the folder that `--libtorch` names.
const LIBRARY: &str = "lib/libtorch_cpu.so";
/// The executor's binary, beside the daemon's.
const EXECUTOR: &str = "genie-executor";

/// What is needed to run operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// A folder with `lib/libtorch_cpu.so`.
    pub libtorch: PathBuf,
    /// The executor's binary.
    pub executor: PathBuf,
}

/// Why operators can't be run, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The configuration names a folder that is none.
    #[error("there is no libtorch in {0} (no {LIBRARY}): correct `--libtorch` or GENIE_LIBTORCH")]
    NotThere(PathBuf),
    /// None was found.
    #[error(
        "no libtorch was found: install torch 2.11.0 into the checkout's .venv (./scripts/setup \
         does), or name a folder with {LIBRARY} by `--libtorch` or GENIE_LIBTORCH; looked in \
         {looked}"
    )]
    Nowhere {
        /// Where.
        looked: String,
    },
    /// The executor's binary is not there.
    #[error(
        "there is no executor at {0}: build it (cargo build --release -p genie-executor), or name \
         it by `--executor` or GENIE_EXECUTOR"
    )]
    NoExecutor(PathBuf),
}

/// Finds both. `configured` are the paths of the configuration, `binary` is this program and
/// `working` the working folder.
///
/// # Errors
/// What is missing.
pub fn find(
    configured: (Option<&Path>, Option<&Path>),
    binary: &Path,
    working: &Path,
) -> Result<Found, Missing> {
    let beside = binary.parent().unwrap_or(Path::new("."));
    let libtorch = match configured.0 {
        Some(named) => in_folder(named).ok_or_else(|| Missing::NotThere(named.to_owned()))?,
        None => search(beside, working)?,
    };
    let executor = configured
        .1
        .map_or_else(|| beside.join(EXECUTOR), Path::to_owned);
    if !executor.is_file() {
        return Err(Missing::NoExecutor(executor));
    }
    Ok(Found { libtorch, executor })
}

/// `folder`, or its parent where `folder` is the `lib` itself.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    if folder.join(LIBRARY).is_file() {
        return Some(folder.to_owned());
    }
    let parent = folder.parent()?;
    (folder.ends_with("lib") && parent.join(LIBRARY).is_file()).then(|| parent.to_owned())
}

fn search(beside: &Path, working: &Path) -> Result<PathBuf, Missing> {
    let mut looked = vec![beside.join("libtorch")];
    if let Some(found) = in_folder(&looked[0]) {
        return Ok(found);
    }
    for start in [beside, working] {
        for folder in start.ancestors() {
            let venv = folder.join(".venv");
            if !venv.is_dir() {
                continue;
            }
            if let Some(found) = in_venv(&venv) {
                return Ok(found);
            }
            looked.push(venv);
        }
    }
    let looked = looked
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>();
    Err(Missing::Nowhere {
        looked: looked.join(", "),
    })
}

fn in_venv(venv: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?;
    pythons
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .find_map(|entry| in_folder(&entry.path().join("site-packages/torch")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("genie-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_is_found_beside_the_binary_then_in_a_checkout() {
        let root = Folder::new("libtorch-found");
        let binary = root.file("target/release/genie-dataplane");
        let none = find((None, None), &binary, &root.0).unwrap_err();
        assert!(matches!(none, Missing::Nowhere { .. }));

        root.file(".venv/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so");
        let no_executor = find((None, None), &binary, &root.0).unwrap_err();
        assert!(matches!(no_executor, Missing::NoExecutor(_)));

        root.file("target/release/genie-executor");
        let venv = find((None, None), &binary, Path::new("/")).unwrap();
        assert!(venv.libtorch.ends_with("site-packages/torch"));

        root.file("target/release/libtorch/lib/libtorch_cpu.so");
        let beside = find((None, None), &binary, &root.0).unwrap();
        assert!(beside.libtorch.ends_with("release/libtorch"));
    }

    #[test]
    fn a_named_folder_is_taken_or_refused() {
        let root = Folder::new("libtorch-named");
        let binary = root.file("genie-dataplane");
        let executor = root.file("elsewhere/executor");
        root.file("torch/lib/libtorch_cpu.so");
        for named in ["torch", "torch/lib"] {
            let named = root.0.join(named);
            let found = find((Some(&named), Some(&executor)), &binary, &root.0).unwrap();
            assert_eq!(
                found,
                Found {
                    libtorch: root.0.join("torch"),
                    executor: executor.clone()
                }
            );
        }
        let wrong = find((Some(&root.0), Some(&executor)), &binary, &root.0);
        assert_eq!(wrong, Err(Missing::NotThere(root.0.clone())));
    }
}
