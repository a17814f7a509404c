//! A node with one log, on a thread of its own: storages hold a number each, and operators hash.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use genie_session::fault::{Code, Fault};
use genie_session::frame::{Header, Kind};
use genie_session::machine::{Call, Failure, Machine, Metas, Source, View};
use genie_session::node::NodeLog;
use genie_session::replies::ReplyLog;
use genie_session::skeleton;
use genie_session::transfer::Transfer;

use crate::rng::Rng;

/// Data that makes an operator fail.
pub const FAIL: i64 = -77;
/// Nothing of a run takes nearly so long: who waits longer waits in a circle.
const CIRCLE: Duration = Duration::from_secs(20);

pub fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(17)
}

/// What an operator computes.
pub fn outcome(op: u32, data: i64, inputs: &[u64]) -> u64 {
    let start = mix(u64::from(op), data as u64);
    inputs.iter().fold(start, |hash, &input| mix(hash, input))
}

/// What has come to a node from others.
#[derive(Default)]
pub struct Arrivals {
    here: Mutex<Here>,
    changed: Condvar,
}

#[derive(Default)]
struct Here {
    values: HashMap<u64, Result<u64, Fault>>,
    gone: HashSet<u16>,
}

impl Arrivals {
    pub fn put(&self, transfer: u64, value: Result<u64, Fault>) {
        self.here.lock().unwrap().values.insert(transfer, value);
        self.changed.notify_all();
    }

    pub fn gone(&self, log: u16) {
        self.here.lock().unwrap().gone.insert(log);
        self.changed.notify_all();
    }

    /// The value, and whether it had to be waited for.
    fn wait(&self, transfer: u64) -> (Result<u64, Fault>, bool) {
        let from = Transfer(transfer).from();
        let (mut here, mut waited) = (self.here.lock().unwrap(), false);
        loop {
            if let Some(value) = here.values.remove(&transfer) {
                return (value, waited);
            }
            if here.gone.contains(&from) {
                let fault = Fault::new(Code::SessionGone, 0, "its device died");
                return (Err(fault.of_log(from)), waited);
            }
            waited = true;
            let (next, late) = self.changed.wait_timeout(here, CIRCLE).unwrap();
            assert!(!late.timed_out(), "a value that never comes: a circle");
            here = next;
        }
    }
}

/// What a node says.
#[derive(Clone)]
pub enum Said {
    Frame(Header, Vec<u8>),
    /// The answer to a fetch.
    Answer(u64, u64),
    /// On a new connection: every record below has been applied.
    Resumed(u64),
}

/// What a node says, by which of its connections, and the how manieth of its answers it is.
pub struct Heard {
    pub connection: u64,
    pub number: u64,
    pub said: Said,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub waited: u64,
    pub early: u64,
    /// Frames that were under way when their connection broke.
    pub lost: u64,
    pub freed_early: u64,
    /// Values that were not freed.
    pub left: usize,
}

pub struct Device {
    me: u16,
    /// It has no memory for some of what comes.
    tight: bool,
    values: HashMap<u64, u64>,
    kept: HashMap<u64, u64>,
    expected: HashMap<u64, u64>,
    arrivals: Vec<Arc<Arrivals>>,
    said: Sender<(usize, Heard)>,
    /// Answers that the client may not have.
    replies: ReplyLog<Said>,
    connection: u64,
    rng: Rng,
    pub counts: Counts,
}

impl Device {
    fn tell(&mut self, said: Said) {
        let number = self.replies.push(said.clone()).expect("room for replies");
        self.speak(number, said);
    }

    fn speak(&self, number: u64, said: Said) {
        let connection = self.connection;
        let heard = Heard {
            connection,
            number,
            said,
        };
        // The session may be over.
        let _ = self.said.send((usize::from(self.me), heard));
    }

    /// A new connection, of a client that has heard so much.
    fn resume(&mut self, connection: u64, heard: u64, applied: u64) {
        self.connection = connection;
        self.speak(heard, Said::Resumed(applied));
        let again = self
            .replies
            .resume(heard)
            .expect("the client's count is right");
        for (number, said) in (heard..).zip(again) {
            self.speak(number, said);
        }
    }

    /// Now and then a node is slow.
    fn dawdle(&mut self) {
        if self.rng.one_in(20) {
            std::thread::sleep(Duration::from_micros(self.rng.below(300)));
        }
    }
}

impl Machine for Device {
    fn define_op(&mut self, _: u32, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        self.dawdle();
        if call.data.contains(&FAIL) {
            return Err(Failure::new(Code::Operator, "asked to fail"));
        }
        let inputs: Vec<u64> = call.storages.iter().map(|id| self.values[id]).collect();
        let hash = outcome(call.op, call.data[0], &inputs);
        let mut index = 0;
        let mut written = Vec::new();
        let walked = skeleton::measure(call.skeleton, |flags, _, _| {
            if flags & skeleton::flag::WRITE != 0 {
                written.push(call.storages[index]);
            }
            index += 1;
        });
        walked.expect("measured before");
        for id in written {
            self.values.insert(id, mix(hash, 1));
        }
        for fresh in 0..call.fresh {
            self.values
                .insert(call.first_fresh + fresh, mix(hash, 2 + fresh));
        }
        Ok(())
    }

    fn call_sync(&mut self, _: &Call<'_>) -> Result<Metas, Failure> {
        unreachable!("none is recorded")
    }

    fn alloc(&mut self, id: u64, bytes: u64) -> Result<(), Failure> {
        self.values.insert(id, bytes);
        Ok(())
    }

    fn resize(&mut self, _: u64, _: u64) -> Result<(), Failure> {
        unreachable!("none is recorded")
    }

    fn upload(&mut self, id: u64, _: u64, source: Source<'_>) -> Result<(), Failure> {
        let Source::Inline(blob) = source else {
            unreachable!("all are small")
        };
        self.values.insert(
            id,
            u64::from_le_bytes(blob.try_into().expect("eight bytes")),
        );
        Ok(())
    }

    fn fetch(&mut self, fetch: u64, view: &View<'_>) -> Result<(), Failure> {
        self.tell(Said::Answer(fetch, self.values[&view.storage]));
        Ok(())
    }

    fn send(&mut self, transfer: u64, view: &View<'_>) -> Result<(), Failure> {
        self.dawdle();
        assert_eq!(Transfer(transfer).from(), self.me);
        let to = usize::from(Transfer(transfer).to());
        self.arrivals[to].put(transfer, Ok(self.values[&view.storage]));
        Ok(())
    }

    fn send_fault(&mut self, transfer: u64, fault: &Fault) {
        let to = usize::from(Transfer(transfer).to());
        self.arrivals[to].put(transfer, Err(fault.clone().of_log(self.me)));
    }

    fn expect(&mut self, id: u64, _: u64, transfer: u64) -> Result<(), Failure> {
        assert_eq!(Transfer(transfer).to(), self.me);
        if self.tight && self.rng.one_in(12) {
            return Err(Failure::new(Code::OutOfMemory, "no memory for what comes"));
        }
        self.expected.insert(id, transfer);
        Ok(())
    }

    fn say(&mut self, frames: &mut Vec<(Header, Vec<u8>)>) {
        for (header, payload) in frames.drain(..) {
            self.tell(Said::Frame(header, payload));
        }
    }

    fn arrive(&mut self, id: u64) -> Result<(), Fault> {
        let transfer = self.expected.remove(&id).expect("a value that is expected");
        let (value, waited) = self.arrivals[usize::from(self.me)].wait(transfer);
        match waited {
            true => self.counts.waited += 1,
            false => self.counts.early += 1,
        }
        self.values.insert(id, value?);
        Ok(())
    }

    fn free(&mut self, id: u64) {
        if self.expected.remove(&id).is_some() {
            self.counts.freed_early += 1;
        }
        self.values.remove(&id);
        self.kept.remove(&id);
    }

    fn bytes(&self, id: u64) -> Option<u64> {
        self.values.contains_key(&id).then_some(8)
    }

    fn keep(&mut self, id: u64, copy: bool) -> Result<(), Failure> {
        let held = self.values[&id];
        assert_eq!(self.kept.insert(id, held), None, "a storage is kept once");
        if !copy {
            self.values.remove(&id);
        }
        Ok(())
    }

    fn restore(&mut self, id: u64) {
        let held = self.kept.remove(&id).expect("it was kept");
        self.values.insert(id, held);
    }
}

/// What a node is told.
pub enum Told {
    /// By the connection of this number; what a newer one has overtaken was lost under way.
    Frame(u64, Header, Vec<u8>),
    /// By its control plane.
    Plan(u32, Vec<u8>),
    /// A new connection, of a client that has heard so many answers.
    Resume(u64, u64),
}

/// Runs a node until it is told nothing more; a `tight` one has no memory for some of what comes.
pub fn run(
    me: usize,
    told: &Receiver<Told>,
    said: Sender<(usize, Heard)>,
    arrivals: Vec<Arc<Arrivals>>,
    (dies, connection): (&AtomicBool, &AtomicU64),
    rng: Rng,
    tight: bool,
) -> Counts {
    let mut device = Device {
        me: me as u16,
        tight,
        values: HashMap::new(),
        kept: HashMap::new(),
        expected: HashMap::new(),
        arrivals,
        said,
        replies: ReplyLog::new(1 << 16),
        connection: 0,
        rng,
        counts: Counts::default(),
    };
    let mut log = NodeLog::new();
    let mut out = Vec::new();
    while let Ok(told) = told.recv() {
        if dies.load(Ordering::SeqCst) {
            break;
        }
        let (header, payload) = match told {
            Told::Frame(by, ..) if by < connection.load(Ordering::SeqCst) => {
                device.counts.lost += 1;
                continue;
            }
            Told::Frame(_, header, payload) => (header, payload),
            Told::Plan(plan, segment) => {
                let header = Header::new(Kind::InstallPlan, u64::from(plan), 0);
                (header.with_payload(segment.len()), segment)
            }
            Told::Resume(connection, heard) => {
                device.resume(connection, heard, log.expected_seq());
                continue;
            }
        };
        let bulk = Source::NoMemory;
        log.handle(&header, &payload, bulk, &mut device, &mut out)
            .expect("what an honest client sends");
        for (header, payload) in out.drain(..) {
            if header.kind != Kind::Fault {
                device.tell(Said::Frame(header, payload));
            }
        }
    }
    // What it was to send never comes.
    for arrivals in &device.arrivals {
        arrivals.gone(device.me);
    }
    device.counts.left = device.values.len() + device.kept.len();
    device.counts
}
