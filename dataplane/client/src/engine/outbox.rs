//! Writing messages, in order, by whoever is there.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use genie_session::frame::Kind;

use super::{Error, Exception, Outgoing, Session};
use crate::link::Stall;

impl Session {
    /// Writes what is in the outbox. With `must`, all of it is written when this returns; without,
    /// another thread may be at it.
    pub(super) fn pump(&self, must: bool) -> Result<(), Error> {
        loop {
            let guard = if must {
                self.writing.lock()
            } else {
                match self.writing.try_lock() {
                    Some(guard) => guard,
                    None => return Ok(()),
                }
            };
            loop {
                let next = self.outbox.lock().pop_front();
                let Some(outgoing) = next else { break };
                self.write(outgoing)?;
            }
            drop(guard);
            // Somebody may have found the lock taken after the last look.
            if self.outbox.lock().is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn write(&self, outgoing: Outgoing) -> Result<(), Error> {
        self.check()?;
        let header = outgoing.message.header.encode();
        let raw = match outgoing.raw {
            // SAFETY: the thread that owns the memory waits for this message (see `upload`).
            Some((pointer, len)) => unsafe { std::slice::from_raw_parts(pointer, len) },
            None => &[],
        };
        let payload = &outgoing.message.payload;
        if outgoing.message.header.kind == Kind::Ping {
            let heard = self.last_received_ms.load(Ordering::Relaxed);
            self.last_ping_ms
                .store(self.now_ms().max(heard + 1), Ordering::Relaxed);
            self.ping_queued.store(false, Ordering::Relaxed);
        }
        let mut interrupted = false;
        let mut stall = Stall::new(Instant::now(), self.link.moved());
        let written = self.link.write_frame(&header, payload, raw, &mut || {
            if self.is_lost.load(Ordering::Acquire) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if self.host.look_at_signals().is_err() {
                interrupted = true;
                return Err(io::ErrorKind::Interrupted.into());
            }
            let stalled = stall.tick(Instant::now(), self.link.moved());
            let heard = self.last_received_ms.load(Ordering::Relaxed);
            let silent = Duration::from_millis(self.now_ms().saturating_sub(heard));
            if stalled.min(silent) > self.dead_after() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it takes no more bytes",
                ));
            }
            Ok(())
        });
        self.counters
            .sent((header.len() + payload.len() + raw.len()) as u64);
        if let Err(error) = written {
            if interrupted {
                // Half a message is on the wire: the stream can't go on.
                self.lose(Error::Genie(
                    Exception::NodeLost,
                    "interrupted in the middle of sending: the session is over; \
                     genie.connect() starts another"
                        .to_owned(),
                ));
                return Err(Error::Interrupted);
            }
            self.lose_link(&error);
            return self.check();
        }
        if let Some(mut append) = self.append.try_lock() {
            append.log.recycle(outgoing.message.payload);
        }
        Ok(())
    }
}
