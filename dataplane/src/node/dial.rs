//! Connects to another node, to bring values of a session there.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use genie_channel::AppHalf;
use genie_server::channel::server_name;
use genie_session::fault::Fault;
use genie_session::frame::{
    HEADER_BYTES, Header, Kind, PAYLOAD_MAX, TOKEN_BYTES, encode_peer_hello,
};
use rustls::{ClientConfig, ClientConnection};

use super::data::channel;
use super::data::peers;
use super::data::socket::split;
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
            let name = server_name(address).map_err(io::Error::other)?;
            let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Some(tls)
        }
    };
    let (mut read, mut write, _) = split(socket, tls, patience);
    write.write(&mut [io::IoSlice::new(&hello)])?;
    welcomed(|into| read.read(into))?;
    Ok((ReadHalf::Socket(read), WriteHalf::Socket(write)))
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
    welcomed(|into| read.read_within(into, TIMEOUT))?;
    Ok((ReadHalf::Channel(Box::new(read)), WriteHalf::Channel(write)))
}

/// Hears whether the other node lets this one in.
fn welcomed(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut exact = |mut into: &mut [u8]| {
        while !into.is_empty() {
            match read(into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => into = &mut into[n..],
            }
        }
        Ok::<_, io::Error>(())
    };
    let mut answer = [0; HEADER_BYTES];
    exact(&mut answer)?;
    let header = Header::decode(&answer).map_err(io::Error::other)?;
    if header.kind == Kind::Welcome {
        return Ok(());
    }
    let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
    exact(&mut fault)?;
    let why = Fault::decode(&fault).map_or_else(|error| error.to_string(), |fault| fault.message);
    Err(io::Error::other(why))
}
