//! Three logs of one session at nodes of their own, and what goes between them and their client.

#![allow(dead_code, reason = "each simulation uses some of it")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use genie_session::client::{ClientLog, Draft, Message, Window};
use genie_session::fault::Fault;
use genie_session::frame::{Header, Kind as FrameKind};
use genie_session::record::Kind;
use genie_session::skeleton::{flag, out, tag};
use genie_session::transfer::Transfer;

use crate::node::{self, Arrivals, Counts, Heard, Said, Told};
use crate::rng::Rng;

pub const DEVICES: usize = 3;
const LATE: Duration = Duration::from_secs(30);
const I64: u8 = 4;
/// A view of a storage.
const VIEW: [u8; 4] = [tag::TENSOR, 0, I64, 0];

struct Lane {
    log: ClientLog,
    told: Sender<Told>,
    dies: Arc<AtomicBool>,
    alive: bool,
    /// Its connection, and answers that were heard.
    connection: Arc<AtomicU64>,
    heard: u64,
    /// And of how many the node knows that.
    confirmed: u64,
    /// Cut, and not yet resumed.
    is_cut: bool,
}

/// What a device was asked, by a number.
pub type Asked = (usize, u64);

pub struct Cluster {
    lanes: Vec<Lane>,
    said: Receiver<(usize, Heard)>,
    pub cuts: u64,
    pub repeated: u64,
    rng: Rng,
    nodes: Vec<JoinHandle<Counts>>,
    answers: HashMap<Asked, Result<Option<u64>, Fault>>,
    next_ask: u64,
    next_transfer: u64,
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

impl Cluster {
    /// With windows of any size; receivers that are `tight` have no memory for some of what comes.
    pub fn start(rng: &mut Rng, tight: bool) -> Self {
        let (say, said) = channel();
        let arrivals: Vec<Arc<Arrivals>> = (0..DEVICES).map(|_| Arc::default()).collect();
        let (mut lanes, mut nodes) = (Vec::new(), Vec::new());
        for me in 0..DEVICES {
            let (tell, told) = channel();
            let (say, arrivals) = (say.clone(), arrivals.clone());
            let dies = Arc::new(AtomicBool::new(false));
            let dead = Arc::clone(&dies);
            let connection = Arc::new(AtomicU64::new(0));
            let now = Arc::clone(&connection);
            let own = Rng::new(rng.next());
            nodes.push(std::thread::spawn(move || {
                node::run(me, &told, say, arrivals, (&dead, &now), own, tight)
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
                alive: true,
                connection,
                heard: 0,
                confirmed: 0,
                is_cut: false,
            });
        }
        Self {
            lanes,
            said,
            cuts: 0,
            repeated: 0,
            rng: Rng::new(rng.next()),
            nodes,
            answers: HashMap::new(),
            next_ask: 1,
            next_transfer: 0,
        }
    }

    /// The nodes end when they have done what they were told: what each counted.
    pub fn finish(mut self) -> Vec<Counts> {
        self.flush_all();
        self.lanes.clear();
        let ended = self.nodes.drain(..).map(JoinHandle::join);
        ended
            .map(|counts| counts.expect("a node that does not panic"))
            .collect()
    }

    pub fn plan_hits(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.log.counters().plan_hits).sum()
    }

    pub fn is_alive(&self, lane: usize) -> bool {
        self.lanes[lane].alive
    }

    /// Of what it was told it may have done anything. A frame wakes it.
    pub fn kill(&mut self, lane: usize) {
        self.lanes[lane].dies.store(true, Ordering::SeqCst);
        self.tell(lane, Header::new(FrameKind::Ping, 0, 0), Vec::new());
        self.lanes[lane].alive = false;
    }

    /// The connection of a device breaks: what was under way is lost, both ways; then there is another.
    /// Of what was heard last the client may not know that it was.
    pub fn break_link(&mut self, lane: usize) {
        if !self.lanes[lane].alive {
            return;
        }
        self.cuts += 1;
        let one = &mut self.lanes[lane];
        let connection = 1 + one.connection.fetch_add(1, Ordering::SeqCst);
        one.is_cut = true;
        let known = one.heard - self.rng.below(4).min(one.heard - one.confirmed);
        one.confirmed = known;
        let _ = one.told.send(Told::Resume(connection, known));
        while self.lanes[lane].is_cut {
            self.flush_all();
            self.wait();
        }
    }

    // ---- records -------------------------------------------------------------------------------

    pub fn room(&mut self, lanes: &[usize]) {
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
        self.submit(lane);
        if appended.full {
            self.flush(lane);
        }
        appended.first_fresh
    }

    fn submit(&mut self, lane: usize) {
        while let Some(submission) = self.lanes[lane].log.take_submission() {
            let _ = (self.lanes[lane].told).send(Told::Plan(submission.plan, submission.segment));
        }
    }

    pub fn free(&mut self, lane: usize, id: u64) {
        self.lanes[lane].log.free(id);
    }

    pub fn alloc(&mut self, lane: usize) -> u64 {
        self.append(lane, &Draft::alloc(&[8]))
    }

    /// Writes a storage from the client.
    pub fn upload(&mut self, lane: usize, id: u64, value: u64) {
        let blob = value.to_le_bytes();
        let draft = Draft {
            blob: Some(&blob),
            ..Draft::upload(&id, &[8])
        };
        self.append(lane, &draft);
    }

    /// Runs an operator, which writes the first of its storages or makes one: what it makes.
    pub fn operator(&mut self, lane: usize, op: u32, data: i64, ids: &[u64], writes: bool) -> u64 {
        let skeleton = tensors(ids.len(), writes);
        let (tail, fresh): (&[u8], u64) = match writes {
            true => (&[out::ALIAS, 0], 0),
            false => (&[out::FRESH, I64, 0], 1),
        };
        self.lanes[lane].log.define_op(op, &format!("sim::op{op}"));
        let draft = Draft {
            op,
            skeleton: &skeleton,
            storages: ids,
            params: &vec![0; ids.len()],
            data: &[data],
            tail,
            fresh,
            ..Draft::new(Kind::Op)
        };
        self.append(lane, &draft)
    }

    /// Both ends of a transfer: the storage that receives it.
    pub fn transfer(&mut self, from: usize, id: u64, to: usize) -> u64 {
        let transfer = Transfer::new(from, to, self.next_transfer).expect("a transfer");
        self.next_transfer += 1;
        let name = [transfer.0 as i64];
        let send = Draft {
            skeleton: &VIEW,
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
        self.append(to, &recv)
    }

    // ---- looks ---------------------------------------------------------------------------------

    /// Asks for a view, or for nothing but an answer.
    pub fn ask(&mut self, lane: usize, id: Option<u64>) -> Asked {
        self.room(&[lane]);
        let ask = self.next_ask;
        self.next_ask += 1;
        let ids: Vec<u64> = id.into_iter().collect();
        let fetch = Draft {
            skeleton: &VIEW,
            storages: &ids,
            params: &[0],
            ..Draft::new(Kind::Fetch)
        };
        let barrier = Draft::new(Kind::Barrier);
        let draft = Draft {
            tail_numbers: &[ask as i64],
            ..if id.is_some() { fetch } else { barrier }
        };
        self.append(lane, &draft);
        (lane, ask)
    }

    /// Segments end in all logs.
    pub fn cut(&mut self) {
        for lane in 0..DEVICES {
            self.lanes[lane].log.cut();
            self.submit(lane);
        }
    }

    pub fn answer(&mut self, asked: Asked) -> Result<Option<u64>, Fault> {
        loop {
            if let Some(answer) = self.answers.remove(&asked) {
                return answer;
            }
            self.wait();
        }
    }

    // ---- messages ------------------------------------------------------------------------------

    fn tell(&mut self, lane: usize, header: Header, payload: Vec<u8>) {
        let header = header.with_payload(payload.len());
        let lane = &self.lanes[lane];
        let connection = lane.connection.load(Ordering::SeqCst);
        // A dead node hears nothing.
        let _ = lane.told.send(Told::Frame(connection, header, payload));
    }

    fn flush(&mut self, lane: usize) {
        if self.lanes[lane].is_cut {
            return;
        }
        if let Some(Message { header, payload }) = self.lanes[lane].log.flush() {
            self.tell(lane, header, payload);
        }
    }

    pub fn flush_all(&mut self) {
        (0..DEVICES).for_each(|lane| self.flush(lane));
    }

    /// Hears what was said.
    pub fn listen(&mut self) {
        while let Ok((lane, said)) = self.said.try_recv() {
            self.hear(lane, said);
        }
    }

    fn wait(&mut self) {
        let heard = self.said.recv_timeout(LATE);
        let (lane, said) = heard.expect("nobody says anything: a circle");
        self.hear(lane, said);
    }

    fn hear(&mut self, lane: usize, heard: Heard) {
        let one = &mut self.lanes[lane];
        if heard.connection < one.connection.load(Ordering::SeqCst) {
            return;
        }
        if let Said::Resumed(applied) = heard.said {
            one.is_cut = false;
            let messages = one.log.resume(applied).expect("it can resume");
            for Message { header, payload } in messages {
                self.tell(lane, header, payload);
            }
            self.flush(lane);
            return;
        }
        // Each answer once, whatever was sent again.
        if heard.number < one.heard {
            self.repeated += 1;
            return;
        }
        assert_eq!(heard.number, one.heard, "an answer is missing");
        one.heard += 1;
        let (header, payload) = match heard.said {
            Said::Resumed(_) => unreachable!("that was first"),
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
