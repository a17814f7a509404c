//! A dialogue of two processes over a link: one asks with numbered frames, the other answers each
//! with one of its own; both compare every byte.

use std::time::{Duration, Instant};

use genie_dpdk::{Burst, Mbuf, Mempool, OpenPort};

pub const LIMIT: Duration = Duration::from_secs(10);

/// IEEE's Ethernet type for experiments: whatever else a kernel sends is told apart by it.
const ETHERNET_TYPE: [u8; 2] = [0x88, 0xb5];
const HEADER_BYTES: usize = 14;

const QUESTION: u64 = 1;
const ANSWER: u64 = 2;

/// What is exchanged.
#[derive(Clone, Copy)]
pub struct Dialogue {
    pub frames: u32,
    /// Each, with its Ethernet header.
    pub frame_bytes: usize,
    /// Frames under way at most, so that no ring overflows.
    pub window: u32,
}

impl Dialogue {
    /// The content of frame `number`: no two frames and no two places are alike.
    fn content(&self, number: u32, salt: u64) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, salt as u8]);
        bytes.extend_from_slice(&ETHERNET_TYPE);
        bytes.extend_from_slice(&number.to_le_bytes());
        let mut state = (u64::from(number) << 8 | salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while bytes.len() < self.frame_bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(self.frame_bytes);
        bytes
    }

    fn fill(&self, mbuf: &mut Mbuf, number: u32, salt: u64) {
        mbuf.extend_from_slice(&self.content(number, salt)).unwrap();
    }

    /// Whether it is one of ours at all; if so, it must be the right one.
    fn check(&self, mbuf: &Mbuf, number: u32, salt: u64) -> bool {
        let bytes = mbuf.segments().collect::<Vec<_>>().concat();
        if bytes.get(HEADER_BYTES - 2..HEADER_BYTES) != Some(&ETHERNET_TYPE) {
            return false;
        }
        assert_eq!(bytes.len(), self.frame_bytes);
        assert!(
            bytes == self.content(number, salt),
            "frame {number} differs"
        );
        true
    }

    /// Asks until every frame was answered.
    pub fn ask(&self, pool: &Mempool, opened: &mut OpenPort) {
        let (mut sent, mut seen) = (0, 0);
        let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
        let end = Instant::now() + LIMIT;
        while seen < self.frames {
            assert!(
                Instant::now() < end,
                "sent {sent}, {seen} came back; {} mbufs are out; {:?}",
                pool.in_use(),
                opened.port.stats()
            );
            while sent < self.frames && sent - seen < self.window && outgoing.room() > 0 {
                let mut mbuf = pool.alloc().unwrap();
                self.fill(&mut mbuf, sent, QUESTION);
                outgoing.push(mbuf).unwrap();
                sent += 1;
            }
            opened.tx[0].send(&mut outgoing);
            if opened.rx[0].receive(&mut incoming) == 0 {
                std::thread::yield_now();
            }
            for mbuf in incoming.drain() {
                seen += u32::from(self.check(&mbuf, seen, ANSWER));
            }
        }
    }

    /// Answers until every frame was.
    pub fn answer(&self, pool: &Mempool, opened: &mut OpenPort) {
        let (mut seen, mut answered) = (0, 0);
        let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
        let end = Instant::now() + LIMIT;
        while answered < self.frames {
            assert!(
                Instant::now() < end,
                "saw {seen}, answered {answered}; {} mbufs are out; {:?}",
                pool.in_use(),
                opened.port.stats()
            );
            if outgoing.room() >= 32 && opened.rx[0].receive(&mut incoming) == 0 {
                std::thread::yield_now();
            }
            for mbuf in incoming.drain() {
                if !self.check(&mbuf, seen, QUESTION) {
                    continue;
                }
                let mut answer = pool.alloc().unwrap();
                self.fill(&mut answer, seen, ANSWER);
                outgoing.push(answer).unwrap();
                seen += 1;
            }
            answered += opened.tx[0].send(&mut outgoing) as u32;
        }
    }
}
