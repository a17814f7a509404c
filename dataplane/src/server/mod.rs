//! The one port: who connects, what they speak, and to whom they are handed.

mod door;
mod first;
mod http;
mod seats;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use genie_controlplane::identity::Identity;
use genie_controlplane::service::ControlPlane;
use genie_netstack::PipeStream;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{self, HELLO_BYTES, Header, Kind, TOKEN_BYTES};
use parking_lot::RwLock;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::node::Shared;
use crate::node::data::peers::{self, Ends};
use crate::node::data::{End, Session, path};
pub use door::DoorConfig;
use door::{Door, Guest};
use first::{First, Prefixed};
pub use seats::Bounds;
use seats::Full;

/// How long to wait when the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is said to who opens a data connection by TCP on the DPDK link.
const NO_DATA_HERE: &str = "on the DPDK link only control connections are TCP: the data path is \
     the transport, through a gateway";

/// A connection that may be served.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether a data connection may come over it.
    const CARRIES_DATA: bool;

    /// What is to be done before anything else.
    fn prepare(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Waits until it says something, where that can be seen without taking it.
    fn wait_readable(&self) -> impl Future<Output = std::io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// The socket, to be used by blocking threads.
    fn into_socket(self) -> std::io::Result<std::net::TcpStream>;
}

impl Connection for TcpStream {
    const CARRIES_DATA: bool = true;

    fn prepare(&self) -> std::io::Result<()> {
        self.set_nodelay(true)
    }

    fn wait_readable(&self) -> impl Future<Output = std::io::Result<()>> + Send {
        self.readable()
    }

    fn into_socket(self) -> std::io::Result<std::net::TcpStream> {
        self.into_std()
    }
}

impl Connection for PipeStream {
    const CARRIES_DATA: bool = false;

    fn into_socket(self) -> std::io::Result<std::net::TcpStream> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Why a connection came to nothing. Nobody else is disturbed by it.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error("it did not say in time what it wants")]
    Slow,
    #[error("it gave way to another")]
    GaveWay,
    #[error("there are too many already: {0}")]
    TooMany(#[from] Full),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("its certificate names nobody: {0}")]
    Nameless(#[from] crate::tls::IdentityError),
    #[error("it broke off: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Wire(#[from] genie_session::WireError),
    #[error("{}", .0.message)]
    Refused(Fault),
    #[error("it is not HTTP: {0}")]
    Http(String),
}

/// What serves connections.
pub struct Server {
    node: Arc<Shared>,
    router: axum::Router,
    tls: RwLock<Option<TlsAcceptor>>,
    door: Arc<Door>,
}

impl Server {
    /// In front of `node` and `control`.
    #[must_use]
    pub fn new(
        node: Arc<Shared>,
        control: ControlPlane,
        tls: Option<Arc<ServerConfig>>,
        door: DoorConfig,
    ) -> Self {
        Self {
            router: http::router(Arc::clone(&node), control),
            node,
            tls: RwLock::new(tls.map(TlsAcceptor::from)),
            door: Arc::new(Door::new(door)),
        }
    }

    /// Other bounds and certificates, for who comes from now on.
    pub fn configure(&self, tls: Option<Arc<ServerConfig>>, door: DoorConfig) {
        *self.tls.write() = tls.map(TlsAcceptor::from);
        self.door.configure(door);
    }

    /// Accepts connections until it is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (socket, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    self.door.relieve();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.spawn(socket, peer);
        }
    }

    /// Serves connections that come over the DPDK link, where the kernel is blind.
    pub async fn run_link(
        self: Arc<Self>,
        mut accepted: tokio::sync::mpsc::Receiver<(PipeStream, SocketAddrV4)>,
    ) {
        while let Some((stream, peer)) = accepted.recv().await {
            self.spawn(stream, SocketAddr::V4(peer));
        }
    }

    fn spawn<S: Connection>(self: &Arc<Self>, stream: S, peer: SocketAddr) {
        self.node.metrics.connections.increment();
        let guest = Arc::new(self.door.enter(peer));
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let served = tokio::select! {
                served = this.serve(stream, &guest) => served,
                () = guest.gives_way() => Err(Rejected::GaveWay),
            };
            if let Err(rejected) = served {
                this.node.metrics.connections_rejected.increment();
                tracing::info!(%peer, "connection of {peer} closed: {rejected}");
            }
        });
    }

    async fn serve<S: Connection>(
        &self,
        mut stream: S,
        guest: &Arc<Guest>,
    ) -> Result<(), Rejected> {
        stream.prepare()?;
        let deadline = guest.deadline.into();
        let acceptor = self.tls.read().clone();
        let Some(acceptor) = acceptor else {
            let identity = Identity::anonymous();
            let first = before(deadline, first::read(&mut stream)).await??;
            return match first {
                First::Data(hello) => {
                    let session = self.attach::<S>(&hello, &identity, &mut stream).await?;
                    self.hand_over(&session, stream, None)
                }
                First::Peer(hello) => {
                    let (session, ends) = self.peer::<S>(&hello, &mut stream).await?;
                    let socket = stream.into_socket()?;
                    Ok(peers::accept(&session, socket, None, ends)?)
                }
                First::Nothing => Ok(()),
                First::Http(bytes) => {
                    self.http(Prefixed::new(bytes, stream), identity, guest)
                        .await
                }
            };
        };
        let opening = async {
            // Who says nothing costs no handshake.
            stream.wait_readable().await?;
            if !guest.turn().await {
                return Err(Rejected::Slow);
            }
            let mut stream = acceptor.accept(stream).await.map_err(Rejected::Tls)?;
            let shown = stream.get_ref().1.peer_certificates();
            let certificate = shown
                .and_then(<[_]>::first)
                .ok_or(crate::tls::IdentityError::NoCertificate)?;
            let identity = crate::tls::identity(certificate)?;
            let first = first::read(&mut stream).await?;
            Ok::<_, Rejected>((stream, identity, first))
        };
        let (mut stream, identity, first) = before(deadline, opening).await??;
        match first {
            First::Data(hello) => {
                let session = self.attach::<S>(&hello, &identity, &mut stream).await?;
                let (stream, tls) = stream.into_inner();
                self.hand_over(&session, stream, Some(tls))
            }
            First::Peer(hello) => {
                let (session, ends) = self.peer::<S>(&hello, &mut stream).await?;
                let (stream, tls) = stream.into_inner();
                let socket = stream.into_socket()?;
                Ok(peers::accept(&session, socket, Some(tls), ends)?)
            }
            First::Nothing => Ok(()),
            First::Http(bytes) => {
                self.http(Prefixed::new(bytes, stream), identity, guest)
                    .await
            }
        }
    }

    /// Finds the session of a data connection; tells the client where there is none.
    async fn attach<S: Connection>(
        &self,
        hello: &[u8; HELLO_BYTES],
        identity: &Identity,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Arc<Session>, Rejected> {
        let found = match frame::decode_hello(hello) {
            Ok(_) if !S::CARRIES_DATA => Err(Fault::new(Code::Protocol, 0, NO_DATA_HERE)),
            Ok(token) => self.find(&token, identity),
            Err(error) => Err(Fault::new(Code::Protocol, 0, error.to_string())),
        };
        match found {
            Ok(session) => Ok(session),
            Err(fault) => Err(self.refuse(fault, stream).await),
        }
    }

    /// Finds the session to which another node brings values; tells it where there is none.
    async fn peer<S: Connection>(
        &self,
        hello: &[u8; HELLO_BYTES],
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(Arc<Session>, Ends), Rejected> {
        let found = match frame::decode_peer_hello(hello) {
            Ok(_) if !S::CARRIES_DATA => Err(Fault::new(Code::Protocol, 0, NO_DATA_HERE)),
            Ok(token) => self.node.expected_peer(&token),
            Err(error) => Err(Fault::new(Code::Protocol, 0, error.to_string())),
        };
        match found {
            Ok(found) => Ok(found),
            Err(fault) => Err(self.refuse(fault, stream).await),
        }
    }

    /// Says why a connection is refused.
    async fn refuse(
        &self,
        fault: Fault,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Rejected {
        self.node.metrics.fault(fault.code);
        let payload = fault.encode();
        let mut last = Header::new(Kind::Lost, 0, 0)
            .with_payload(payload.len())
            .encode()
            .to_vec();
        last.extend_from_slice(&payload);
        let farewell = async {
            stream.write_all(&last).await?;
            stream.shutdown().await?;
            // Closing under bytes that were not read would reset the connection before the
            // client has read the reason.
            while stream.read(&mut [0; 4096]).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whether it arrived or not, it is refused.
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
        Rejected::Refused(fault)
    }

    fn find(&self, token: &[u8; TOKEN_BYTES], identity: &Identity) -> Result<Arc<Session>, Fault> {
        self.node.attach(token, identity)
    }

    /// Leaves tokio: from here on a data connection belongs to two threads of its own.
    fn hand_over<S: Connection>(
        &self,
        session: &Arc<Session>,
        stream: S,
        tls: Option<ServerConnection>,
    ) -> Result<(), Rejected> {
        let connected = stream
            .into_socket()
            .and_then(|socket| path::connect(session, socket, tls));
        connected.map_err(|error| {
            session.end(End::broken(&error));
            Rejected::Broken(error)
        })
    }

    async fn http<S>(
        &self,
        stream: Prefixed<S>,
        identity: Identity,
        guest: &Arc<Guest>,
    ) -> Result<(), Rejected>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http::serve(self.router.clone(), stream, identity, Arc::clone(guest)).await
    }
}

async fn before<T>(
    deadline: tokio::time::Instant,
    work: impl Future<Output = T>,
) -> Result<T, Rejected> {
    tokio::time::timeout_at(deadline, work)
        .await
        .map_err(|_| Rejected::Slow)
}

/// Binds the listener.
///
/// # Errors
/// What the system says: the port is busy, the address is not this machine's.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    // SO_REUSEADDR is set, so that a restart need not wait for old connections.
    TcpListener::bind(address).await
}
