//! The client's side of a session with a node: appends to the log, moves messages, waits for
//! answers.

mod append;
mod calls;
mod counters;
mod error;
mod frames;
mod heartbeat;
mod host;
mod housekeeper;
mod outbox;
mod reader;
mod shapes;
mod slots;
#[cfg(test)]
mod slots_tests;
mod sync;
mod trace;
mod wait;
mod wake;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use genie_control_api::v1::OpenSessionReply;
use genie_session::client::{ClientLog, Window};
use parking_lot::Mutex;

pub use self::append::{Recorded, SiteId};
pub use self::calls::Asked;
pub use self::counters::{Analysis, Counters, Reading};
pub use self::error::{Error, Exception};
use self::heartbeat::Heartbeat;
pub use self::host::{Host, Interrupted};
use self::outbox::Outbox;
use self::reader::Reader;
pub use self::shapes::{Results, SIGNATURES_MAX, ShapeCache, Signature};
use self::slots::Slots;
use self::trace::Trace;
use self::wake::Wake;
use crate::control::Control;
use crate::link::Link;

/// Bytes of records under way at most; less than a ring to an executor holds.
const KEPT_BYTES_MAX: u64 = 2 << 20;
/// Results that a synchronous operator may have.
const RESERVED: u64 = 64;
/// Records that nobody waits for leave after this long.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// Where the program waits for answers again and again, it sees to everything itself, and the
/// housekeeper would only take a core from it.
const REST: Duration = Duration::from_millis(8);
/// So many records without a wait end that rest: the node could be at them already.
const REST_RECORDS: u32 = 8;
/// How long the housekeeper sleeps at a time when nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Memory for results goes back to the system after this long without work.
const TRIM_AFTER: Duration = Duration::from_secs(10);
/// Without anything to do for so long, the housekeeper sleeps.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// What appending needs, under the append lock.
pub(crate) struct Append {
    pub log: ClientLog,
    pub shapes: ShapeCache,
    pub trace: Trace,
    next_wait: u64,
    /// Records since the last flush.
    unsent: u32,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// autograd's number of this forward operator, or -1.
    pub sequence_nr: i64,
    /// In a backward: the number of the forward operator, or -1.
    pub forward_nr: i64,
}

impl Origin {
    /// Of nothing that autograd knows.
    pub const NONE: Self = Self {
        sequence_nr: -1,
        forward_nr: -1,
    };
}

/// One session.
pub struct Session {
    this: Weak<Self>,
    host: Box<dyn Host>,
    /// Its number in this process; part of every tensor's storage handle.
    pub epoch: u16,
    /// What the node answered.
    pub opened: OpenSessionReply,
    /// The data path.
    pub link: Link,
    control: Control,
    append: Mutex<Append>,
    outbox: Outbox,
    reading: Mutex<Reader>,
    slots: Slots,
    heart: Heartbeat,
    dirty: AtomicBool,
    wake: Wake,
    lost: OnceLock<Error>,
    is_lost: AtomicBool,
    /// What was sent and received.
    pub counters: Counters,
}

impl Session {
    /// A session over a link that was welcomed, with a thread that keeps house for it.
    ///
    /// # Errors
    /// No descriptors or threads left.
    pub fn start(
        epoch: u16,
        opened: OpenSessionReply,
        link: Link,
        control: Control,
        host: Box<dyn Host>,
    ) -> io::Result<Arc<Self>> {
        let wake = Wake::new()?;
        let heart = Heartbeat::new(link.is_watched());
        let mut log = ClientLog::new();
        log.set_window(Window {
            records: opened.window_records,
            kept_bytes: KEPT_BYTES_MAX,
            bulk_bytes: opened.window_bytes,
        });
        let session = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            host,
            epoch,
            opened,
            link,
            control,
            append: Mutex::new(Append {
                log,
                shapes: ShapeCache::default(),
                trace: Trace::default(),
                next_wait: 1,
                unsent: 0,
            }),
            outbox: Outbox::default(),
            reading: Mutex::default(),
            slots: Slots::default(),
            heart,
            dirty: AtomicBool::new(false),
            wake,
            lost: OnceLock::new(),
            is_lost: AtomicBool::new(false),
            counters: Counters::default(),
        });
        let housekeeper = Arc::clone(&session);
        std::thread::Builder::new()
            .name("genie-session".to_owned())
            .spawn(move || housekeeper.housekeeping())?;
        Ok(session)
    }

    /// Fails once the session is over.
    ///
    /// # Errors
    /// Why it is.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_lost.load(Ordering::Acquire) {
            return Err(self.lost.get().cloned().unwrap_or(Error::Interrupted));
        }
        Ok(())
    }

    /// The session is over; the first reason stays.
    pub fn lose(&self, reason: Error) {
        let _ = self.lost.set(reason);
        self.is_lost.store(true, Ordering::Release);
        self.link.shutdown();
        self.outbox.drop_all();
        self.slots.wake();
    }

    fn lose_link(&self, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        self.lose(Error::Genie(
            Exception::NodeLost,
            format!(
                "the node was lost: {why}. Tensors of this session are gone; genie.connect() \
                 starts another"
            ),
        ));
    }

    /// Counters of the log: records, operators, plan hits and misses.
    pub fn log_counters(&self) -> genie_session::client::ClientCounters {
        self.append.lock().log.counters()
    }

    /// Signatures in the shape cache.
    pub fn signatures(&self) -> usize {
        self.append.lock().shapes.signatures()
    }
}
