//! One device's part of a session: the way of its log to the node and back.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use genie_control_api::v1::{Device, OpenSessionReply};
use genie_session::client::{ClientLog, Window};
use genie_shm::clock::now_ns;
use parking_lot::Mutex;

use super::heartbeat::Heartbeat;
use super::operators::Operators;
use super::outbox::Outbox;
use super::reader::Reader;
use super::seen::Seen;
use super::slots::Slots;
use super::trace::Trace;
use super::{BURST_RECORDS, BURST_WAIT_MAX, Error, Exception, KEPT_BYTES_MAX};
use crate::control::Control;
use crate::link::Link;

/// A device's data connection that was welcomed, with all that belongs to it.
pub struct Opened {
    /// Of the node, for messages: its address.
    pub node: String,
    /// Which of the node's devices it is.
    pub device: usize,
    /// What the node answered.
    pub reply: OpenSessionReply,
    /// The data path.
    pub link: Link,
    /// The control channel.
    pub control: Control,
}

/// One device's part of a session.
pub struct Lane {
    /// Which of the session's it is.
    pub(super) index: usize,
    /// Its number in this process; part of the handle of every storage that it holds.
    pub number: u16,
    /// Where its node is.
    pub node: String,
    device: usize,
    /// What the node answered.
    pub opened: OpenSessionReply,
    /// What its node has besides libtorch's operators.
    pub(super) operators: Operators,
    /// The data path.
    pub link: Link,
    pub(super) control: Control,
    pub(super) outbox: Outbox,
    pub(super) reading: Mutex<Reader>,
    pub(super) slots: Slots,
    pub(super) heart: Heartbeat,
    pub(super) dirty: AtomicBool,
    /// Nanoseconds, as a look was answered last; and whether recording takes as long as waiting.
    pub(super) answered_at: AtomicU64,
    pub(super) is_even: AtomicBool,
    /// As its node said last: nanoseconds of the last second that it computed, and bytes of others.
    pub(super) busy_ns: AtomicU64,
    pub(super) others_bytes: AtomicU64,
    lost: OnceLock<Error>,
    is_lost: AtomicBool,
}

/// A device's log, under the append lock.
pub(super) struct LaneLog {
    pub(super) log: ClientLog,
    pub(super) trace: Trace,
    pub(super) seen: Seen,
    /// Records since the last flush.
    pub(super) unsent: u32,
    /// Records that leave together, if the log does not send them earlier.
    pub(super) burst: u32,
    /// Records since the last look: one of them may have failed.
    pub(super) unheard: bool,
}

impl LaneLog {
    pub(super) fn new(opened: &OpenSessionReply) -> Self {
        let mut log = ClientLog::new();
        log.set_window(Window {
            records: opened.window_records,
            kept_bytes: KEPT_BYTES_MAX,
            bulk_bytes: opened.window_bytes,
        });
        Self {
            log,
            trace: Trace::default(),
            seen: Seen::default(),
            unsent: 0,
            burst: BURST_RECORDS,
            unheard: false,
        }
    }

    /// What it held goes; it is still there to be looked at.
    pub(super) fn empty(&mut self) {
        self.log = ClientLog::new();
        self.trace = Trace::small();
        self.seen = Seen::default();
    }
}

impl Lane {
    pub(super) fn new(index: usize, number: u16, opened: Opened) -> Self {
        let heart = Heartbeat::new(opened.link.is_watched());
        let operators = Operators::of(&opened.reply);
        Self {
            index,
            number,
            node: opened.node,
            device: opened.device,
            operators,
            opened: opened.reply,
            link: opened.link,
            control: opened.control,
            outbox: Outbox::default(),
            reading: Mutex::default(),
            slots: Slots::default(),
            heart,
            answered_at: AtomicU64::new(0),
            is_even: AtomicBool::new(true),
            dirty: AtomicBool::new(false),
            busy_ns: AtomicU64::new(0),
            others_bytes: AtomicU64::new(0),
            lost: OnceLock::new(),
            is_lost: AtomicBool::new(false),
        }
    }

    /// A look that was asked for at `began`, by [`now_ns`], is answered.
    pub(super) fn waited(&self, began: u64) {
        let now = now_ns();
        let recorded = began.saturating_sub(self.answered_at.swap(now, Ordering::Relaxed));
        let waited = now.saturating_sub(began);
        let is_even = waited <= recorded.saturating_mul(BURST_WAIT_MAX.into());
        self.is_even.store(is_even, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn device(&self) -> Device {
        self.described().cloned().unwrap_or_default()
    }

    fn described(&self) -> Option<&Device> {
        self.opened.devices.get(self.device)
    }

    /// Whether the node's CPU is what computes.
    pub(super) fn is_host(&self) -> bool {
        self.described().is_some_and(|device| device.kind == "host")
    }

    /// Fails once its node is lost, or the session is over.
    ///
    /// # Errors
    /// Why it is.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_lost() {
            return Err(self.lost.get().cloned().unwrap_or(Error::Interrupted));
        }
        Ok(())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// It is over; the first reason stays.
    pub(super) fn lose(&self, reason: Error) {
        tracing::info!(target: "session", lane = self.index, node = %self.node, %reason, "it is over");
        self.note_end(reason);
        self.is_lost.store(true, Ordering::Release);
        self.link.shutdown();
        self.outbox.drop_all();
        self.slots.wake();
    }

    /// Why it is going to end, unless it ends before.
    pub(super) fn note_end(&self, reason: Error) {
        let _ = self.lost.set(reason);
    }

    pub(super) fn lose_link(&self, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        self.lose_node(&why);
    }

    /// The node is gone, says `why`.
    pub(super) fn lose_node(&self, why: &str) {
        self.lose(Error::Genie(
            Exception::NodeLost,
            format!(
                "the node at {} was lost: {why}. Tensors that it held are gone; genie.connect() \
                 starts another session",
                self.node
            ),
        ));
    }

    /// A session that is silent for so long is ended by the node.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.opened.lease_ms.max(1000)))
    }
}
