//! Lines on their way to a file that may be slow, full or gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes of a line; the rest of it is cut.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long a file that can't be written is left alone.
const PAUSE: Duration = Duration::from_millis(100);

static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines of this process' log that nobody will read: there was no room, or they could not be written.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Lines that wait.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    writing: bool,
    /// Lost since that was last said.
    lost: u64,
}

impl Queue {
    /// One whose lines go to `to`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(to: File) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        let this = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || this.write(to))?;
        Ok(queue)
    }

    /// Leaves a line. Never waits for the file.
    pub fn push(&self, line: &[u8]) {
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        let mut state = self.state.lock();
        if state.bytes + line.len() > WAITING_BYTES_MAX {
            state.lose(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// Waits until nothing waits.
    pub fn wait_empty(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while (state.writing || !state.lines.is_empty())
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
    }

    fn write(&self, mut to: File) {
        loop {
            let (line, lost) = {
                let mut state = self.state.lock();
                state.writing = false;
                self.changed.notify_all();
                while state.lines.is_empty() {
                    self.changed.wait(&mut state);
                }
                state.writing = true;
                let line = state.lines.pop_front().unwrap_or_default();
                state.bytes -= line.len();
                (line, std::mem::take(&mut state.lost))
            };
            let mut text = Vec::new();
            if lost > 0 {
                text = super::line(&format!("{lost} lines of this log were lost"));
            }
            text.extend_from_slice(&line);
            if let Err(error) = write_all(&mut to, &text) {
                let mut state = self.state.lock();
                // What was to be said of those before is still to be said.
                state.lost += lost;
                state.lose(1);
                drop(state);
                if error.kind() != io::ErrorKind::BrokenPipe {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        LOST.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Writes all, also where somebody made the file one that does not wait.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a queue's lines of what a subscriber writes.
pub struct Lines(Arc<Queue>);

impl Lines {
    /// Of `queue`.
    pub fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            queue: &self.0,
            bytes: Vec::new(),
        }
    }
}

/// One line; it leaves when it is dropped.
pub struct Line<'a> {
    queue: &'a Queue,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push(&self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn pipe() -> (File, File) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_was_lost_is_said() {
        let (mut read, write) = pipe();
        let queue = Queue::start(write).unwrap();
        let before = lost();
        let started = Instant::now();
        for n in 0..50_000 {
            queue.push(format!("{n:0>99}\n").as_bytes());
        }
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(lost() - before > 10_000);
        // Somebody reads again.
        let reader = std::thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 4096]);
            while !all.ends_with(b"last\n") {
                let n = read.read(&mut some).unwrap();
                all.extend_from_slice(&some[..n]);
            }
            String::from_utf8(all).unwrap()
        });
        queue.wait_empty(Instant::now() + Duration::from_secs(5));
        queue.push(b"last\n");
        assert!(
            reader
                .join()
                .unwrap()
                .contains("lines of this log were lost")
        );
    }

    #[test]
    fn a_full_disk_and_a_closed_pipe_are_survived() {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (read, closed) = pipe();
        drop(read);
        for file in [full, closed] {
            let before = lost();
            let queue = Queue::start(file).unwrap();
            queue.push(b"a\n");
            queue.push(b"b\n");
            queue.wait_empty(Instant::now() + Duration::from_secs(5));
            assert!(lost() >= before + 2);
        }
    }

    #[test]
    fn a_line_is_cut_where_it_is_too_long() {
        let (mut read, write) = pipe();
        let queue = Queue::start(write).unwrap();
        let mut line = Lines::new(Arc::clone(&queue));
        line.make_writer().write_all(&vec![b'x'; 1 << 20]).unwrap();
        let _ = &mut line;
        let mut got = vec![0; LINE_BYTES_MAX];
        read.read_exact(&mut got).unwrap();
        drop(line);
        queue.wait_empty(Instant::now() + Duration::from_secs(5));
    }
}
