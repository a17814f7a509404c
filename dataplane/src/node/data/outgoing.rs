//! Frames on their way to a client, from several threads.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

use genie_session::frame::{HEADER_BYTES, Header};
use parking_lot::{Mutex, MutexGuard};

use super::channel::Bulk;
use super::stream::WriteHalf;

/// Bytes of urgent frames that may wait. A client that pings and does not read loses answers.
const URGENT_MAX: usize = 16 << 10;

/// The sending side of a connection. The writer thread writes frames; anybody else leaves small
/// urgent ones, which whoever holds the socket sends between two frames.
pub struct Outgoing {
    half: Mutex<WriteHalf>,
    urgent: Mutex<Vec<u8>>,
    has_urgent: AtomicBool,
}

impl Outgoing {
    /// Of `half`.
    #[must_use]
    pub fn new(half: WriteHalf) -> Self {
        Self {
            half: Mutex::new(half),
            urgent: Mutex::new(Vec::with_capacity(HEADER_BYTES)),
            has_urgent: AtomicBool::new(false),
        }
    }

    /// Sends a small frame without waiting for another thread's large one.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_urgent(&self, header: &Header, payload: &[u8]) -> io::Result<()> {
        {
            let mut urgent = self.urgent.lock();
            if urgent.len() + HEADER_BYTES + payload.len() > URGENT_MAX {
                return Ok(());
            }
            urgent.extend_from_slice(&header.with_payload(payload.len()).encode());
            urgent.extend_from_slice(payload);
            self.has_urgent.store(true, Ordering::SeqCst);
        }
        self.flush_urgent()
    }

    /// Sends whole frames. Only the writer thread calls this.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.half.lock().write(parts)?;
        self.flush_urgent()
    }

    /// Sends whole frames, the last of which ends in `bytes`, which are what is at `bulk`. True
    /// once they have left; false when the reading side will be told. Only the writer thread calls
    /// this.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_bulk(&self, front: &[u8], bytes: &[u8], bulk: Bulk) -> io::Result<bool> {
        let left = self.half.lock().write_bulk(front, bytes, bulk)?;
        self.flush_urgent()?;
        Ok(left)
    }

    /// Sends whole frames, the last of which ends in `whole` bytes that the caller sends part by part.
    /// Nobody else sends anything until those are dropped. Only the writer thread calls this.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_parts(&self, front: &[u8], whole: u64) -> io::Result<Parts<'_>> {
        let mut half = self.half.lock();
        half.write(&mut [IoSlice::new(front)])?;
        Ok(Parts {
            outgoing: self,
            half,
            whole,
        })
    }

    /// Whoever can't get the socket leaves: its holder looks again after giving it up.
    fn flush_urgent(&self) -> io::Result<()> {
        while self.has_urgent.load(Ordering::SeqCst) {
            let Some(mut half) = self.half.try_lock() else {
                return Ok(());
            };
            let mut bytes = {
                let mut urgent = self.urgent.lock();
                self.has_urgent.store(false, Ordering::SeqCst);
                std::mem::take(&mut *urgent)
            };
            half.write(&mut [IoSlice::new(&bytes)])?;
            bytes.clear();
            // The buffer goes back, so that a ping allocates nothing.
            let mut urgent = self.urgent.lock();
            if urgent.is_empty() {
                *urgent = bytes;
            }
        }
        Ok(())
    }

    /// Sends the last frame, waiting for others, and says that nothing follows.
    pub fn finish(&self, last: Option<(&Header, &[u8])>) {
        let mut half = self.half.lock();
        if let Some((header, payload)) = last {
            let header = header.with_payload(payload.len()).encode();
            // The connection ends in any case.
            let _ = half.write(&mut [IoSlice::new(&header), IoSlice::new(payload)]);
        }
        half.finish();
    }
}

/// A bulk that is sent part by part.
pub struct Parts<'a> {
    outgoing: &'a Outgoing,
    half: MutexGuard<'a, WriteHalf>,
    whole: u64,
}

impl Parts<'_> {
    /// The next part: `bytes`, which are what is at `part`. As [`Outgoing::send_bulk`].
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, bytes: &[u8], part: Bulk) -> io::Result<bool> {
        self.half.write_part(bytes, part, self.whole)
    }

    /// All parts were sent.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn finish(self) -> io::Result<()> {
        let outgoing = self.outgoing;
        drop(self);
        outgoing.flush_urgent()
    }
}
