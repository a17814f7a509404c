use super::{Choice, Device, Policy, Step};

/// Everything on one device: the first that can be used. What does not fit fails there.
#[derive(Debug, Default)]
pub struct Single;

fn choice(devices: &[Device]) -> Choice {
    let first = devices.iter().position(|device| device.alive);
    Choice {
        device: first.unwrap_or_default(),
        why: "everything goes to one device",
    }
}

impl Policy for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn place(&mut self, _step: &Step<'_>, devices: &[Device]) -> Choice {
        choice(devices)
    }

    fn upload(&mut self, _bytes: u64, devices: &[Device]) -> Choice {
        choice(devices)
    }
}
