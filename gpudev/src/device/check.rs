//! Whether a device does what is asked of it: run by `genie-gpu-check`, and in tests on the host.

use std::collections::BTreeMap;

use super::gather::{GatherFrame, GatherPiece, GatherTable, Verdict};
use super::{CopyOrder, CopyPiece, Device, DeviceError, HostDevice, Memory, Queue};
use crate::pool::{Pool, PoolConfig, PoolError};

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It did something else than it was asked to.
    #[error("{what}: byte {at} is {found}, not {wanted}")]
    Bytes {
        /// Which check.
        what: &'static str,
        /// Which byte.
        at: usize,
        /// What is there.
        found: u8,
        /// What should be.
        wanted: u8,
    },
    /// Its pool refused.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The gather's verdicts are not those of the host's loop.
    #[error("a gather of {frames} frames: frame {frame} got {found:?}, not {wanted:?}")]
    Verdict {
        /// In the table.
        frames: usize,
        /// Which differs.
        frame: usize,
        /// The device's.
        found: Verdict,
        /// The host's.
        wanted: Verdict,
    },
}

/// Noise that is the same each time.
#[must_use]
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Compares.
///
/// # Errors
/// The first byte that differs.
pub fn same(what: &'static str, found: &[u8], wanted: &[u8]) -> Result<(), CheckError> {
    match (0..wanted.len()).find(|&at| found.get(at) != wanted.get(at)) {
        None => Ok(()),
        Some(at) => Err(CheckError::Bytes {
            what,
            at,
            found: found.get(at).copied().unwrap_or(0),
            wanted: wanted[at],
        }),
    }
}

/// Host to device, within the device and back; one piece, many, in order and in any.
///
/// # Errors
/// The device refused, or bytes differ.
pub fn copies(device: &dyn Device) -> Result<(), CheckError> {
    const BYTES: u64 = 1 << 20;
    let mut queue = device.queue()?;
    let wanted = noise(BYTES as usize);
    let host = device.reserve_host(BYTES, BYTES)?;
    let here = device.allocate(BYTES)?;
    let there = device.allocate(BYTES)?;
    host.write(0, &wanted)?;
    let whole = [CopyPiece {
        from: 0,
        to: 0,
        len: BYTES,
    }];
    queue.copy(&host, &here, &whole, CopyOrder::InOrder)?;
    // A thousand pieces of odd sizes, back to front.
    let mut pieces: Vec<CopyPiece> = Vec::new();
    let mut at = 0;
    while at < BYTES {
        let len = (at % 1999 + 17).min(BYTES - at);
        pieces.push(CopyPiece {
            from: at,
            to: BYTES - at - len,
            len,
        });
        at += len;
    }
    let event = queue.copy(&here, &there, &pieces, CopyOrder::Any)?;
    // What is in `host` has been read before it is written again.
    queue.wait(event)?;
    let back: Vec<CopyPiece> = pieces
        .iter()
        .map(|&CopyPiece { from, to, len }| CopyPiece {
            from: to,
            to: from,
            len,
        })
        .collect();
    host.write(0, &vec![0; BYTES as usize])?;
    let event = queue.copy(&there, &host, &back, CopyOrder::Any)?;
    queue.wait(event)?;
    let mut found = vec![0; BYTES as usize];
    host.read(0, &mut found)?;
    same("copies there and back", &found, &wanted)?;
    queue.read(&here, 0, &mut found)?;
    same("a copy to the device", &found, &wanted)?;
    // In order: each piece reads what the one before it wrote.
    let chain: Vec<CopyPiece> = (0..64)
        .map(|i| CopyPiece {
            from: i * 4096,
            to: (i + 1) * 4096,
            len: 4096,
        })
        .collect();
    let event = queue.copy(&here, &here, &chain, CopyOrder::InOrder)?;
    queue.wait(event)?;
    queue.read(&here, 64 * 4096, &mut found[..4096])?;
    same("copies in order", &found[..4096], &wanted[..4096])
}

/// One way to place the frames: verdicts and what is in the target afterwards.
type Gathered = (Vec<Verdict>, Vec<u8>);

/// The gather kernel against the host's loop, on sound and corrupt frames of all sizes.
///
/// # Errors
/// The device refused, or did something else than the host's loop.
pub fn gather(device: &dyn Device) -> Result<(), CheckError> {
    const BYTES: u64 = 1 << 20;
    let wanted = gather_on(&HostDevice::new(0), BYTES)?;
    let found = gather_on(device, BYTES)?;
    let frames = wanted.0.len();
    for (frame, (&found, &wanted)) in found.0.iter().zip(&wanted.0).enumerate() {
        if found != wanted {
            return Err(CheckError::Verdict {
                frames,
                frame,
                found,
                wanted,
            });
        }
    }
    same("a gather", &found.1, &wanted.1)
}

fn gather_on(device: &dyn Device, bytes: u64) -> Result<Gathered, CheckError> {
    let mut queue = device.queue()?;
    let payload_bytes = noise(bytes as usize);
    let (payload, target): (Memory, Memory) = (device.allocate(bytes)?, device.allocate(bytes)?);
    let mut table = GatherTable::new(device, &payload, &target, 256, 512)?;
    queue.write(&target, 0, &vec![0xee; bytes as usize])?;
    let (mut at, mut to) = (0_usize, 0_u64);
    for number in 0..200_u32 {
        let len = [0, 1, 63, 128, 1400, 4096, 8192, 8875][number as usize % 8] + number % 7;
        if number % 2 == 0 {
            (at, to) = (at.next_multiple_of(16), to.next_multiple_of(16));
        }
        let end = at + len as usize;
        if end > payload_bytes.len() || to + u64::from(len) + 64 > bytes {
            break;
        }
        let mut sum = crc_fast::crc32_iscsi(&payload_bytes[at..end]);
        sum ^= u32::from(number % 5 == 3) << (number % 32);
        let half = len / 2;
        let frame = GatherFrame {
            offset: at as u64,
            len,
            crc: (number % 9 != 8).then_some(sum),
        };
        let pieces = [
            GatherPiece {
                at: half,
                len: len - half,
                to,
            },
            GatherPiece {
                at: 0,
                len: half,
                to: to + u64::from(len - half) + 32,
            },
        ];
        table.push(&frame, &pieces)?;
        (at, to) = (end, to + u64::from(len) + 40);
    }
    queue.write(&payload, 0, &payload_bytes)?;
    let event = queue.gather(&mut table)?;
    queue.wait(event)?;
    let verdicts = (0..table.len()).map(|frame| table.verdict(frame)).collect();
    let mut placed = vec![0; bytes as usize];
    queue.read(&target, 0, &mut placed)?;
    Ok((verdicts, placed))
}

/// Memory that grows without moving, and keeps its bytes.
///
/// # Errors
/// The device refused, or bytes differ.
pub fn resizing(device: &dyn Device) -> Result<(), CheckError> {
    let page = device.info().page_bytes.max(4096);
    let memory = device.reserve(page, 40 * page)?;
    let address = memory.address();
    let mut queue: Box<dyn Queue> = device.queue()?;
    let wanted = noise(page as usize);
    queue.write(&memory, 0, &wanted)?;
    memory.resize(40 * page)?;
    queue.write(&memory, 39 * page, &wanted)?;
    memory.resize(2 * page)?;
    let mut found = vec![0; page as usize];
    queue.read(&memory, 0, &mut found)?;
    same("memory that was resized", &found, &wanted)?;
    let moved = memory.address() != address;
    let outside = queue.read(&memory, 39 * page, &mut found).is_ok();
    same(
        "memory that moved, or is still there",
        &[moved.into(), outside.into()],
        &[0, 0],
    )
}

/// A pool of which places were given back here and there: after compaction and growth, each place
/// that is left has its bytes.
///
/// # Errors
/// The device refused, or bytes differ.
pub fn pools(device: &dyn Device) -> Result<(), CheckError> {
    const PLACE: u64 = 192 << 10;
    let config = PoolConfig {
        bytes_max: 32 << 20,
        ..PoolConfig::new(16 << 20)
    };
    let mut pool = Pool::new(device, config)?;
    let mut queue = device.queue()?;
    let bytes = noise(PLACE as usize);
    // By place: which rotation of the noise it holds.
    let mut held: BTreeMap<u64, usize> = BTreeMap::new();
    for number in 0_usize.. {
        let Ok(place) = pool.allocate(PLACE) else {
            break;
        };
        let mut content = bytes.clone();
        content.rotate_left(number);
        queue.write(pool.memory(), place, &content)?;
        held.insert(place, number);
    }
    let places: Vec<u64> = held.keys().copied().collect();
    for place in places.iter().skip(1).step_by(3) {
        pool.free(*place)?;
        held.remove(place);
    }
    let pinned = places[places.len() / 2 / 3 * 3];
    pool.pin(pinned)?;
    let done = pool.compact(queue.as_mut(), u64::MAX)?;
    for moved in &done.moves {
        if let Some(number) = held.remove(&moved.from) {
            held.insert(moved.to, number);
        }
    }
    let stayed = held.contains_key(&pinned);
    let larger = done.largest_after > done.largest_before && !done.moves.is_empty();
    pool.resize(32 << 20)?;
    for (&place, &number) in &held {
        let mut wanted = bytes.clone();
        wanted.rotate_left(number);
        let mut found = vec![0; PLACE as usize];
        queue.read(pool.memory(), place, &mut found)?;
        same("a place of a pool that was compacted", &found, &wanted)?;
    }
    same(
        "pinned places that stayed, and a longer free run",
        &[stayed.into(), larger.into()],
        &[1, 1],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_does_what_is_asked_of_it() {
        let host = HostDevice::new(0);
        copies(&host).unwrap();
        gather(&host).unwrap();
        resizing(&host).unwrap();
        pools(&host).unwrap();
    }

    #[test]
    fn a_difference_is_found() {
        assert_eq!(same("x", &[1, 2], &[1, 2]), Ok(()));
        let error = same("x", &[1, 2], &[1, 3]).unwrap_err();
        assert_eq!(error.to_string(), "x: byte 1 is 2, not 3");
        assert!(same("x", &[1], &[1, 3]).is_err());
    }
}
