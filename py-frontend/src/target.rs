//! What a session is to be: from what was passed, a file, and the environment.

use std::path::{Path, PathBuf};

use genie_client::engine::Error;

use crate::config::{self, File};

/// The policy of a pool that names none.
const POLICY: &str = "locality";

/// How to reach nodes, and who places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `tcp://host:port` or `unix:///socket`, one a node.
    pub addresses: Vec<String>,
    /// Authority, certificate and key files.
    pub ca: Option<String>,
    /// This client's certificate.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// How operators are placed; `None` where the program does it.
    pub policy: Option<String>,
}

/// What one source says of it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Nodes, as [`Target::addresses`].
    pub addresses: Option<Vec<String>>,
    /// See [`Target`].
    pub ca: Option<String>,
    /// See [`Target`].
    pub cert: Option<String>,
    /// See [`Target`].
    pub key: Option<String>,
    /// `pinned` or `pool`.
    pub placement: Option<String>,
    /// Of a pool.
    pub policy: Option<String>,
}

impl Settings {
    /// What stands in a file.
    fn of_file(path: &Path) -> Result<Self, Error> {
        let file: File = config::read(path).map_err(Error::Value)?;
        let text = |path: Option<PathBuf>| Some(path?.to_string_lossy().into_owned());
        Ok(Self {
            addresses: Some(file.node.into_iter().map(|node| node.address).collect()),
            ca: text(file.ca),
            cert: text(file.cert),
            key: text(file.key),
            placement: file.placement,
            policy: file.policy,
        })
    }

    /// From GENIE_ADDRESS (nodes with commas between them), GENIE_CA, GENIE_CERT, GENIE_KEY,
    /// GENIE_PLACEMENT and GENIE_POLICY; what is not set, from the file that GENIE_CONFIG names.
    fn of_environment() -> Result<Self, Error> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let set = Self {
            addresses: read("GENIE_ADDRESS").map(|addresses| split(&addresses)),
            ca: read("GENIE_CA"),
            cert: read("GENIE_CERT"),
            key: read("GENIE_KEY"),
            placement: read("GENIE_PLACEMENT"),
            policy: read("GENIE_POLICY"),
        };
        set.or_of_file(read("GENIE_CONFIG").as_deref().map(Path::new))
    }

    fn or_of_file(self, path: Option<&Path>) -> Result<Self, Error> {
        Ok(match path {
            Some(path) => self.or(Self::of_file(path)?),
            None => self,
        })
    }

    /// Where this says nothing, the other counts.
    fn or(self, other: Self) -> Self {
        Self {
            addresses: self.addresses.or(other.addresses),
            ca: self.ca.or(other.ca),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            placement: self.placement.or(other.placement),
            policy: self.policy.or(other.policy),
        }
    }

    /// Whether Genie places; `None` where nothing is said of it.
    fn is_pool(&self) -> Result<Option<bool>, Error> {
        match self.placement.as_deref() {
            None => Ok(None),
            Some("pinned") => Ok(Some(false)),
            Some("pool") => Ok(Some(true)),
            Some(other) => Err(Error::Value(format!(
                "placement is 'pinned' or 'pool', not '{other}'"
            ))),
        }
    }
}

impl Target {
    /// What the environment says.
    ///
    /// # Errors
    /// A file's; no such placement.
    pub fn of_environment() -> Result<Self, Error> {
        Self::of(Settings::default(), None)
    }

    /// What was passed; of what was not, what stands in the file that was named; of what does not, what
    /// the environment says.
    ///
    /// # Errors
    /// A file's; no such placement; a policy where nothing is left to one.
    pub fn of(passed: Settings, file: Option<&Path>) -> Result<Self, Error> {
        let passed = passed.or_of_file(file)?;
        let environment = Settings::of_environment()?;
        let by_environment = environment.is_pool()?;
        let is_pool = passed.is_pool()?.or(by_environment) == Some(true);
        if !is_pool && passed.policy.is_some() {
            return Err(Error::Value(
                "a policy places what placement=\"pool\" leaves to it; pass that too".to_owned(),
            ));
        }
        let all = passed.or(environment);
        let policy = all.policy.unwrap_or_else(|| POLICY.to_owned());
        Ok(Self {
            addresses: all.addresses.unwrap_or_default(),
            ca: all.ca,
            cert: all.cert,
            key: all.key,
            policy: is_pool.then_some(policy),
        })
    }
}

/// Addresses with commas between them.
fn split(addresses: &str) -> Vec<String> {
    let parts = addresses.split(',').map(str::trim);
    parts
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect()
}
