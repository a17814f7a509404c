//! Standard output and error. Libraries write there, and the processes that this one starts: through
//! a pipe that is always read, so that none of them ever waits for whoever reads the log.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::{dup2_stderr, dup2_stdout, pipe2};

use super::queue::Queue;
use crate::pace::{Bucket, Pace};

/// Lines that are passed on.
const PACE: Pace = Pace {
    per_second: 50.0,
    burst: 500.0,
};
const READ_BYTES: usize = 16 << 10;
const TICK: Duration = Duration::from_millis(2);

/// Where standard error goes, and whether that is a terminal.
///
/// # Errors
/// It is closed.
pub fn real() -> io::Result<(File, bool)> {
    let stderr = io::stderr();
    let copy = stderr.as_fd().try_clone_to_owned()?;
    Ok((copy.into(), stderr.is_terminal()))
}

/// The pipe that they go through.
pub struct Outputs {
    /// Its end that is read.
    pipe: OwnedFd,
}

/// Has standard output and error go through `queue`.
///
/// # Errors
/// What the system says of descriptors and threads.
pub fn take(queue: Arc<Queue>) -> io::Result<Outputs> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    dup2_stdout(&write)?;
    dup2_stderr(&write)?;
    let outputs = Outputs {
        pipe: read.try_clone()?,
    };
    let mut from = File::from(read);
    std::thread::Builder::new()
        .name("outputs".to_owned())
        .spawn(move || pass(&mut from, &queue))?;
    Ok(outputs)
}

impl Outputs {
    /// Waits until what was written was passed on.
    pub fn wait_empty(&self, deadline: Instant) {
        while self.waiting() > 0 && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
        // The last of it is between the pipe and the queue.
        std::thread::sleep(TICK);
    }

    fn waiting(&self) -> i32 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: `bytes` is a valid place for an int, which is what this request writes.
        let known = unsafe { libc::ioctl(self.pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        if known < 0 { 0 } else { bytes }
    }
}

fn pass(from: &mut File, queue: &Queue) {
    let mut bucket = Bucket::new(PACE, Instant::now());
    let (mut left_out, mut have, mut some) = (0_u64, Vec::new(), vec![0; READ_BYTES]);
    loop {
        let count = match from.read(&mut some) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        have.extend_from_slice(&some[..count]);
        let ends = have.iter().rposition(|&byte| byte == b'\n');
        let whole = match ends {
            Some(at) => at + 1,
            // A line without end is none.
            None if have.len() > READ_BYTES => have.len(),
            None => continue,
        };
        for line in have[..whole].split_inclusive(|&byte| byte == b'\n') {
            if !bucket.try_take(PACE, Instant::now()) {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                let text = format!("{left_out} lines of standard error were left out");
                queue.push(&super::line(&text));
                left_out = 0;
            }
            queue.push(line);
        }
        have.drain(..whole);
    }
}
