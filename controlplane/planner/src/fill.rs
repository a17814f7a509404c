//! Where what comes from the program goes: onto one device until it is full, then onto the next. So
//! what fits on one device stays on one.

use crate::{Choice, Device, full_bytes};

/// Fills one device after the other.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    device: Option<usize>,
}

impl Fill {
    /// Begins with the device that has the least to do, and of those with the most room.
    pub(crate) fn begin_idle(&mut self, devices: &[Device]) {
        // Less than a tenth of a core is nothing to do.
        let load = |device: &Device| device.busy_ns / 100_000_000;
        let free = |device: &Device| device.limit_bytes.saturating_sub(device.others_bytes);
        let living = (0..devices.len()).filter(|&at| devices[at].alive);
        self.device = living.min_by_key(|&at| {
            let device = &devices[at];
            (load(device), u64::MAX - free(device), at)
        });
    }

    /// Where `bytes` go.
    pub(crate) fn place(&mut self, bytes: u64, devices: &[Device]) -> Choice {
        let room =
            |device: &Device| full_bytes(device.limit_bytes).saturating_sub(device.held_bytes);
        let fits = |at: &usize| {
            devices
                .get(*at)
                .is_some_and(|d| d.alive && room(d) >= bytes)
        };
        let device = self.device.filter(fits).or_else(|| {
            let living = (0..devices.len()).filter(|&at| devices[at].alive);
            // The first of the emptiest.
            living.max_by_key(|&at| (room(&devices[at]), usize::MAX - at))
        });
        self.device = device;
        Choice {
            device: device.unwrap_or_default(),
            why: "it came from the program, and this device had room for it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(held: u64, limit: u64) -> Device {
        Device {
            alive: true,
            held_bytes: held,
            limit_bytes: limit,
            ..Device::default()
        }
    }

    #[test]
    fn one_device_is_filled_before_the_next() {
        let mut fill = Fill::default();
        let mut devices = [device(0, 1000), device(0, 2000), device(0, 1000)];
        let mut went = Vec::new();
        for _ in 0..12 {
            let choice = fill.place(300, &devices);
            devices[choice.device].held_bytes += 300;
            went.push(choice.device);
        }
        assert_eq!(went[..5], [1; 5], "1,600 of 2,000");
        assert_eq!(went[5..9], [0, 0, 2, 2]);
        assert_eq!(
            devices.map(|d| d.held_bytes).iter().sum::<u64>(),
            3600,
            "nothing is refused"
        );
    }

    #[test]
    fn a_device_that_is_gone_gets_nothing() {
        let mut fill = Fill::default();
        let mut devices = [device(0, 2000), device(0, 1000)];
        assert_eq!(fill.place(1, &devices).device, 0);
        devices[0].alive = false;
        assert_eq!(fill.place(1, &devices).device, 1);
    }
}
