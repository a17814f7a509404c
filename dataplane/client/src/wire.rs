//! The connection under a control channel: straight or by a gateway, in the clear or under TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use genie_control_api::Unanswered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::address::{Address, Tls};

/// How long a daemon may take to turn away who has shown no right certificate.
const VERDICT_MAX: Duration = Duration::from_secs(1);

/// How HTTP/2 begins, as far as TLS has to read to know that it is none.
const RECORD: &[u8; 5] = b"PRI *";
/// How TLS begins to say so.
const TLS_ALERT: u8 = 21;

/// Its bytes.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// Connects to `address`.
pub async fn connect(
    address: &Address,
    tls: Option<&Tls>,
    timeout: Duration,
) -> std::io::Result<Box<dyn Wire>> {
    let name = address.server_name().to_owned();
    match address {
        Address::Node { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Else what follows the handshake waits for its acknowledgement.
            stream.set_nodelay(true)?;
            sealed(stream, tls, name).await
        }
        Address::Gateway { socket, .. } => {
            sealed(relayed(socket.clone(), timeout).await?, tls, name).await
        }
    }
}

/// Whether who closed a connection did so since one of the two does not trust the other, and what there is to
/// say. What a client has said by then may cost it the reason: so it asks once more, and hardly speaks.
pub async fn distrust(address: &Address, tls: Option<&Tls>, timeout: Duration) -> Option<String> {
    let verdict = async {
        let mut wire = connect(address, tls, timeout).await.ok()?;
        if tls.is_none() {
            wire.write_all(RECORD).await.ok()?;
        }
        match wire.read_u8().await {
            Ok(TLS_ALERT) if tls.is_none() => Some(Unanswered::SPEAKS_TLS.to_owned()),
            Ok(_) => None,
            Err(error) => match Unanswered::of(&error) {
                Unanswered::Untrusted(why) => Some(why),
                Unanswered::Gone(_) => None,
            },
        }
    };
    tokio::time::timeout(VERDICT_MAX, verdict).await.ok()?
}

/// A pipe to the node's port, through a gateway.
async fn relayed(socket: PathBuf, timeout: Duration) -> std::io::Result<UnixStream> {
    let asked = move || genie_channel::attach::relay(&socket, timeout);
    let stream = tokio::task::spawn_blocking(asked)
        .await?
        .map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn sealed<S: Wire + 'static>(
    stream: S,
    tls: Option<&Tls>,
    name: String,
) -> std::io::Result<Box<dyn Wire>> {
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let mut config = rustls::ClientConfig::clone(&tls.config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls::pki_types::ServerName::try_from(name).map_err(std::io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Box::new(connector.connect(name, stream).await?))
}
