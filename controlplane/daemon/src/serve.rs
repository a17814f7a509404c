//! Serving: from the configuration to ready, and from a signal to the end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_controlplane::node::Node;
use genie_controlplane::service::{ControlPlane, Limits};
use genie_controlplane::trust::Trust;
use genie_server::listen::{self, ListenError};
use genie_server::program;
use genie_server::server::Server;
use genie_server::signals::{Asked, Signals};
use genie_server::tls::{self, TlsError};

use crate::config::{Config, ConfigError, Settings};
use crate::fleet::Fleet;
use crate::handler::PlaneHandler;
use crate::remote::RemoteNode;

/// Keys that SIGHUP changes. All others need a restart.
const RELOADABLE: [&str; 9] = [
    "connections",
    "connections_per_address",
    "strangers",
    "strangers_per_address",
    "handshake_seconds",
    "log",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
];
/// How long nodes have to be found before it says that it is ready.
const FINDING_MAX: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A node's address.
    #[error("nodes: {0}")]
    Node(String),
    /// TLS can't come or go.
    #[error("TLS can't be switched on or off while it runs: restart it")]
    TlsToggled,
    /// Signals.
    #[error("can't wait for signals: {0}")]
    Signals(std::io::Error),
}

/// What SIGHUP reads again.
type Reload = program::Reload<Settings, Config, ConfigError>;

/// Serves until a signal ends it.
///
/// # Errors
/// It could not start.
pub async fn serve(
    config: Config,
    mut reload: Reload,
    started: Instant,
) -> Result<ExitCode, StartError> {
    let address = listen::resolve(&config.listen)?;
    if config.tls.is_none() && !config.insecure && listen::is_open(address) {
        let address = config.listen.to_string();
        return Err(ConfigError::OpenWithoutTls { address }.into());
    }
    let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
    let to_nodes = config.tls.as_ref().map(tls::caller_config).transpose()?;
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let listener = listen::bind(address).await?;
    let address = listener.local_addr().unwrap_or(address);

    let nodes = (config.nodes.iter())
        .map(|node| RemoteNode::new(&node.to_string(), to_nodes.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(StartError::Node)?;
    let fleet = Arc::new(Fleet::new(nodes, config.tls.is_some()));
    let limits = Limits {
        sessions_max: config.sessions_max,
        waiting_max: 0,
        plans_max: config.plans_max,
    };
    let node: Arc<dyn Node> = Arc::clone(&fleet) as _;
    // Nobody lets clients in here but itself.
    let control = ControlPlane::new(node, limits, Trust::Nobody);
    let following = control.clone();
    tokio::spawn(async move { following.follow_node().await });
    let handler = PlaneHandler::new(control, Arc::clone(&fleet));
    let server = Arc::new(Server::new(handler, tls, config.door));
    tokio::spawn(Arc::clone(&server).run(listener));
    match (&config.tls, config.insecure) {
        (Some(_), _) => tracing::info!("TLS: on, client certificates are required"),
        (None, false) => tracing::info!("TLS: off, loopback only"),
        (None, true) => {
            tracing::warn!("TLS: off by --insecure: anybody who reaches the port may use the nodes")
        }
    }
    // A client that comes at once finds all of them.
    let deadline = Instant::now() + FINDING_MAX;
    while !fleet.is_whole() && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    tracing::info!(
        "ready on {address} in {} ms, with {} of {} nodes",
        started.elapsed().as_millis(),
        fleet.there(),
        fleet.nodes().len()
    );

    while signals.next().await == Asked::Reload {
        if let Err(error) = again(&mut reload, &config, &server, &fleet) {
            tracing::warn!("nothing is reloaded: {error}");
        }
    }
    tracing::info!("ending; sessions go on with their nodes");
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration again, and changes what can be changed.
fn again(
    reload: &mut Reload,
    config: &Config,
    server: &Server<PlaneHandler>,
    fleet: &Fleet,
) -> Result<(), StartError> {
    let (settings, new) = (reload.read)()?;
    if new.tls.is_some() != config.tls.is_some() {
        return Err(StartError::TlsToggled);
    }
    let tls = new.tls.as_ref().map(tls::server_config).transpose()?;
    let to_nodes = new.tls.as_ref().map(tls::caller_config).transpose()?;
    server.configure(tls, new.door);
    for node in fleet.nodes() {
        node.set_tls(to_nodes.clone()).map_err(StartError::Node)?;
    }
    reload.log.set(&new.log);
    let changed = settings.changed(&reload.settings);
    reload.holds(settings, changed, &RELOADABLE, new.tls.is_some());
    Ok(())
}
