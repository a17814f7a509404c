//! TLS over a blocking socket, as two halves for two threads: one reads while the other writes.
//!
//! A rustls connection is one thing for both directions, and a thread that waits for the socket must
//! not keep the other one from its work. So the connection is locked for cryptography only, never
//! during a call of the socket. There are no sockets here: each call is given what ciphertext comes
//! from or goes to, as [`std::io::Read`] or [`std::io::Write`].
//!
//! A socket with a timeout fails now and then only because time passed: a *tick* ([`is_tick`]). A
//! half has its own ciphertext (what it took from the socket and rustls did not take yet, or what
//! the socket did not take yet), so a tick loses nothing. Both are bounded: 64 KiB on the way in, and
//! of less than 192 KiB of plaintext on the way out.
//!
//! rustls's buffered connection was chosen over its unbuffered one, which would save copies: the
//! handshake is done by others (tokio-rustls, `complete_io`), which hand over the former.

mod read;
mod ticks;
mod write;

use std::sync::Arc;

use parking_lot::Mutex;
pub use rustls::Connection;

pub use self::read::TlsRead;
pub use self::ticks::{is_tick, write_all};
pub use self::write::TlsWrite;

/// Splits a connection, a client's or a server's, whose handshake is done.
#[must_use]
pub fn split(connection: impl Into<Connection>) -> (TlsRead, TlsWrite) {
    let session = Arc::new(Mutex::new(connection.into()));
    (TlsRead::new(Arc::clone(&session)), TlsWrite::new(session))
}
