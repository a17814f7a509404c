//! A gRPC channel to another daemon.

use std::sync::Arc;
use std::time::Duration;

use genie_control_api::Unanswered;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::stream::Wire;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How often a silent daemon is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);

/// A channel to `address` (HOST:PORT), under TLS where `tls` is given. It connects when it is used, and
/// again when it broke.
///
/// # Errors
/// No address.
pub fn to(address: &str, tls: Option<Arc<ClientConfig>>) -> Result<Channel, String> {
    let endpoint = Endpoint::try_from(format!("http://{address}"))
        .map_err(|error| format!("{address}: {error}"))?
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true);
    let address = address.to_owned();
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (address, tls) = (address.clone(), tls.clone());
            async move { Ok::<_, std::io::Error>(TokioIo::new(connect(&address, tls).await?)) }
        })),
    )
}

async fn connect(address: &str, tls: Option<Arc<ClientConfig>>) -> std::io::Result<Box<dyn Wire>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(socket));
    };
    let name = server_name(address).map_err(std::io::Error::other)?;
    Ok(Box::new(
        TlsConnector::from(tls).connect(name, socket).await?,
    ))
}

/// The name that the certificate of who listens at `address` has to be for.
///
/// # Errors
/// It is none.
pub fn server_name(address: &str) -> Result<ServerName<'static>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    ServerName::try_from(host).map_err(|error| error.to_string())
}

/// Why a call failed, for a person: what its status says, or, where nobody answered, the cause of that.
#[must_use]
pub fn why(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(error) => Unanswered::of(error).message().to_owned(),
        None => status.message().to_owned(),
    }
}
