//! When records run, for a client that profiles.

use genie_session::frame::{Header, Kind};
use genie_session::times::{Entry, Times};
use genie_shm::RingError;
use genie_shm::clock::now_ns;

use crate::port::Port;

/// What is measured while somebody wants to know.
#[derive(Default)]
pub struct Profile {
    times: Times,
    /// The record that runs, and since when.
    running: Option<(u64, u64)>,
    /// When the frame came that is taken next, and its raw bytes.
    came: Option<(u64, u64)>,
}

impl Profile {
    /// The next frame came then.
    pub fn came(&mut self, came: u64, landed: u64) {
        self.came = Some((came, landed));
    }

    /// The next frame is taken.
    pub fn takes(&mut self, port: &mut Port) {
        if let Some((came, landed)) = self.came.take() {
            let begun = now_ns();
            self.put(
                port,
                Entry::Frame {
                    came,
                    landed,
                    begun,
                },
            );
        }
    }

    /// A record begins.
    pub fn begins(&mut self, seq: u64) {
        self.running = Some((seq, now_ns()));
    }

    /// It is done.
    pub fn ends(&mut self, port: &mut Port) {
        if let Some((seq, begun)) = self.running.take() {
            let ended = now_ns();
            self.put(port, Entry::Record { seq, begun, ended });
        }
    }

    fn put(&mut self, port: &mut Port, entry: Entry) {
        if self.times.put(entry) {
            // Without a daemon nobody hears of anything.
            let header = Header::new(Kind::Times, 0, 0);
            drop(port.send(header, &self.times.take()));
        }
    }

    /// What is left, which is all.
    ///
    /// # Errors
    /// The ring's.
    pub fn finish(mut self, port: &mut Port) -> Result<(), RingError> {
        port.send(Header::new(Kind::Times, 0, 1), &self.times.take())
    }
}
