//! Small messages: inline in frames, each delivered once and in order.

use crate::drops::DropReason;
use crate::limits::{MESSAGE_BYTES_MAX, MESSAGES_MAX};

#[derive(Clone)]
struct Slot {
    bytes: [u8; MESSAGE_BYTES_MAX],
    len: usize,
    /// Outgoing: not yet acknowledged. Incoming: arrived and not yet read.
    used: bool,
}

type Ring = Box<[Slot]>;

fn ring() -> Ring {
    vec![
        Slot {
            bytes: [0; MESSAGE_BYTES_MAX],
            len: 0,
            used: false
        };
        MESSAGES_MAX
    ]
    .into()
}

fn slot(ring: &mut Ring, sequence: u64) -> &mut Slot {
    // The remainder is below the number of slots.
    &mut ring[(sequence % MESSAGES_MAX as u64) as usize]
}

fn fill(slot: &mut Slot, bytes: &[u8]) -> bool {
    let Some(room) = slot.bytes.get_mut(..bytes.len()) else {
        return false;
    };
    room.copy_from_slice(bytes);
    (slot.len, slot.used) = (bytes.len(), true);
    true
}

/// Messages that leave.
pub(crate) struct MessagesOut {
    ring: Ring,
    /// The oldest that is not acknowledged.
    first: u64,
    /// The next to be sent for the first time.
    next: u64,
    /// The next to be written by the program.
    end: u64,
    /// The peer takes those below.
    limit: u64,
}

impl MessagesOut {
    pub(crate) fn new() -> Self {
        Self {
            ring: ring(),
            first: 0,
            next: 0,
            end: 0,
            limit: MESSAGES_MAX as u64,
        }
    }

    /// `false` when too many are on their way, or it is too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.end - self.first >= MESSAGES_MAX as u64 {
            return false;
        }
        let taken = fill(slot(&mut self.ring, self.end), bytes);
        if taken {
            self.end += 1;
        }
        taken
    }

    pub(crate) fn waiting(&self) -> bool {
        self.next < self.end
    }

    pub(crate) fn unacked(&self) -> u64 {
        self.end - self.first
    }

    /// The next new one that the peer has room for.
    pub(crate) fn to_send(&self) -> Option<u64> {
        (self.next < self.end && self.next < self.limit).then_some(self.next)
    }

    pub(crate) fn on_sent(&mut self, sequence: u64) {
        self.next = self.next.max(sequence + 1);
    }

    pub(crate) fn get(&mut self, sequence: u64) -> Option<&[u8]> {
        let slot = slot(&mut self.ring, sequence);
        if slot.used {
            slot.bytes.get(..slot.len)
        } else {
            None
        }
    }

    pub(crate) fn on_acked(&mut self, sequence: u64) {
        slot(&mut self.ring, sequence).used = false;
        while self.first < self.next && !slot(&mut self.ring, self.first).used {
            self.first += 1;
        }
    }

    pub(crate) fn raise_limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// Messages that arrive.
pub(crate) struct MessagesIn {
    ring: Ring,
    /// The next that the program reads.
    next: u64,
}

impl MessagesIn {
    pub(crate) fn new() -> Self {
        Self {
            ring: ring(),
            next: 0,
        }
    }

    /// The peer may send those below.
    pub(crate) fn limit(&self) -> u64 {
        self.next.saturating_add(MESSAGES_MAX as u64)
    }

    /// Takes one that arrived.
    pub(crate) fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), DropReason> {
        if sequence >= self.limit() {
            return Err(DropReason::MessageOverrun);
        }
        if sequence < self.next || slot(&mut self.ring, sequence).used {
            return Err(DropReason::DuplicateMessage);
        }
        if fill(slot(&mut self.ring, sequence), bytes) {
            Ok(())
        } else {
            Err(DropReason::Malformed)
        }
    }

    pub(crate) fn has_next(&self) -> bool {
        self.ring
            .get((self.next % MESSAGES_MAX as u64) as usize)
            .is_some_and(|slot| slot.used)
    }

    /// Lets the program read the next, if it is here.
    pub(crate) fn read<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let slot = slot(&mut self.ring, self.next);
        if !slot.used {
            return None;
        }
        slot.used = false;
        self.next += 1;
        slot.bytes.get(..slot.len).map(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_once() {
        let mut arriving = MessagesIn::new();
        assert_eq!(arriving.take(1, b"b"), Ok(()));
        assert_eq!(arriving.read(<[u8]>::to_vec), None);
        assert_eq!(arriving.take(0, b"a"), Ok(()));
        assert_eq!(arriving.take(1, b"b"), Err(DropReason::DuplicateMessage));
        assert_eq!(arriving.read(<[u8]>::to_vec), Some(b"a".to_vec()));
        assert_eq!(arriving.read(<[u8]>::to_vec), Some(b"b".to_vec()));
        assert_eq!(arriving.take(0, b"a"), Err(DropReason::DuplicateMessage));
        let beyond = 2 + MESSAGES_MAX as u64;
        assert_eq!(arriving.take(beyond, b"x"), Err(DropReason::MessageOverrun));
    }

    #[test]
    fn no_more_leave_than_fit_at_the_other_end() {
        let mut leaving = MessagesOut::new();
        assert!(!leaving.push(&[0; MESSAGE_BYTES_MAX + 1]));
        for _ in 0..MESSAGES_MAX {
            assert!(leaving.push(b"m"));
        }
        assert!(!leaving.push(b"m"));
        while let Some(sequence) = leaving.to_send() {
            leaving.on_sent(sequence);
        }
        leaving.on_acked(1);
        assert!(!leaving.push(b"m"), "the oldest still holds its place");
        leaving.on_acked(0);
        assert!(leaving.push(b"m"));
        assert_eq!(leaving.to_send(), None, "the peer has not read yet");
        leaving.raise_limit(MESSAGES_MAX as u64 + 1);
        assert_eq!(leaving.to_send(), Some(MESSAGES_MAX as u64));
    }
}
