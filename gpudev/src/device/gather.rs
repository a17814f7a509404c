//! Received frames whose payload lies in device memory: checked there, and put in their places.
//!
//! A table lists frames and the pieces that they are made of. It lies in host memory that is
//! registered with the device. [`super::Queue::gather`] hands it over: the device computes each
//! frame's CRC32C, writes a verdict, and copies the pieces of the frames that are sound. Nothing of
//! a frame that is not reaches its place.
//!
//! The layout of the table is shared with `cuda/gather.cu`.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::memory::check_reach;
use super::{Device, DeviceError, Memory};

/// A frame's data in the payload memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherFrame {
    /// Where its data starts, in bytes.
    pub offset: u64,
    /// Bytes of data.
    pub len: u32,
    /// The CRC32C that the data must have. Without, the frame was checked before.
    pub crc: Option<u32>,
}

/// A piece of a frame's data and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherPiece {
    /// Bytes from the start of the frame's data.
    pub at: u32,
    /// Bytes.
    pub len: u32,
    /// Where to, in the target memory.
    pub to: u64,
}

impl GatherPiece {
    /// `len` bytes from `at` of the data, to `to`. `None` beyond what a frame may hold.
    #[must_use]
    pub fn new(at: u64, len: u64, to: u64) -> Option<Self> {
        let (at, len) = (u32::try_from(at).ok()?, u32::try_from(len).ok()?);
        Some(Self { at, len, to })
    }

    /// Refuses a piece outside its frame or with a place outside the target.
    pub(crate) fn check(&self, frame: &GatherFrame, target: &Memory) -> Result<(), DeviceError> {
        target.at(self.to, self.len.into())?;
        match self.at.checked_add(self.len) {
            Some(end) if end <= frame.len => Ok(()),
            _ => Err(DeviceError::Bounds {
                offset: self.at.into(),
                len: self.len.into(),
                bytes: frame.len.into(),
            }),
        }
    }
}

/// What the device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has not looked yet.
    Pending,
    /// The frame was sound, and its pieces are in their places.
    Placed,
    /// The checksum is wrong: nothing was placed.
    Corrupt,
}

/// A frame as the device reads it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FrameEntry {
    pub data: u64,
    pub len: u32,
    pub checked: u32,
    pub crc: u32,
    pub first_piece: u32,
    pub pieces: u32,
    pub reserved: u32,
}

/// A piece as the device reads it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PieceEntry {
    pub to: u64,
    pub at: u32,
    pub len: u32,
}

const FRAME_BYTES: u64 = size_of::<FrameEntry>() as u64;
const PIECE_BYTES: u64 = size_of::<PieceEntry>() as u64;
const PENDING: u32 = 0;
pub(crate) const PLACED: u32 = 1;
pub(crate) const CORRUPT: u32 = 2;

/// What owner and device share.
#[derive(Debug)]
pub(crate) struct Table {
    memory: Memory,
    host: NonNull<u8>,
    frames_max: usize,
    pieces_max: usize,
    /// With the device; the owner then only looks at verdicts.
    busy: AtomicBool,
    /// Kept for the device: the entries hold addresses in them.
    _payload: Memory,
    _target: Memory,
}

// SAFETY: the entries are written by the owner while `busy` is false and read by the device while
// it is true; verdicts are atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// A table of frames for one submission. Bounded, and used again and again.
#[derive(Debug)]
pub struct GatherTable {
    shared: Arc<Table>,
    payload: Memory,
    target: Memory,
    frames: usize,
    pieces: usize,
}

impl GatherTable {
    /// A table for frames whose data lies in `payload` and goes to `target`.
    ///
    /// # Errors
    /// The device can't reach the memories, or has none for the table.
    pub fn new(
        device: &dyn Device,
        payload: &Memory,
        target: &Memory,
        frames_max: usize,
        pieces_max: usize,
    ) -> Result<Self, DeviceError> {
        let info = device.info();
        check_reach(info.kind, payload)?;
        check_reach(info.kind, target)?;
        let (frames_max, pieces_max) = (frames_max.max(1), pieces_max.max(1));
        let bytes = frames_max as u64 * (FRAME_BYTES + 4) + pieces_max as u64 * PIECE_BYTES;
        let memory = device.reserve_host(bytes, bytes)?;
        let host = memory.host_at(0, bytes)?;
        let shared = Arc::new(Table {
            memory,
            host,
            frames_max,
            pieces_max,
            busy: AtomicBool::new(false),
            _payload: payload.clone(),
            _target: target.clone(),
        });
        Ok(Self {
            shared,
            payload: payload.clone(),
            target: target.clone(),
            frames: 0,
            pieces: 0,
        })
    }

    /// Adds a frame and its pieces, all or nothing. Until the event of the submission, the frame's
    /// data must not change, nor anybody else write to the pieces' places.
    ///
    /// # Errors
    /// Data or a place outside its memory; a piece outside the data; a full table, or one that the
    /// device has.
    pub fn push(&mut self, frame: &GatherFrame, pieces: &[GatherPiece]) -> Result<(), DeviceError> {
        if self.is_busy() {
            return Err(DeviceError::Busy);
        }
        if self.frames == self.shared.frames_max {
            let max = self.shared.frames_max;
            return Err(DeviceError::Full {
                what: "a gather's frames",
                max,
            });
        }
        if pieces.len() > self.shared.pieces_max - self.pieces {
            let max = self.shared.pieces_max;
            return Err(DeviceError::Full {
                what: "a gather's pieces",
                max,
            });
        }
        let data = self.payload.at(frame.offset, u64::from(frame.len))?;
        for piece in pieces {
            piece.check(frame, &self.target)?;
        }
        let entry = FrameEntry {
            data,
            len: frame.len,
            checked: frame.crc.is_some().into(),
            crc: frame.crc.unwrap_or(0),
            first_piece: self.pieces as u32,
            pieces: pieces.len() as u32,
            reserved: 0,
        };
        // SAFETY: the table is not busy, so its owner alone writes to it; the places were checked
        // against its bounds above, and are aligned, since each array starts at a multiple of 8.
        unsafe {
            self.shared.frame(self.frames).write(entry);
            for (at, piece) in (self.pieces..).zip(pieces) {
                let to = self.target.address() + piece.to;
                let (at_byte, len) = (piece.at, piece.len);
                self.shared.piece(at).write(PieceEntry {
                    to,
                    at: at_byte,
                    len,
                });
            }
        }
        self.shared
            .verdict(self.frames)
            .store(PENDING, Ordering::Relaxed);
        self.frames += 1;
        self.pieces += pieces.len();
        Ok(())
    }

    /// Frames in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames
    }

    /// Pieces of all its frames.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Whether it has no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether the device has it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.busy.load(Ordering::Acquire)
    }

    /// What the device found of a frame, by its number in the table.
    #[must_use]
    pub fn verdict(&self, frame: usize) -> Verdict {
        if frame >= self.frames {
            return Verdict::Pending;
        }
        match self.shared.verdict(frame).load(Ordering::Acquire) {
            PLACED => Verdict::Placed,
            CORRUPT => Verdict::Corrupt,
            _ => Verdict::Pending,
        }
    }

    /// Empties it.
    ///
    /// # Errors
    /// The device has it.
    pub fn clear(&mut self) -> Result<(), DeviceError> {
        if self.is_busy() {
            return Err(DeviceError::Busy);
        }
        (self.frames, self.pieces) = (0, 0);
        Ok(())
    }

    pub(crate) fn payload(&self) -> &Memory {
        &self.payload
    }

    /// Hands it to a device, which gives it back by [`Table::done`].
    pub(crate) fn begin(&mut self) -> Result<(Arc<Table>, usize), DeviceError> {
        if self.shared.busy.swap(true, Ordering::AcqRel) {
            return Err(DeviceError::Busy);
        }
        Ok((Arc::clone(&self.shared), self.frames))
    }
}

impl Table {
    /// The device is finished with it.
    pub(crate) fn done(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// Addresses of frames, pieces and verdicts, as the device sees them.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        let base = self.memory.address();
        let pieces = base + self.frames_max as u64 * FRAME_BYTES;
        [base, pieces, pieces + self.pieces_max as u64 * PIECE_BYTES]
    }

    fn frame(&self, number: usize) -> *mut FrameEntry {
        debug_assert!(number < self.frames_max);
        self.host.as_ptr().cast::<FrameEntry>().wrapping_add(number)
    }

    fn piece(&self, number: usize) -> *mut PieceEntry {
        debug_assert!(number < self.pieces_max);
        let start = self.frames_max * FRAME_BYTES as usize;
        let first = self.host.as_ptr().wrapping_add(start).cast::<PieceEntry>();
        first.wrapping_add(number)
    }

    fn verdict(&self, number: usize) -> &AtomicU32 {
        let pieces = self.pieces_max * PIECE_BYTES as usize;
        let start = self.frames_max * FRAME_BYTES as usize + pieces;
        let number = number.min(self.frames_max - 1);
        let at = self
            .host
            .as_ptr()
            .wrapping_add(start)
            .cast::<u32>()
            .wrapping_add(number);
        // SAFETY: the verdicts are the last `frames_max` words of the table's memory, aligned to 4,
        // and only ever used as atomics on this side.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// What the CUDA kernel does, by the CPU: the host device's way, and the kernel's reference.
    ///
    /// # Safety
    /// The addresses in the table are the CPU's own, `frames` of them were pushed, and the table is
    /// busy.
    pub(crate) unsafe fn run_on_host(&self, frames: usize) {
        for number in 0..frames {
            // SAFETY: the entry was written by `push`, and the owner keeps off a busy table.
            let entry = unsafe { self.frame(number).read() };
            // SAFETY: `push` found the data inside the payload memory, which the table keeps alive.
            let sound = entry.checked == 0 || unsafe { is_sound(&entry) };
            if sound {
                for at in entry.first_piece..entry.first_piece + entry.pieces {
                    // SAFETY: as for the frame; `push` found the piece inside the data and its
                    // place inside the target memory, which the table keeps alive.
                    unsafe {
                        let piece = self.piece(at as usize).read();
                        let from = (entry.data as *const u8).add(piece.at as usize);
                        std::ptr::copy(from, piece.to as *mut u8, piece.len as usize);
                    }
                }
            }
            let verdict = if sound { PLACED } else { CORRUPT };
            self.verdict(number).store(verdict, Ordering::Release);
        }
    }
}

/// # Safety
/// The entry's data can be read by the CPU.
unsafe fn is_sound(entry: &FrameEntry) -> bool {
    // SAFETY: the caller vouches for the bytes; nobody changes them until the event (see `push`).
    let data = unsafe { std::slice::from_raw_parts(entry.data as *const u8, entry.len as usize) };
    crc_fast::crc32_iscsi(data) == entry.crc
}
