//! The client's side of a session with a node: appends to the log, moves messages, waits for
//! answers.

mod ahead;
mod append;
mod bytes;
mod calls;
mod counters;
mod error;
mod frames;
mod heartbeat;
mod host;
mod housekeeper;
mod lane;
mod moves;
mod operators;
mod outbox;
mod pool;
mod profile;
mod reader;
mod replay;
mod seen;
mod shapes;
mod slots;
#[cfg(test)]
mod slots_tests;
mod sync;
mod trace;
mod transcript;
mod wait;
mod wake;

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use genie_planner::Policy;
use genie_session::client::ClientCounters;
use parking_lot::Mutex;

use self::ahead::Ahead;
pub use self::ahead::Next;
pub use self::append::{Recorded, SiteId};
pub use self::bytes::Bytes;
pub use self::calls::Asked;
pub use self::counters::{Analysis, Counters, Reading};
pub use self::error::{Error, Exception};
pub use self::host::{Host, Interrupted};
use self::lane::LaneLog;
pub use self::lane::{Lane, Opened};
pub use self::moves::Moved;
use self::moves::Ways;
pub use self::operators::Offered;
use self::pool::Pool;
pub use self::pool::{At, Found, Planned};
use self::profile::Profiler;
pub use self::profile::{Captured, Clock, Profile, Sent, Waited, begins};
pub use self::replay::{Replayed, Slots};
pub use self::shapes::{Results, SIGNATURES_MAX, ShapeCache, Signature};
use self::trace::Forwards;
pub use self::transcript::{Event, Transcript, Written};
use self::wake::Wake;

/// Bytes of records under way at most; less than a ring to an executor holds.
const KEPT_BYTES_MAX: u64 = 2 << 20;
/// Results that a synchronous operator may have.
const RESERVED: u64 = 64;
/// Records that nobody waits for leave after this long.
const FLUSH_AFTER: Duration = Duration::from_millis(1);
/// Where the program waits for answers again and again, it sees to everything itself, and the
/// housekeeper would only take a core from it.
const REST: Duration = Duration::from_millis(4);
/// So many records leave at once after a look, when the node has nothing to do, so that it is at them
/// while the next are recorded: twice as many, and so on, up to what the log sends by itself.
const BURST_RECORDS: u32 = 8;
/// Not where a wait takes so many times as long as the recording before it: little could be gained, and
/// on a shared machine the two would take the cores from one another.
const BURST_WAIT_MAX: u32 = 4;
/// How long the housekeeper sleeps at a time when nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Memory for results goes back to the system after this long without work.
const TRIM_AFTER: Duration = Duration::from_secs(10);
/// Without anything to do for so long, the housekeeper sleeps.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// What appending needs, under the append lock.
pub(crate) struct Append {
    /// A log for each lane.
    logs: Box<[LaneLog]>,
    pub shapes: ShapeCache,
    pub forwards: Forwards,
    ahead: Ahead,
    next_wait: u64,
    next_transfer: u64,
    /// Records of all logs so far: their one order.
    position: u64,
    /// Where values are, if the program does not say.
    pool: Option<Box<Pool>>,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// autograd's number of this forward operator, or -1.
    pub sequence_nr: i64,
    /// In a backward: the number of the forward operator, or -1.
    pub forward_nr: i64,
    /// What the program's task says, where a profile wants to know; zero is nothing.
    pub annotation: u64,
}

impl Origin {
    /// Of nothing that autograd knows.
    pub const NONE: Self = Self {
        sequence_nr: -1,
        forward_nr: -1,
        annotation: 0,
    };
}

/// One session: a log for each device that it uses, all appended under one lock, which makes one
/// order of them.
pub struct Session {
    this: Weak<Self>,
    host: Box<dyn Host>,
    lanes: Box<[Lane]>,
    append: Mutex<Append>,
    ways: Ways,
    is_pool: bool,
    wants_load: bool,
    wake: Wake,
    profiler: Profiler,
    /// What was sent and received.
    pub counters: Counters,
}

impl Session {
    /// A session over links that were welcomed, one a device and at least one, with a thread that
    /// keeps house for it. `number` is the first device's in this process, the others' follow.
    ///
    /// # Errors
    /// No descriptors or threads left; no link.
    pub fn start(number: u16, opened: Vec<Opened>, host: Box<dyn Host>) -> io::Result<Arc<Self>> {
        Self::start_placed(number, opened, host, None)
    }

    /// The same; with a policy all devices are one index, and it places what the program does.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_placed(
        number: u16,
        opened: Vec<Opened>,
        host: Box<dyn Host>,
        policy: Option<Box<dyn Policy>>,
    ) -> io::Result<Arc<Self>> {
        if opened.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let wake = Wake::new()?;
        let logs = (opened.iter())
            .map(|opened| LaneLog::new(&opened.reply))
            .collect();
        let devices = opened.len();
        let lanes = (number..).zip(opened).enumerate();
        let is_pool = policy.is_some();
        let wants_load = policy.as_ref().is_some_and(|policy| policy.wants_load());
        let session = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            host,
            lanes: lanes
                .map(|(index, (number, opened))| Lane::new(index, number, opened))
                .collect(),
            append: Mutex::new(Append {
                logs,
                shapes: ShapeCache::default(),
                forwards: Forwards::default(),
                ahead: Ahead::default(),
                next_wait: 1,
                next_transfer: 0,
                position: 0,
                pool: policy.map(|policy| Box::new(Pool::new(devices, policy))),
            }),
            ways: Ways::default(),
            is_pool,
            wants_load,
            wake,
            profiler: Profiler::default(),
            counters: Counters::default(),
        });
        if wants_load {
            session.hear_loads();
        }
        let housekeeper = Arc::clone(&session);
        std::thread::Builder::new()
            .name("genie-session".to_owned())
            .spawn(move || housekeeper.housekeeping())?;
        Ok(session)
    }

    /// Its devices, in the order of their indices.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Its first device.
    #[must_use]
    pub fn first(&self) -> &Lane {
        // There is at least one.
        &self.lanes[0]
    }

    /// Fails once a node of it is lost, or it is over.
    ///
    /// # Errors
    /// Why it is.
    pub fn check(&self) -> Result<(), Error> {
        self.lanes.iter().try_for_each(Lane::check)
    }

    /// Whether nothing of it is left.
    fn is_over(&self) -> bool {
        self.lanes.iter().all(Lane::is_lost)
    }

    /// Counters of the logs: records, operators, plan hits and misses.
    pub fn log_counters(&self) -> ClientCounters {
        let append = self.append.lock();
        let counters = append.logs.iter().map(|lane| lane.log.counters());
        counters.sum()
    }

    /// Signatures in the shape cache.
    pub fn signatures(&self) -> usize {
        self.append.lock().shapes.signatures()
    }
}
