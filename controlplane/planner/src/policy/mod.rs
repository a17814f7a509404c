//! Policies: each answers one question an operator, on which device it runs.

mod blind;
mod locality;
mod random;
mod semantic;
mod single;

use genie_session::places::Set;

pub use self::blind::Blind;
pub use self::locality::Locality;
pub use self::random::Random;
pub use self::semantic::Semantic;
pub use self::single::Single;

/// A value that an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name in the session.
    pub value: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Who holds it; nobody where nothing was done with it.
    pub at: Set,
    /// Whether the operator writes to it.
    pub writes: bool,
}

/// An operator to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What it takes, in order.
    pub inputs: &'a [Input],
    /// Bytes of what it makes.
    pub fresh_bytes: u64,
}

/// A device, as far as a policy may know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Whether it can be used.
    pub alive: bool,
    /// Bytes of this session that it holds.
    pub held_bytes: u64,
    /// Bytes that this session may have there.
    pub limit_bytes: u64,
    /// Bytes that other sessions hold there, as its node said last.
    pub others_bytes: u64,
    /// Nanoseconds of the last second that it computed, for all sessions, as its node said last.
    pub busy_ns: u64,
}

/// Where something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the device.
    pub device: usize,
    /// Why there, for a person.
    pub why: &'static str,
}

/// Decides where operators run. Whatever it says, the results are the same. A choice of a device that
/// can't be used is not obeyed.
pub trait Policy: Send {
    /// As [`policy`] knows it.
    fn name(&self) -> &'static str;

    /// Where an operator runs. There is at least one device.
    fn place(&mut self, step: &Step<'_>, devices: &[Device]) -> Choice;

    /// Where bytes of the program go.
    fn upload(&mut self, bytes: u64, devices: &[Device]) -> Choice;

    /// A segment has ended.
    fn cut(&mut self, _devices: &[Device]) {}

    /// Whether it looks at what devices have to do for all sessions: nodes are asked then.
    fn wants_load(&self) -> bool {
        false
    }

    /// Whether the control plane is to plan segments: a plan's place comes before its own.
    fn wants_plans(&self) -> bool {
        false
    }
}

/// There is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no placement policy {0:?}; there are {list}", list = NAMES.join(", "))]
pub struct UnknownPolicy(pub String);

/// Names that [`policy`] knows.
pub const NAMES: [&str; 5] = ["semantic", "locality", "blind", "random:SEED", "single"];

/// The policy of a name.
///
/// # Errors
/// There is none.
pub fn policy(name: &str) -> Result<Box<dyn Policy>, UnknownPolicy> {
    let unknown = || UnknownPolicy(name.to_owned());
    let (kind, argument) = match name.split_once(':') {
        Some((kind, argument)) => (kind, Some(argument)),
        None => (name, None),
    };
    Ok(match (kind, argument) {
        ("blind", None) => Box::new(Blind::default()),
        ("semantic", None) => Box::new(Semantic::default()),
        ("locality", None) => Box::new(Locality::default()),
        ("single", None) => Box::new(Single),
        ("random", seed) => {
            let seed = seed.map_or(Ok(0), str::parse).map_err(|_| unknown())?;
            Box::new(Random::new(seed))
        }
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const GIB: u64 = 1 << 30;

    pub(crate) fn devices(count: usize) -> Vec<Device> {
        let device = Device {
            alive: true,
            limit_bytes: GIB,
            ..Device::default()
        };
        vec![device; count]
    }

    pub(crate) fn input(bytes: u64, at: &[usize], writes: bool) -> Input {
        Input {
            value: 1,
            bytes,
            at: at.iter().fold(Set::EMPTY, |set, &device| set.with(device)),
            writes,
        }
    }

    pub(crate) fn step(inputs: &[Input]) -> Step<'_> {
        Step {
            inputs,
            fresh_bytes: 64,
        }
    }

    #[test]
    fn policies_have_names() {
        for name in [
            "semantic", "locality", "blind", "single", "random", "random:7",
        ] {
            let made = policy(name).unwrap();
            assert_eq!(made.name(), name.split(':').next().unwrap());
        }
        for name in ["", "best", "single:1", "random:x", "random:-1"] {
            let error = policy(name).err().unwrap().to_string();
            assert!(error.contains("random:SEED"), "{error}");
        }
    }

    #[test]
    fn none_uses_a_device_that_is_gone() {
        for name in ["semantic", "locality", "blind", "single", "random:3"] {
            let mut policy = policy(name).unwrap();
            let mut devices = devices(3);
            devices[0].alive = false;
            devices[2].alive = false;
            for at in 0..3 {
                let inputs = [input(100, &[at], true)];
                assert_eq!(policy.place(&step(&inputs), &devices).device, 1, "{name}");
                assert_eq!(policy.upload(100, &devices).device, 1, "{name}");
            }
        }
    }
}
