//! The one port: who connects, what they speak, and to whom they are handed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use genie_controlplane::identity::Identity;
use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind};
use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::door::{Door, DoorConfig, Guest};
use crate::first::{self, First, Prefixed};
pub use crate::handler::{Data, Handler};
use crate::http;
pub use crate::rejected::Rejected;
pub use crate::stream::{Socket, Stream, Wire};
use crate::tls::{self, IdentityError};

/// How long to wait when the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long one that is refused has to read why.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What serves connections.
pub struct Server<H> {
    handler: H,
    router: Router,
    tls: RwLock<Option<TlsAcceptor>>,
    door: Arc<Door>,
}

impl<H: Handler> Server<H> {
    /// In front of `handler`.
    #[must_use]
    pub fn new(handler: H, tls: Option<Arc<ServerConfig>>, door: DoorConfig) -> Self {
        Self {
            router: http::router(&handler),
            handler,
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
            let accepted = listener.accept().await;
            let accepted = accepted.and_then(|(socket, peer)| {
                socket.set_nodelay(true)?;
                Ok((socket, peer))
            });
            match accepted {
                Ok((socket, peer)) => self.spawn(Socket::Tcp(socket), peer),
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    self.door.relieve();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection of `peer`.
    pub fn spawn(self: &Arc<Self>, socket: Socket, peer: SocketAddr) {
        self.handler.connected();
        let guest = Arc::new(self.door.enter(peer));
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let served = tokio::select! {
                served = this.serve(socket, &guest) => served,
                () = guest.gives_way() => Err(Rejected::GaveWay),
            };
            if let Err(rejected) = served {
                this.handler.rejected();
                tracing::info!(%peer, "connection of {peer} closed: {rejected}");
            }
        });
    }

    async fn serve(&self, socket: Socket, guest: &Arc<Guest>) -> Result<(), Rejected> {
        let acceptor = self.tls.read().clone();
        let opening = async {
            let (mut stream, identity) = match acceptor {
                None => (Stream::Plain(socket), Identity::anonymous()),
                Some(acceptor) => sealed(&acceptor, socket, guest).await?,
            };
            let first = first::read(&mut stream).await?;
            Ok::<_, Rejected>((stream, identity, first))
        };
        let opened = tokio::time::timeout_at(guest.deadline.into(), opening).await;
        let (stream, identity, first) = opened.map_err(|_| Rejected::Slow)??;
        match first {
            First::Data(hello) => self.data(Data::Client(hello), identity, stream).await,
            First::Peer(hello) => self.data(Data::Peer(hello), identity, stream).await,
            First::Nothing => Ok(()),
            First::Http(bytes) => {
                let stream = Prefixed::new(bytes, stream);
                http::serve(self.router.clone(), stream, identity, Arc::clone(guest)).await
            }
        }
    }

    async fn data(&self, data: Data, identity: Identity, stream: Stream) -> Result<(), Rejected> {
        self.handler.data(data, identity, stream).await
    }
}

/// Who says nothing costs no handshake.
async fn sealed(
    acceptor: &TlsAcceptor,
    socket: Socket,
    guest: &Guest,
) -> Result<(Stream, Identity), Rejected> {
    socket.wait_readable().await?;
    if !guest.turn().await {
        return Err(Rejected::Slow);
    }
    let stream = acceptor.accept(socket).await.map_err(Rejected::Tls)?;
    let shown = stream.get_ref().1.peer_certificates();
    let certificate = shown
        .and_then(<[_]>::first)
        .ok_or(IdentityError::NoCertificate)?;
    let identity = tls::identity(certificate)?;
    Ok((Stream::Tls(Box::new(stream)), identity))
}

/// Says why a connection that brings tensors is refused.
pub async fn refuse(fault: Fault, stream: &mut Stream) -> Rejected {
    let payload = fault.encode();
    let mut last = Header::new(Kind::Lost, 0, 0)
        .with_payload(payload.len())
        .encode()
        .to_vec();
    last.extend_from_slice(&payload);
    let farewell = async {
        stream.write_all(&last).await?;
        stream.shutdown().await?;
        // Closing under bytes that were not read would reset the connection before the client has
        // read the reason.
        while stream.read(&mut [0; 4096]).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whether it arrived or not, it is refused.
    let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
    Rejected::Refused(fault)
}
