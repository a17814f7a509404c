//! The penalty of the staged way against the direct one, measured on a device.

use std::time::{Duration, Instant};

use super::{Receiver, Way};
use crate::device::gather::{GatherFrame, GatherPiece};
use crate::device::{Device, DeviceError, DeviceInfo, DeviceKind, Memory};

/// Turns that each way has.
const ROUNDS: u32 = 8;
/// Places that frames go to, in turn: more than a cache holds.
const TARGET_BYTES: u64 = 64 << 20;

/// What a way carried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathRate {
    /// Bytes a second that reached their places.
    pub bytes_per_s: f64,
    /// Bytes of a submission, on average.
    pub batch_bytes: f64,
    /// Frames that were found corrupt; none are.
    pub corrupt: u64,
}

/// Both ways on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct PathComparison {
    /// The device.
    pub device: DeviceInfo,
    /// Bytes of data of a frame.
    pub frame_bytes: u32,
    /// Frames in host memory, checked by the CPU, copied by the device.
    pub staged: PathRate,
    /// Frames in device memory, checked and gathered there.
    pub direct: PathRate,
    /// The direct rate over the staged one: above 1, staging has a penalty.
    pub direct_over_staged: f64,
    /// What the numbers do not say.
    pub note: &'static str,
}

/// Receives frames of `frame_bytes` (1 to 61440) by both ways in turn, `time` for each in all, from
/// buffers that were filled before: what is measured is the way from a network card's buffer to the
/// place, without the card.
///
/// # Errors
/// The device refuses.
pub fn compare(
    device: &dyn Device,
    frame_bytes: u32,
    time: Duration,
) -> Result<PathComparison, DeviceError> {
    let info = device.info();
    let frame_bytes = frame_bytes.clamp(1, 61_440);
    let target = device.allocate(TARGET_BYTES)?;
    let mut staged = Course::new(device, Way::Staged, frame_bytes, &target)?;
    let mut direct = Course::new(device, Way::Direct, frame_bytes, &target)?;
    for round in 0..=ROUNDS {
        // The first round takes pages and fills caches.
        for course in [&mut staged, &mut direct] {
            course.run(time / ROUNDS, round > 0)?;
        }
    }
    let (staged, direct) = (staged.rate(), direct.rate());
    let note = match info.kind {
        DeviceKind::Host(_) => {
            "the host device, not a GPU: both ways run on the CPU and in the same memory"
        }
        DeviceKind::Cuda(_) => "buffers were filled beforehand: no network card took part",
    };
    Ok(PathComparison {
        device: info,
        frame_bytes,
        staged,
        direct,
        direct_over_staged: direct.bytes_per_s / staged.bytes_per_s,
        note,
    })
}

/// Buffers in which frames lie, each at a multiple of `stride`.
struct Buffers {
    memory: Memory,
    stride: u64,
    count: u64,
    crc: u32,
}

impl Buffers {
    fn fill(device: &dyn Device, way: Way, frame_bytes: u32) -> Result<Self, DeviceError> {
        let stride = u64::from(frame_bytes).next_multiple_of(64);
        // More than a cache holds, as in a mempool.
        let count = (64 << 20) / stride;
        let bytes = count * stride;
        let memory = match way {
            Way::Staged => device.reserve_host(bytes, bytes)?,
            Way::Direct => device.reserve(bytes, bytes)?,
        };
        let frame = crate::device::check::noise(frame_bytes as usize);
        let mut queue = device.queue()?;
        for number in 0..count {
            queue.write(&memory, number * stride, &frame)?;
        }
        Ok(Self {
            memory,
            stride,
            count,
            crc: crc_fast::crc32_iscsi(&frame),
        })
    }
}

/// One way, measured in rounds.
struct Course {
    receiver: Receiver<()>,
    buffers: Buffers,
    frame_bytes: u32,
    number: u64,
    bytes: u64,
    batches: u64,
    elapsed: Duration,
}

impl Course {
    fn new(
        device: &dyn Device,
        way: Way,
        frame_bytes: u32,
        target: &Memory,
    ) -> Result<Self, DeviceError> {
        let buffers = Buffers::fill(device, way, frame_bytes)?;
        Ok(Self {
            receiver: Receiver::new(device, device.queue()?, &buffers.memory, target)?,
            buffers,
            frame_bytes,
            number: 0,
            bytes: 0,
            batches: 0,
            elapsed: Duration::ZERO,
        })
    }

    /// Receives for `time`, and counts it if it is to.
    fn run(&mut self, time: Duration, counts: bool) -> Result<(), DeviceError> {
        let (before, started) = (self.receiver.stats(), Instant::now());
        while started.elapsed() < time {
            // A look at the clock each few batches.
            for _ in 0..1024 {
                self.one()?;
            }
            self.receiver.poll(|(), _, _| {})?;
        }
        self.receiver.finish(|(), _, _| {})?;
        let after = self.receiver.stats();
        if counts {
            self.elapsed += started.elapsed();
            self.bytes += after.bytes - before.bytes;
            self.batches += after.batches - before.batches;
        }
        Ok(())
    }

    fn one(&mut self) -> Result<(), DeviceError> {
        let len = self.frame_bytes;
        let frame = GatherFrame {
            offset: self.number % self.buffers.count * self.buffers.stride,
            len,
            crc: Some(self.buffers.crc),
        };
        let places = TARGET_BYTES / u64::from(len);
        let to = self.number % places * u64::from(len);
        let piece = GatherPiece { at: 0, len, to };
        self.number += 1;
        while let Err(refused) = self.receiver.push(&frame, &[piece], ()) {
            match refused.error {
                DeviceError::Full { .. } => self.receiver.poll(|(), _, _| {})?,
                error => return Err(error),
            };
        }
        Ok(())
    }

    fn rate(&self) -> PathRate {
        PathRate {
            bytes_per_s: self.bytes as f64 / self.elapsed.as_secs_f64(),
            batch_bytes: self.bytes as f64 / self.batches.max(1) as f64,
            corrupt: self.receiver.stats().corrupt,
        }
    }
}
