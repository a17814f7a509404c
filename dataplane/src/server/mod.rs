//! The one port: who connects, what they speak, and to whom they are handed.

mod first;
mod http;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use genie_controlplane::service::ControlPlane;
use genie_controlplane::sessions::Principal;
use genie_netstack::PipeStream;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{self, HELLO_BYTES, Header, Kind, TOKEN_BYTES};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::node::Shared;
use first::{First, Prefixed};

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

    /// The socket, to be used by blocking threads.
    fn into_socket(self) -> std::io::Result<std::net::TcpStream>;
}

impl Connection for TcpStream {
    const CARRIES_DATA: bool = true;

    fn prepare(&self) -> std::io::Result<()> {
        self.set_nodelay(true)
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
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("its certificate names nobody: a common name is needed")]
    Nameless,
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
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
    handshake: Duration,
}

impl Server {
    /// In front of `node` and `control`.
    #[must_use]
    pub fn new(
        node: Arc<Shared>,
        control: ControlPlane,
        tls: Option<Arc<ServerConfig>>,
        connections_max: usize,
        handshake: Duration,
    ) -> Self {
        Self {
            router: http::router(Arc::clone(&node), control),
            node,
            tls: tls.map(TlsAcceptor::from),
            permits: Arc::new(Semaphore::new(connections_max)),
            handshake,
        }
    }

    /// Accepts connections until it is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (socket, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
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
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.node.metrics.connections_rejected.increment();
            tracing::warn!(%peer, "connection of {peer} closed: there are too many already");
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(rejected) = this.serve(stream).await {
                this.node.metrics.connections_rejected.increment();
                tracing::info!(%peer, "connection of {peer} closed: {rejected}");
            }
            drop(permit);
        });
    }

    async fn serve<S: Connection>(&self, mut stream: S) -> Result<(), Rejected> {
        stream.prepare()?;
        let limit = self.handshake;
        let Some(acceptor) = &self.tls else {
            let principal = Principal::anonymous();
            let first = in_time(limit, first::read(&mut stream)).await??;
            return match first {
                First::Data(hello) => {
                    let session = self.attach::<S>(&hello, &principal, &mut stream).await?;
                    self.hand_over(&session, stream, None)
                }
                First::Nothing => Ok(()),
                First::Http(bytes) => self.http(Prefixed::new(bytes, stream), principal).await,
            };
        };
        let opening = async {
            let mut stream = acceptor.accept(stream).await.map_err(Rejected::Tls)?;
            let certificate = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first);
            let principal = certificate
                .and_then(crate::tls::principal)
                .ok_or(Rejected::Nameless)?;
            let first = first::read(&mut stream).await?;
            Ok::<_, Rejected>((stream, principal, first))
        };
        let (mut stream, principal, first) = in_time(limit, opening).await??;
        match first {
            First::Data(hello) => {
                let session = self.attach::<S>(&hello, &principal, &mut stream).await?;
                let (stream, tls) = stream.into_inner();
                self.hand_over(&session, stream, Some(tls))
            }
            First::Nothing => Ok(()),
            First::Http(bytes) => self.http(Prefixed::new(bytes, stream), principal).await,
        }
    }

    /// Finds the session of a data connection; tells the client where there is none.
    async fn attach<S: Connection>(
        &self,
        hello: &[u8; HELLO_BYTES],
        principal: &Principal,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Arc<crate::node::data::Session>, Rejected> {
        let found = match frame::decode_hello(hello) {
            Ok(_) if !S::CARRIES_DATA => Err(Fault::new(Code::Protocol, 0, NO_DATA_HERE)),
            Ok(token) => self.find(&token, principal),
            Err(error) => Err(Fault::new(Code::Protocol, 0, error.to_string())),
        };
        let fault = match found {
            Ok(session) => return Ok(session),
            Err(fault) => fault,
        };
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
        Err(Rejected::Refused(fault))
    }

    fn find(
        &self,
        token: &[u8; TOKEN_BYTES],
        principal: &Principal,
    ) -> Result<Arc<crate::node::data::Session>, Fault> {
        self.node.attach(token, &principal.name)
    }

    /// Leaves tokio: from here on a data connection belongs to two threads of its own.
    fn hand_over<S: Connection>(
        &self,
        session: &Arc<crate::node::data::Session>,
        stream: S,
        tls: Option<ServerConnection>,
    ) -> Result<(), Rejected> {
        let connected = stream
            .into_socket()
            .and_then(|socket| session.connect(socket, tls));
        connected.map_err(|error| {
            session.end(crate::node::data::End {
                reason: format!("its data connection failed: {error}"),
                fault: None,
                lost: true,
            });
            Rejected::Broken(error)
        })
    }

    async fn http<S>(&self, stream: Prefixed<S>, principal: Principal) -> Result<(), Rejected>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http::serve(self.router.clone(), stream, principal, self.handshake).await
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Rejected> {
    tokio::time::timeout(limit, work)
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
