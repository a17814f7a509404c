//! The life of an executor: frames in, operators run, frames out.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genie_gpudev::device::{self, DeviceError};
use genie_gpudev::message::Tensors;
use genie_gpudev::{DeviceKind, Limits};
use genie_session::WireError;
use genie_session::fault::{Code, Fault};
use genie_session::frame::{HEADER_BYTES, Header, Kind, NO_PLACE};
use genie_session::machine::Source;
use genie_session::node::NodeLog;
use genie_shm::{Mapping, MemoryError, RingConsumer, RingError, RingProducer, Word};

use crate::machine::TorchMachine;
use crate::places::{self, PlacesError};
use crate::port::Port;
use crate::{ffi, memory};

/// Memory use is reported at most this often.
const USAGE_EVERY: Duration = Duration::from_millis(100);
/// An executor that has nothing to do for so long gives its spare memory back.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// Why an executor ended before its session.
#[derive(Debug)]
enum End {
    /// The session said goodbye, or the daemon closed the rings.
    Closed,
    /// The client broke the protocol.
    Client(WireError),
    /// The rings are damaged.
    Ring(RingError),
    /// The device failed.
    Device(String),
}

/// Why an executor did not begin.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("a fork without its files")]
    Files,
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Places(#[from] PlacesError),
}

impl From<RingError> for End {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Closed => Self::Closed,
            other => Self::Ring(other),
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Client(error)
    }
}

/// Runs one session to its end; gives the exit status.
pub fn run(files: Vec<OwnedFd>, kind: DeviceKind, tensors: Tensors, limits: &Limits) -> i32 {
    let mut files = files.into_iter();
    let mut port = match port(&mut files, limits) {
        Ok(port) => port,
        Err(error) => {
            tracing::error!(%error, "the executor's rings");
            return 3;
        }
    };
    memory::set_limit(limits.memory_bytes);
    let places = match places(&mut files, kind, tensors) {
        Ok(places) => places,
        Err(error) => {
            tracing::error!(%error, device = %kind, "the executor's memory");
            lost(
                &mut port,
                Fault::new(Code::NotImplemented, 0, error.to_string()),
            );
            return 3;
        }
    };
    if let Some(word) = files.next().and_then(|file| Word::from_peer(file).ok()) {
        memory::set_allowance(word);
    }
    let cuda = match kind {
        DeviceKind::Cuda(_) if is_simulated() => {
            tracing::warn!("CUDA is simulated: operators run on the CPU, in memory of no GPU");
            None
        }
        DeviceKind::Cuda(index) => Some(index),
        DeviceKind::Host(_) => None,
    };
    if let Err(failure) = ffi::start(cuda, limits.threads) {
        tracing::error!(message = failure.message, device = %kind, "the device can't be used");
        lost(
            &mut port,
            Fault::new(Code::NotImplemented, 0, failure.message),
        );
        return 3;
    }
    let (inbound, outbound) = places;
    let mut machine = TorchMachine::new(port, inbound, outbound, kind);
    machine.slow_down(limits.speed_percent);
    match serve(&mut machine) {
        End::Closed => 0,
        End::Client(error) => {
            lost(
                &mut machine.port,
                Fault::new(Code::Protocol, 0, error.to_string()),
            );
            2
        }
        End::Device(message) => {
            tracing::error!(message, device = %kind, "the device failed");
            lost(&mut machine.port, Fault::new(Code::Operator, 0, message));
            3
        }
        End::Ring(error) => {
            tracing::error!(%error, "the executor's rings");
            3
        }
    }
}

/// Tests have a simulated driver, whose memory the CPU reaches. libtorch's CUDA needs a real one.
fn is_simulated() -> bool {
    std::env::var_os("GENIE_SIMULATED_CUDA").is_some_and(|value| value == "1")
}

fn port(files: &mut impl Iterator<Item = OwnedFd>, limits: &Limits) -> Result<Port, StartError> {
    let mut map = || {
        let file = files.next().ok_or(StartError::Files)?;
        Ok::<_, StartError>(Arc::new(Mapping::from_peer(file)?))
    };
    Ok(Port::new(
        RingConsumer::open(map()?, limits.wait_policy())?,
        RingProducer::open(map()?)?,
    ))
}

fn places(
    files: &mut impl Iterator<Item = OwnedFd>,
    kind: DeviceKind,
    tensors: Tensors,
) -> Result<(places::Inbound, places::Outbound), StartError> {
    let mut next = || files.next().ok_or(StartError::Files);
    Ok(match tensors {
        Tensors::Shared => places::shared(next()?, next()?)?,
        Tensors::Pools => places::pools(device::open(kind)?, next()?)?,
    })
}

/// Tells the daemon why the session is over.
fn lost(port: &mut Port, fault: Fault) {
    drop(port.send(Header::new(Kind::Lost, 0, 0), &fault.encode()));
}

fn serve(machine: &mut TorchMachine) -> End {
    let mut session = Session::default();
    loop {
        if let Err(end) = session.step(machine) {
            return end;
        }
    }
}

#[derive(Default)]
struct Session {
    log: NodeLog,
    frame: Vec<u8>,
    replies: Vec<(Header, Vec<u8>)>,
    released: Vec<u64>,
    reported: (u64, u64),
    reported_at: Option<Instant>,
    idle: bool,
}

impl Session {
    /// One frame, or a wait for it.
    fn step(&mut self, machine: &mut TorchMachine) -> Result<(), End> {
        let mut frame = std::mem::take(&mut self.frame);
        let came = machine.port.try_next(&mut frame)? || self.wait(machine, &mut frame)?;
        if came {
            self.idle = false;
            self.apply(machine, &frame)?;
        } else if !self.idle && self.reported_at.is_some_and(|at| at.elapsed() > IDLE_AFTER) {
            self.idle = true;
            machine.trim();
        }
        self.frame = frame;
        Ok(())
    }

    /// Nothing to do: everything that is ready leaves, then the executor sleeps.
    fn wait(&mut self, machine: &mut TorchMachine, frame: &mut Vec<u8>) -> Result<bool, End> {
        self.release(machine, true)?;
        let pending = self.report(machine)?;
        let timeout = if pending { USAGE_EVERY } else { IDLE_AFTER };
        Ok(machine.port.next(frame, timeout)?)
    }

    fn apply(&mut self, machine: &mut TorchMachine, frame: &[u8]) -> Result<(), End> {
        let (head, payload) = frame
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(WireError::Truncated)?;
        let header = Header::decode(head)?;
        if header.payload_len as usize != payload.len() {
            return Err(WireError::Malformed("a frame of another length than it says").into());
        }
        match header.kind {
            Kind::Goodbye => return Err(End::Closed),
            Kind::PlaceSent => machine.place_sent(header.seq),
            Kind::Came => machine.frame_came(header.seq, header.aux),
            Kind::Profile => machine.set_profiling(header.aux == 1)?,
            Kind::PoolGone => machine.pool_gone(header.seq),
            Kind::Arrived | Kind::ArrivedFault | Kind::PeerGone => {
                machine.transfer_news(&header, payload)?;
            }
            Kind::Bulk => {
                machine.takes_frame();
                let (place, record) = payload
                    .split_first_chunk::<8>()
                    .ok_or(WireError::Truncated)?;
                let source = match u64::from_le_bytes(*place) {
                    NO_PLACE => Source::NoMemory,
                    place => Source::Place(place),
                };
                let header = header.with_payload(record.len());
                self.log
                    .handle(&header, record, source, machine, &mut self.replies)?;
            }
            _ => {
                machine.takes_frame();
                let none = Source::NoMemory;
                self.log
                    .handle(&header, payload, none, machine, &mut self.replies)?;
            }
        }
        for (header, payload) in self.replies.drain(..) {
            machine.port.send(header, &payload)?;
        }
        self.release(machine, machine.is_done_at_once())?;
        if self
            .reported_at
            .is_none_or(|at| at.elapsed() >= USAGE_EVERY)
        {
            self.report(machine)?;
        }
        Ok(())
    }

    /// Tells which inbound places are free. Where the device may still be reading them it is waited
    /// for, so that is done seldom, or when there is nothing else to do (`now`).
    fn release(&mut self, machine: &mut TorchMachine, now: bool) -> Result<(), End> {
        if !memory::release_is_due(now) {
            return Ok(());
        }
        // Taken first: what comes later may be in use.
        memory::take_released(&mut self.released);
        machine
            .synchronize()
            .map_err(|failure| End::Device(failure.message))?;
        for place in self.released.drain(..) {
            machine
                .port
                .send(Header::new(Kind::PlaceFree, place, 0), &[])?;
        }
        Ok(())
    }

    /// Reports memory use if it changed and the last report is old enough. True if it still has
    /// to be done.
    fn report(&mut self, machine: &mut TorchMachine) -> Result<bool, End> {
        let usage = (memory::used(), machine.tensors());
        if usage == self.reported {
            return Ok(false);
        }
        if self
            .reported_at
            .is_some_and(|at| at.elapsed() < USAGE_EVERY)
        {
            return Ok(true);
        }
        self.reported = usage;
        self.reported_at = Some(Instant::now());
        machine
            .port
            .send(Header::new(Kind::Usage, usage.1, usage.0), &[])?;
        Ok(false)
    }
}
