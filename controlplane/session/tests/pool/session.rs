//! The client's side, with a model of what every value holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use genie_session::client::{ClientLog, Draft, Message, Window};
use genie_session::fault::{Code, Fault};
use genie_session::frame::{Header, Kind as FrameKind};
use genie_session::places::{Bring, Copy, Places, Unproven};
use genie_session::record::Kind;
use genie_session::skeleton::{flag, out, tag};
use genie_session::transfer::Transfer;

use crate::node::{self, Arrivals, Counts, Said, Told, mix, outcome};
use crate::rng::Rng;

const DEVICES: usize = 3;
const STEPS: u64 = 200;
const LATE: Duration = Duration::from_secs(30);
const I64: u8 = 4;

/// What receivers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// For everything.
    Enough,
    /// Not for everything.
    Tight,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub sent: u64,
    pub ended: u64,
    pub read_from_copy: u64,
    pub fetched: u64,
    pub waited: u64,
    pub raised: u64,
    pub back: u64,
}

impl Totals {
    pub fn add(&mut self, one: &Self) {
        self.sent += one.sent;
        self.ended += one.ended;
        self.read_from_copy += one.read_from_copy;
        self.fetched += one.fetched;
        self.waited += one.waited;
        self.raised += one.raised;
        self.back += one.back;
    }
}

struct Lane {
    log: ClientLog,
    told: Sender<Told>,
}

/// What a value held since the last look that went well, the last as of now.
struct Model {
    held: Vec<u64>,
    /// It was there at that look.
    is_old: bool,
}

pub struct Session {
    rng: Rng,
    lanes: Vec<Lane>,
    said: Receiver<(usize, Said)>,
    nodes: Vec<JoinHandle<Counts>>,
    places: Places,
    unproven: Unproven,
    live: BTreeMap<u64, Model>,
    answers: HashMap<(usize, u64), Result<Option<u64>, Fault>>,
    next_wait: u64,
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
    pub fn start(mut rng: Rng, memory: Memory) -> Self {
        let (say, said) = channel();
        let arrivals: Vec<Arc<Arrivals>> = (0..DEVICES).map(|_| Arc::default()).collect();
        let (mut lanes, mut nodes) = (Vec::new(), Vec::new());
        for me in 0..DEVICES {
            let (tell, told) = channel();
            let (say, arrivals) = (say.clone(), arrivals.clone());
            let own = Rng::new(rng.next());
            nodes.push(std::thread::spawn(move || {
                let lives = AtomicBool::new(false);
                let tight = memory == Memory::Tight;
                node::run_within(me, &told, say, arrivals, &lives, own, tight)
            }));
            let mut log = ClientLog::new();
            log.set_window(Window {
                records: 4 + rng.below(200),
                kept_bytes: 200 + rng.below(1 << 16),
                bulk_bytes: 1 << 20,
            });
            lanes.push(Lane { log, told: tell });
        }
        Self {
            rng,
            lanes,
            said,
            nodes,
            places: Places::new(DEVICES),
            unproven: Unproven::default(),
            live: BTreeMap::new(),
            answers: HashMap::new(),
            next_wait: 1,
            next_transfer: 0,
            totals: Totals::default(),
        }
    }

    pub fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            while let Ok((lane, said)) = self.said.try_recv() {
                self.hear(lane, said);
            }
        }
        while let Some((&value, _)) = self.live.first_key_value() {
            self.fetch(value);
            if self.live.contains_key(&value) {
                self.free(value);
            }
        }
        assert!(self.places.is_empty());
        for device in 0..DEVICES {
            assert_eq!(self.places.held(device), 0, "bytes of device {device}");
        }
        // What sources kept goes with a last look.
        self.barrier();
    }

    pub fn finish(mut self) -> Totals {
        self.flush_all();
        self.lanes.clear();
        for node in self.nodes.drain(..) {
            let counts = node.join().expect("a node that does not panic");
            self.totals.waited += counts.waited;
            assert_eq!(counts.left, 0, "a copy was never freed");
        }
        self.totals
    }

    fn any(&mut self) -> Option<u64> {
        let nth = self.rng.below(self.live.len().max(1) as u64) as usize;
        self.live.keys().nth(nth).copied()
    }

    fn step(&mut self) {
        let (Some(first), Some(second)) = (self.any(), self.any()) else {
            self.upload(None);
            return;
        };
        match self.rng.below(16) {
            0 | 1 if self.live.len() < 40 => self.upload(None),
            2 => self.upload(Some(first)),
            3..=9 if self.live.len() < 60 => self.operator(&[first, second], false),
            10..=12 => self.operator(&[first, second], true),
            13 => self.free(first),
            14 => self.fetch(first),
            _ => self.flush_all(),
        }
    }

    // ---- placing -------------------------------------------------------------------------------

    /// The ids of values at a device, where they are brought.
    fn bring(&mut self, values: &[u64], device: usize) -> Vec<u64> {
        values.iter().map(|&v| self.bring_one(v, device)).collect()
    }

    fn bring_one(&mut self, value: u64, device: usize) -> u64 {
        match self
            .places
            .bring(value, device, |_| true)
            .expect("it lives")
        {
            Bring::Here(id) => {
                let first = self.places.get(value).and_then(|v| v.copies().next());
                self.totals.read_from_copy += u64::from(first.expect("a copy").device != device);
                id
            }
            Bring::Lost(_) => unreachable!("no device is lost"),
            Bring::Make(bytes) => {
                self.room(device);
                let bytes = [bytes as i64];
                let id = self.append(device, &Draft::alloc(&bytes));
                self.places.add(value, device, id, "");
                id
            }
            Bring::Send(copy, bytes) => {
                self.room(copy.device);
                self.room(device);
                let id = self.send(copy, device, bytes);
                self.unproven.bring(value, device);
                self.places.add(value, device, id, "");
                id
            }
        }
    }

    fn send(&mut self, copy: Copy, to: usize, bytes: u64) -> u64 {
        let transfer = Transfer::new(copy.device, to, self.next_transfer).expect("a transfer");
        self.next_transfer += 1;
        self.totals.sent += 1;
        let name = [transfer.0 as i64];
        let send = Draft {
            skeleton: &[tag::TENSOR, 0, I64, 0],
            storages: &[copy.id],
            params: &[0],
            tail_numbers: &name,
            ..Draft::new(Kind::Send)
        };
        let recv = Draft {
            tail_numbers: &[bytes as i64, name[0]],
            fresh: 1,
            ..Draft::new(Kind::Recv)
        };
        self.append(copy.device, &send);
        self.append(to, &recv)
    }

    fn wrote(&mut self, value: u64, device: usize) {
        let dropped = self.places.written(value, device);
        self.totals.ended += dropped.len() as u64;
        let gone = self.unproven.write(value, device, dropped);
        self.drop_copies(gone);
    }

    fn drop_copies(&mut self, copies: Vec<Copy>) {
        for copy in copies {
            self.lanes[copy.device].log.free(copy.id);
        }
    }

    // ---- records -------------------------------------------------------------------------------

    fn room(&mut self, lane: usize) {
        while !self.lanes[lane].log.has_room(0) {
            self.flush_all();
            self.wait();
        }
    }

    fn append(&mut self, lane: usize, draft: &Draft<'_>) -> u64 {
        let appended = self.lanes[lane].log.append(draft).expect("a record");
        self.submit(lane);
        if appended.full {
            self.flush(lane);
        }
        appended.first_fresh
    }

    fn submit(&mut self, lane: usize) {
        while let Some(submission) = self.lanes[lane].log.take_submission() {
            let header = Header::new(FrameKind::InstallPlan, u64::from(submission.plan), 0);
            self.tell(lane, header, submission.segment);
        }
    }

    fn upload(&mut self, known: Option<u64>) {
        let value = known.unwrap_or_else(|| {
            let value = self.places.take(1);
            self.places.insert(value, 8);
            value
        });
        let held = self.places.get(value).and_then(|v| v.copies().next());
        let drawn = self.rng.below(DEVICES as u64) as usize;
        let device = held.map_or(drawn, |copy| copy.device);
        let id = self.bring_one(value, device);
        self.room(device);
        let bytes = self.rng.next();
        let blob = bytes.to_le_bytes();
        let draft = Draft {
            blob: Some(&blob),
            ..Draft::upload(&id, &[8])
        };
        self.append(device, &draft);
        self.wrote(value, device);
        self.hold(value, bytes);
    }

    fn hold(&mut self, value: u64, bytes: u64) {
        let new = || Model {
            held: Vec::new(),
            is_old: false,
        };
        self.live.entry(value).or_insert_with(new).held.push(bytes);
    }

    fn operator(&mut self, inputs: &[u64; 2], writes: bool) {
        let device = self.rng.below(DEVICES as u64) as usize;
        let ids = self.bring(inputs, device);
        self.room(device);
        let (op, data) = (self.rng.below(5) as u32, 1 + self.rng.below(7) as i64);
        let skeleton = tensors(2, writes);
        let (tail, fresh): (&[u8], u64) = match writes {
            true => (&[out::ALIAS, 0], 0),
            false => (&[out::FRESH, I64, 0], 1),
        };
        self.lanes[device]
            .log
            .define_op(op, &format!("sim::op{op}"));
        let draft = Draft {
            op,
            skeleton: &skeleton,
            storages: &ids,
            params: &[0, 0],
            data: &[data],
            tail,
            fresh,
            ..Draft::new(Kind::Op)
        };
        let id = self.append(device, &draft);
        let held = |value| *self.live[value].held.last().expect("what it holds");
        let inputs_held: Vec<u64> = inputs.iter().map(held).collect();
        let hash = outcome(op, data, &inputs_held);
        if writes {
            self.wrote(inputs[0], device);
            self.hold(inputs[0], mix(hash, 1));
        } else {
            let value = self.places.take(1);
            self.places.insert(value, 8);
            self.places.add(value, device, id, "");
            self.hold(value, mix(hash, 2));
        }
    }

    fn free(&mut self, value: u64) {
        self.live.remove(&value);
        let gone = self.places.remove(value).expect("it was there");
        self.drop_copies(gone.copies().collect());
    }

    // ---- looks ---------------------------------------------------------------------------------

    /// Asks a device for a view, or for nothing but an answer.
    fn ask(&mut self, device: usize, id: Option<u64>) -> u64 {
        self.room(device);
        let wait = self.next_wait;
        self.next_wait += 1;
        let ids: Vec<u64> = id.into_iter().collect();
        let fetch = Draft {
            skeleton: &[tag::TENSOR, 0, I64, 0],
            storages: &ids,
            params: &[0],
            ..Draft::new(Kind::Fetch)
        };
        let barrier = Draft::new(Kind::Barrier);
        let draft = Draft {
            tail_numbers: &[wait as i64],
            ..if id.is_some() { fetch } else { barrier }
        };
        self.append(device, &draft);
        wait
    }

    /// Asks all devices, the one for a view: its value, and the faults of any.
    fn look(&mut self, device: usize, id: Option<u64>) -> (Option<u64>, bool) {
        let asked: Vec<(usize, u64)> = (0..DEVICES)
            .map(|at| (at, self.ask(at, id.filter(|_| at == device))))
            .collect();
        let look = self.unproven.look();
        for lane in 0..DEVICES {
            self.lanes[lane].log.cut();
            self.submit(lane);
        }
        self.flush_all();
        let (mut found, mut failed) = (None, false);
        for key in asked {
            match self.answer(key) {
                Ok(value) => found = found.or(value),
                Err(_) => failed = true,
            }
        }
        if !failed {
            let gone = self.unproven.proven(look);
            self.drop_copies(gone);
            for model in self.live.values_mut() {
                model.held.drain(..model.held.len() - 1);
                model.is_old = true;
            }
        }
        (found, failed)
    }

    fn answer(&mut self, key: (usize, u64)) -> Result<Option<u64>, Fault> {
        loop {
            if let Some(answer) = self.answers.remove(&key) {
                return answer;
            }
            self.wait();
        }
    }

    fn barrier(&mut self) {
        if self.look(0, None).1 {
            self.raised();
        }
    }

    fn fetch(&mut self, value: u64) {
        let device = self.places.get(value).and_then(|v| v.copies().next());
        let device = device.expect("a copy").device;
        let id = self.bring_one(value, device);
        let (found, failed) = self.look(device, Some(id));
        if failed {
            self.raised();
            return;
        }
        let wanted = self.live[&value].held.last().copied();
        assert_eq!(found, wanted, "value {value} at device {device}");
        self.totals.fetched += 1;
    }

    /// The program has heard of a failure. What was there before it must still be.
    fn raised(&mut self) {
        self.totals.raised += 1;
        let (gone, doubts) = self.unproven.failed(&mut self.places);
        self.drop_copies(gone);
        for doubt in doubts {
            let known = self.places.get(doubt.value);
            let arrived = match known.and_then(|known| known.at(doubt.device)) {
                Some(id) => self.peek(doubt.device, id).is_ok(),
                None => true,
            };
            self.totals.back += u64::from(!arrived);
            let gone = Unproven::settle(&mut self.places, doubt, arrived);
            self.drop_copies(gone);
        }
        for value in self.live.keys().copied().collect::<Vec<_>>() {
            let copies: Vec<Copy> = self.places.get(value).expect("it lives").copies().collect();
            let &[copy] = &copies[..] else {
                panic!("value {value} has {} copies", copies.len());
            };
            let peeked = self.peek(copy.device, copy.id);
            let model = &self.live[&value];
            match peeked {
                Ok(found) => {
                    let found = found.expect("its bytes");
                    assert!(
                        model.held.contains(&found),
                        "value {value} holds a stranger"
                    );
                    self.hold(value, found);
                }
                Err(fault) if model.is_old => panic!("value {value} is lost: {fault:?}"),
                Err(fault) => {
                    assert_eq!(fault.code, Code::OutOfMemory);
                    self.free(value);
                }
            }
        }
        for model in self.live.values_mut() {
            model.held.drain(..model.held.len() - 1);
            model.is_old = true;
        }
    }

    fn peek(&mut self, device: usize, id: u64) -> Result<Option<u64>, Fault> {
        let wait = self.ask(device, Some(id));
        self.flush_all();
        self.answer((device, wait))
    }

    // ---- messages ------------------------------------------------------------------------------

    fn tell(&mut self, lane: usize, header: Header, payload: Vec<u8>) {
        let header = header.with_payload(payload.len());
        self.lanes[lane]
            .told
            .send((header, payload))
            .expect("it lives");
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
                self.answers.insert((lane, fetch), Ok(Some(value)));
                return;
            }
            Said::Frame(header, payload) => (header, payload),
        };
        let log = &mut self.lanes[lane].log;
        match header.kind {
            FrameKind::Ack => log.acknowledged(header.seq, header.aux).expect("an ack"),
            FrameKind::Fault | FrameKind::Pong => {}
            FrameKind::Synced => {
                self.answers.insert((lane, header.seq), Ok(None));
            }
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
