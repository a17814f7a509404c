//! What frames of the node mean.

use std::io;
use std::sync::atomic::Ordering;

use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind};

use super::{Destination, Error, Key, Outgoing, Session, Slot};

impl Session {
    /// Handles a frame without raw bytes.
    pub(crate) fn handle(&self, header: &Header, payload: &[u8]) -> io::Result<()> {
        let hostile = |error: genie_session::WireError| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        match header.kind {
            Kind::Ack => {
                self.append
                    .lock()
                    .log
                    .acknowledged(header.seq, header.aux)
                    .map_err(hostile)?;
                Ok(())
            }
            Kind::Synced => {
                self.answer(Key::Wait(header.seq), Ok(Vec::new()));
                Ok(())
            }
            Kind::Metas => {
                self.answer(Key::Call(header.seq), Ok(payload.to_vec()));
                Ok(())
            }
            Kind::FetchFault => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                let key = match header.aux {
                    0 => Key::Wait(header.seq),
                    _ => Key::Call(header.seq),
                };
                self.answer(key, Err(fault));
                Ok(())
            }
            Kind::Fault => {
                self.counters.fault();
                Fault::decode(payload).map(|_| ()).map_err(hostile)
            }
            Kind::Refused => {
                let mut append = self.append.lock();
                let messages = append
                    .log
                    .refused(header.seq, header.aux)
                    .map_err(hostile)?;
                let mut outbox = self.outbox.lock();
                outbox.extend(messages.into_iter().map(|m| Outgoing {
                    message: m,
                    raw: None,
                }));
                drop(outbox);
                self.flush_into_outbox(&mut append);
                drop(append);
                // Written by whoever comes next: a reader must not wait for a writer.
                self.mark_dirty();
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::Lost => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                self.lose(Error::from_fault(&fault, ""));
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an unexpected frame",
            )),
        }
    }

    /// A part of an answer is there, more will come.
    pub(crate) fn part(&self, key: Key, place: Destination) {
        if let Some(slot @ Slot::Receiving) = self.slots.lock().get_mut(&key) {
            *slot = Slot::Pending(place);
        }
    }

    pub(crate) fn answer(&self, key: Key, result: Result<Vec<u8>, Fault>) {
        let mut slots = self.slots.lock();
        match slots.get_mut(&key) {
            Some(Slot::Abandoned) => {
                slots.remove(&key);
            }
            Some(slot) => *slot = Slot::Done(result),
            // Asked for by a record that is being repeated: nobody waits.
            None => {}
        }
        if self.waiting.load(Ordering::Relaxed) > 1 {
            self.woken.notify_all();
        }
    }
}
