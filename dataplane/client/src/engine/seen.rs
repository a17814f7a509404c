//! What the program has looked at and nobody has written since: a number in a small tensor costs one round
//! trip, and the others beside it none. Each device has its own; a pool has none.
//!
//! A look raises what has failed before it. So what was seen is given out only as long as nothing
//! was recorded since an answer came: then there is nothing to be raised.

use std::collections::VecDeque;

use genie_session::record::Kind;
use genie_session::skeleton::{self, flag};

use super::bytes::Bytes;

/// Parts of storages that are remembered, and their bytes.
const PARTS_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 20;
/// A storage of at most so many bytes comes as a whole.
const WHOLE_MAX: u64 = 4 << 10;
/// Who looks into a larger one for the second time gets so many bytes.
const WINDOW: u64 = 64 << 10;

/// A part of a storage that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    bytes: Bytes,
    number: u64,
    /// As many records were before it.
    records: u64,
}

impl Ticket {
    /// What is asked for.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes
    }
}

/// Under the append lock.
#[derive(Default)]
pub(super) struct Seen {
    parts: VecDeque<(Bytes, Vec<u8>)>,
    total: usize,
    coming: Vec<(u64, u64)>,
    tickets: u64,
    /// A bit for each storage of these, by its number: most records have none of them.
    filter: u64,
    /// Records that may have failed, and how many of them did not.
    records: u64,
    good: u64,
}

impl Seen {
    /// A record was appended.
    pub(super) fn recorded(&mut self, kind: Kind, storages: &[u64], skeleton: &[u8]) {
        if matches!(
            kind,
            Kind::Fetch | Kind::Barrier | Kind::Alloc | Kind::Frees | Kind::Cut
        ) {
            return;
        }
        self.records += 1;
        if self.filter == 0 {
            return;
        }
        for (at, &storage) in storages.iter().enumerate() {
            if self.filter & bit(storage) != 0 && self.has(storage) && writes(kind, skeleton, at) {
                self.forget(storage);
            }
        }
    }

    /// What lies here of a storage, if nothing can have failed since it came.
    pub(super) fn find(&self, wanted: &Bytes) -> Option<&[u8]> {
        if self.good != self.records || self.filter & bit(wanted.storage) == 0 {
            return None;
        }
        let mut parts = self.parts.iter();
        parts.find_map(|(bytes, memory)| {
            let at = bytes.position_of(wanted)?;
            memory.get(at..at + wanted.len as usize)
        })
    }

    /// The program looks at these bytes of a storage of `whole` bytes: what to ask for. `None`: no more
    /// than these, and they are not remembered.
    pub(super) fn ask(&mut self, wanted: &Bytes, whole: u64) -> Option<Ticket> {
        if wanted.len > WHOLE_MAX || wanted.offset.checked_add(wanted.len)? > whole {
            return None;
        }
        let known = self
            .parts
            .iter()
            .find(|(bytes, _)| bytes.storage == wanted.storage);
        let (offset, end) = match known {
            _ if whole <= WHOLE_MAX => (0, whole),
            None => (wanted.offset, wanted.offset + wanted.len),
            // Whoever goes backwards goes on so.
            Some((bytes, _)) if wanted.offset < bytes.offset => {
                let end = wanted.offset + wanted.len;
                (end.saturating_sub(WINDOW), end)
            }
            Some(_) => (wanted.offset, whole.min(wanted.offset + WINDOW)),
        };
        self.tickets += 1;
        let ticket = Ticket {
            bytes: Bytes {
                storage: wanted.storage,
                offset,
                len: end - offset,
            },
            number: self.tickets,
            records: self.records,
        };
        self.coming.push((wanted.storage, ticket.number));
        self.filter |= bit(wanted.storage);
        Some(ticket)
    }

    /// Records so far.
    pub(super) fn position(&self) -> u64 {
        self.records
    }

    /// An answer came to what was asked at this position: nothing before it has failed.
    pub(super) fn is_good(&mut self, position: u64) {
        self.good = self.good.max(position);
    }

    /// It came, and nothing before it has failed; `None`: it did not come.
    pub(super) fn answered(&mut self, ticket: &Ticket, memory: Option<Vec<u8>>) {
        let at = self
            .coming
            .iter()
            .position(|&(_, number)| number == ticket.number);
        let is_current = at.map(|at| self.coming.swap_remove(at)).is_some();
        if let Some(memory) = memory {
            self.is_good(ticket.records);
            if is_current {
                self.keep(ticket.bytes, memory);
            }
        }
        self.filter_anew();
    }

    fn keep(&mut self, bytes: Bytes, memory: Vec<u8>) {
        // One part of a storage is enough: the last.
        self.drop_parts(bytes.storage);
        self.total += memory.len();
        self.parts.push_back((bytes, memory));
        while self.parts.len() > PARTS_MAX || self.total > BYTES_MAX {
            let Some((_, oldest)) = self.parts.pop_front() else {
                break;
            };
            self.total -= oldest.len();
        }
    }

    fn has(&self, storage: u64) -> bool {
        self.parts.iter().any(|(bytes, _)| bytes.storage == storage)
            || self.coming.iter().any(|&(coming, _)| coming == storage)
    }

    fn forget(&mut self, storage: u64) {
        self.drop_parts(storage);
        self.coming.retain(|&(coming, _)| coming != storage);
        self.filter_anew();
    }

    fn drop_parts(&mut self, storage: u64) {
        let total = &mut self.total;
        self.parts.retain(|(bytes, memory)| {
            let stays = bytes.storage != storage;
            *total -= if stays { 0 } else { memory.len() };
            stays
        });
    }

    fn filter_anew(&mut self) {
        let parts = self.parts.iter().map(|(bytes, _)| bytes.storage);
        let coming = self.coming.iter().map(|&(storage, _)| storage);
        self.filter = parts
            .chain(coming)
            .fold(0, |all, storage| all | bit(storage));
    }
}

fn bit(storage: u64) -> u64 {
    1 << (storage % 64)
}

/// Whether a record of this kind writes the storage that comes `at` this place in it.
fn writes(kind: Kind, skeleton: &[u8], at: usize) -> bool {
    match kind {
        Kind::Op | Kind::CallSync => {
            let (mut place, mut found) = (0, false);
            let measured = skeleton::measure(skeleton, |flags, _, _| {
                found |= place == at && flags & flag::WRITE != 0;
                place += 1;
            });
            found || measured.is_err()
        }
        Kind::Send => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genie_session::skeleton::tag;

    const READ: [u8; 4] = [tag::TENSOR, 0, 6, 0];
    const WRITE: [u8; 4] = [tag::TENSOR, flag::WRITE, 6, 0];

    fn bytes(storage: u64, offset: u64, len: u64) -> Bytes {
        Bytes {
            storage,
            offset,
            len,
        }
    }

    fn look(seen: &mut Seen, wanted: Bytes, whole: u64) -> Option<Bytes> {
        if seen.find(&wanted).is_some() {
            return None;
        }
        let ticket = seen.ask(&wanted, whole)?;
        seen.answered(&ticket, Some(vec![7; ticket.bytes.len as usize]));
        Some(ticket.bytes)
    }

    #[test]
    fn a_small_storage_comes_once() {
        let mut seen = Seen::default();
        assert_eq!(look(&mut seen, bytes(1, 8, 4), 400), Some(bytes(1, 0, 400)));
        assert_eq!(look(&mut seen, bytes(1, 396, 4), 400), None);
        assert_eq!(seen.find(&bytes(1, 396, 4)), Some(&[7; 4][..]));
        assert_eq!(seen.find(&bytes(1, 398, 4)), None);
    }

    #[test]
    fn a_large_one_comes_in_windows_from_the_second_look_on() {
        let mut seen = Seen::default();
        let whole = 1 << 20;
        assert_eq!(look(&mut seen, bytes(1, 0, 4), whole), Some(bytes(1, 0, 4)));
        assert_eq!(
            look(&mut seen, bytes(1, 4, 4), whole),
            Some(bytes(1, 4, WINDOW))
        );
        assert_eq!(look(&mut seen, bytes(1, 8, 4), whole), None);
        let end = bytes(1, whole - 4, 4);
        assert_eq!(look(&mut seen, end, whole), Some(end));
        let back = bytes(1, whole - 8, 4);
        let window = bytes(1, whole - 4 - WINDOW, WINDOW);
        assert_eq!(look(&mut seen, back, whole), Some(window));
        assert_eq!(
            seen.ask(&bytes(2, 0, WHOLE_MAX + 1), whole)
                .map(|it| it.bytes),
            None
        );
        assert_eq!(seen.ask(&bytes(2, 8, 8), 12).map(|it| it.bytes), None);
    }

    #[test]
    fn what_is_written_is_asked_for_again() {
        let mut seen = Seen::default();
        for (kind, skeleton, is_forgotten) in [
            (Kind::Op, READ, false),
            (Kind::Op, WRITE, true),
            (Kind::CallSync, WRITE, true),
            (Kind::Upload, READ, true),
            (Kind::Resize, READ, true),
            (Kind::Send, READ, false),
        ] {
            look(&mut seen, bytes(1, 0, 4), 8);
            seen.recorded(kind, &[1], &skeleton);
            assert_eq!(seen.has(1), !is_forgotten, "{kind:?}");
            // Another of the same bit.
            look(&mut seen, bytes(65, 0, 4), 8);
            look(&mut seen, bytes(1, 0, 4), 8);
        }
    }

    #[test]
    fn what_is_written_on_its_way_is_not_kept() {
        let mut seen = Seen::default();
        let ticket = seen.ask(&bytes(1, 0, 4), 8).unwrap();
        seen.recorded(Kind::Op, &[1], &WRITE);
        seen.answered(&ticket, Some(vec![0; 8]));
        assert_eq!((seen.has(1), seen.filter), (false, 0));
        let ticket = seen.ask(&bytes(1, 0, 4), 8).unwrap();
        seen.answered(&ticket, None);
        assert!(!seen.has(1));
    }

    #[test]
    fn after_a_record_it_waits_for_the_next_answer() {
        let mut seen = Seen::default();
        look(&mut seen, bytes(1, 0, 4), 8);
        assert!(seen.find(&bytes(1, 4, 4)).is_some());
        seen.recorded(Kind::Op, &[9], &READ);
        assert!(seen.find(&bytes(1, 4, 4)).is_none(), "it may have failed");
        look(&mut seen, bytes(2, 0, 4), 4);
        assert!(seen.find(&bytes(1, 4, 4)).is_some());
        for kind in [
            Kind::Fetch,
            Kind::Barrier,
            Kind::Alloc,
            Kind::Frees,
            Kind::Cut,
        ] {
            seen.recorded(kind, &[1], &READ);
            assert!(seen.find(&bytes(1, 4, 4)).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut seen = Seen::default();
        for storage in 0..1000 {
            look(&mut seen, bytes(storage, 0, 4), 1 << 20);
            look(&mut seen, bytes(storage, 4, 4), 1 << 20);
            assert!(seen.parts.len() <= PARTS_MAX && seen.total <= BYTES_MAX);
        }
        let total: usize = seen.parts.iter().map(|(_, memory)| memory.len()).sum();
        assert_eq!(total, seen.total);
        assert!(seen.has(999) && !seen.has(0) && seen.coming.is_empty());
    }
}
