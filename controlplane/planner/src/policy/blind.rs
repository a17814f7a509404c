use super::{Choice, Device, Policy, Step};
use crate::fill::Fill;

/// Devices whose loads differ by less are as busy as each other.
const TIE_NS: u64 = 1_000_000;

/// A scheduler that knows machines and not what they compute: each segment runs whole on the device that
/// computed least in the last second, and ties stay. What it reads is copied there and stays, so weights
/// are where they have been.
#[derive(Debug, Default)]
pub struct Blind {
    fill: Fill,
    device: Option<usize>,
}

impl Policy for Blind {
    fn name(&self) -> &'static str {
        "blind"
    }

    fn place(&mut self, _step: &Step<'_>, devices: &[Device]) -> Choice {
        let lives = |&at: &usize| devices.get(at).is_some_and(|device| device.alive);
        let device = self
            .device
            .filter(lives)
            .unwrap_or_else(|| idlest(devices, None));
        self.device = Some(device);
        Choice {
            device,
            why: "its segment ran on the device that computed least in the last second",
        }
    }

    fn upload(&mut self, bytes: u64, devices: &[Device]) -> Choice {
        self.fill.place(bytes, devices)
    }

    fn cut(&mut self, devices: &[Device]) {
        self.device = Some(idlest(devices, self.device));
    }

    fn wants_load(&self) -> bool {
        true
    }
}

fn idlest(devices: &[Device], now: Option<usize>) -> usize {
    let living = || (0..devices.len()).filter(|&at| devices[at].alive);
    let least = living().map(|at| devices[at].busy_ns).min().unwrap_or(0);
    let ties = |at: &usize| devices[*at].busy_ns <= least + TIE_NS;
    let stays = now.filter(|at| devices.get(*at).is_some_and(|d| d.alive) && ties(at));
    stays.or_else(|| living().find(ties)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{devices, input, step};
    use super::*;

    #[test]
    fn a_segment_goes_to_the_idlest_whole_and_ties_stay() {
        let mut policy = Blind::default();
        let mut devices = devices(3);
        let inputs = [input(1 << 20, &[2], true)];
        let mut place = |devices: &[Device]| policy.place(&step(&inputs), devices).device;
        assert_eq!(place(&devices), 0);
        devices[0].busy_ns = 500_000_000;
        assert_eq!(place(&devices), 0, "in the midst of a segment");
        policy.cut(&devices);
        let mut place = |devices: &[Device]| policy.place(&step(&inputs), devices).device;
        assert_eq!(place(&devices), 1);
        devices[1].busy_ns = 500_000;
        policy.cut(&devices);
        let mut place = |devices: &[Device]| policy.place(&step(&inputs), devices).device;
        assert_eq!(place(&devices), 1, "a tie");
        devices[1].alive = false;
        assert_eq!(place(&devices), 2);
    }
}
