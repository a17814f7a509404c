//! Transfers that leave: queues by priority, batching into submissions, and deficit round robin.

use std::collections::VecDeque;

use crate::block::Grant;
use crate::limits::{SPANS_MAX, SUBMISSION_MIN, TRANSFERS_MAX};
use crate::regions::{Regions, SourceId, Span};

/// How a transfer shares the link. Classes are served by deficit round robin (Shreedhar and
/// Varghese, SIGCOMM 1995) with weights 8, 4, 2 and 1; within a class the first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it now.
    Urgent,
    /// Needed soon.
    High,
    /// The usual.
    Normal,
    /// May take its time.
    Background,
}

const CLASSES: usize = 4;
/// Bytes that a class may send in its turn.
const QUANTA: [i64; CLASSES] = [8 * 16384, 4 * 16384, 2 * 16384, 16384];

/// What to send where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The receiver's grant.
    pub grant: Grant,
    /// Bytes from the start of the grant.
    pub offset: u64,
    /// Where the bytes come from.
    pub source: SourceId,
    /// Bytes from the source's start.
    pub source_offset: u64,
    /// Bytes, not zero.
    pub len: u64,
    /// Its share of the link.
    pub priority: Priority,
}

/// Names a transfer; never used twice in four billion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransferId {
    pub(crate) slot: u16,
    pub(crate) serial: u32,
}

/// A piece of a transfer, ready for a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) id: TransferId,
    pub(crate) offset: u64,
    pub(crate) len: usize,
    /// How often it came damaged ([`Content::Data`](crate::content::Content)).
    pub(crate) damaged: u8,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    serial: u32,
    transfer: Option<Transfer>,
    sent: u64,
    acked: u64,
}

#[derive(Debug, Default)]
struct Class {
    /// Not yet submitted.
    waiting: VecDeque<u16>,
    waiting_bytes: u64,
    /// Submitted, not yet wholly sent.
    active: VecDeque<u16>,
    active_bytes: u64,
    deficit: i64,
}

/// The outgoing transfers of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    slots: Box<[Slot]>,
    free: Vec<u16>,
    classes: [Class; CLASSES],
    turn: usize,
    spans: Vec<Span>,
    pub(crate) submissions: u64,
    pub(crate) submitted_bytes: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let slot = Slot {
            serial: 0,
            transfer: None,
            sent: 0,
            acked: 0,
        };
        let class = || Class {
            waiting: VecDeque::with_capacity(TRANSFERS_MAX),
            active: VecDeque::with_capacity(TRANSFERS_MAX),
            ..Class::default()
        };
        Self {
            slots: vec![slot; TRANSFERS_MAX].into_boxed_slice(),
            free: (0..TRANSFERS_MAX as u16).rev().collect(),
            classes: [class(), class(), class(), class()],
            turn: 0,
            spans: Vec::with_capacity(SPANS_MAX),
            submissions: 0,
            submitted_bytes: 0,
        }
    }

    /// Transfers that are not finished.
    pub(crate) fn len(&self) -> usize {
        TRANSFERS_MAX - self.free.len()
    }

    /// Bytes that were never sent yet.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.classes
            .iter()
            .map(|class| class.waiting_bytes + class.active_bytes)
            .sum()
    }

    pub(crate) fn has_active(&self) -> bool {
        self.classes.iter().any(|class| !class.active.is_empty())
    }

    pub(crate) fn push(&mut self, transfer: Transfer) -> Option<TransferId> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.serial = slot.serial.wrapping_add(1);
        (slot.transfer, slot.sent, slot.acked) = (Some(transfer), 0, 0);
        let id = TransferId {
            slot: index,
            serial: slot.serial,
        };
        let class = &mut self.classes[transfer.priority as usize];
        class.waiting.push_back(index);
        class.waiting_bytes += transfer.len;
        Some(id)
    }

    /// Moves waiting transfers to the device's queue. A class that has nothing under way goes at
    /// once, so an idle link adds no delay; a busy one gathers [`SUBMISSION_MIN`] bytes first. There
    /// is no timer: what is under way is the clock.
    pub(crate) fn submit(&mut self, regions: &mut impl Regions) {
        for class in &mut self.classes {
            let gathered =
                class.waiting_bytes >= SUBMISSION_MIN || class.waiting.len() >= SPANS_MAX;
            let due = class.active.is_empty() || (gathered && class.active_bytes < SUBMISSION_MIN);
            if class.waiting.is_empty() || !due {
                continue;
            }
            self.spans.clear();
            let before = class.active_bytes;
            while self.spans.len() < SPANS_MAX
                && let Some(index) = class.waiting.pop_front()
            {
                class.active.push_back(index);
                if let Some(transfer) = self.slots[usize::from(index)].transfer {
                    class.waiting_bytes -= transfer.len;
                    class.active_bytes += transfer.len;
                    let (source, offset) = (transfer.source, transfer.source_offset);
                    self.spans.push(Span {
                        source,
                        offset,
                        len: transfer.len,
                    });
                }
            }
            self.submissions += 1;
            self.submitted_bytes += class.active_bytes - before;
            regions.submit(&self.spans);
        }
    }

    /// The next new piece of at most `room` bytes, from the class whose turn it is.
    pub(crate) fn next_piece(&mut self, room: usize) -> Option<Piece> {
        let class = self.pick()?;
        let class = &mut self.classes[class];
        let index = *class.active.front()?;
        let slot = &mut self.slots[usize::from(index)];
        let transfer = slot.transfer?;
        let len = usize::try_from(transfer.len - slot.sent).map_or(room, |left| left.min(room));
        let piece = Piece {
            id: TransferId {
                slot: index,
                serial: slot.serial,
            },
            offset: slot.sent,
            len,
            damaged: 0,
        };
        slot.sent += len as u64;
        class.active_bytes -= len as u64;
        class.deficit -= len as i64;
        if slot.sent == transfer.len {
            class.active.pop_front();
        }
        Some(piece)
    }

    fn pick(&mut self) -> Option<usize> {
        // Two rounds: a deficit is never more than one frame, and a quantum is larger.
        for _ in 0..=2 * CLASSES {
            let class = &mut self.classes[self.turn];
            if class.active.is_empty() {
                class.deficit = 0;
            } else if class.deficit > 0 {
                return Some(self.turn);
            }
            self.turn = (self.turn + 1) % CLASSES;
            if !self.classes[self.turn].active.is_empty() {
                self.classes[self.turn].deficit += QUANTA[self.turn];
            }
        }
        None
    }

    pub(crate) fn transfer(&self, id: TransferId) -> Option<Transfer> {
        let slot = self.slots.get(usize::from(id.slot))?;
        if slot.serial == id.serial {
            slot.transfer
        } else {
            None
        }
    }

    /// `len` bytes arrived; `true` when they were the last, and the transfer is gone.
    pub(crate) fn on_acked(&mut self, id: TransferId, len: u64) -> bool {
        let Some(transfer) = self.transfer(id) else {
            return false;
        };
        let slot = &mut self.slots[usize::from(id.slot)];
        slot.acked += len;
        let done = slot.acked >= transfer.len;
        if done {
            slot.transfer = None;
            self.free.push(id.slot);
        }
        done
    }

    /// Forgets a transfer wherever it is.
    pub(crate) fn remove(&mut self, id: TransferId) -> Option<Transfer> {
        let transfer = self.transfer(id)?;
        let slot = &mut self.slots[usize::from(id.slot)];
        let class = &mut self.classes[transfer.priority as usize];
        if let Some(at) = class.waiting.iter().position(|&index| index == id.slot) {
            class.waiting.remove(at);
            class.waiting_bytes -= transfer.len;
        } else if let Some(at) = class.active.iter().position(|&index| index == id.slot) {
            class.active.remove(at);
            class.active_bytes -= transfer.len - slot.sent;
        }
        slot.transfer = None;
        self.free.push(id.slot);
        Some(transfer)
    }

    /// Any unfinished transfer into `grant`, or any at all.
    pub(crate) fn find(&self, grant: Option<Grant>) -> Option<TransferId> {
        let wanted = |slot: &Slot| {
            slot.transfer
                .is_some_and(|transfer| grant.is_none_or(|grant| grant == transfer.grant))
        };
        let at = self.slots.iter().position(wanted)?;
        Some(TransferId {
            slot: u16::try_from(at).ok()?,
            serial: self.slots[at].serial,
        })
    }
}

const _: () = assert!(TRANSFERS_MAX <= 1 << 16, "slots are 16 bits wide");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RegionId;
    use crate::regions::RegionGone;

    struct Spans(Vec<u64>);

    impl Regions for Spans {
        fn submit(&mut self, spans: &[Span]) {
            self.0.push(spans.iter().map(|span| span.len).sum());
        }
        fn read(&mut self, _: SourceId, _: u64, _: &mut [u8]) -> Result<(), RegionGone> {
            Ok(())
        }
        fn write(&mut self, _: RegionId, _: u64, _: &[u8]) -> Result<(), RegionGone> {
            Ok(())
        }
    }

    fn transfer(len: u64, priority: Priority) -> Transfer {
        let grant = Grant {
            region: RegionId(1),
            generation: 1,
        };
        Transfer {
            grant,
            offset: 0,
            source: SourceId(1),
            source_offset: 0,
            len,
            priority,
        }
    }

    #[test]
    fn a_busy_link_submits_at_least_a_mebibyte_on_average() {
        for len in [4 << 10, 16 << 10, 64 << 10] {
            let (mut outbox, mut spans) = (Outbox::new(), Spans(Vec::new()));
            let mut pushed: u64 = 0;
            while pushed < 256 << 20 {
                // The program keeps the queue full; the link drains it a frame at a time.
                while let Some(_id) = outbox.push(transfer(len, Priority::Normal)) {
                    pushed += len;
                }
                outbox.submit(&mut spans);
                let piece = outbox.next_piece(8192).unwrap();
                outbox.on_acked(piece.id, piece.len as u64);
            }
            let mean = outbox.submitted_bytes / outbox.submissions;
            assert!(mean >= SUBMISSION_MIN, "{mean} bytes a submission at {len}");
            assert_eq!(spans.0.len() as u64, outbox.submissions);
        }
    }

    #[test]
    fn an_idle_link_submits_at_once() {
        let (mut outbox, mut spans) = (Outbox::new(), Spans(Vec::new()));
        outbox.push(transfer(64, Priority::Normal)).unwrap();
        outbox.submit(&mut spans);
        assert_eq!(spans.0, [64]);
    }

    #[test]
    fn classes_share_by_their_weights() {
        let mut outbox = Outbox::new();
        let classes = [
            Priority::Urgent,
            Priority::High,
            Priority::Normal,
            Priority::Background,
        ];
        for class in classes {
            outbox.push(transfer(1 << 30, class)).unwrap();
        }
        outbox.submit(&mut Spans(Vec::new()));
        let mut bytes = [0; CLASSES];
        for _ in 0..15_000 {
            let piece = outbox.next_piece(8192).unwrap();
            bytes[outbox.transfer(piece.id).unwrap().priority as usize] += piece.len;
        }
        let unit = bytes.iter().sum::<usize>() as f64 / 15.0;
        for (share, weight) in bytes.iter().zip([8.0, 4.0, 2.0, 1.0]) {
            assert!(
                (*share as f64 / unit - weight).abs() < weight * 0.05,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_cancelled_transfer_leaves_nothing_and_its_name_is_dead() {
        let mut outbox = Outbox::new();
        let first = outbox.push(transfer(100, Priority::Normal)).unwrap();
        let second = outbox.push(transfer(100_000, Priority::Normal)).unwrap();
        assert!(outbox.remove(first).is_some());
        outbox.submit(&mut Spans(Vec::new()));
        outbox.next_piece(8192).unwrap();
        assert!(outbox.remove(second).is_some());
        assert_eq!(
            (outbox.len(), outbox.unsent_bytes(), outbox.has_active()),
            (0, 0, false)
        );
        outbox.push(transfer(100, Priority::Normal)).unwrap();
        assert!(!outbox.on_acked(second, 100_000) && !outbox.on_acked(first, 100));
        assert!(outbox.remove(second).is_none());
    }
}
