//! Two ends, a link, a slow executor, threads, and an oracle that computes at once.

use std::collections::{HashMap, VecDeque};

use genie_session::client::{ClientLog, Draft, Message, Window};
use genie_session::fault::Fault;
use genie_session::frame::{self, Header};
use genie_session::machine::Source;
use genie_session::node::NodeLog;
use genie_session::record::Kind;
use genie_session::replies::ReplyLog;
use genie_session::skeleton::{flag, tag};
use genie_session::varint::put_u64;

use crate::machine::{FAIL, SimMachine, ZERO, mix, outcome};
use crate::oracle::{Oracle, Record, Write};
use crate::program::{Step, Thread, arguments, results};
use crate::rng::Rng;

#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The link goes down and comes back.
    pub cuts: bool,
    /// The node forgets plans.
    pub drop_plans: bool,
    /// The executor takes long.
    pub slow: bool,
    /// Operators fail.
    pub failures: bool,
    /// One thread, instead of up to four.
    pub single: bool,
    /// Messages come twice.
    pub duplicates: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub plan_hits: u64,
    pub plan_misses: u64,
    pub refused: u64,
    pub cuts: u64,
    pub poisoned: u64,
    pub stashed: u64,
    pub duplicates: u64,
    pub answers: u64,
    pub waits_for_room: u64,
    pub raised: u64,
    pub healed: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.plan_hits += other.plan_hits;
        self.plan_misses += other.plan_misses;
        self.refused += other.refused;
        self.cuts += other.cuts;
        self.poisoned += other.poisoned;
        self.stashed += other.stashed;
        self.duplicates += other.duplicates;
        self.answers += other.answers;
        self.waits_for_room += other.waits_for_room;
        self.raised += other.raised;
        self.healed += other.healed;
    }
}

/// What the oracle expects of a wait.
#[derive(Debug)]
enum Expected {
    Value(u64),
    /// The failure of this record.
    Fault(u64),
    Done,
}

#[derive(Debug)]
struct Waiting {
    thread: usize,
    expected: Expected,
}

/// A frame with the bulk bytes that follow it, here one number.
type Up = (Header, Vec<u8>, u64);
/// A frame with the bytes of an answer.
type Down = (Header, Vec<u8>, u64);

const STEPS: usize = 1500;
/// Bytes of each upload.
const BULK_BYTES: u64 = 8;

/// Bounds from one record, or one byte, to more than the node acknowledges by itself.
fn window(rng: &mut Rng) -> Window {
    let mut bound = |most: u64| {
        let most = 1 + rng.below(most);
        1 + rng.below(most)
    };
    Window {
        records: bound(2_000),
        kept_bytes: bound(100_000),
        bulk_bytes: bound(1_000),
    }
}

pub struct World {
    rng: Rng,
    faults: Faults,
    client: ClientLog,
    node: NodeLog,
    machine: SimMachine,
    threads: Vec<Thread>,
    /// Each thread's values: ids, or none where it freed one.
    held: Vec<Vec<u64>>,
    blocked: Vec<bool>,
    oracle: Oracle,
    /// By id: its bytes, as far as the program knows.
    sizes: HashMap<u64, u64>,
    waits: HashMap<(bool, u64), Waiting>,
    next_wait: u64,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    received: u64,
    replies: ReplyLog<Down>,
    plans: VecDeque<(u32, Vec<u8>)>,
    late_plans: Vec<(u32, Vec<u8>)>,
    next_place: u64,
    totals: Totals,
    bulk_values: HashMap<u64, u64>,
}

impl World {
    pub fn new(mut rng: Rng, faults: Faults) -> Self {
        let count = if faults.single {
            1
        } else {
            1 + rng.below(4) as usize
        };
        let mut client = ClientLog::new();
        client.set_window(window(&mut rng));
        let threads: Vec<Thread> = (0..count).map(|_| Thread::new(&mut rng)).collect();
        Self {
            rng,
            faults,
            client,
            node: NodeLog::new(),
            machine: SimMachine::default(),
            held: vec![Vec::new(); threads.len()],
            blocked: vec![false; threads.len()],
            threads,
            oracle: Oracle::default(),
            sizes: HashMap::new(),
            waits: HashMap::new(),
            next_wait: 1,
            up: VecDeque::new(),
            down: VecDeque::new(),
            received: 0,
            replies: ReplyLog::new(1 << 16),
            plans: VecDeque::new(),
            late_plans: Vec::new(),
            next_place: 0,
            totals: Totals::default(),
            bulk_values: HashMap::new(),
        }
    }

    pub fn totals(&self) -> Totals {
        let counters = self.client.counters();
        Totals {
            plan_hits: counters.plan_hits,
            plan_misses: counters.plan_misses,
            refused: counters.refused,
            poisoned: self.node.counters().poisoned,
            raised: self.oracle.raised,
            ..self.totals.clone()
        }
    }

    pub fn run(&mut self) {
        let mut steps = 0;
        let mut idle = 0;
        while steps < STEPS {
            let progressed = match self.rng.below(10) {
                0..=4 => {
                    let done = self.thread_step();
                    steps += usize::from(done);
                    done
                }
                5 | 6 if !self.faults.slow || self.rng.one_in(4) => self.node_step(),
                7 | 8 => self.client_step(),
                _ => self.background(),
            };
            idle = if progressed { 0 } else { idle + 1 };
            assert!(
                idle < 5_000,
                "both ends wait for each other: {:?}",
                self.waits
            );
        }
        self.settle();
    }

    /// Everything is delivered; nothing may be left, and both ends hold the same values.
    fn settle(&mut self) {
        self.flush();
        for _ in 0..1_000_000 {
            let moved = self.node_step() | self.client_step();
            self.flush();
            if !moved && self.up.is_empty() && self.down.is_empty() {
                break;
            }
        }
        for (plan, segment) in std::mem::take(&mut self.late_plans) {
            self.install(plan, &segment);
        }
        assert!(
            self.node.plans() <= self.client.plans(),
            "plans are left behind: {} and {}",
            self.node.plans(),
            self.client.plans()
        );
        assert!(
            self.waits.is_empty(),
            "answers never came: {:?}",
            self.waits
        );
        for (id, value) in self.oracle.usable() {
            assert_eq!(self.machine.storages.get(&id), Some(&value), "storage {id}");
        }
        let client_live = self.oracle.len();
        assert_eq!(
            self.node.live(),
            client_live,
            "values are left behind, or lost"
        );
    }

    fn send(&mut self, message: Message, bulk: u64) {
        let carries_records = matches!(
            message.header.kind,
            frame::Kind::Records | frame::Kind::Bulk
        );
        if self.faults.duplicates && carries_records && self.rng.one_in(4) {
            self.totals.duplicates += 1;
            self.up
                .push_back((message.header, message.payload.clone(), bulk));
        }
        self.up.push_back((message.header, message.payload, bulk));
    }

    fn flush(&mut self) {
        for _ in 0..2 {
            if let Some(message) = self.client.flush() {
                self.send(message, 0);
            }
        }
    }

    fn background(&mut self) -> bool {
        match self.rng.below(4) {
            0 => self.flush(),
            1 => {
                if let Some(submission) = self.client.take_submission() {
                    self.plans.push_back((submission.plan, submission.segment));
                }
                if let Some((plan, segment)) = self.plans.pop_front() {
                    // The control plane hands the plan to the node, apart from the data path. Now
                    // and then it gives up waiting, and the node installs the plan all the same.
                    let declined = self.rng.one_in(20);
                    let late = declined && self.rng.one_in(2);
                    if declined {
                        self.client.plan_answered(plan, false);
                    }
                    if late && self.rng.one_in(2) {
                        self.late_plans.push((plan, segment));
                    } else if late || !declined {
                        self.install(plan, &segment);
                    }
                    if !declined {
                        self.client.plan_answered(plan, true);
                    }
                }
            }
            2 if !self.late_plans.is_empty() => {
                let (plan, segment) = self.late_plans.remove(0);
                self.install(plan, &segment);
            }
            2 if self.faults.drop_plans && self.rng.one_in(8) => {
                let plan = self.rng.below(12);
                let header = Header::new(frame::Kind::DropPlan, plan, 0);
                self.on_node(&header, &[], Source::NoMemory);
            }
            3 if self.faults.cuts && self.rng.one_in(15) => self.cut(),
            _ => {}
        }
        false
    }

    fn install(&mut self, plan: u32, segment: &[u8]) {
        let header = Header::new(frame::Kind::InstallPlan, u64::from(plan), 0);
        self.on_node(&header, segment, Source::NoMemory);
    }

    /// Everything under way is lost; both ends resume.
    fn cut(&mut self) {
        let lost_bulk = self
            .up
            .iter()
            .any(|(header, ..)| header.kind == frame::Kind::Bulk);
        let resume_at = self.node.expected_seq();
        if lost_bulk || !self.client.can_resume(resume_at) {
            // Bulk does not survive (see `ClientLog::resume`): wait for a better moment.
            return;
        }
        self.totals.cuts += 1;
        self.up.clear();
        self.down.clear();
        let again = self
            .replies
            .resume(self.received)
            .expect("the client's count is right");
        self.down.extend(again);
        for message in self.client.resume(resume_at).expect("it can resume") {
            self.send(message, 0);
        }
        self.flush();
    }

    fn thread_step(&mut self) -> bool {
        let thread = self.rng.below(self.threads.len() as u64) as usize;
        if self.blocked[thread] {
            self.flush();
            return false;
        }
        // Room for an upload is room for anything.
        if !self.client.has_room(BULK_BYTES) {
            self.totals.waits_for_room += 1;
            self.flush();
            return false;
        }
        if self.held[thread].len() < 6 {
            self.alloc(thread);
            return true;
        }
        let step = self.threads[thread].next(&mut self.rng, self.faults.failures);
        self.perform(thread, &step);
        true
    }

    fn alloc(&mut self, thread: usize) -> u64 {
        let draft = Draft {
            tail_numbers: &[8],
            fresh: 1,
            ..Draft::new(Kind::Alloc)
        };
        let appended = self.client.append(&draft).expect("an alloc");
        let id = appended.first_fresh;
        self.oracle.make(id, 8, 8);
        self.sizes.insert(id, 8);
        self.held[thread].push(id);
        id
    }

    fn perform(&mut self, thread: usize, step: &Step) {
        let at = |index: usize| self.held[thread][index % self.held[thread].len()];
        match step {
            Step::Alloc => {
                self.alloc(thread);
            }
            Step::Op {
                op,
                inputs,
                writes,
                results: fresh,
                data,
                param,
            } => {
                let ids: Vec<u64> = inputs.iter().map(|&index| at(index)).collect();
                let skeleton = arguments(ids.len(), *writes);
                let (tail, tail_numbers) = results(*fresh);
                let mut params = vec![0; ids.len()];
                params.push(*param);
                self.client.define_op(*op, &format!("sim::op{op}"));
                let draft = Draft {
                    op: *op,
                    skeleton: &skeleton,
                    storages: &ids,
                    params: &params,
                    data: &[*data],
                    tail: &tail,
                    tail_numbers: &tail_numbers,
                    fresh: *fresh,
                    ..Draft::new(Kind::Op)
                };
                let appended = self.client.append(&draft).expect("an operator");
                let write = writes.and_then(|index| ids.get(index));
                let made = vec![16; *fresh as usize];
                let record = Record {
                    seq: appended.seq,
                    reads: &ids,
                    write: write.map(|&id| (id, Write::Change)),
                    first_fresh: appended.first_fresh,
                    fresh: &made,
                    fails: *data == FAIL,
                };
                self.oracle.run(&record, |inputs| {
                    let hash = outcome(*op, &params, &[*data], inputs);
                    let made = (0..*fresh).map(|index| mix(hash, 2 + index)).collect();
                    (mix(hash, 1), made)
                });
                for index in 0..*fresh {
                    let id = appended.first_fresh + index;
                    self.sizes.insert(id, 16);
                    self.held[thread].insert(0, id);
                }
                while self.held[thread].len() > 12 {
                    let id = self.held[thread].pop().expect("more than twelve");
                    self.free(id);
                }
            }
            Step::Free { target } => {
                let index = target % self.held[thread].len();
                let id = self.held[thread].remove(index);
                self.free(id);
            }
            Step::Zero { target } => {
                let id = at(*target);
                let bytes = self.sizes[&id];
                self.client.define_op(ZERO, "aten::zero_");
                let draft = Draft {
                    op: ZERO,
                    skeleton: &[tag::TENSOR, flag::WRITE, 0, 1],
                    storages: &[id],
                    params: &[0, bytes as i64, 1],
                    ..Draft::new(Kind::Op)
                };
                let appended = self.client.append(&draft).expect("an operator");
                self.totals.healed += u64::from(self.oracle.value(id).is_err());
                self.wrote(appended.seq, id, Write::Overwrite(bytes), |_| 0);
            }
            Step::Upload {
                target,
                value,
                bulk,
            } => {
                let id = at(*target);
                self.upload(id, *value, *bulk);
            }
            Step::Create { value, bulk } => {
                let id = self.alloc(thread);
                self.upload(id, *value, *bulk);
            }
            Step::Resize { target, bytes } => {
                let id = at(*target);
                let draft = Draft {
                    storages: &[id],
                    tail_numbers: &[*bytes],
                    ..Draft::new(Kind::Resize)
                };
                let appended = self.client.append(&draft).expect("a resize");
                let bytes = *bytes as u64;
                self.sizes.insert(id, bytes);
                self.wrote(appended.seq, id, Write::Resize(bytes), |value| {
                    mix(value, bytes)
                });
            }
            Step::Fetch { target } => {
                let id = at(*target);
                let expected = self
                    .oracle
                    .look()
                    .and_then(|()| self.oracle.value(id))
                    .map_or_else(Expected::Fault, Expected::Value);
                let skeleton = [tag::TENSOR, 0, 4, 0];
                let draft = Draft {
                    skeleton: &skeleton,
                    storages: &[id],
                    params: &[0],
                    ..Draft::new(Kind::Fetch)
                };
                self.ask(thread, &draft, expected);
            }
            Step::Barrier => {
                let expected = self.oracle.look();
                let expected = expected.map_or_else(Expected::Fault, |()| Expected::Done);
                self.ask(thread, &Draft::new(Kind::Barrier), expected);
            }
            Step::CallSync { input, param } => {
                let ids = [at(*input)];
                let skeleton = arguments(1, None);
                let mut tail = Vec::new();
                put_u64(&mut tail, 4);
                self.client.define_op(20, "sim::sync");
                let draft = Draft {
                    op: 20,
                    skeleton: &skeleton,
                    storages: &ids,
                    params: &[0, *param],
                    data: &[0],
                    tail: &tail,
                    fresh: 4,
                    ..Draft::new(Kind::CallSync)
                };
                let appended = self.client.append(&draft).expect("a synchronous operator");
                let input = self.oracle.look().and_then(|()| self.oracle.value(ids[0]));
                let expected = match input {
                    Ok(input) => {
                        let hash = outcome(20, &[0, *param], &[0], &[input]);
                        let id = appended.first_fresh;
                        self.oracle.make(id, mix(hash, 2), 4);
                        self.sizes.insert(id, 4);
                        self.held[thread].insert(0, id);
                        Expected::Done
                    }
                    Err(cause) => Expected::Fault(cause),
                };
                self.waits
                    .insert((true, appended.seq), Waiting { thread, expected });
                self.blocked[thread] = true;
                self.flush();
            }
        }
    }

    fn upload(&mut self, id: u64, value: u64, bulk: bool) {
        let seq = if bulk {
            let (before, message) = self.client.append_bulk(id, BULK_BYTES).expect("bulk");
            if let Some(before) = before {
                self.send(before, 0);
            }
            let seq = message.header.seq;
            self.bulk_values.insert(seq, value);
            self.send(message, value);
            seq
        } else {
            let bytes = value.to_le_bytes();
            let draft = Draft {
                blob: Some(&bytes),
                ..Draft::upload(&id, &[BULK_BYTES as i64])
            };
            self.client.append(&draft).expect("an upload").seq
        };
        self.sizes.insert(id, BULK_BYTES);
        self.wrote(seq, id, Write::Replace(BULK_BYTES), |_| value);
    }

    fn wrote(&mut self, seq: u64, id: u64, write: Write, value: impl FnOnce(u64) -> u64) {
        let record = Record {
            seq,
            reads: &[id],
            write: Some((id, write)),
            first_fresh: 0,
            fresh: &[],
            fails: false,
        };
        self.oracle
            .run(&record, |inputs| (value(inputs[0]), Vec::new()));
    }

    fn free(&mut self, id: u64) {
        self.client.free(id);
        self.oracle.free(id);
        self.sizes.remove(&id);
    }

    fn ask(&mut self, thread: usize, draft: &Draft<'_>, expected: Expected) {
        let id = self.next_wait;
        self.next_wait += 1;
        let draft = Draft {
            tail_numbers: &[id as i64],
            ..*draft
        };
        self.client.append(&draft).expect("a question");
        self.waits.insert((false, id), Waiting { thread, expected });
        self.blocked[thread] = true;
        self.flush();
    }

    fn node_step(&mut self) -> bool {
        let Some((header, payload, bulk)) = self.up.pop_front() else {
            return false;
        };
        let source = if header.kind == frame::Kind::Bulk {
            self.next_place += 1;
            self.machine.places.insert(self.next_place, bulk);
            Source::Place(self.next_place)
        } else {
            Source::NoMemory
        };
        let before = self.machine.uploads_by_place;
        self.on_node(&header, &payload, source);
        if header.kind == frame::Kind::Records && self.machine.uploads_by_place > before {
            self.totals.stashed += 1;
        }
        true
    }

    fn on_node(&mut self, header: &Header, payload: &[u8], source: Source<'_>) {
        let mut out = Vec::new();
        self.node
            .handle(header, payload, source, &mut self.machine, &mut out)
            .expect("an honest client");
        let answers = std::mem::take(&mut self.machine.answers);
        let data = answers
            .into_iter()
            .map(|(fetch, value)| (Header::new(frame::Kind::Data, fetch, 8), Vec::new(), value));
        let frames = out
            .into_iter()
            .map(|(header, payload)| (header, payload, 0));
        for frame in data.chain(frames) {
            if frame.0.kind.is_from_node() {
                self.replies.push(frame.clone()).expect("room for replies");
                self.down.push_back(frame);
            }
        }
    }

    fn client_step(&mut self) -> bool {
        let Some((header, payload, value)) = self.down.pop_front() else {
            return false;
        };
        self.received += 1;
        match header.kind {
            frame::Kind::Ack => {
                self.client
                    .acknowledged(header.seq, header.aux)
                    .expect("an honest node");
            }
            frame::Kind::Data => self.answered((false, header.seq), Expected::Value(value)),
            frame::Kind::Synced => self.answered((false, header.seq), Expected::Done),
            frame::Kind::Metas => self.answered((true, header.seq), Expected::Done),
            frame::Kind::FetchFault => {
                let fault = Fault::decode(&payload).expect("a fault");
                let got = Expected::Fault(fault.cause_seq);
                self.answered((header.aux == 1, header.seq), got);
            }
            frame::Kind::Fault => {
                Fault::decode(&payload).expect("a fault");
            }
            frame::Kind::Refused => {
                let messages = self
                    .client
                    .refused(header.seq, header.aux)
                    .expect("an honest node");
                for message in messages {
                    self.send(message, 0);
                }
                self.flush();
            }
            other => panic!("{other:?} from a node"),
        }
        true
    }

    fn answered(&mut self, key: (bool, u64), got: Expected) {
        let waiting = self
            .waits
            .remove(&key)
            .expect("an answer comes once, and was asked for");
        self.totals.answers += 1;
        self.blocked[waiting.thread] = false;
        match (&waiting.expected, &got) {
            (Expected::Value(expected), Expected::Value(got))
            | (Expected::Fault(expected), Expected::Fault(got)) => assert_eq!(expected, got),
            (Expected::Done, Expected::Done) => {}
            _ => panic!("expected {:?}, got {got:?}", waiting.expected),
        }
    }
}
