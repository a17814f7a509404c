use super::{Choice, Device, Policy, Step};
use crate::fill::Fill;

/// Each operator where most of the bytes lie that it writes, then of those that it reads; a draw goes
/// to where the last one ran.
#[derive(Debug, Default)]
pub struct Locality {
    fill: Fill,
    last: usize,
}

impl Policy for Locality {
    fn name(&self) -> &'static str {
        "locality"
    }

    fn place(&mut self, step: &Step<'_>, devices: &[Device]) -> Choice {
        let there = |at: usize, writes: bool| -> u64 {
            let inputs = step.inputs.iter();
            let here = inputs.filter(|input| input.writes == writes && input.at.has(at));
            here.map(|input| input.bytes).sum()
        };
        let all: u64 = step.inputs.iter().map(|input| input.bytes).sum();
        let living = (0..devices.len()).filter(|&at| devices[at].alive);
        let best = living.max_by_key(|&at| {
            let (device, written, read) = (&devices[at], there(at, true), there(at, false));
            let free = device.limit_bytes.saturating_sub(device.held_bytes);
            let fits = all - written - read + step.fresh_bytes <= free;
            (fits, written, read, at == self.last, usize::MAX - at)
        });
        self.last = best.unwrap_or(self.last);
        Choice {
            device: self.last,
            why: "most of what its operator takes was there",
        }
    }

    fn upload(&mut self, bytes: u64, devices: &[Device]) -> Choice {
        self.fill.place(bytes, devices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GIB, devices, input, step};
    use super::*;

    fn place(inputs: &[super::super::Input], devices: &[Device]) -> usize {
        Locality::default().place(&step(inputs), devices).device
    }

    #[test]
    fn written_bytes_decide_then_read_ones() {
        let devices = devices(3);
        let small = input(10, &[2], true);
        assert_eq!(place(&[input(1000, &[0, 1], false), small], &devices), 2);
        let reads = [input(1000, &[0, 1], false), input(900, &[1, 2], false)];
        assert_eq!(place(&reads, &devices), 1);
        assert_eq!(place(&[], &devices), 0);
    }

    #[test]
    fn a_draw_stays_where_the_last_one_ran() {
        let devices = devices(3);
        let mut policy = Locality::default();
        assert_eq!(
            policy
                .place(&step(&[input(10, &[2], false)]), &devices)
                .device,
            2
        );
        assert_eq!(policy.place(&step(&[]), &devices).device, 2);
    }

    #[test]
    fn it_goes_where_there_is_room_for_it() {
        let mut devices = devices(2);
        devices[0].held_bytes = GIB - 32;
        assert_eq!(place(&[input(1000, &[0], false)], &devices), 1);
        devices[1].held_bytes = GIB - 32;
        assert_eq!(
            place(&[input(1000, &[0], false)], &devices),
            0,
            "nowhere is room"
        );
    }
}
