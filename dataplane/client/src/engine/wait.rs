//! Waiting: one thread reads for all that wait, and looks after the node.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use genie_session::client::Message;
use genie_session::frame::{Header, Kind};

use super::reader::ReadState;
use super::{DEAD_AFTER, DEAD_AFTER_WATCHED, Error, Exception, Outgoing, PING_AFTER, Session};

impl Session {
    /// Reads and handles frames until `pending` is false. One thread reads for all that wait.
    pub(super) fn wait_while(&self, pending: impl Fn() -> bool) -> Result<(), Error> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let result = self.wait_inner(&pending);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.link.reading_disarms() {
            // Nothing would wake the housekeeper otherwise, for what nobody waits for.
            self.wake.wake_if_idle();
        }
        result
    }

    pub(super) fn wait_inner(&self, pending: &impl Fn() -> bool) -> Result<(), Error> {
        while pending() {
            self.check()?;
            if let Some(mut reading) = self.reading.try_lock() {
                let mut ticked = false;
                while !ticked && pending() {
                    ticked = !self.read_frame(&mut reading)?;
                }
                drop(reading);
                let slots = self.slots.lock();
                drop(slots);
                // Whoever else waits takes over the reading.
                self.woken.notify_all();
                if !ticked {
                    continue;
                }
            } else {
                let mut slots = self.slots.lock();
                self.woken.wait_for(&mut slots, Duration::from_millis(5));
            }
            self.host
                .look_at_signals()
                .map_err(|_| Error::Interrupted)?;
            self.look_after_node()?;
        }
        Ok(())
    }

    /// One frame, or a tick without any (`false`).
    pub(super) fn read_frame(&self, reading: &mut ReadState) -> Result<bool, Error> {
        match reading.frame(self) {
            Ok(got) => Ok(got),
            Err(error) => {
                self.lose_link(&error);
                self.check().map(|()| false)
            }
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Bytes came from the node.
    pub(crate) fn heard(&self) {
        self.last_received_ms
            .store(self.now_ms(), Ordering::Relaxed);
    }

    /// A node that is silent for so long, though it was asked, is gone.
    pub(super) fn dead_after(&self) -> Duration {
        if self.link.is_watched() {
            DEAD_AFTER_WATCHED
        } else {
            DEAD_AFTER
        }
    }

    /// Between reads of raw bytes: fails when the node does not answer any more.
    pub(crate) fn node_answers(&self) -> io::Result<()> {
        self.look_after_node()
            .map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// A session that is silent for so long is ended by the node.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.opened.lease_ms.max(1000)))
    }

    /// Asks a silent node whether it lives; gives it up when it does not answer.
    pub(super) fn look_after_node(&self) -> Result<(), Error> {
        self.ask_after(PING_AFTER)
    }

    /// Asks a node that was silent for `quiet` whether it lives.
    pub(super) fn ask_after(&self, quiet: Duration) -> Result<(), Error> {
        let moved = self.link.moved();
        if self.last_moved.swap(moved, Ordering::Relaxed) != moved {
            self.heard();
        }
        let now = self.now_ms();
        let heard = self.last_received_ms.load(Ordering::Relaxed);
        let asked = self.last_ping_ms.load(Ordering::Relaxed);
        let silent = Duration::from_millis(now.saturating_sub(heard));
        if asked > heard && now.saturating_sub(asked) > self.dead_after().as_millis() as u64 {
            self.lose(Error::Genie(
                Exception::NodeLost,
                format!(
                    "the node was lost: it has not answered for {} ms. Tensors of this session \
                     are gone; genie.connect() starts another",
                    silent.as_millis()
                ),
            ));
            return self.check();
        }
        if silent > quiet && asked <= heard && !self.ping_queued.swap(true, Ordering::Relaxed) {
            let message = Message {
                header: Header::new(Kind::Ping, now, 0),
                payload: Vec::new(),
            };
            self.outbox
                .lock()
                .push_back(Outgoing { message, raw: None });
            // Not waited for: whoever writes now takes it along.
            return self.pump(false);
        }
        Ok(())
    }
}
