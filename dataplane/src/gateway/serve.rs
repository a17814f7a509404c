//! The gateway's socket.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::attach::{
    Asking, AttachError, Info, Request, Sent, Status, answer_info, answer_nonsense, answer_relay,
    refuse,
};
use genie_channel::{ChannelError, Offer, Sizes};
use genie_hugepages::Root;
use genie_poll::{Channel, PeerPlace, PollLoop};
use genie_transport::limits::CONNECTIONS_MAX;
use genie_transport::{Config, ConnectionId, Epoch, Protection, Role};
use tokio::net::{UnixListener, UnixStream};

use super::arenas::Arenas;
use super::relay::{self, Carries};
use super::seats::Seats;
use crate::config::GatewayConfig;
use crate::fallback::FallbackManager;

/// How long a client may take to begin to say what it wants, and to end.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(500)];
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
    serve_patiently(config, fallback, PATIENCE)
}

fn serve_patiently(
    config: GatewayConfig,
    fallback: Arc<FallbackManager>,
    patience: [Duration; 2],
) -> Result<impl Future<Output = ()> + Send + 'static, GatewayError> {
    let (listener, file) = bind(&config.socket)?;
    let gateway = Arc::new(Gateway {
        config,
        fallback,
        arenas: Arenas::new(Root::system(), Sizes::GATEWAY.arena_bytes),
        seats: Arc::default(),
        patience,
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
    seats: Arc<Seats>,
    patience: [Duration; 2],
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
            let process = client.peer_cred().ok().and_then(|who| who.pid());
            let seat = match self.seats.take(process.unwrap_or_default()) {
                Ok(seat) => seat,
                Err(why) => {
                    turn_away(client, &why);
                    continue;
                }
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = this.client(client).await {
                    tracing::info!("a client's connection ended: {error}");
                }
                drop(seat);
            });
        }
    }

    async fn client(self: Arc<Self>, client: UnixStream) -> Result<(), AttachError> {
        let asked = self.asked(&client).await;
        let client = client.into_std()?;
        // What a client is told fits into its socket: none of these waits for it.
        client.set_nonblocking(false)?;
        match asked.inspect_err(|error| answer_nonsense(&client, error))? {
            Request::Relay => self.relay(client, Carries::Control).await,
            Request::RelayData => self.relay(client, Carries::Data).await,
            Request::Info => answer_info(&client, &self.info()),
            Request::Attach(offer) => {
                let this = Arc::clone(&self);
                let attach = move || this.attach(client, &offer);
                let attaching = tokio::task::spawn_blocking(attach).await;
                match attaching.map_err(io::Error::other)?? {
                    Some(attaching) => self.settle(attaching).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// What a client wants. One that takes its time keeps no thread from the others, of which there
    /// are few.
    async fn asked(&self, client: &UnixStream) -> Result<Request, AttachError> {
        let [begin, end] = self.patience;
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(begin, client.readable())
            .await
            .map_err(late)??;
        let whole = async {
            let mut asking = Asking::new();
            loop {
                client.readable().await?;
                let count = match client.try_read(asking.room()) {
                    Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                if let Some(request) = asking.filled(count)? {
                    return Ok(request);
                }
            }
        };
        tokio::time::timeout(end, whole).await.map_err(late)?
    }

    async fn relay(
        &self,
        client: std::os::unix::net::UnixStream,
        carries: Carries,
    ) -> Result<(), AttachError> {
        let state = self.fallback.state();
        match relay::upstream(&self.config, &state, carries).await {
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

    fn info(&self) -> Info {
        let state = self.fallback.state();
        let node = match (state.poll.is_some(), &self.config) {
            (true, config) => config.node_dpdk.map(|node| node.to_string()),
            (false, config) => config.node.as_ref().map(ToString::to_string),
        };
        Info {
            transport: state.level.transport().to_owned(),
            reason: state.reason,
            node: node.unwrap_or_default(),
            arenas: self.arenas.counts(),
        }
    }

    /// Sends a client its channel. `None`: it was told that there is none.
    fn attach(
        &self,
        client: std::os::unix::net::UnixStream,
        offer: &Offer,
    ) -> Result<Option<Attaching>, AttachError> {
        let no = |status, text: &str| refuse(&client, status, text).map(|()| None);
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
        Ok(Some(Attaching {
            sent,
            config,
            peer: PeerPlace::At(offer.peer),
            poll,
            link: state.reason,
        }))
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

/// Tells a client why it is not served. What it is told fits into its socket.
fn turn_away(client: UnixStream, why: &str) {
    tracing::warn!("a client is turned away: {why}");
    let told = client.into_std().map_err(AttachError::from);
    // It may be gone already.
    let _ = told.and_then(|client| refuse(&client, Status::Refused, why));
}

#[cfg(test)]
mod tests;
