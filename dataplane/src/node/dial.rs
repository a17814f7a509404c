//! Connects to another node, to bring values of a session there.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use genie_session::fault::Fault;
use genie_session::frame::{
    HEADER_BYTES, Header, Kind, PAYLOAD_MAX, TOKEN_BYTES, encode_peer_hello,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::data::peers;
use super::data::socket::{SocketRead, SocketWrite, split};

/// How long another node may take to let this one in.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to the node at `address`, which has let this one in.
///
/// # Errors
/// Nobody there; it refuses.
pub fn dial(
    address: &str,
    tls: Option<Arc<ClientConfig>>,
    token: &[u8; TOKEN_BYTES],
    patience: Duration,
) -> io::Result<(SocketRead, SocketWrite)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address_of in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address_of, TIMEOUT) {
            Ok(socket) => return greet(socket, address, tls, token, patience),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn greet(
    mut socket: TcpStream,
    address: &str,
    tls: Option<Arc<ClientConfig>>,
    token: &[u8; TOKEN_BYTES],
    patience: Duration,
) -> io::Result<(SocketRead, SocketWrite)> {
    peers::prepare(&socket)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(patience))?;
    let hello = encode_peer_hello(token);
    let tls = match tls {
        None => None,
        Some(config) => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Some(tls)
        }
    };
    let (mut read, mut write, _) = split(socket, tls, patience);
    write.write(&mut [io::IoSlice::new(&hello)])?;
    let mut answer = [0; HEADER_BYTES];
    exact(&mut read, &mut answer)?;
    let header = Header::decode(&answer).map_err(io::Error::other)?;
    if header.kind == Kind::Welcome {
        return Ok((read, write));
    }
    let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
    exact(&mut read, &mut fault)?;
    let why = Fault::decode(&fault).map_or_else(|error| error.to_string(), |fault| fault.message);
    Err(io::Error::other(why))
}

fn exact(read: &mut SocketRead, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match read.read(into)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => into = &mut into[n..],
        }
    }
    Ok(())
}
