//! The half that reads.

use std::io::{self, BufRead as _, Read};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::Connection;

/// Ciphertext that one call of the socket takes at most.
const SEALED_BYTES: usize = 64 << 10;

/// Opens what a peer sealed.
pub struct TlsRead {
    session: Arc<Mutex<Connection>>,
    /// Ciphertext. From `start` to `end` rustls did not take it yet: it holds little plaintext.
    sealed: Box<[u8]>,
    start: usize,
    end: usize,
    /// The peer broke the protocol: said once all that came before is read.
    violation: Option<rustls::Error>,
}

impl TlsRead {
    pub(crate) fn new(session: Arc<Mutex<Connection>>) -> Self {
        Self {
            session,
            sealed: vec![0; SEALED_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            violation: None,
        }
    }

    /// Reads what is there, at least a byte; 0 once the peer said that it is done (close_notify).
    /// `from` is asked only while there is nothing else to give.
    ///
    /// # Errors
    /// Those of `from` as they are, and after a tick it can be called again; `UnexpectedEof` if
    /// `from` ends before the peer said so; `InvalidData` if the peer breaks the protocol.
    pub fn read(&mut self, from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(n) = self.open(bytes)? {
                return Ok(n);
            }
            let n = from.read(&mut self.sealed)?;
            (self.start, self.end) = (0, n);
            if n == 0 {
                // rustls knows whether that was announced.
                self.session.lock().read_tls(&mut io::empty())?;
            }
        }
    }

    /// Whether a read would get something, or fail, without `from`: a poll of the socket does not
    /// tell of it. May also be true of less than a record.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.start < self.end
            || self.violation.is_some()
            || (self.session.lock().reader().fill_buf()).is_ok_and(|opened| !opened.is_empty())
    }

    /// Opens what is here. `None` if there is not a byte.
    fn open(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        let mut session = self.session.lock();
        let mut filled = 0;
        loop {
            match session.reader().read(&mut bytes[filled..]) {
                // It is full, or that was the end.
                Ok(0) => return Ok(Some(filled)),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without what rustls advises its user to do.
                Err(error) => return Err(error.kind().into()),
            }
            let is_full = filled == bytes.len();
            if is_full || self.violation.is_some() || self.start == self.end {
                return match &self.violation {
                    _ if filled > 0 => Ok(Some(filled)),
                    Some(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why.clone())),
                    None => Ok(None),
                };
            }
            self.start += session.read_tls(&mut &self.sealed[self.start..self.end])?;
            self.violation = session.process_new_packets().err();
        }
    }
}
