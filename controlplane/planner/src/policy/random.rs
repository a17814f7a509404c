use super::{Choice, Device, Policy, Step};

/// Each operator and each upload anywhere, by a seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// By this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn choice(&mut self, devices: &[Device]) -> Choice {
        let living = || (0..devices.len()).filter(|&at| devices[at].alive);
        let count = living().count().max(1);
        let nth = (self.next() % count as u64) as usize;
        Choice {
            device: living().nth(nth).unwrap_or_default(),
            why: "devices are drawn by lot",
        }
    }
}

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn place(&mut self, _step: &Step<'_>, devices: &[Device]) -> Choice {
        self.choice(devices)
    }

    fn upload(&mut self, _bytes: u64, devices: &[Device]) -> Choice {
        self.choice(devices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{devices, step};
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_every_device_its_share() {
        let draw = |seed| -> Vec<usize> {
            let mut policy = Random::new(seed);
            let places = (0..300).map(|_| policy.place(&step(&[]), &devices(3)).device);
            places.collect()
        };
        assert_eq!(draw(4), draw(4));
        assert_ne!(draw(4), draw(5));
        for device in 0..3 {
            let share = draw(4).iter().filter(|&&at| at == device).count();
            assert!((70..130).contains(&share), "{share} of 300");
        }
    }
}
