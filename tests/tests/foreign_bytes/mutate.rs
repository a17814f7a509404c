//! Mutations of inputs, by a seed.

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
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
    random: Random,
}

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
        }
    }

    /// One of `corpus`, changed in one to eight places.
    pub fn next(&mut self, corpus: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let mut input = corpus[self.random.below(corpus.len())].clone();
        for _ in 0..=self.random.below(8) {
            let other = &corpus[self.random.below(corpus.len())];
            self.change(&mut input, other);
        }
        input.truncate(bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let random = &mut self.random;
        let at = random.below(input.len() + 1);
        let here = at < input.len();
        match random.below(10) {
            0 if here => input[at] ^= 1 << random.below(8),
            1 if here => input[at] = random.next() as u8,
            2 if here => {
                input[at] = input[at]
                    .wrapping_add(random.below(3) as u8)
                    .wrapping_sub(1)
            }
            3 => input.insert(at, random.next() as u8),
            4 => input.truncate(at),
            5 => {
                let end = (at + random.below(16)).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let piece: Vec<u8> = input[at..].iter().copied().take(random.below(32)).collect();
                input.splice(at..at, piece);
            }
            7 => {
                let from = random.below(other.len() + 1);
                let piece = other[from..].iter().copied().take(random.below(64));
                input.splice(at..at, piece);
            }
            8 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = 1 << random.below(4);
                for (byte, value) in input[at..].iter_mut().zip(&edge[..width]) {
                    *byte = *value;
                }
            }
            _ => {
                // As a varint.
                let mut edge = EDGES[random.below(EDGES.len())];
                let mut bytes = Vec::new();
                while edge >= 0x80 {
                    bytes.push(edge as u8 | 0x80);
                    edge >>= 7;
                }
                bytes.push(edge as u8);
                let end = (at + random.below(2)).min(input.len());
                input.splice(at..end, bytes);
            }
        }
    }
}
