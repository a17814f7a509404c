//! How both ends come by a TCP data path: the session protocol's hello and welcome.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use genie_client::address::Address;
use genie_client::handshake::handshake;
use genie_client::link::Link;
use genie_session::frame::{HELLO_BYTES, Header, Kind, TOKEN_BYTES, decode_hello};

use super::stream::{Accepted, Connected, Stream as _};
use super::{Side, Tcp};
use crate::control::{Control, readable};

/// How long the other end may take to connect, and to say who it is.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look whether it is still there.
const LOOK: Duration = Duration::from_millis(100);

/// What ties a data path to its measurement.
pub type Token = [u8; TOKEN_BYTES];

/// A new token.
pub fn token() -> Result<Token> {
    let mut token = [0; TOKEN_BYTES];
    getrandom::fill(&mut token).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(token)
}

/// Listens where the control socket is, or on loopback.
pub fn listen(control: &Control) -> Result<TcpListener> {
    let ip = match control.peer() {
        Some(socket) => socket.local_addr()?.ip(),
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    TcpListener::bind(SocketAddr::new(ip, 0)).context("no port for the data path")
}

/// Waits for the connection that knows the token, from who is at the other end of `control`.
pub fn accept(
    listener: &TcpListener,
    token: &Token,
    control: &Control,
) -> Result<Tcp<impl super::Stream + use<>>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if Instant::now() > deadline || control.is_gone() {
            bail!("the other end did not open its data path");
        }
        if !readable(listener.as_raw_fd(), LOOK) {
            continue;
        }
        let (socket, _) = listener.accept()?;
        // Others than the one that is waited for are none of our business.
        if let Ok(stream) = welcome(socket, token, deadline) {
            return Ok(Tcp::new(stream, Side::Accepting));
        }
    }
}

fn welcome(socket: TcpStream, token: &Token, deadline: Instant) -> Result<Accepted> {
    let stream = Accepted::new(socket)?;
    let mut hello = [0; HELLO_BYTES];
    let mut at = 0;
    while at < hello.len() {
        if Instant::now() > deadline {
            bail!("no hello");
        }
        at += stream.read(&mut hello[at..])?.unwrap_or(0);
    }
    if decode_hello(&hello)? != *token {
        bail!("another token");
    }
    stream.write(&[&Header::new(Kind::Welcome, 0, 0).encode()])?;
    Ok(stream)
}

/// Connects to the data path of the other end.
pub fn connect(host: &str, port: u16, token: &Token) -> Result<Tcp<impl super::Stream + use<>>> {
    let address = Address::Node {
        host: host.to_owned(),
        port,
    };
    let link = Link::connect(&address, None, TIMEOUT)
        .with_context(|| format!("no data path to {address}"))?;
    handshake(&link, token, TIMEOUT)?
        .map_err(|fault| anyhow::anyhow!("the data path: {}", fault.message))?;
    let stream = Connected {
        link,
        sealed: false,
    };
    Ok(Tcp::new(stream, Side::Connecting))
}
