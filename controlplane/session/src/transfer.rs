//! Names of transfers between the devices of a session.

pub use crate::limits::LOGS_MAX;

const LOG_BITS: u32 = 8;
const NAME_BITS: u32 = 48;
const NUMBER_BITS: u32 = NAME_BITS - 1;

/// A transfer: from which log of a session to which, whether somebody waits for it, and its number, which is
/// never used twice. It has nothing to do with a place in a log, so it stays when a log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer(pub u64);

impl Transfer {
    /// Number `number` from log `from` to log `to`. `None`: there are no such logs, or too many
    /// transfers.
    #[must_use]
    pub fn new(from: usize, to: usize, number: u64) -> Option<Self> {
        (from < LOGS_MAX && to < LOGS_MAX && number < 1 << NUMBER_BITS).then_some({
            Self((from as u64) << (NAME_BITS + LOG_BITS) | (to as u64) << NAME_BITS | number)
        })
    }

    /// The same, ahead of all that are not urgent.
    #[must_use]
    pub const fn urgent(self) -> Self {
        Self(self.0 | 1 << NUMBER_BITS)
    }

    /// Whether it goes ahead of those that are not.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        self.0 >> NUMBER_BITS & 1 == 1
    }

    /// Who sends.
    #[must_use]
    pub fn from(self) -> u16 {
        (self.0 >> (NAME_BITS + LOG_BITS)) as u16
    }

    /// Who receives.
    #[must_use]
    pub fn to(self) -> u16 {
        u16::from((self.0 >> NAME_BITS) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_ends_and_is_a_number_of_a_record() {
        let last = (1 << NUMBER_BITS) - 1;
        for (from, to, number) in [(0, 0, 0), (3, 127, 5), (127, 127, last)] {
            let name = Transfer::new(from, to, number).unwrap();
            assert_eq!(
                (usize::from(name.from()), usize::from(name.to())),
                (from, to)
            );
            assert!(name.0 as i64 >= 0);
            let urgent = name.urgent();
            assert_eq!((urgent.from(), urgent.to()), (name.from(), name.to()));
            assert!(urgent.is_urgent() && !name.is_urgent() && urgent.0 as i64 >= 0);
        }
        for (from, to, number) in [(128, 0, 0), (0, 128, 0), (0, 0, last + 1)] {
            assert_eq!(Transfer::new(from, to, number), None);
        }
    }
}
