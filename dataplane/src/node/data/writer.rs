//! Executor to socket.
//!
//! Small frames are gathered and leave in one system call when the ring is empty. The bytes of a
//! reply leave straight from the executor's memory, or from staging memory where that is a device's.
//! What comes from the ring is not trusted.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_channel::BULK_PART_MAX;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_session::transfer::Transfer;
use genie_shm::{RingConsumer, RingError};

use super::channel::Bulk;
use super::end::End;
use super::inbox::Undelivered;
use super::link::Link;
use super::memory::SessionMemory;
use super::running::Running;
use super::session::Session;
use super::staging::{SessionMemoryError, Staged};
use super::ways::Parcel;

/// Gathered bytes that leave although more frames wait.
const GATHER_BYTES: usize = 64 << 10;
/// How soon a frame of the daemon's own that found the ring full is tried again.
const POSTED_WAIT: Duration = Duration::from_millis(1);
/// How long to sleep otherwise. Frames and the ring's end wake it at once.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// How long the news of an executor's death may take after its ring closed.
const NEWS_WAIT: Duration = Duration::from_millis(500);

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The executor left, or broke the ring.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// The executor said what it may not.
    #[error("the executor broke the protocol: {0}")]
    Violation(&'static str),
    /// The executor ended the session.
    #[error("{}", .0.message)]
    Lost(Fault),
    /// The connection broke, or the client does not read.
    #[error("nothing can be sent to the client: {0}")]
    Socket(#[from] io::Error),
    /// The executor takes nothing.
    #[error(transparent)]
    Inbox(#[from] Undelivered),
    /// The device's memory.
    #[error(transparent)]
    Memory(#[from] SessionMemoryError),
}

/// Sends what the executor says until it stops; then ends the session.
pub fn run(session: &Arc<Session>, link: &Link, running: &Running, ring: RingConsumer) {
    let mut writer = Writer {
        session,
        link,
        running,
        frame: Vec::with_capacity(4096),
        gathered: Vec::with_capacity(4096),
    };
    let error = writer.run(ring);
    session.end(match error {
        WriteError::Lost(fault) => End::lost(fault),
        WriteError::Socket(_) => End {
            reason: error.to_string(),
            fault: None,
            lost: true,
        },
        // Whichever of its rings was found closed first.
        WriteError::Ring(RingError::Closed)
        | WriteError::Inbox(Undelivered::Ring(RingError::Closed)) => {
            let fault = session.executor_fault(NEWS_WAIT);
            if !session.is_over() {
                session.host().metrics.executors_died.increment();
            }
            End::lost(fault)
        }
        other => End::lost(Fault::new(
            Code::ExecutorDied,
            session.counters.records.value(),
            format!(
                "the executor of session {} was ended: {other}; reconnect to go on",
                session.id()
            ),
        )),
    });
}

const OUTSIDE: WriteError = WriteError::Violation("a reply outside its memory");

struct Writer<'a> {
    session: &'a Session,
    link: &'a Link,
    running: &'a Running,
    /// The frame that was taken out last.
    frame: Vec<u8>,
    /// Frames to send together.
    gathered: Vec<u8>,
}

impl Writer<'_> {
    fn run(&mut self, mut ring: RingConsumer) -> WriteError {
        loop {
            if let Err(error) = self.step(&mut ring) {
                // What came before is still for the client.
                return self.flush().err().unwrap_or(error);
            }
        }
    }

    fn step(&mut self, ring: &mut RingConsumer) -> Result<(), WriteError> {
        while ring.try_pop(&mut self.frame)? {
            self.take()?;
            if self.gathered.len() >= GATHER_BYTES {
                self.flush()?;
            }
        }
        self.flush()?;
        let wait = if self.running.inbox.flush()? {
            IDLE_WAIT
        } else {
            POSTED_WAIT
        };
        if ring.pop_timeout(&mut self.frame, wait)? {
            self.take()?;
        }
        Ok(())
    }

    /// Takes one frame of the executor.
    fn take(&mut self) -> Result<(), WriteError> {
        let header = self
            .frame
            .first_chunk::<HEADER_BYTES>()
            .ok_or(WriteError::Violation("a frame without a header"))?;
        let header = Header::decode(header)
            .map_err(|_| WriteError::Violation("a frame header that is none"))?;
        let payload = &self.frame[HEADER_BYTES..];
        if payload.len() != header.payload_len as usize {
            return Err(WriteError::Violation(
                "a payload of another length than announced",
            ));
        }
        let counters = &self.session.counters;
        match header.kind {
            Kind::Ack => {
                self.session.executed(header.seq);
                self.gather();
            }
            Kind::Fault | Kind::FetchFault => {
                if let Some(&code) = payload.first() {
                    self.session.host().metrics.fault_byte(code);
                }
                self.gather();
            }
            Kind::Metas | Kind::Synced => {
                self.session.result(None);
                self.gather();
            }
            Kind::Refused | Kind::Times => self.gather(),
            Kind::Data => {
                self.session.result(Some(header.aux));
                return self.data(&header);
            }
            Kind::Transfer => {
                let [place, total] = match payload.as_chunks::<8>() {
                    ([place, total], []) => [place, total].map(|word| u64::from_le_bytes(*word)),
                    _ => return Err(WriteError::Violation("a transfer without a place")),
                };
                let parcel = Parcel::Part {
                    transfer: header.seq,
                    place,
                    bytes: header.aux,
                    total,
                };
                let sent = self.session.ways.send(Transfer(header.seq).to(), parcel);
                if !sent && header.aux > 0 {
                    self.running.place_sent(place)?;
                }
            }
            Kind::TransferFault => {
                let fault = Fault::decode(payload)
                    .map_err(|_| WriteError::Violation("a fault that is none"))?;
                let parcel = Parcel::Fault(header.seq, fault);
                // Without a way nobody waits for it.
                let _ = self.session.ways.send(Transfer(header.seq).to(), parcel);
            }
            Kind::Unwanted => self.session.unwanted.add(header.seq),
            Kind::Lost => {
                let fault = Fault::decode(payload)
                    .map_err(|_| WriteError::Violation("a fault that is none"))?;
                return Err(WriteError::Lost(fault));
            }
            Kind::PlanInstalled => {
                let plan = u32::try_from(header.seq)
                    .map_err(|_| WriteError::Violation("a plan past 32 bits"))?;
                self.session.plan_installed(plan, header.aux == 0);
            }
            Kind::PlaceFree => {
                let gone = self.running.memory.free(header.seq);
                let gone =
                    gone.map_err(|_| WriteError::Violation("a free of a place that is not taken"))?;
                self.session.count_arrived(self.running);
                if let Some(pool) = gone {
                    self.running.pool_gone(pool)?;
                }
            }
            Kind::Usage => {
                counters.tensors.set(header.seq);
                counters.memory_bytes.set(header.aux);
                self.session.count_held(header.aux);
                if let Some(hits) = payload.first_chunk::<8>() {
                    counters.plan_hits.set(u64::from_le_bytes(*hits));
                }
            }
            _ => {
                return Err(WriteError::Violation(
                    "a frame that an executor may not send",
                ));
            }
        }
        Ok(())
    }

    fn gather(&mut self) {
        self.gathered.extend_from_slice(&self.frame);
        self.session.sent(self.frame.len() as u64);
    }

    /// Sends a reply whose bytes are in the session's memory, then gives their place back. Its header
    /// is sent only when the bytes can follow.
    fn data(&mut self, header: &Header) -> Result<(), WriteError> {
        let place = self.frame[HEADER_BYTES..]
            .first_chunk::<8>()
            .map(|place| u64::from_le_bytes(*place))
            .ok_or(WriteError::Violation("a reply without a place"))?;
        let bytes = header.aux;
        if bytes == 0 {
            self.gather_data(header);
            return Ok(());
        }
        let shared = match &self.running.memory {
            SessionMemory::Shared(shared) => shared,
            SessionMemory::Staged(staged) => return self.staged(header, staged, place),
        };
        // SAFETY: the bytes are only passed on, to a system call or a cipher.
        let memory = unsafe { shared.outbound.bytes(place, bytes) }.map_err(|_| OUTSIDE)?;
        self.gather_data(header);
        let bulk = Bulk { place, len: bytes };
        let left = self.link.outgoing.send_bulk(&self.gathered, memory, bulk)?;
        self.gathered.clear();
        if left {
            self.running.place_sent(place)?;
        }
        Ok(())
    }

    fn gather_data(&mut self, header: &Header) {
        let header = Header {
            payload_len: 0,
            ..*header
        };
        self.gathered.extend_from_slice(&header.encode());
        self.session.sent(HEADER_BYTES as u64 + header.aux);
    }

    /// The same for bytes in a device's memory: each part is copied to its slot while the one before
    /// it leaves.
    fn staged(&mut self, header: &Header, staged: &Staged, place: u64) -> Result<(), WriteError> {
        let (host, bytes) = (self.session.host(), header.aux);
        if !staged.holds_reply(place, bytes) {
            return Err(OUTSIDE);
        }
        let fetch = |start: u64| {
            let len = (bytes - start).min(BULK_PART_MAX);
            let began = Instant::now();
            staged.fetch(place + start, len, &host.metrics.staged, || {
                self.session.is_over() || began.elapsed() >= host.lease
            })
        };
        let mut next = Some(fetch(0)?);
        self.gather_data(header);
        let mut parts = self.link.outgoing.send_parts(&self.gathered, bytes)?;
        self.gathered.clear();
        // A client that has a part is told nothing more: it would take it for the rest.
        let broken = |error: SessionMemoryError| WriteError::Socket(io::Error::other(error));
        let mut done = 0;
        while let Some(part) = next.take() {
            done += part.len;
            if done < bytes {
                next = Some(fetch(done).map_err(broken)?);
            }
            staged.wait_fetched(&part).map_err(broken)?;
            let bulk = Bulk {
                place: part.slot,
                len: part.len,
            };
            // SAFETY: the copy into the slot is done, and the slot is this part's until it left.
            let memory = unsafe { staged.outgoing.mapping().bytes(part.slot, part.len) };
            let memory = memory.map_err(|error| broken(error.into()))?;
            if parts.send(memory, bulk)? {
                staged.outgoing.free(part.slot);
            }
        }
        parts.finish()?;
        self.running.place_sent(place)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if !self.gathered.is_empty() {
            self.link
                .outgoing
                .send(&mut [IoSlice::new(&self.gathered)])?;
            self.gathered.clear();
        }
        Ok(())
    }
}
