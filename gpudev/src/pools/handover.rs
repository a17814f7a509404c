//! A pool's way to another process: its parts as open files over a socket that keeps messages apart.
//!
//! A message is where the pool begins, its bytes, and for each file the part's offset and bytes, all
//! u64, little-endian. A pool of many parts takes several messages, which follow one another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::device::{DeviceError, Memory, Share};
use genie_shm::seqpacket::{self, FILES_MAX};

/// How long the other side may leave a pool unread, or keep this one waiting for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message.
const MESSAGE_MAX: usize = 16 + 16 * FILES_MAX;
/// Parts of a pool.
const PARTS_MAX: usize = 1 << 14;

/// Why a pool was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The device does not share it.
    #[error("a pool can't be shared: {0}")]
    Share(#[from] DeviceError),
    /// The other process is gone, or does not read.
    #[error("the socket for pools: {0}")]
    Socket(#[from] io::Error),
    /// Nobody is at the other end any more.
    #[error("the process that makes the pools is gone")]
    Gone,
    /// What came is not what a pool is announced with.
    #[error("a pool was announced wrongly: {0}")]
    Malformed(&'static str),
}

/// A pool as it was announced.
#[derive(Debug)]
pub struct Announced {
    /// Where its places begin.
    pub base: u64,
    /// Its parts, in order.
    pub parts: Vec<Share>,
}

/// Bounds every wait on this end of the socket.
///
/// # Errors
/// What the kernel says.
pub fn bound_waits(socket: BorrowedFd<'_>) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: TIMEOUT.as_secs() as libc::time_t,
        tv_usec: 0,
    };
    for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
        // SAFETY: the option's value is a timeval, which lives through the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const time).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Announces the pool of this memory, whose places begin at `base`.
///
/// # Errors
/// [`HandoverError`].
pub fn announce(socket: BorrowedFd<'_>, base: u64, memory: &Memory) -> Result<(), HandoverError> {
    let parts = memory.share()?;
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    for parts in parts.chunks(FILES_MAX) {
        let mut message = Vec::with_capacity(MESSAGE_MAX);
        message.extend(base.to_le_bytes());
        message.extend(bytes.to_le_bytes());
        for part in parts {
            message.extend(part.offset.to_le_bytes());
            message.extend(part.bytes.to_le_bytes());
        }
        let files: Vec<_> = parts.iter().map(|part| part.file.as_fd()).collect();
        seqpacket::send(socket, &message, &files)?;
    }
    Ok(())
}

/// Waits for the next pool.
///
/// # Errors
/// [`HandoverError`].
pub fn receive(socket: BorrowedFd<'_>) -> Result<Announced, HandoverError> {
    let mut announced: Option<(Announced, u64)> = None;
    let mut have = 0_u64;
    loop {
        let mut bytes = [0; MESSAGE_MAX];
        let (len, files) = seqpacket::receive(socket, &mut bytes)?;
        if len == 0 {
            return Err(HandoverError::Gone);
        }
        let (base, total, parts) = parse(&bytes[..len], files)?;
        let (pool, whole) = announced.get_or_insert_with(|| {
            let parts = Vec::new();
            (Announced { base, parts }, total)
        });
        if (pool.base, *whole) != (base, total) {
            return Err(HandoverError::Malformed("another pool before its end"));
        }
        for part in parts {
            have = have
                .checked_add(part.bytes)
                .filter(|&have| have <= total && pool.parts.len() < PARTS_MAX)
                .ok_or(HandoverError::Malformed("more parts than it has bytes"))?;
            pool.parts.push(part);
        }
        if have == total {
            return announced
                .map(|(pool, _)| pool)
                .ok_or(HandoverError::Malformed("nothing"));
        }
    }
}

type Message = (u64, u64, Vec<Share>);

fn parse(bytes: &[u8], files: Vec<OwnedFd>) -> Result<Message, HandoverError> {
    let words: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect();
    let ([base, total], parts) = words
        .split_first_chunk::<2>()
        .ok_or(HandoverError::Malformed("too short"))?;
    if !bytes.len().is_multiple_of(8) || parts.len() != 2 * files.len() || files.is_empty() {
        return Err(HandoverError::Malformed("not a file for each part"));
    }
    let parts = parts
        .as_chunks::<2>()
        .0
        .iter()
        .zip(files)
        .map(|(&[offset, bytes], file)| Share {
            file,
            offset,
            bytes,
        });
    Ok((*base, *total, parts.collect()))
}
