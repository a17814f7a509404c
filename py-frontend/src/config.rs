//! A file that names the nodes of a session.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What stands in it. Every key but `node` can be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[[node]]`, in the order of their devices.
    #[serde(default)]
    pub node: Vec<Node>,
    /// Authority, this client's certificate and its key; beside the file, unless absolute.
    pub ca: Option<PathBuf>,
    /// See `ca`.
    pub cert: Option<PathBuf>,
    /// See `ca`.
    pub key: Option<PathBuf>,
    /// `pinned` or `pool`.
    pub placement: Option<String>,
    /// Of a pool.
    pub policy: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// `tcp://HOST:PORT` or `unix:///SOCKET`.
    pub address: String,
}

/// Reads one.
///
/// # Errors
/// It can't be read; a line that is wrong; no node.
pub fn read(path: &Path) -> Result<File, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| said(&error))?;
    let mut file: File = toml::from_str(&text).map_err(|error| said(&error))?;
    if file.node.is_empty() {
        return Err(said(
            &"it names no node; write [[node]] and address = \"tcp://HOST:7700\" for each",
        ));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for beside in [&mut file.ca, &mut file.cert, &mut file.key]
        .into_iter()
        .flatten()
    {
        *beside = folder.join(&beside);
    }
    Ok(file)
}
