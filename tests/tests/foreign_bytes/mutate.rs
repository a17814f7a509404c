//! Mutations of inputs, by a seed.

use crate::rng::Rng;

impl Rng {
    /// Below `n`; zero if that is zero.
    fn index(&mut self, n: usize) -> usize {
        self.below(n.max(1) as u64) as usize
    }
}

/// Numbers at which things break.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Makes inputs of others.
pub struct Mutator {
    random: Rng,
}

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Rng::new(seed),
        }
    }

    /// One of `corpus`, changed in one to eight places.
    pub fn next(&mut self, corpus: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let mut input = corpus[self.random.index(corpus.len())].clone();
        for _ in 0..=self.random.index(8) {
            let other = &corpus[self.random.index(corpus.len())];
            self.change(&mut input, other);
        }
        input.truncate(bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let random = &mut self.random;
        let at = random.index(input.len() + 1);
        let here = at < input.len();
        match random.index(10) {
            0 if here => input[at] ^= 1 << random.index(8),
            1 if here => input[at] = random.next() as u8,
            2 if here => {
                input[at] = input[at]
                    .wrapping_add(random.index(3) as u8)
                    .wrapping_sub(1)
            }
            3 => input.insert(at, random.next() as u8),
            4 => input.truncate(at),
            5 => {
                let end = (at + random.index(16)).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let piece: Vec<u8> = input[at..].iter().copied().take(random.index(32)).collect();
                input.splice(at..at, piece);
            }
            7 => {
                let from = random.index(other.len() + 1);
                let piece = other[from..].iter().copied().take(random.index(64));
                input.splice(at..at, piece);
            }
            8 => {
                let edge = EDGES[random.index(EDGES.len())].to_le_bytes();
                let width = 1 << random.index(4);
                for (byte, value) in input[at..].iter_mut().zip(&edge[..width]) {
                    *byte = *value;
                }
            }
            _ => {
                // As a varint.
                let mut edge = EDGES[random.index(EDGES.len())];
                let mut bytes = Vec::new();
                while edge >= 0x80 {
                    bytes.push(edge as u8 | 0x80);
                    edge >>= 7;
                }
                bytes.push(edge as u8);
                let end = (at + usize::from(random.one_in(2))).min(input.len());
                input.splice(at..end, bytes);
            }
        }
    }
}
