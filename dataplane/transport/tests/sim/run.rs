//! Transfers and messages over a simulated link, and what must hold of them.

use std::time::Duration;

use genie_transport::{
    ConnectionError, Credit, Event, Grant, Priority, Role, SourceId, Time, Transfer, TransferError,
    TransferId,
};

use super::device::Device;
use super::transfer::whole;
use super::{Link, Memory, Pair, Random, config};

const PRIORITIES: [Priority; 4] = [
    Priority::Urgent,
    Priority::High,
    Priority::Normal,
    Priority::Background,
];

pub struct Job {
    pub from: usize,
    pub grant: Grant,
    pub source: SourceId,
    pub cancelled: bool,
    pub parts: Vec<TransferId>,
    pub sent: usize,
    pub received: bool,
    pub failed: bool,
}

pub struct Run {
    pub pair: Pair<Memory>,
    pub jobs: Vec<Job>,
    pub messages_out: [u64; 2],
    pub messages_in: [u64; 2],
    pub ended: [Option<(ConnectionError, Time)>; 2],
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let link = Link::from_seed(&mut random);
        let pair = Pair::new(link, random, [Memory::default(), Memory::default()]);
        Self {
            pair,
            jobs: Vec::new(),
            messages_out: [0; 2],
            messages_in: [0; 2],
            ended: [None; 2],
        }
    }

    pub fn open(&mut self, epoch: u32) {
        let sealed = self.pair.random.chance(0.5);
        let staged = self.pair.random.chance(0.3);
        let fixed = self.pair.random.chance(0.3);
        let data_at = fixed.then(|| 160 + self.pair.random.below(100) as usize);
        let configs = [Role::Initiator, Role::Responder].map(|role| {
            let mut config = config(role, epoch, sealed);
            config.data_at = data_at;
            if staged {
                (config.credit_when, config.credit) = (Credit::WhenReleased, 200_000);
            }
            config
        });
        for end in &mut self.pair.ends {
            end.split = self.pair.random.chance(0.5);
            let fails = self.pair.random.below(100) as f64 / 1000.0;
            let delay = self.pair.random.below(300_000);
            let device = self.pair.random.chance(0.4);
            end.device = device.then(|| Device::new(delay, fails));
        }
        self.pair.open(configs);
        (self.jobs, self.ended) = (Vec::new(), [None; 2]);
        (self.messages_out, self.messages_in) = ([0; 2], [0; 2]);
    }

    pub fn add_job(&mut self) {
        let random = &mut self.pair.random;
        let from = random.below(2) as usize;
        let most = [100, 9_000, 200_000][random.below(3) as usize];
        let len = 1 + random.below(most) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let priority = PRIORITIES[random.below(4) as usize];
        let cut = if random.chance(0.3) {
            random.below(len as u64)
        } else {
            0
        };
        let region = self.pair.ends[1 - from].memory.add_region(len);
        let source = self.pair.ends[from].memory.add_source(bytes);
        let grant = self
            .pair
            .connection(1 - from)
            .grant(region, len as u64)
            .unwrap();
        let parts = [(0, cut), (cut, len as u64)]
            .into_iter()
            .filter(|(low, end)| low < end);
        let parts = parts.map(|(low, end)| {
            let transfer = Transfer {
                offset: low,
                source_offset: low,
                priority,
                ..whole(grant, source, end - low)
            };
            self.pair.connection(from).send(transfer).unwrap()
        });
        let parts = parts.collect();
        let (cancelled, sent, received, failed) = (false, 0, false, false);
        self.jobs.push(Job {
            from,
            grant,
            source,
            cancelled,
            parts,
            sent,
            received,
            failed,
        });
    }

    pub fn send_messages(&mut self, most: u64) {
        for from in 0..2 {
            while self.messages_out[from] < most {
                let number = self.messages_out[from];
                let mut bytes = number.to_be_bytes().to_vec();
                bytes.resize(8 + (number as usize * 37) % 1000, number as u8);
                if self.pair.connection(from).send_message(&bytes).is_err() {
                    break;
                }
                self.messages_out[from] += 1;
            }
        }
    }

    pub fn look(&mut self) {
        for end in 0..2 {
            while let Some(bytes) = self.pair.connection(end).read_message(<[u8]>::to_vec) {
                let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                assert_eq!(
                    number, self.messages_in[end],
                    "messages come once and in order"
                );
                assert_eq!(bytes.len(), 8 + (number as usize * 37) % 1000);
                self.messages_in[end] += 1;
            }
            if self.pair.random.chance(0.5) {
                let held = self.pair.connection(end).status().held_bytes;
                self.pair.connection(end).release(held);
            }
            for event in self.pair.events(end) {
                self.on_event(end, event);
            }
        }
    }

    pub fn on_event(&mut self, end: usize, event: Event) {
        let now = self.pair.now;
        match event {
            Event::Ended(error) => self.ended[end] = Some((error, now)),
            Event::Received(grant) => {
                let job = self.job_of(end, grant);
                job.received = true;
                let (from, source) = (job.from, job.source);
                let region = grant.region.0 as usize;
                let wanted = &self.pair.ends[from].memory.sources[source.0 as usize];
                let memory = &self.pair.ends[end].memory;
                assert!(memory.regions[region] == *wanted, "bytes differ");
                assert!(memory.writes[region].iter().all(|&count| count == 1));
                self.pair.ends[end].memory.ended[region] = true;
            }
            Event::ReceiveFailed(grant, _) => {
                self.job_of(end, grant).failed = true;
                self.pair.ends[end].memory.ended[grant.region.0 as usize] = true;
            }
            Event::Sent(id) | Event::SendFailed(id, _) => {
                let mine = |job: &&mut Job| job.from == end && job.parts.contains(&id);
                let job = self.jobs.iter_mut().find(mine).expect("a transfer of ours");
                job.sent += 1;
                if let Event::SendFailed(_, error) = event {
                    job.failed = true;
                    let expected = job.cancelled || matches!(error, TransferError::Connection(_));
                    assert!(expected, "{error}");
                }
            }
        }
    }

    pub fn job_of(&mut self, end: usize, grant: Grant) -> &mut Job {
        let mine = |job: &&mut Job| job.from != end && job.grant == grant;
        self.jobs.iter_mut().find(mine).expect("a grant of ours")
    }

    pub fn is_done(&self, messages: u64) -> bool {
        let settled = |job: &Job| job.sent == job.parts.len() && (job.received || job.failed);
        self.jobs.iter().all(settled) && self.messages_in == [messages; 2]
    }

    /// Runs until all is settled.
    pub fn finish(&mut self, messages: u64, cancel: f64) {
        let start = self.pair.now;
        while !self.is_done(messages) {
            self.send_messages(messages);
            if self.pair.random.chance(cancel) {
                let at = self.pair.random.below(self.jobs.len() as u64) as usize;
                let job = &mut self.jobs[at];
                job.cancelled = true;
                let (from, grant, part) = (job.from, job.grant, job.parts[0]);
                if self.pair.random.chance(0.5) {
                    self.pair.connection(from).cancel(part);
                } else {
                    self.pair.connection(1 - from).revoke(grant);
                }
            }
            assert!(self.pair.step(), "nothing will happen any more");
            self.look();
            assert_eq!(self.ended, [None; 2], "the link is bad, but not dead");
            let spent = self.pair.now.since(start);
            let state = [0, 1].map(|end| self.pair.connection(end).status());
            assert!(
                spent < Duration::from_secs(20),
                "too slow: {state:#?} {:?}",
                self.pair.link
            );
        }
        for job in &self.jobs {
            assert!(
                job.cancelled || job.received,
                "only what was cancelled may fail"
            );
            let whole = job.received || job.failed;
            assert!(whole, "a transfer is sent only when it arrived");
        }
    }
}
