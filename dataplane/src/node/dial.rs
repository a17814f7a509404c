//! Connects to another node, to bring values of a session there.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::AppHalf;
use genie_session::fault::Fault;
use genie_session::frame::{
    HEADER_BYTES, Header, Kind, PAYLOAD_MAX, TOKEN_BYTES, encode_peer_hello,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::data::channel;
use super::data::peers;
use super::data::socket::{SocketRead, split};
use super::data::stream::{ReadHalf, WriteHalf};

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
) -> io::Result<(ReadHalf, WriteHalf)> {
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
) -> io::Result<(ReadHalf, WriteHalf)> {
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
        return Ok((ReadHalf::Socket(read), WriteHalf::Socket(write)));
    }
    Err(refused(&header, |into| exact(&mut read, into)))
}

/// The same over a connection of the transport that another node has offered; `on_sent` hears what has left.
///
/// # Errors
/// Nobody there within a few seconds; it refuses.
pub fn greet_on_link(
    app: AppHalf,
    token: &[u8; TOKEN_BYTES],
    lease: Duration,
    on_sent: channel::OnSent,
) -> io::Result<(ReadHalf, WriteHalf)> {
    let (mut read, mut write, _) = channel::split(app, lease, on_sent);
    write.write(&mut [io::IoSlice::new(&encode_peer_hello(token))])?;
    let mut exact = |mut into: &mut [u8]| {
        while !into.is_empty() {
            match read.read_within(into, TIMEOUT)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => into = &mut into[n..],
            }
        }
        Ok::<_, io::Error>(())
    };
    let mut answer = [0; HEADER_BYTES];
    exact(&mut answer)?;
    let header = Header::decode(&answer).map_err(io::Error::other)?;
    if header.kind != Kind::Welcome {
        return Err(refused(&header, exact));
    }
    Ok((ReadHalf::Channel(Box::new(read)), WriteHalf::Channel(write)))
}

/// Why another node does not let this one in.
fn refused(header: &Header, mut exact: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Error {
    let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
    if let Err(error) = exact(&mut fault) {
        return error;
    }
    let why = Fault::decode(&fault).map_or_else(|error| error.to_string(), |fault| fault.message);
    io::Error::other(why)
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
