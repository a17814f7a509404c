//! Serving: from the configuration to ready, and from a signal to the end.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_control_api::v1;
use genie_controlplane::service::{ControlPlane, Limits};
use genie_controlplane::trust::Trust;
use genie_gpudev::device::{self, DeviceKind};
use genie_gpudev::{SandboxMode, ZygoteError};
use genie_netstack::PipeStream;
use genie_poll::packet::TRANSPORT_PORT;
use genie_poll::run::OnAccept;
use genie_server::door::DoorConfig;
use genie_server::listen::{self, ListenError};
use genie_server::program;
use genie_server::seats::Bounds;
use genie_server::server::Server;
use genie_server::signals::{Asked, Signals};
use genie_server::tls;

use crate::config::{Config, ConfigError, SandboxChoice, Settings, TensorsChoice};
use crate::fallback::{FallbackManager, check_core};
use crate::gateway::{self, GatewayError};
use crate::node::data::host::Executors;
use crate::node::libraries::{self, LibraryError};
use crate::node::zygote::{LaunchDevice, Told, ZygoteLauncher, ZygoteOptions};
use crate::node::{LocalNode, Shared, libtorch, table, watch};
use crate::server::{NodeHandler, run_link};

/// Connections from the link that may wait to be served.
const LINK_BACKLOG: usize = 64;
/// A session that has wanted nothing for so long does not need to be waited for.
const IDLE_AFTER: Duration = Duration::from_millis(800);
/// How much less likely than others this process is to be ended when memory runs out.
const OOM_SCORE: &str = "-500";
/// Keys that SIGHUP changes. All others need a restart.
const RELOADABLE: [&str; 12] = [
    "connections",
    "connections_per_address",
    "strangers",
    "strangers_per_address",
    "handshake_seconds",
    "drain_seconds",
    "operator_timeout_seconds",
    "log",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "insecure",
];
/// How often the end of sessions is looked for while draining.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// How long connections have to be closed after that.
const CLOSING_MAX: Duration = Duration::from_millis(1500);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The gateway's socket.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// An operator library.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The thread that starts the transport died.
    #[error("the transport could not be started: {0}")]
    Transport(tokio::task::JoinError),
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
    mut config: Config,
    mut reload: Reload,
    started: Instant,
) -> Result<ExitCode, StartError> {
    protect();
    let address = listen::resolve(&config.listen)?;
    if config.tls.is_none() && !config.insecure && listen::is_open(address) {
        let address = config.listen.to_string();
        return Err(ConfigError::OpenWithoutTls { address }.into());
    }
    check_core(&config)?;
    let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
    let peer_tls = config.tls.as_ref().map(tls::peer_config).transpose()?;
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let listener = listen::bind(address).await?;
    let address = listener.local_addr().unwrap_or(address);

    let (node, events) = Shared::new(config.clone());
    let (link, from_link) = tokio::sync::mpsc::channel(LINK_BACKLOG);
    let fallback = start_transport(&config, address, link).await?;
    node.set_fallback(Arc::clone(&fallback));
    node.set_peer_tls(peer_tls);
    if let Some(gateway) = &config.gateway {
        let serving = gateway::serve(gateway.clone(), Arc::clone(&fallback))?;
        tokio::spawn(serving);
        tracing::info!("gateway: {}", gateway.socket.display());
        node.set_no_executors("it is a gateway: connect to its socket".to_owned());
    } else {
        describe_devices(&config);
        // Connections wait in the backlog meanwhile, which is kinder than refusing them.
        start_executors(&node, &config).await?;
    }
    describe_tls(&config);

    let limits = Limits {
        sessions_max: config.sessions_max,
        waiting_max: table::WAITING_MAX,
        plans_max: config.plans_max,
    };
    let local = Arc::new(LocalNode::new(Arc::clone(&node), events));
    let control = ControlPlane::new(local, limits, trust(&config));
    let following = control.clone();
    tokio::spawn(async move { following.follow_node().await });
    let handler = NodeHandler {
        node: Arc::clone(&node),
        control,
    };
    let server = Arc::new(Server::new(handler, tls, door(&config)));
    tokio::spawn(run_link(Arc::clone(&server), from_link));
    tokio::spawn(Arc::clone(&server).run(listener));
    watch::start(&node).map_err(StartError::Signals)?;
    tracing::info!("ready on {address} in {} ms", started.elapsed().as_millis());

    while signals.next().await == Asked::Reload {
        match again(&mut reload, &mut config, &node, &server) {
            Ok(()) => {}
            Err(error) => tracing::warn!("nothing is reloaded: {error}"),
        }
    }
    let code = drain(&node, config.drain, &mut signals).await;
    // Ports are closed in order, and huge pages given back.
    let stopped = tokio::task::spawn_blocking(move || fallback.stop());
    let _ = tokio::time::timeout(CLOSING_MAX, stopped).await;
    Ok(code)
}

/// Whom the kernel ends when memory runs out: an executor, and not this process.
fn protect() {
    // Without the right to, executors are still likelier: they say so of themselves.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::debug!("the daemon is as likely to be ended as others: {error}");
    }
}

/// Reads the configuration again, and changes what can be changed.
fn again(
    reload: &mut Reload,
    config: &mut Config,
    node: &Shared,
    server: &Server<NodeHandler>,
) -> Result<(), StartError> {
    let (settings, new) = (reload.read)()?;
    if new.tls.is_some() != config.tls.is_some() {
        return Err(StartError::TlsToggled);
    }
    let tls = new.tls.as_ref().map(tls::server_config).transpose()?;
    let peer_tls = new.tls.as_ref().map(tls::peer_config).transpose()?;
    server.configure(tls, door(&new));
    node.set_peer_tls(peer_tls);
    node.set_operator_max(new.operator_max);
    reload.log.set(&new.log);
    let changed = settings.changed(&reload.settings);
    reload.holds(settings, changed, &RELOADABLE, new.tls.is_some());
    config.drain = new.drain;
    config.tls = new.tls;
    Ok(())
}

/// Who may let clients in, besides this node's own control plane.
fn trust(config: &Config) -> Trust {
    match config.tls {
        None => Trust::Everybody,
        Some(_) => Trust::Named(config.control_planes.iter().cloned().collect()),
    }
}

/// Who is let in.
fn door(config: &Config) -> DoorConfig {
    DoorConfig {
        bounds: Bounds {
            strangers_max: config.strangers_max,
            strangers_per_peer: config.strangers_per_address_max,
            known_max: config.connections_max,
            known_per_peer: config.connections_per_address_max,
        },
        handshake: config.handshake,
    }
}

/// Gets the best transport that works.
async fn start_transport(
    config: &Config,
    address: SocketAddr,
    link: tokio::sync::mpsc::Sender<(PipeStream, SocketAddrV4)>,
) -> Result<Arc<FallbackManager>, StartError> {
    // The link has no port of its own to be told: it is that of TCP, if somebody chose it.
    let port = if config.listen.has_port() {
        address.port()
    } else {
        TRANSPORT_PORT
    };
    let accept = config.gateway.is_none().then(|| -> OnAccept {
        Arc::new(move |stream, peer| {
            // A connection that finds no room is reset.
            let _ = link.try_send((stream, peer));
        })
    });
    let config = config.clone();
    // DPDK takes a moment to start, and must not hold up signals.
    let started =
        tokio::task::spawn_blocking(move || FallbackManager::start(&config, port, accept)).await;
    started.map_err(StartError::Transport)
}

fn describe_devices(config: &Config) {
    let names = config
        .devices
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    tracing::info!("devices: {}", names.join(", "));
}

fn describe_tls(config: &Config) {
    let port = config.dpdk.as_ref().map(|dpdk| &dpdk.port);
    match (&config.tls, config.insecure, port) {
        (Some(_), _, _) => tracing::info!("TLS: on, client certificates are required"),
        (None, false, _) => tracing::info!("TLS: off, loopback only"),
        (None, true, None) => tracing::warn!(
            "TLS: off by --insecure: anybody who reaches the port may use this machine"
        ),
        (None, true, Some(port)) => tracing::warn!(
            "TLS: off by --insecure, on {port} too: anybody who reaches either may use this \
             machine, and what seals tensors is sent in the clear"
        ),
    }
}

/// Finds libtorch and loads it, or says why this node is a gateway.
async fn start_executors(node: &Arc<Shared>, config: &Config) -> Result<(), LibraryError> {
    let (node, config) = (Arc::clone(node), config.clone());
    // Loading takes a while, and must not hold up signals.
    let started = tokio::task::spawn_blocking(move || {
        let libraries = libraries::checked(&config.operator_libraries)?;
        match launcher(&node, &config, &libraries) {
            Ok(executors) => {
                describe_libtorch(&executors.libtorch);
                node.set_executors(executors);
            }
            Err(NoExecutors::Library(why)) => return Err(LibraryError::NotLoaded(why)),
            Err(NoExecutors::Other(reason)) => {
                tracing::warn!("libtorch: none, so this node is a gateway: {reason}");
                node.set_no_executors(reason);
            }
        }
        Ok(())
    });
    started.await.unwrap_or_else(|error| {
        tracing::error!("starting executors died: {error}");
        Ok(())
    })
}

fn describe_libtorch(libtorch: &v1::Libtorch) {
    tracing::info!("libtorch: {} in {}", libtorch.version, libtorch.directory);
    for library in &libtorch.operator_libraries {
        let operators = library.schemas.len();
        tracing::info!("operator library: {}, {operators} operators", library.name);
    }
}

/// Why nothing runs operators.
enum NoExecutors {
    /// What the configuration wants can't be had.
    Library(String),
    /// Then this node is a gateway.
    Other(String),
}

impl From<String> for NoExecutors {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

fn launcher(
    node: &Arc<Shared>,
    config: &Config,
    libraries: &[PathBuf],
) -> Result<Executors, NoExecutors> {
    let binary = std::env::current_exe().unwrap_or_default();
    let working = std::env::current_dir().unwrap_or_default();
    let configured = (config.libtorch.as_deref(), config.executor.as_deref());
    let found = libtorch::find(configured, &binary, Path::new(&working))
        .map_err(|missing| missing.to_string())?;
    let directory = found.libtorch.display().to_string();
    let (mut devices, mut launched) = (Vec::new(), Vec::new());
    for choice in &config.devices {
        let opened = device::open(choice.kind).map_err(|error| error.to_string())?;
        devices.push(opened.info());
        launched.push(LaunchDevice {
            kind: choice.kind,
            pools: match (choice.kind, config.tensors) {
                (DeviceKind::Host(_), TensorsChoice::Auto) => None,
                _ => Some(opened),
            },
            threads: choice.threads.unwrap_or(config.threads),
            speed_percent: choice.speed_percent.unwrap_or(100),
        });
    }
    let told = Arc::downgrade(node);
    let on_exit = Arc::new(move |session, how: String| {
        if let Some(node) = told.upgrade() {
            node.executor_exited(session, &how);
        }
    });
    let options = ZygoteOptions {
        sandbox: match config.sandbox {
            SandboxChoice::Auto => SandboxMode::Auto,
            SandboxChoice::Off => SandboxMode::Off,
        },
        // Certificates say whose a client is; without them all are one tenant's.
        tenants: config.tls.is_some(),
        operator_libraries: libraries.to_vec(),
    };
    let told = Told {
        on_exit,
        metrics: Arc::clone(&node.metrics),
    };
    let (launcher, info) = ZygoteLauncher::start(found, launched, &options, &told)
        .map_err(|error| match error {
            ZygoteError::Library(why) => NoExecutors::Library(why),
            other => other.to_string().into(),
        })?
        .ok_or_else(|| "there is no device".to_owned())?;
    Ok(Executors {
        launcher: Box::new(launcher),
        libtorch: v1::Libtorch {
            version: info.torch_version,
            directory,
            missing_reason: String::new(),
            schema_hash: info.schema_hash,
            operator_libraries: libraries::described(libraries, info.operator_libraries),
        },
        devices,
        sandbox: info.sandbox,
    })
}

/// Lets sessions finish, then ends them. A second signal ends it at once.
async fn drain(node: &Arc<Shared>, patience: Duration, signals: &mut Signals) -> ExitCode {
    node.drain();
    let sessions = node.sessions().len();
    tracing::info!(
        "draining: {sessions} sessions have {} s to finish",
        patience.as_secs()
    );
    let finish = async {
        let deadline = Instant::now() + patience;
        while !node.sessions().is_empty() && Instant::now() < deadline {
            node.end_idle(IDLE_AFTER);
            tokio::time::sleep(DRAIN_TICK).await;
        }
        node.end_all();
        let deadline = Instant::now() + CLOSING_MAX;
        while node.is_closing() && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_TICK).await;
        }
    };
    tokio::select! {
        () = finish => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
        () = signals.end() => {
            tracing::warn!("a second signal: ending at once");
            ExitCode::FAILURE
        }
    }
}
