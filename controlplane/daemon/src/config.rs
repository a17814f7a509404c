//! The configuration of `genie-controlplane`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use genie_server::door::DoorConfig;
use genie_server::seats::Bounds;
use genie_server::settings;
pub use genie_server::settings::{FileError, HalfTls, TlsFiles};
use genie_server::values::{Address, Count, LogFilter};

/// Nodes behind one control plane.
pub const NODES_MAX: usize = 256;

settings! {
    /// Where to listen: HOST:PORT
    #[arg(long, env = "GENIE_CONTROLPLANE_LISTEN", value_name = "HOST:PORT")]
    listen: Address = "127.0.0.1:7600".parse().ok(),
    /// A node, HOST:PORT as its clients reach it; may be given several times
    #[arg(long = "node", env = "GENIE_CONTROLPLANE_NODES", value_name = "HOST:PORT", value_delimiter = ',')]
    nodes: Vec<Address> = Some(Vec::new()),
    /// Listen off loopback without TLS: anybody who reaches the port may use the nodes
    #[arg(long, env = "GENIE_INSECURE", num_args = 0..=1, default_missing_value = "true",
          value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool = Some(false),
    /// The certificate chain that clients and nodes are shown, PEM
    #[arg(long, env = "GENIE_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: PathBuf = None,
    /// The certificate's private key, PEM
    #[arg(long, env = "GENIE_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf = None,
    /// The authority of the certificates of clients and nodes, PEM
    #[arg(long, env = "GENIE_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: PathBuf = None,
    /// Sessions at a time; one that uses several devices counts once for each
    #[arg(long, env = "GENIE_SESSIONS", value_name = "N")]
    sessions: Count<1, 65536> = Some(Count(1024)),
    /// Connections at a time of those who have shown who they are. More find room where others are idle
    #[arg(long, env = "GENIE_CONNECTIONS", value_name = "N")]
    connections: Count<8, 65536> = Some(Count(4096)),
    /// Of them, from one address
    #[arg(long, env = "GENIE_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    connections_per_address: Count<4, 65536> = Some(Count(1024)),
    /// Connections at a time of those who have not yet. The oldest gives way to a newcomer
    #[arg(long, env = "GENIE_STRANGERS", value_name = "N")]
    strangers: Count<8, 65536> = Some(Count(1024)),
    /// Of them, from one address
    #[arg(long, env = "GENIE_STRANGERS_PER_ADDRESS", value_name = "N")]
    strangers_per_address: Count<4, 65536> = Some(Count(256)),
    /// How long a new connection may take to say what it is
    #[arg(long, env = "GENIE_HANDSHAKE_SECONDS", value_name = "SECONDS")]
    handshake_seconds: Count<1, 60> = Some(Count(5)),
    /// Structures of segments that are remembered of each tenant
    #[arg(long, env = "GENIE_PLANS", value_name = "N")]
    plans: Count<1, 1048576> = Some(Count(4096)),
    /// What to log: error, warn, info, debug, trace, or pairs such as info,genie_controlplane=debug
    #[arg(long, env = "GENIE_LOG", value_name = "FILTER")]
    log: LogFilter = Some(LogFilter("info".to_owned())),
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS needs all of its files.
    #[error(transparent)]
    HalfTls(#[from] HalfTls),
    /// No node.
    #[error("nodes is empty: name at least one, such as --node 10.0.0.7:7700")]
    NoNodes,
    /// More nodes than one looks after.
    #[error("nodes has {0}: a control plane looks after {NODES_MAX} at most")]
    ManyNodes(usize),
    /// A node twice.
    #[error("nodes has {0} twice: its devices are indices once")]
    SameNode(Address),
    /// The address is open and nothing guards it.
    #[error(
        "refusing to listen on {address} without TLS: anybody who reaches it could use the nodes. Either \
         set tls_certificate, tls_key and tls_client_ca (`genie-dataplane certs init DIR` makes a \
         development authority), or say `--insecure`"
    )]
    OpenWithoutTls {
        /// The address.
        address: String,
    },
}

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "each field is the key of the same name in `Settings`"
)]
pub struct Config {
    pub listen: Address,
    pub nodes: Vec<Address>,
    pub insecure: bool,
    pub tls: Option<TlsFiles>,
    pub sessions_max: usize,
    pub plans_max: usize,
    pub door: DoorConfig,
    pub log: LogFilter,
}

impl Settings {
    /// These over the defaults, checked.
    ///
    /// # Errors
    /// Keys that do not go together.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let all = self.over(Self::defaults());
        let tls = TlsFiles::of(all.tls_certificate, all.tls_key, all.tls_client_ca)?;
        let nodes = all.nodes.unwrap_or_default();
        match nodes.len() {
            0 => return Err(ConfigError::NoNodes),
            count if count > NODES_MAX => return Err(ConfigError::ManyNodes(count)),
            _ => {}
        }
        if let Some(twice) = (1..nodes.len()).find(|&at| nodes[..at].contains(&nodes[at])) {
            return Err(ConfigError::SameNode(nodes[twice].clone()));
        }
        // Every other key has a default.
        #[expect(clippy::expect_used, reason = "a test goes through all of them")]
        fn set<T>(value: Option<T>) -> T {
            value.expect("the key has a default")
        }
        let small = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Config {
            listen: set(all.listen),
            nodes,
            insecure: set(all.insecure),
            tls,
            sessions_max: small(set(all.sessions).0),
            plans_max: small(set(all.plans).0),
            door: DoorConfig {
                bounds: Bounds {
                    strangers_max: small(set(all.strangers).0),
                    strangers_per_peer: small(set(all.strangers_per_address).0),
                    known_max: small(set(all.connections).0),
                    known_per_peer: small(set(all.connections_per_address).0),
                },
                handshake: Duration::from_secs(set(all.handshake_seconds).0),
            },
            log: set(all.log),
        })
    }
}

/// Every layer: the flags and variables over the file, if there is one; and what they come to.
///
/// # Errors
/// The file's; keys that do not go together.
pub fn read(flags: Settings, file: Option<&Path>) -> Result<(Settings, Config), ConfigError> {
    let settings = flags.over_file(file)?;
    Ok((settings.clone(), settings.into_config()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../genie-controlplane.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Settings::parse(text, Path::new("plane.toml"))?.into_config()
    }

    #[test]
    fn the_example_lists_every_key_with_its_default() {
        let shown = Settings::parse(EXAMPLE, Path::new("plane.toml")).unwrap();
        assert_eq!(shown, Settings::defaults());
        for key in Settings::KEYS {
            let starts = [format!("# {key} = "), format!("{key} = ")];
            let is_key = |line: &&str| starts.iter().any(|start| line.starts_with(start));
            assert_eq!(EXAMPLE.lines().filter(is_key).count(), 1, "{key}");
        }
    }

    #[test]
    fn nodes_are_there_once_each() {
        assert_eq!(parse(""), Err(ConfigError::NoNodes));
        let two = parse("nodes = [\"a:7700\", \"b:7700\"]").unwrap();
        assert_eq!(two.nodes.len(), 2);
        let twice = parse("nodes = [\"a:7700\", \"a:7700\"]").unwrap_err();
        assert!(twice.to_string().contains("a:7700 twice"), "{twice}");
        let many: Vec<_> = (0..=NODES_MAX).map(|at| format!("\"n{at}:1\"")).collect();
        let many = parse(&format!("nodes = [{}]", many.join(", ")));
        assert_eq!(many, Err(ConfigError::ManyNodes(NODES_MAX + 1)));
    }

    #[test]
    fn a_bad_key_is_refused_with_its_line_and_what_is_allowed() {
        for (text, said) in [
            ("\nnods = []", "plane.toml:2: "),
            ("nodes = [\"a\"]", "HOST:PORT"),
            ("sessions = 0", "from 1 to 65536"),
            (
                "nodes = [\"a:1\"]\ntls_key = \"k\"",
                "tls_certificate is not set",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
