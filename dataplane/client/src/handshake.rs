//! The opening of a data connection.

use std::io;
use std::time::{Duration, Instant};

use genie_session::fault::Fault;
use genie_session::frame::{self, Header, Kind};

use crate::link::Link;

/// Opens the data path: hello, then the node's welcome.
pub fn handshake(link: &Link, token: &[u8], timeout: Duration) -> io::Result<Result<(), Fault>> {
    let mut fixed = [0; frame::TOKEN_BYTES];
    if token.len() != fixed.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a token of another length",
        ));
    }
    fixed.copy_from_slice(token);
    let deadline = Instant::now() + timeout;
    let mut on_time = || {
        if Instant::now() < deadline {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    };
    link.write_all(&[&frame::encode_hello(&fixed)], &mut on_time)?;
    let exact = |buffer: &mut [u8]| -> io::Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            match link.read(&mut buffer[at..])? {
                Some(n) => at += n,
                None => on_time()?,
            }
        }
        Ok(())
    };
    let mut header = [0; frame::HEADER_BYTES];
    exact(&mut header)?;
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let header = Header::decode(&header).map_err(|error| invalid(error.to_string()))?;
    let mut payload = vec![0; header.payload_len as usize];
    exact(&mut payload)?;
    match header.kind {
        Kind::Welcome => Ok(Ok(())),
        Kind::Lost => Fault::decode(&payload)
            .map(Err)
            .map_err(|error| invalid(error.to_string())),
        _ => Err(invalid("an unexpected answer to the hello".to_owned())),
    }
}
