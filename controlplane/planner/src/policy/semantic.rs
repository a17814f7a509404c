use super::{Choice, Device, Locality, Policy, Step};
use crate::fill::Fill;

/// What the control plane plans from what it understands; where there is no plan, as [`Locality`]. A
/// session begins on the device that has the least to do.
#[derive(Debug, Default)]
pub struct Semantic {
    fill: Fill,
    locality: Locality,
    has_begun: bool,
}

impl Policy for Semantic {
    fn name(&self) -> &'static str {
        "semantic"
    }

    fn place(&mut self, step: &Step<'_>, devices: &[Device]) -> Choice {
        self.locality.place(step, devices)
    }

    fn upload(&mut self, bytes: u64, devices: &[Device]) -> Choice {
        if !self.has_begun {
            self.has_begun = true;
            self.fill.begin_idle(devices);
        }
        self.fill.place(bytes, devices)
    }

    fn wants_load(&self) -> bool {
        true
    }

    fn wants_plans(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::devices;
    use super::*;

    #[test]
    fn a_session_begins_where_least_is_done() {
        let mut devices = devices(3);
        devices[0].busy_ns = 900_000_000;
        devices[1].others_bytes = 1 << 29;
        assert_eq!(Semantic::default().upload(100, &devices).device, 2);
        devices[2].alive = false;
        assert_eq!(Semantic::default().upload(100, &devices).device, 1);
    }
}
