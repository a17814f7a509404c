//! What frames of the node mean.

use std::io;

use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind};

use super::slots::Key;
use super::{Lane, Session};

impl Session {
    /// Handles a frame without raw bytes that came on `lane`.
    pub(super) fn handle(&self, lane: &Lane, header: &Header, payload: &[u8]) -> io::Result<()> {
        let hostile = |error: genie_session::WireError| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        match header.kind {
            Kind::Ack => {
                self.append.lock().logs[lane.index]
                    .log
                    .acknowledged(header.seq, header.aux)
                    .map_err(hostile)?;
                Ok(())
            }
            Kind::Synced => {
                lane.slots.answer(Key::Wait(header.seq), Ok(Vec::new()));
                Ok(())
            }
            Kind::Metas => {
                lane.slots
                    .answer(Key::Call(header.seq), Ok(payload.to_vec()));
                Ok(())
            }
            Kind::FetchFault => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                let key = match header.aux {
                    0 => Key::Wait(header.seq),
                    _ => Key::Call(header.seq),
                };
                lane.slots.answer(key, Err(fault));
                Ok(())
            }
            Kind::Fault => {
                self.counters.fault();
                Fault::decode(payload).map(|_| ()).map_err(hostile)
            }
            Kind::Refused => {
                let mut append = self.append.lock();
                let messages = append.logs[lane.index]
                    .log
                    .refused(header.seq, header.aux)
                    .map_err(hostile)?;
                for message in messages {
                    lane.outbox.put(message);
                }
                self.flush_into_outbox(lane, &mut append);
                drop(append);
                // Written by whoever comes next: a reader must not wait for a writer.
                self.mark_dirty(lane);
                Ok(())
            }
            Kind::Pong => {
                self.profiler.ponged(lane.index, header.aux, payload);
                Ok(())
            }
            Kind::Times => (self.profiler)
                .measured(lane.index, payload, header.aux == 1)
                .map_err(hostile),
            Kind::Lost => {
                let fault = Fault::decode(payload).map_err(hostile)?;
                lane.lose(self.error_of(&fault, ""));
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an unexpected frame",
            )),
        }
    }
}
