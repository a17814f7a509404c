//! The half that writes.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::Connection;

use crate::ticks::write_some;

/// Plaintext that is sealed under one lock, at least if there is so much. rustls itself takes at
/// most 64 KiB at a time.
const SEALED_BYTES: usize = 128 << 10;

/// Seals what goes to a peer.
pub struct TlsWrite {
    session: Arc<Mutex<Connection>>,
    /// Ciphertext, of which the first `sent` bytes have left.
    sealed: Vec<u8>,
    sent: usize,
}

impl TlsWrite {
    pub(crate) fn new(session: Arc<Mutex<Connection>>) -> Self {
        Self {
            session,
            sealed: Vec::new(),
            sent: 0,
        }
    }

    /// Writes all of `parts`; small ones leave together. At a tick it asks `go_on`.
    ///
    /// # Errors
    /// Those of `to`; what `go_on` makes of a tick; `InvalidData` if the peer broke the protocol.
    /// How much of `parts` was sealed is not known then (see [`TlsWrite::write_from`]). What was leaves before anything else, with
    /// the next call.
    pub fn write(
        &mut self,
        to: &mut impl Write,
        mut parts: &mut [IoSlice<'_>],
        go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
    ) -> io::Result<()> {
        self.write_from(to, &mut parts, go_on)
    }

    /// As [`TlsWrite::write`]; takes off `parts` what was sealed, also if it fails.
    ///
    /// # Errors
    /// As [`TlsWrite::write`].
    pub fn write_from(
        &mut self,
        to: &mut impl Write,
        parts: &mut &mut [IoSlice<'_>],
        go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
    ) -> io::Result<()> {
        IoSlice::advance_slices(parts, 0);
        while !parts.is_empty() {
            self.send(to, go_on)?;
            self.seal(parts)?;
        }
        self.send(to, go_on)
    }

    /// Says that nothing follows (close_notify), so that the peer can tell the end from a cut.
    ///
    /// # Errors
    /// As [`TlsWrite::write`].
    pub fn finish(
        &mut self,
        to: &mut impl Write,
        go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
    ) -> io::Result<()> {
        {
            let mut session = self.session.lock();
            session.send_close_notify();
            take_sealed(&mut session, &mut self.sealed)?;
        }
        self.send(to, go_on)
    }

    /// Seals what comes next of `parts`, and takes it off them.
    fn seal(&mut self, parts: &mut &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut session = self.session.lock();
        while !parts.is_empty() && self.sealed.len() < SEALED_BYTES {
            let n = session.writer().write_vectored(parts)?;
            IoSlice::advance_slices(parts, n);
            // Beside rustls's own messages, such as new keys, less than a piece may have found room.
            // But then these leave.
            if take_sealed(&mut session, &mut self.sealed)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Sends what is sealed.
    fn send(
        &mut self,
        to: &mut impl Write,
        go_on: &mut dyn FnMut(io::Error) -> io::Result<()>,
    ) -> io::Result<()> {
        while self.sent < self.sealed.len() {
            let rest = IoSlice::new(&self.sealed[self.sent..]);
            self.sent += write_some(to, &[rest], go_on)?;
        }
        self.sealed.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Takes ciphertext out of rustls; gives how much.
fn take_sealed(session: &mut Connection, sealed: &mut Vec<u8>) -> io::Result<usize> {
    let before = sealed.len();
    while session.wants_write() {
        session.write_tls(sealed)?;
    }
    Ok(sealed.len() - before)
}
