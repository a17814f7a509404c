//! The client's side, with a model of what every storage holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use genie_session::client::{ClientLog, Draft, Message, Window};
use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind as FrameKind};
use genie_session::record::Kind;
use genie_session::skeleton::{flag, out, tag};
use genie_session::transfer::Transfer;

use crate::node::{self, Arrivals, Counts, FAIL, Said, Told, mix, outcome};
use crate::rng::Rng;

const DEVICES: usize = 3;
const STEPS: u64 = 220;
const LATE: Duration = Duration::from_secs(30);
const I64: u8 = 4;

/// What happens in a run besides moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Values are written in place.
    InPlace,
    /// Operators fail.
    Failures,
    /// A device dies.
    Death,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub moves: u64,
    pub waited: u64,
    pub early: u64,
    pub freed_early: u64,
    pub plan_hits: u64,
    pub failed_elsewhere: u64,
    pub lost: u64,
    pub fetched: u64,
}

impl Totals {
    pub fn add(&mut self, one: &Self) {
        self.moves += one.moves;
        self.waited += one.waited;
        self.early += one.early;
        self.freed_early += one.freed_early;
        self.plan_hits += one.plan_hits;
        self.failed_elsewhere += one.failed_elsewhere;
        self.lost += one.lost;
        self.fetched += one.fetched;
    }
}

/// What a storage should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Value(u64),
    /// It failed in this log.
    Failed(u16),
}

struct Lane {
    log: ClientLog,
    told: Sender<Told>,
    dies: Arc<AtomicBool>,
    /// A failure that nobody has heard of.
    pending: bool,
    alive: bool,
}

pub struct Session {
    rng: Rng,
    kinds: Kinds,
    lanes: Vec<Lane>,
    said: Receiver<(usize, Said)>,
    nodes: Vec<JoinHandle<Counts>>,
    /// Values that live: where, and what they hold.
    live: Vec<(usize, u64, Holds)>,
    answers: HashMap<(usize, u64), Result<u64, Fault>>,
    next_fetch: u64,
    next_transfer: u64,
    totals: Totals,
}

fn tensors(count: usize, writes: bool) -> Vec<u8> {
    (0..count)
        .flat_map(|index| {
            let flags = if writes && index == 0 { flag::WRITE } else { 0 };
            [tag::TENSOR, flags, I64, 0]
        })
        .chain([tag::SCALAR_INT])
        .collect()
}

impl Session {
    pub fn start(mut rng: Rng, kinds: Kinds) -> Self {
        let (say, said) = channel();
        let arrivals: Vec<Arc<Arrivals>> = (0..DEVICES).map(|_| Arc::default()).collect();
        let (mut lanes, mut nodes) = (Vec::new(), Vec::new());
        for me in 0..DEVICES {
            let (tell, told) = channel();
            let (say, arrivals) = (say.clone(), arrivals.clone());
            let dies = Arc::new(AtomicBool::new(false));
            let dead = Arc::clone(&dies);
            let own = Rng::new(rng.next());
            nodes.push(std::thread::spawn(move || {
                node::run_within(me, &told, say, arrivals, &dead, own, false)
            }));
            let mut log = ClientLog::new();
            log.set_window(Window {
                records: 4 + rng.below(200),
                kept_bytes: 200 + rng.below(1 << 16),
                bulk_bytes: 1 << 20,
            });
            lanes.push(Lane {
                log,
                told: tell,
                dies,
                pending: false,
                alive: true,
            });
        }
        Self {
            rng,
            kinds,
            lanes,
            said,
            nodes,
            live: Vec::new(),
            answers: HashMap::new(),
            next_fetch: 1,
            next_transfer: 0,
            totals: Totals::default(),
        }
    }

    pub fn run(&mut self) {
        let dies = self.rng.below(STEPS / 2) + STEPS / 4;
        // The same few routines again and again, so that there are plans.
        let routine: Vec<u64> = (0..12).map(|_| self.rng.next()).collect();
        for step in 0..STEPS {
            let choice = match self.rng.one_in(10) {
                true => self.rng.next(),
                false => routine[(step % 12) as usize],
            };
            self.step(choice);
            while let Ok((lane, said)) = self.said.try_recv() {
                self.hear(lane, said);
            }
            if self.kinds == Kinds::Death && step == dies {
                self.die();
            }
        }
        while let Some(&(lane, id, holds)) = self.live.last() {
            self.fetch(lane, id, holds);
            self.live.pop();
        }
    }

    pub fn finish(mut self) -> Totals {
        for lane in &self.lanes {
            self.totals.plan_hits += lane.log.counters().plan_hits;
        }
        self.lanes.clear();
        for node in self.nodes.drain(..) {
            let counts = node.join().expect("a node that does not panic");
            self.totals.waited += counts.waited;
            self.totals.early += counts.early;
            self.totals.freed_early += counts.freed_early;
        }
        self.totals
    }

    fn step(&mut self, choice: u64) {
        let lane = (choice % DEVICES as u64) as usize;
        let here: Vec<usize> = (0..self.live.len())
            .filter(|&at| self.live[at].0 == lane)
            .collect();
        let pick = |seed: u64| here[(seed % here.len() as u64) as usize];
        match (choice >> 8) % 16 {
            _ if here.len() < 2 => self.upload(lane),
            0 | 1 => self.upload(lane),
            2..=7 => {
                let inputs = [pick(choice >> 16), pick(choice >> 24)];
                self.operator(lane, &inputs, choice >> 32);
            }
            8..=11 => self.send(
                pick(choice >> 16),
                ((choice >> 40) % DEVICES as u64) as usize,
            ),
            12 if self.live.len() > 40 || self.rng.one_in(2) => {
                let (lane, id, _) = self.live.swap_remove(pick(choice >> 16));
                self.lanes[lane].log.free(id);
            }
            13 => {
                let (lane, id, holds) = self.live[pick(choice >> 16)];
                self.fetch(lane, id, holds);
            }
            _ => self.flush_all(),
        }
        if self.live.len() > 60 {
            let (lane, id, _) = self.live.swap_remove(0);
            self.lanes[lane].log.free(id);
        }
    }

    fn die(&mut self) {
        let lane = self.rng.below(DEVICES as u64) as usize;
        // Of what it was told it may have done anything. A frame wakes it.
        self.lanes[lane].dies.store(true, Ordering::SeqCst);
        self.tell(lane, Header::new(FrameKind::Ping, 0, 0), Vec::new());
        self.lanes[lane].alive = false;
        self.live.retain(|&(of, ..)| of != lane);
        // What it has sent may be there or not: whoever has something of it is looked at without
        // knowing what comes.
        for value in &mut self.live {
            value.2 = Holds::Failed(lane as u16);
        }
    }

    // ---- records -------------------------------------------------------------------------------

    fn room(&mut self, lanes: &[usize]) {
        loop {
            let full = lanes
                .iter()
                .find(|&&lane| self.lanes[lane].alive && !self.lanes[lane].log.has_room(0));
            if full.is_none() {
                return;
            }
            self.flush_all();
            self.wait();
        }
    }

    fn append(&mut self, lane: usize, draft: &Draft<'_>) -> u64 {
        let appended = self.lanes[lane].log.append(draft).expect("a record");
        while let Some(submission) = self.lanes[lane].log.take_submission() {
            let header = Header::new(FrameKind::InstallPlan, u64::from(submission.plan), 0);
            self.tell(lane, header, submission.segment);
        }
        if appended.full {
            self.flush(lane);
        }
        appended.first_fresh
    }

    fn upload(&mut self, lane: usize) {
        if !self.lanes[lane].alive {
            return;
        }
        self.room(&[lane]);
        let value = self.rng.next();
        let alloc = Draft {
            tail_numbers: &[8],
            fresh: 1,
            ..Draft::new(Kind::Alloc)
        };
        let id = self.append(lane, &alloc);
        let blob = value.to_le_bytes();
        let draft = Draft {
            blob: Some(&blob),
            ..Draft::upload(&id, &[8])
        };
        self.append(lane, &draft);
        self.live.push((lane, id, Holds::Value(value)));
    }

    fn operator(&mut self, lane: usize, inputs: &[usize], choice: u64) {
        let writes = self.kinds == Kinds::InPlace && choice.is_multiple_of(3);
        let fails = self.kinds == Kinds::Failures && self.rng.one_in(25);
        let (op, data) = (
            (choice >> 8) as u32 % 5,
            if fails { FAIL } else { 1 + (choice % 7) as i64 },
        );
        self.room(&[lane]);
        let ids: Vec<u64> = inputs.iter().map(|&at| self.live[at].1).collect();
        let skeleton = tensors(ids.len(), writes);
        let fresh = u64::from(!writes);
        let (tail, tail_numbers): (&[u8], &[i64]) = match writes {
            true => (&[out::ALIAS, 0], &[]),
            false => (&[out::FRESH, I64, 0], &[]),
        };
        self.lanes[lane].log.define_op(op, &format!("sim::op{op}"));
        let draft = Draft {
            op,
            skeleton: &skeleton,
            storages: &ids,
            params: &vec![0; ids.len()],
            data: &[data],
            tail,
            tail_numbers,
            fresh,
            ..Draft::new(Kind::Op)
        };
        let id = self.append(lane, &draft);
        let failed = inputs.iter().find_map(|&at| match self.live[at].2 {
            Holds::Failed(log) => Some(log),
            Holds::Value(_) => None,
        });
        let values: Vec<u64> = inputs
            .iter()
            .filter_map(|&at| match self.live[at].2 {
                Holds::Value(value) => Some(value),
                Holds::Failed(_) => None,
            })
            .collect();
        let hash = outcome(op, data, &values);
        let holds = |value| match (failed, fails) {
            (Some(log), _) => Holds::Failed(log),
            (None, true) => Holds::Failed(lane as u16),
            (None, false) => Holds::Value(value),
        };
        self.lanes[lane].pending |= fails && failed.is_none();
        match writes {
            true => self.live[inputs[0]].2 = holds(mix(hash, 1)),
            false => self.live.push((lane, id, holds(mix(hash, 2)))),
        }
    }

    fn send(&mut self, at: usize, to: usize) {
        let (from, id, holds) = self.live[at];
        if from == to || !self.lanes[to].alive || !self.lanes[from].alive {
            return;
        }
        self.room(&[from, to]);
        let transfer = Transfer::new(from, to, self.next_transfer).expect("a transfer");
        self.next_transfer += 1;
        let name = [transfer.0 as i64];
        let send = Draft {
            skeleton: &[tag::TENSOR, 0, I64, 0],
            storages: &[id],
            params: &[0],
            tail_numbers: &name,
            ..Draft::new(Kind::Send)
        };
        let recv = Draft {
            tail_numbers: &[8, name[0]],
            fresh: 1,
            ..Draft::new(Kind::Recv)
        };
        self.append(from, &send);
        let id = self.append(to, &recv);
        self.live.push((to, id, holds));
        self.totals.moves += 1;
    }

    fn fetch(&mut self, lane: usize, id: u64, holds: Holds) {
        if !self.lanes[lane].alive {
            return;
        }
        self.room(&[lane]);
        let fetch = self.next_fetch;
        self.next_fetch += 1;
        let draft = Draft {
            skeleton: &[tag::TENSOR, 0, I64, 0],
            storages: &[id],
            params: &[0],
            tail_numbers: &[fetch as i64],
            ..Draft::new(Kind::Fetch)
        };
        self.append(lane, &draft);
        for other in (0..DEVICES).filter(|&other| other != lane) {
            self.lanes[other].log.cut();
            while let Some(submission) = self.lanes[other].log.take_submission() {
                let header = Header::new(FrameKind::InstallPlan, u64::from(submission.plan), 0);
                self.tell(other, header, submission.segment);
            }
        }
        self.flush_all();
        while !self.answers.contains_key(&(lane, fetch)) {
            self.wait();
        }
        let answer = self.answers.remove(&(lane, fetch)).expect("an answer");
        let dead = self.lanes.iter().any(|lane| !lane.alive);
        match (answer, holds) {
            (Ok(value), Holds::Value(wanted)) => {
                assert!(!self.lanes[lane].pending, "a failure was not raised");
                assert_eq!(value, wanted, "storage {id} of device {lane}");
                self.totals.fetched += 1;
            }
            // Sent before its device died.
            (Ok(_), Holds::Failed(_)) if dead => self.totals.fetched += 1,
            (Ok(_), Holds::Failed(log)) => panic!("storage {id} failed in log {log}"),
            (Err(fault), _) if self.lanes[lane].pending => {
                assert_eq!(fault.log, None, "its own comes first");
                self.lanes[lane].pending = false;
            }
            (Err(fault), Holds::Failed(log)) => {
                let of = fault.log.unwrap_or(lane as u16);
                assert_eq!(of, log, "a failure of log {log}");
                self.totals.failed_elsewhere += u64::from(of != lane as u16);
                self.totals.lost += u64::from(dead);
            }
            (Err(fault), Holds::Value(_)) => panic!("storage {id} of {lane}: {fault:?}"),
        }
    }

    // ---- messages ------------------------------------------------------------------------------

    fn tell(&mut self, lane: usize, header: Header, payload: Vec<u8>) {
        let header = header.with_payload(payload.len());
        // A dead node hears nothing.
        let _ = self.lanes[lane].told.send((header, payload));
    }

    fn flush(&mut self, lane: usize) {
        if let Some(Message { header, payload }) = self.lanes[lane].log.flush() {
            self.tell(lane, header, payload);
        }
    }

    fn flush_all(&mut self) {
        (0..DEVICES).for_each(|lane| self.flush(lane));
    }

    fn wait(&mut self) {
        let heard = self.said.recv_timeout(LATE);
        let (lane, said) = heard.expect("nobody says anything: a circle");
        self.hear(lane, said);
    }

    fn hear(&mut self, lane: usize, said: Said) {
        let (header, payload) = match said {
            Said::Answer(fetch, value) => {
                self.answers.insert((lane, fetch), Ok(value));
                return;
            }
            Said::Frame(header, payload) => (header, payload),
        };
        let log = &mut self.lanes[lane].log;
        match header.kind {
            FrameKind::Ack => log.acknowledged(header.seq, header.aux).expect("an ack"),
            FrameKind::Fault | FrameKind::Pong => {}
            FrameKind::PlanInstalled => log.plan_answered(header.seq as u32, header.aux == 0),
            FrameKind::FetchFault => {
                let fault = Fault::decode(&payload).expect("a fault");
                self.answers.insert((lane, header.seq), Err(fault));
            }
            FrameKind::Refused => {
                let messages = log.refused(header.seq, header.aux).expect("a refusal");
                for Message { header, payload } in messages {
                    self.tell(lane, header, payload);
                }
                self.flush(lane);
            }
            other => panic!("a node says {other:?}"),
        }
    }
}
