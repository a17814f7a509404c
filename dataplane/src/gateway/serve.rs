//! The gateway's socket.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::attach::{
    AttachError, Info, Request, Sent, Status, answer_info, answer_relay, read_request, refuse,
};
use genie_channel::{ChannelError, Offer, Sizes};
use genie_hugepages::Root;
use genie_poll::{Channel, PeerPlace, PollLoop};
use genie_transport::limits::CONNECTIONS_MAX;
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::arenas::Arenas;
use super::relay::{self, Carries, Upstream};
use crate::config::GatewayConfig;
use crate::fallback::FallbackManager;

/// Clients' connections at a time, of all kinds.
const CLIENTS_MAX: usize = 512;
/// How long a client may take to say what it wants, once it has begun.
const REQUEST: Duration = Duration::from_millis(500);
/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(5);
/// Who may use the gateway: its user and its group.
const MODE: u32 = 0o660;
/// How long to wait when the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Another process has the socket.
    #[error("{} is another gateway's that still runs: stop it, or choose another socket", .0.display())]
    Taken(PathBuf),
    /// The file can't be made.
    #[error("can't listen on {}: {reason}", .socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

/// The socket, removed when it is dropped.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves clients until it is dropped.
///
/// # Errors
/// [`GatewayError`]
pub fn serve(
    config: GatewayConfig,
    fallback: Arc<FallbackManager>,
) -> Result<impl Future<Output = ()> + Send + 'static, GatewayError> {
    let (listener, file) = bind(&config.socket)?;
    let gateway = Arc::new(Gateway {
        config,
        fallback,
        arenas: Arenas::new(Root::system(), Sizes::GATEWAY.arena_bytes),
        permits: Arc::new(Semaphore::new(CLIENTS_MAX)),
    });
    Ok(async move {
        let _file = file;
        gateway.accept(listener).await;
    })
}

fn bind(socket: &Path) -> Result<(UnixListener, SocketFile), GatewayError> {
    let failed = |reason| GatewayError::Listen {
        socket: socket.to_owned(),
        reason,
    };
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(GatewayError::Taken(socket.to_owned()));
    }
    match std::fs::symlink_metadata(socket) {
        Ok(found) if is_socket(&found) => {
            // Nobody answers there: left over by a gateway that was killed.
            std::fs::remove_file(socket).map_err(failed)?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    let file = SocketFile(socket.to_owned());
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((listener, file))
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    found.file_type().is_socket()
}

struct Gateway {
    config: GatewayConfig,
    fallback: Arc<FallbackManager>,
    arenas: Arenas,
    permits: Arc<Semaphore>,
}

/// What became of a request.
enum Served {
    Done,
    Relay(std::os::unix::net::UnixStream, Carries),
    Attach(Box<Attaching>),
}

/// A client that was sent a channel.
struct Attaching {
    sent: Sent,
    config: Config,
    peer: PeerPlace,
    poll: Arc<PollLoop>,
    /// What the link is.
    link: String,
}

impl Gateway {
    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!("a client could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                tracing::warn!("a client is turned away: there are {CLIENTS_MAX} connections");
                continue;
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = this.client(client).await {
                    tracing::info!("a client's connection ended: {error}");
                }
                drop(permit);
            });
        }
    }

    async fn client(self: Arc<Self>, client: UnixStream) -> Result<(), AttachError> {
        let begun = tokio::time::timeout(BEGIN, client.readable()).await;
        begun.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let client = client.into_std()?;
        client.set_nonblocking(false)?;
        let this = Arc::clone(&self);
        let served = tokio::task::spawn_blocking(move || this.serve(client)).await;
        let (client, carries) = match served.map_err(io::Error::other)?? {
            Served::Done => return Ok(()),
            Served::Relay(client, carries) => (client, carries),
            Served::Attach(attaching) => return self.settle(*attaching).await,
        };
        let state = self.fallback.state();
        match Upstream::connect(&self.config, &state, carries).await {
            Ok(node) => {
                answer_relay(&client)?;
                client.set_nonblocking(true)?;
                Ok(relay::run(UnixStream::from_std(client)?, node).await?)
            }
            Err(error) => {
                let text = format!("the gateway does not reach the node: {error}");
                refuse(&client, Status::Refused, &text)
            }
        }
    }

    /// Reads what a client wants and does it, but for relaying.
    fn serve(&self, client: std::os::unix::net::UnixStream) -> Result<Served, AttachError> {
        match read_request(&client, REQUEST)? {
            Request::Relay => Ok(Served::Relay(client, Carries::Control)),
            Request::RelayData => Ok(Served::Relay(client, Carries::Data)),
            Request::Info => {
                let state = self.fallback.state();
                let node = match (state.poll.is_some(), &self.config) {
                    (true, config) => config.node_dpdk.map(|node| node.to_string()),
                    (false, config) => config.node.as_ref().map(ToString::to_string),
                };
                let info = Info {
                    transport: state.level.transport().to_owned(),
                    reason: state.reason,
                    node: node.unwrap_or_default(),
                    arenas: self.arenas.counts(),
                };
                answer_info(&client, &info)?;
                Ok(Served::Done)
            }
            Request::Attach(offer) => self.attach(client, &offer),
        }
    }

    fn attach(
        &self,
        client: std::os::unix::net::UnixStream,
        offer: &Offer,
    ) -> Result<Served, AttachError> {
        let no = |status, text: &str| refuse(&client, status, text).map(|()| Served::Done);
        let state = self.fallback.state();
        let Some(poll) = state.poll else {
            return no(Status::Fallback, &state.reason);
        };
        if poll.counters().connections >= CONNECTIONS_MAX as u64 {
            let text = format!("{CONNECTIONS_MAX} sessions are on the link already");
            return no(Status::Fallback, &text);
        }
        // A client may not have the gateway send to whom it likes.
        if self.config.node_dpdk.map(|node| *node.ip()) != Some(*offer.peer.ip()) {
            let text = format!("{} is not this gateway's node", offer.peer);
            return no(Status::Refused, &text);
        }
        let protection = Protection::agreed(offer.sealed, offer.secret);
        let id = ConnectionId(offer.connection);
        let mut config = Config::new(id, Epoch(offer.epoch), Role::Initiator, protection);
        config.bandwidth_max = self.fallback.bandwidth_max();
        config.mtu_max = usize::from(offer.mtu_max);
        config.mtu = config.mtu.min(config.mtu_max);
        let arena = self.arenas.make().map_err(ChannelError::from)?;
        let sent = Sent::new(client, Sizes::GATEWAY, Some(arena))
            .inspect_err(|_| self.arenas.count(None))?;
        Ok(Served::Attach(Box::new(Attaching {
            sent,
            config,
            peer: PeerPlace::At(offer.peer),
            poll,
            link: state.reason,
        })))
    }

    /// Opens the connection once the client has mapped what it was sent. One that takes its time
    /// keeps no thread from the others.
    async fn settle(self: Arc<Self>, attaching: Attaching) -> Result<(), AttachError> {
        let socket = attaching.sent.as_fd().try_clone_to_owned()?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        // Too late or gone: it is told below.
        let _ = tokio::time::timeout(attaching.sent.left(), socket.readable()).await;
        socket.into_std()?.set_nonblocking(false)?;
        let opened = tokio::task::spawn_blocking(move || self.open(attaching)).await;
        opened.map_err(io::Error::other)?
    }

    fn open(&self, attaching: Attaching) -> Result<(), AttachError> {
        let Attaching {
            sent,
            config,
            peer,
            poll,
            link,
        } = attaching;
        let half = sent
            .settle(poll.doorbell(), &link)
            .inspect_err(|_| self.arenas.count(None))?;
        let arena = half.arena().cloned();
        self.arenas.count(arena.as_deref());
        let channel = Channel {
            config,
            peer,
            half,
            source: arena.clone(),
            sink: arena,
        };
        // The client sees its channel end.
        poll.open(channel)
            .map_err(|error| AttachError::Refused(error.to_string()))
    }
}
