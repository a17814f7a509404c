//! One direction of a socket with a timeout, in memory.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What it holds before a writer waits.
const CAPACITY: usize = 96 << 10;
/// How long a call blocks.
const TIMEOUT: Duration = Duration::from_millis(20);
/// Such calls in a row, after which the other end is given up: it failed.
const TIMEOUTS_MAX: u32 = 500;
/// What a tick looks like.
pub const TICKS: [io::ErrorKind; 3] = [
    io::ErrorKind::WouldBlock,
    io::ErrorKind::TimedOut,
    io::ErrorKind::Interrupted,
];

#[derive(Default)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    changed: Condvar,
}

/// One end of it.
pub struct Pipe {
    shared: Arc<Shared>,
    /// Bytes that a call moves at most: another number each time.
    sizes: &'static [usize],
    calls: usize,
    timeouts: u32,
}

/// The end that writes and the one that reads, whose calls move `sizes` bytes at most, in turn.
/// 0 is a tick.
pub fn pipe(sizes: &'static [usize]) -> (Pipe, Pipe) {
    let shared = Arc::new(Shared::default());
    let end = |shared| Pipe {
        shared,
        sizes,
        calls: 0,
        timeouts: 0,
    };
    (end(Arc::clone(&shared)), end(shared))
}

impl Pipe {
    /// What this call may move, or its tick.
    fn turn(&mut self) -> io::Result<usize> {
        let size = self.sizes[self.calls % self.sizes.len()];
        self.calls += 1;
        match size {
            0 => Err(TICKS[self.calls / self.sizes.len() % TICKS.len()].into()),
            size => Ok(size),
        }
    }

    /// Locks the bytes once they are no longer as `blocking` says.
    fn wait(
        &mut self,
        blocking: impl Fn(&mut VecDeque<u8>) -> bool,
    ) -> io::Result<MutexGuard<'_, VecDeque<u8>>> {
        let Shared { bytes, changed } = &*self.shared;
        let bytes = bytes.lock().unwrap();
        let (bytes, waited) = changed
            .wait_timeout_while(bytes, TIMEOUT, blocking)
            .unwrap();
        if !waited.timed_out() {
            self.timeouts = 0;
            return Ok(bytes);
        }
        self.timeouts += 1;
        Err(if self.timeouts < TIMEOUTS_MAX {
            io::ErrorKind::WouldBlock.into()
        } else {
            io::ErrorKind::ConnectionAborted.into()
        })
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = self.turn()?;
        let len = into.len().min(size);
        let n = self
            .wait(|bytes| bytes.is_empty())?
            .read(&mut into[..len])?;
        self.shared.changed.notify_all();
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let size = self.turn()?;
        let mut bytes = self.wait(|bytes| bytes.len() >= CAPACITY)?;
        let n = from.len().min(size).min(CAPACITY - bytes.len());
        bytes.extend(&from[..n]);
        drop(bytes);
        self.shared.changed.notify_all();
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
