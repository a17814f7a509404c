//! Two ends, and somebody on the path who drops, repeats, delays, turns back and edits frames. Every
//! byte is written once into its place or not at all; when he is gone, everything still arrives.

use genie_transport::{Config, Event, Grant, Priority, Role, Time, Transfer};

use crate::script::Script;
use crate::sim::device::Device;
use crate::sim::{End, ID, Memory, Random, config};

const LENS: [usize; 3] = [100, 5_000, 30_000];
const STEP_NS: u64 = 20_000;
const FRAMES_MAX: usize = 200;

struct Pair {
    ends: [End<Memory>; 2],
    now: Time,
    grants: Vec<(usize, Grant)>,
    received: Vec<(usize, Grant)>,
    failed: usize,
    dead: bool,
    random: Random,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Time(1);
        let setting = script.byte();
        let mut pair = Self {
            ends: [Memory::default(), Memory::default()].map(End::new),
            now,
            grants: Vec::new(),
            received: Vec::new(),
            failed: 0,
            dead: false,
            random: Random(u64::from(setting)),
            buffer: vec![0; 9000],
        };
        for (end, role) in pair.ends.iter_mut().zip([Role::Initiator, Role::Responder]) {
            let mut config: Config = config(role, 1, setting & 1 > 0);
            config.data_at = (setting & 2 > 0).then_some(200);
            end.split = setting & 4 > 0;
            end.device = (setting & 8 > 0).then(|| Device::new(50_000, 0.1));
            end.endpoint.open(config, now).expect("a sound one");
        }
        for (from, len) in [0, 1]
            .into_iter()
            .flat_map(|from| LENS.map(|len| (from, len)))
        {
            let bytes = (0..len).map(|at| (at * 31 + from) as u8).collect();
            let source = pair.ends[from].memory.add_source(bytes);
            let region = pair.ends[1 - from].memory.add_region(len);
            let receiver = pair.ends[1 - from].endpoint.connection(ID).expect("open");
            let grant = receiver.grant(region, len as u64).expect("few");
            let transfer = Transfer {
                grant,
                offset: 0,
                source,
                source_offset: 0,
                len: len as u64,
                priority: Priority::Normal,
            };
            let sender = pair.ends[from].endpoint.connection(ID).expect("open");
            sender.send(transfer).expect("few");
            let _full = sender.send_message(&[from as u8; 50]);
            pair.grants.push((1 - from, grant));
        }
        pair
    }

    /// All frames that leave now, each with its receiver.
    fn frames(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut frames = Vec::new();
        for from in 0..2 {
            self.ends[from].verify(self.now);
            while let Some(frame) = self.ends[from].next_frame(self.now, &mut self.buffer) {
                frames.push((1 - from, frame));
                assert!(frames.len() < 20_000, "it sends for ever");
            }
        }
        frames
    }

    fn deliver(&mut self, to: usize, mut frame: Vec<u8>) {
        self.ends[to].take(&mut frame, self.now, &mut self.random);
    }

    fn look(&mut self) {
        for at in 0..2 {
            let connection = self.ends[at].endpoint.connection(ID).expect("open");
            while connection.read_message(<[u8]>::len).is_some() {}
            while let Some(event) = connection.poll_event() {
                match event {
                    Event::Received(grant) => {
                        self.received.push((at, grant));
                        self.ends[at].memory.ended[grant.region.0 as usize] = true;
                    }
                    Event::ReceiveFailed(grant, _) => {
                        self.failed += 1;
                        self.ends[at].memory.ended[grant.region.0 as usize] = true;
                    }
                    Event::SendFailed(..) => self.failed += 1,
                    Event::Ended(_) => self.dead = true,
                    Event::Sent(_) => {}
                }
                if self.dead {
                    return;
                }
            }
        }
    }
}

pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut pair = Pair::new(&mut script);
    let mut held: Vec<(usize, Vec<u8>)> = Vec::new();
    while !script.is_over() && !pair.dead {
        pair.now = Time(pair.now.0 + STEP_NS * u64::from(1 + script.byte() % 64));
        for (to, frame) in pair.frames() {
            let what = script.byte();
            match what % 8 {
                0..3 => pair.deliver(to, frame),
                3 => {}
                4 => {
                    pair.deliver(to, frame.clone());
                    pair.deliver(to, frame);
                }
                5 if held.len() < FRAMES_MAX => held.push((to, frame)),
                6 => pair.deliver(1 - to, frame),
                _ => {
                    let mut frame = frame;
                    let at = usize::from(script.word()) % frame.len();
                    // A single byte: any sum notices.
                    frame[at] ^= script.byte();
                    pair.deliver(to, frame);
                }
            }
        }
        if script.byte() % 4 == 0 {
            for (to, frame) in held.drain(..) {
                pair.deliver(to, frame);
            }
        }
        pair.look();
    }
    // He is gone.
    for _ in 0..20_000 {
        if pair.dead || pair.received.len() == pair.grants.len() {
            break;
        }
        pair.now = Time(pair.now.0 + STEP_NS);
        for (to, frame) in pair.frames() {
            pair.deliver(to, frame);
        }
        pair.look();
    }
    if pair.dead {
        return;
    }
    assert_eq!(pair.failed, 0);
    assert_eq!(pair.received.len(), pair.grants.len(), "not all arrived");
    for (at, grant) in &pair.grants {
        let region = grant.region.0 as usize;
        let source = &pair.ends[1 - at].memory.sources[region];
        assert!(pair.ends[*at].memory.regions[region] == *source);
    }
}
