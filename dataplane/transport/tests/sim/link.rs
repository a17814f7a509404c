//! What a link does to frames, and the chance that decides.

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < share
    }
}

/// What a link does to frames.
#[derive(Clone, Debug)]
pub struct Link {
    pub bytes_per_second: u64,
    pub delay_ns: u64,
    pub jitter_ns: u64,
    pub loss: f64,
    pub reorder: f64,
    pub duplicate: f64,
    pub flip: f64,
    pub queue_bytes: u64,
    pub mtu: usize,
    pub cut: bool,
}

impl Link {
    pub fn perfect() -> Self {
        Self {
            bytes_per_second: 1_250_000_000,
            delay_ns: 50_000,
            jitter_ns: 0,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            flip: 0.0,
            queue_bytes: 1 << 20,
            mtu: 9000,
            cut: false,
        }
    }

    pub fn from_seed(random: &mut Random) -> Self {
        let mut maybe = |share: f64, most: u64| {
            let hit = random.chance(share);
            if hit {
                random.below(most) as f64 / 1000.0
            } else {
                0.0
            }
        };
        let (loss, reorder) = (maybe(0.6, 150), maybe(0.4, 100));
        let (duplicate, flip) = (maybe(0.4, 100), maybe(0.4, 50));
        let narrow = random.chance(0.3);
        Self {
            bytes_per_second: if narrow { 5_000_000 } else { 1_250_000_000 },
            delay_ns: 5_000 + random.below(500_000),
            jitter_ns: random.below(200_000),
            loss,
            reorder,
            duplicate,
            flip,
            queue_bytes: if narrow { 50_000 } else { 1 << 20 },
            mtu: [1400, 4200, 9000][random.below(3) as usize],
            cut: false,
        }
    }
}
