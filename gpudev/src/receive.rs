//! From a network card's buffers to places in device memory: one interface, two ways.
//!
//! - **Staged**: the card writes into host memory that the device knows; the device's queue copies.
//! - **Direct**: the card writes into the device's own memory; a kernel of the device gathers.
//!
//! Either way frames are collected into a batch, which becomes one submission when it has
//! [`BATCH_BYTES`] or the driver has nothing else to do ([`Receiver::flush`]). There are two
//! batches: one fills while the device works at the other. The driver hands over what keeps a
//! frame's buffer (its mbuf), gets it back with the verdict from [`Receiver::poll`], and then tells
//! the transport (`release`, `verified`).

mod measure;
#[cfg(test)]
mod tests;

use std::fmt;

pub use measure::{PathComparison, PathRate, compare};

use crate::device::gather::{GatherFrame, GatherPiece, GatherTable, Verdict};
use crate::device::{
    CopyOrder, CopyPiece, Device, DeviceError, DeviceKind, Event, Memory, Queue, Residence,
};

/// A batch of this many bytes is submitted without being asked.
pub const BATCH_BYTES: u64 = 1 << 20;
/// Frames of a batch.
pub const BATCH_FRAMES: usize = 1024;
/// Pieces of a batch.
pub const BATCH_PIECES: usize = 4096;

/// How received bytes reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into host memory, and copied from there by the device.
    Staged,
    /// Into the device's memory, and gathered there.
    Direct,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staged => "staged",
            Self::Direct => "direct",
        })
    }
}

/// What a receiver did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// Frames whose bytes are in their places.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames whose checksum was wrong; nothing of them was placed.
    pub corrupt: u64,
    /// Submissions to the device.
    pub batches: u64,
    /// Times that a frame found both batches taken.
    pub waits: u64,
}

/// Why a frame was not taken, and what was to keep it.
#[derive(Debug)]
pub struct Refused<K> {
    /// Why.
    pub error: DeviceError,
    /// As it was handed over.
    pub keep: K,
}

/// A batch.
struct Batch<K> {
    work: Work,
    keeps: Vec<Kept<K>>,
    bytes: u64,
    /// When it is with the device: until when.
    event: Option<Event>,
}

impl<K> Batch<K> {
    fn fits(&self, pieces: usize) -> bool {
        let taken = match &self.work {
            Work::Copies(copies) => copies.len(),
            Work::Gather(table) => table.pieces(),
        };
        self.keeps.len() < BATCH_FRAMES && pieces <= BATCH_PIECES - taken
    }
}

struct Kept<K> {
    keep: K,
    bytes: u64,
    /// Known before the device has done anything: the CPU checked.
    corrupt: bool,
}

enum Work {
    Copies(Vec<CopyPiece>),
    Gather(GatherTable),
}

/// Receives into one memory of a device. `K` keeps a frame's buffer until its bytes have left it.
pub struct Receiver<K> {
    way: Way,
    queue: Box<dyn Queue>,
    payload: Memory,
    target: Memory,
    batches: [Batch<K>; 2],
    /// The one that fills, or waits to.
    filling: usize,
    stats: ReceiveStats,
}

impl<K> Receiver<K> {
    /// A receiver of frames in `payload`, whose pieces go to `target`. The way follows from where
    /// the payload lies. All that it will ever need is allocated here.
    ///
    /// # Errors
    /// The device can't reach one of them, or has no memory for tables.
    pub fn new(
        device: &dyn Device,
        queue: Box<dyn Queue>,
        payload: &Memory,
        target: &Memory,
    ) -> Result<Self, DeviceError> {
        let way = match payload.residence() {
            Residence::Host => Way::Staged,
            Residence::Device => Way::Direct,
        };
        let batch = || {
            let work = match way {
                Way::Staged => Work::Copies(Vec::with_capacity(BATCH_PIECES)),
                Way::Direct => Work::Gather(GatherTable::new(
                    device,
                    payload,
                    target,
                    BATCH_FRAMES,
                    BATCH_PIECES,
                )?),
            };
            Ok(Batch {
                work,
                keeps: Vec::with_capacity(BATCH_FRAMES),
                bytes: 0,
                event: None,
            })
        };
        for memory in [payload, target] {
            crate::device::memory::check_reach(device.info().kind, memory)?;
        }
        Ok(Self {
            way,
            queue,
            payload: payload.clone(),
            target: target.clone(),
            batches: [batch()?, batch()?],
            filling: 0,
            stats: ReceiveStats::default(),
        })
    }

    /// Which way it is.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whose memory it fills.
    #[must_use]
    pub fn device(&self) -> DeviceKind {
        self.target.device()
    }

    /// Where frames arrive.
    #[must_use]
    pub fn payload(&self) -> &Memory {
        &self.payload
    }

    /// Where their pieces go.
    #[must_use]
    pub fn target(&self) -> &Memory {
        &self.target
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> ReceiveStats {
        self.stats
    }

    /// Frames of one piece that can surely be pushed now.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = |batch: &Batch<K>| match batch.event {
            Some(_) => 0,
            None => BATCH_FRAMES - batch.keeps.len(),
        };
        self.batches.iter().map(room).sum()
    }

    /// Whether a frame of so many pieces can be pushed now.
    #[must_use]
    pub fn has_room(&self, pieces: usize) -> bool {
        let [filling, other] = [self.filling, 1 - self.filling].map(|at| &self.batches[at]);
        filling.event.is_none()
            && pieces <= BATCH_PIECES
            && (filling.fits(pieces) || other.event.is_none())
    }

    /// Frames that were pushed and not given back.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.batches.iter().map(|batch| batch.keeps.len()).sum()
    }

    /// Takes a frame and its pieces. Its bytes must not change, nor may anybody else write to the
    /// pieces' places, until it is given back.
    ///
    /// # Errors
    /// With what was to keep it. [`DeviceError::Full`]: both batches are taken; poll, and push it
    /// again. Bytes outside the memories. A failure of the device, which is final.
    pub fn push(
        &mut self,
        frame: &GatherFrame,
        pieces: &[GatherPiece],
        keep: K,
    ) -> Result<(), Refused<K>> {
        if let Err(error) = self.make_room(pieces.len()) {
            self.stats.waits += u64::from(matches!(error, DeviceError::Full { .. }));
            return Err(Refused { error, keep });
        }
        let batch = &mut self.batches[self.filling];
        let added = match &mut batch.work {
            Work::Gather(table) => table.push(frame, pieces).map(|()| false),
            Work::Copies(copies) => stage(&self.payload, &self.target, frame, pieces, copies),
        };
        let corrupt = match added {
            Ok(corrupt) => corrupt,
            Err(error) => return Err(Refused { error, keep }),
        };
        let bytes = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        let kept = Kept {
            keep,
            bytes,
            corrupt,
        };
        batch.keeps.push(kept);
        batch.bytes += bytes;
        if batch.bytes >= BATCH_BYTES {
            // What goes wrong here shows again at the next call.
            let _later = self.flush();
        }
        Ok(())
    }

    /// A batch that has room for a frame of so many pieces.
    fn make_room(&mut self, pieces: usize) -> Result<(), DeviceError> {
        for _ in 0..2 {
            let batch = &self.batches[self.filling];
            if batch.event.is_some() {
                break;
            }
            if batch.fits(pieces) {
                return Ok(());
            }
            if batch.keeps.is_empty() {
                break;
            }
            self.flush()?;
        }
        Err(DeviceError::Full {
            what: "a receiver's batches",
            max: BATCH_FRAMES,
        })
    }

    /// Submits what was collected.
    ///
    /// # Errors
    /// The device's queue is full, and the batch stays; or a failure, which is final.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        let batch = &mut self.batches[self.filling];
        if batch.event.is_some() || batch.keeps.is_empty() {
            return Ok(());
        }
        let event = match &mut batch.work {
            Work::Copies(copies) => {
                self.queue
                    .copy(&self.payload, &self.target, copies, CopyOrder::Any)?
            }
            Work::Gather(table) => self.queue.gather(table)?,
        };
        batch.event = Some(event);
        self.stats.batches += 1;
        self.filling = 1 - self.filling;
        Ok(())
    }

    /// Gives back the frames of batches that the device has finished, the oldest first, each with
    /// what became of it and how many bytes it had. Says how many frames.
    ///
    /// # Errors
    /// The device failed: what is still under way is never given back.
    pub fn poll(&mut self, mut done: impl FnMut(K, Verdict, u64)) -> Result<usize, DeviceError> {
        let mut count = 0;
        // If the batch that is to be filled next is with the device, it went there first.
        for at in [self.filling, 1 - self.filling] {
            let batch = &mut self.batches[at];
            let Some(event) = batch.event else { continue };
            if !self.queue.is_done(event)? {
                break;
            }
            batch.event = None;
            count += batch.keeps.len();
            for (number, kept) in batch.keeps.drain(..).enumerate() {
                let verdict = match &batch.work {
                    Work::Gather(table) => table.verdict(number),
                    Work::Copies(_) if kept.corrupt => Verdict::Corrupt,
                    Work::Copies(_) => Verdict::Placed,
                };
                if verdict == Verdict::Placed {
                    self.stats.frames += 1;
                    self.stats.bytes += kept.bytes;
                } else {
                    self.stats.corrupt += 1;
                }
                done(kept.keep, verdict, kept.bytes);
            }
            batch.bytes = 0;
            match &mut batch.work {
                Work::Copies(copies) => copies.clear(),
                Work::Gather(table) => table.clear()?,
            }
        }
        Ok(count)
    }

    /// Submits what was collected and waits until all of it is done. Not for the hot path.
    ///
    /// # Errors
    /// As [`Receiver::poll`].
    pub fn finish(&mut self, mut done: impl FnMut(K, Verdict, u64)) -> Result<(), DeviceError> {
        while self.under_way() > 0 {
            match self.flush() {
                Ok(()) | Err(DeviceError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            for at in [self.filling, 1 - self.filling] {
                if let Some(event) = self.batches[at].event {
                    self.queue.wait(event)?;
                }
            }
            self.poll(&mut done)?;
        }
        Ok(())
    }
}

/// Adds the copies of a frame in host memory, which the CPU checks if nobody has. Whether it is
/// corrupt.
fn stage(
    payload: &Memory,
    target: &Memory,
    frame: &GatherFrame,
    pieces: &[GatherPiece],
    copies: &mut Vec<CopyPiece>,
) -> Result<bool, DeviceError> {
    payload.at(frame.offset, frame.len.into())?;
    for piece in pieces {
        piece.check(frame, target)?;
    }
    if let Some(crc) = frame.crc {
        let data = payload.host_at(frame.offset, frame.len.into())?;
        // SAFETY: the bytes are inside the memory, and don't change until the frame is given back.
        let data = unsafe { std::slice::from_raw_parts(data.as_ptr(), frame.len as usize) };
        if crc_fast::crc32_iscsi(data) != crc {
            return Ok(true);
        }
    }
    copies.extend(pieces.iter().map(|piece| CopyPiece {
        from: frame.offset + u64::from(piece.at),
        to: piece.to,
        len: piece.len.into(),
    }));
    Ok(false)
}

impl<K> fmt::Debug for Receiver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("way", &self.way)
            .field("device", &self.device())
            .field("under_way", &self.under_way())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
