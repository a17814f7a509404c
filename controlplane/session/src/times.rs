//! When records ran: what an executor measures while its client profiles.
//!
//! A payload is entries, each a tag and its numbers, which are differences from the entry before
//! (from zero in the first of a payload), zigzag as all signed varints:
//!
//! | tag | entry | numbers |
//! | --- | --- | --- |
//! | 0 | a frame | came, landed, begun |
//! | 1 | a record | sequence number, begun, ended |

use crate::WireError;
use crate::varint::{Reader, put_i64};

/// Bytes of a payload after which it leaves.
pub const TIMES_BYTES: usize = 16 << 10;

const FRAME: u8 = 0;
const RECORD: u8 = 1;

/// Something that a node measured, in nanoseconds by its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The frame that the following records were in.
    Frame {
        /// When it came, without its raw bytes.
        came: u64,
        /// When the last of its raw bytes came.
        landed: u64,
        /// When the executor took it.
        begun: u64,
    },
    /// A record. On a GPU it ends when it is launched.
    Record {
        /// Its sequence number.
        seq: u64,
        /// When it began.
        begun: u64,
        /// When it ended.
        ended: u64,
    },
}

/// Entries on their way into a payload.
#[derive(Debug, Default)]
pub struct Times {
    bytes: Vec<u8>,
    last: Last,
}

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    ns: u64,
    seq: u64,
}

impl Times {
    /// Appends one. True if the payload is to leave now.
    pub fn put(&mut self, entry: Entry) -> bool {
        let Self { bytes, last } = self;
        let mut put = |last: &mut u64, value: u64| {
            put_i64(bytes, value.wrapping_sub(*last) as i64);
            *last = value;
        };
        match entry {
            Entry::Frame {
                came,
                landed,
                begun,
            } => {
                put(&mut 0, u64::from(FRAME));
                put(&mut last.ns, came);
                put(&mut last.ns, landed);
                put(&mut last.ns, begun);
            }
            Entry::Record { seq, begun, ended } => {
                put(&mut 0, u64::from(RECORD));
                put(&mut last.seq, seq);
                put(&mut last.ns, begun);
                put(&mut last.ns, ended);
            }
        }
        self.bytes.len() >= TIMES_BYTES
    }

    /// The payload so far; what comes next begins another.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.last = Last::default();
        std::mem::take(&mut self.bytes)
    }
}

/// The entries of a payload.
///
/// # Errors
/// It is no such payload.
pub fn decode(payload: &[u8]) -> Result<Vec<Entry>, WireError> {
    let mut reader = Reader::new(payload);
    let mut last = Last::default();
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let mut next = |last: &mut u64| {
            *last = last.wrapping_add(reader.var_i64()? as u64);
            Ok::<u64, WireError>(*last)
        };
        let tag = next(&mut 0)?;
        entries.push(if tag == u64::from(FRAME) {
            Entry::Frame {
                came: next(&mut last.ns)?,
                landed: next(&mut last.ns)?,
                begun: next(&mut last.ns)?,
            }
        } else if tag == u64::from(RECORD) {
            Entry::Record {
                seq: next(&mut last.seq)?,
                begun: next(&mut last.ns)?,
                ended: next(&mut last.ns)?,
            }
        } else {
            return Err(WireError::Malformed("an unknown kind of time"));
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        (any::<bool>(), any::<[u64; 3]>()).prop_map(|(is_frame, [a, b, c])| match is_frame {
            true => Entry::Frame {
                came: a,
                landed: b,
                begun: c,
            },
            false => Entry::Record {
                seq: a,
                begun: b,
                ended: c,
            },
        })
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(entries in prop::collection::vec(entry(), 0..50)) {
            let mut times = Times::default();
            for _ in 0..2 {
                for &entry in &entries {
                    times.put(entry);
                }
                prop_assert_eq!(&decode(&times.take()).unwrap(), &entries);
            }
        }

        #[test]
        fn anything_is_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let entries = decode(&payload).unwrap_or_default();
            prop_assert!(entries.len() <= payload.len() / 4);
        }
    }

    #[test]
    fn a_payload_leaves_before_it_is_long() {
        let mut times = Times::default();
        let mut records = 0_u64;
        while !times.put(Entry::Record {
            seq: records,
            begun: records * 7000,
            ended: records * 7000 + 5000,
        }) {
            records += 1;
        }
        assert!(records > 2000, "a record takes seven bytes: {records}");
        assert!(times.take().len() < TIMES_BYTES + 40);
        assert_eq!(times.take(), Vec::<u8>::new());
    }
}
