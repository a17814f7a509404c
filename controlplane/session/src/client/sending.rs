//! Messages: what leaves, what is kept until it is acknowledged, and what is sent again.

use super::{Batch, ClientLog, Message, Sent};
use crate::WireError;
use crate::frame::{self, Header, PAYLOAD_MAX};
use crate::plan::ChunkWriter;
use crate::record::{self, Kind};
use crate::varint::Reader;

impl ClientLog {
    /// What is to be sent now; `None` if nothing waits. Frees that find no room stay here, and nobody
    /// waits for them.
    pub fn flush(&mut self) -> Option<Message> {
        if std::mem::replace(&mut self.staged_is_old, self.staged.is_some()) {
            self.unstage();
        }
        if !self.frees.is_empty() && self.chunk.is_empty() && self.has_room(0) {
            self.put_frees();
        }
        self.flush_records()
    }

    /// Frees that no record took along. Inside a chunk they wait for the next record.
    pub(super) fn put_frees(&mut self) {
        self.take_frees();
        let structure = [0, 0];
        let frees = &self.relative_frees;
        let start = self.plain.len();
        record::put_plain(
            &mut self.plain,
            Kind::Frees,
            0,
            &structure,
            &[],
            frees,
            None,
        );
        self.wire.extend_from_slice(&self.plain[start..]);
        self.next_seq += 1;
        self.batch_count += 1;
        self.counters.records += 1;
    }

    pub(super) fn flush_records(&mut self) -> Option<Message> {
        self.end_chunk();
        if self.batch_count == 0 {
            return self.bare_question();
        }
        for plan in self.dropped_plans.drain(..) {
            record::put_drop_plan(&mut self.wire, plan);
            record::put_drop_plan(&mut self.plain, plan);
        }
        let payload = std::mem::take(&mut self.wire);
        self.wire = self.spare.pop().unwrap_or_default();
        let first_seq = self.batch_first;
        let asks = self.keep_batch();
        let header = Header::new(frame::Kind::Records, first_seq, 0).asking(asks);
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        Some(Message {
            header: header.with_payload(payload.len()),
            payload,
        })
    }

    /// Somebody waits, and everything was sent already: a frame without records asks for room.
    fn bare_question(&mut self) -> Option<Message> {
        let sent = self.sent();
        if !self.asked.is_owed(sent) {
            return None;
        }
        let asks = self.asked.asks(sent);
        Some(Message {
            header: Header::new(frame::Kind::Records, self.next_seq, 0).asking(asks),
            payload: Vec::new(),
        })
    }

    /// Everything that was sent so far.
    fn sent(&self) -> Sent {
        Sent {
            records: self.batch_first,
            kept_bytes: self.kept_total,
            bulk_bytes: self.bulk_sent,
        }
    }

    /// The batch is sent, and kept until it is acknowledged: whether its frame asks for that.
    pub(super) fn keep_batch(&mut self) -> bool {
        let plain = std::mem::take(&mut self.plain);
        self.plain = self.spare.pop().unwrap_or_default();
        self.retained_bytes += plain.len();
        self.kept_total += plain.len() as u64;
        let (first_seq, count) = (self.batch_first, self.batch_count);
        self.retained.push_back(Batch {
            first_seq,
            count,
            plain,
        });
        self.batch_first = self.next_seq;
        self.batch_count = 0;
        let sent = self.sent();
        self.asked.asks(sent)
    }

    /// Gives a message's buffer back for reuse.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < 8 && buffer.capacity() <= 1 << 20 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Everything below `seq` was executed, and `bulk` bytes consumed in all.
    ///
    /// # Errors
    /// An acknowledgement of what was never sent.
    pub fn acknowledged(&mut self, seq: u64, bulk: u64) -> Result<(), WireError> {
        if seq > self.next_seq || bulk > self.bulk_sent {
            return Err(WireError::Malformed(
                "an acknowledgement of what was never sent",
            ));
        }
        self.acked_seq = self.acked_seq.max(seq);
        self.bulk_acked = self.bulk_acked.max(bulk);
        while self
            .bulk_records
            .front()
            .is_some_and(|&record| record < self.acked_seq)
        {
            self.bulk_records.pop_front();
        }
        while let Some(batch) = self.retained.front() {
            if batch.first_seq + batch.count > self.acked_seq {
                break;
            }
            if let Some(batch) = self.retained.pop_front() {
                self.retained_bytes -= batch.plain.len();
                self.recycle(batch.plain);
            }
        }
        Ok(())
    }

    /// The node refused record `seq` and dropped all after it; `aux` is the frame's. Gives what
    /// to send: the rewind, and every record from `seq` on, written out. Nothing if a later
    /// rewind has overtaken the refusal.
    ///
    /// # Errors
    /// A refusal of what was never sent, or is acknowledged.
    pub fn refused(&mut self, seq: u64, aux: u64) -> Result<Vec<Message>, WireError> {
        let (plan, generation) = frame::split_refusal(aux);
        if generation != self.generation {
            return Ok(Vec::new());
        }
        if seq < self.acked_seq || seq >= self.next_seq {
            return Err(WireError::Malformed("a refusal of what was not sent"));
        }
        self.counters.refused += 1;
        self.forget_plan(plan);
        self.rewound(seq)
    }

    /// Whether [`Self::resume`] from `seq` is possible.
    #[must_use]
    pub fn can_resume(&self, seq: u64) -> bool {
        (self.acked_seq..=self.next_seq).contains(&seq)
            && self.bulk_records.iter().all(|&bulk| bulk < seq)
    }

    /// On a new connection: the node has applied every record below `seq`. Gives what to send.
    /// What answers the node had sent it sends again (see [`crate::replies`]).
    ///
    /// # Errors
    /// A resume point that was never sent or is past, or bulk that went down with the old
    /// connection: its bytes are not kept.
    pub fn resume(&mut self, seq: u64) -> Result<Vec<Message>, WireError> {
        if seq < self.acked_seq || seq > self.next_seq {
            return Err(WireError::Malformed("a resume point that was never sent"));
        }
        if self.bulk_records.iter().any(|&bulk| bulk >= seq) {
            return Err(WireError::Malformed(
                "the bytes of an upload were lost with the connection",
            ));
        }
        self.rewound(seq)
    }

    pub(super) fn rewound(&mut self, seq: u64) -> Result<Vec<Message>, WireError> {
        self.generation = self.generation.wrapping_add(1);
        // The node dropped chunks of other plans too: their predictions moved here and not
        // there. So every plan used since goes.
        let stale: Vec<u32> = self
            .plans
            .iter()
            .filter(|(_, known)| known.ready && known.last_used > seq)
            .map(|(&plan, _)| plan as u32)
            .collect();
        for stale in stale {
            self.drop_plan(stale);
        }
        self.unstage();
        // What is under construction goes out in full too: its chunks are of dropped plans.
        self.chunk = ChunkWriter::default();
        self.leave_plans();
        self.wire.clear();
        self.wire.extend_from_slice(&self.plain);
        let rewind = Header::new(frame::Kind::Rewind, seq, u64::from(self.generation));
        let mut messages = vec![Message {
            header: rewind,
            payload: Vec::new(),
        }];
        for batch in &self.retained {
            if batch.first_seq + batch.count <= seq {
                continue;
            }
            let mut payload = batch.plain.clone();
            let first_seq = rewrite(&mut payload, batch.first_seq, seq)?;
            let header = Header::new(frame::Kind::Records, first_seq, 0);
            messages.push(Message {
                header: header.with_payload(payload.len()),
                payload,
            });
        }
        // The frames that asked may be among those that were dropped.
        self.asked.ask_again();
        if let Some(last) = messages
            .last_mut()
            .filter(|last| last.header.kind == frame::Kind::Records)
        {
            let sent = self.sent();
            last.header.asks = self.asked.asks(sent);
        }
        Ok(messages)
    }
}

/// Drops records below `seq` from a batch and marks its bulk as sent; gives its new first record.
fn rewrite(payload: &mut Vec<u8>, first_seq: u64, seq: u64) -> Result<u64, WireError> {
    let mut at = first_seq;
    let mut keep = Vec::with_capacity(payload.len());
    let mut reader = Reader::new(payload);
    let mut new_first = first_seq.max(seq);
    while !reader.is_empty() {
        let before = reader.rest();
        let item = record::next_item(&mut reader)?;
        let bytes = &before[..before.len() - reader.rest().len()];
        let start = keep.len();
        if let record::Item::Plain(plain) = item {
            at += 1;
            if at <= seq {
                new_first = new_first.max(at);
                continue;
            }
            keep.extend_from_slice(bytes);
            let bulk = plain.kind == Kind::Upload && plain.structure.last() == Some(&1);
            if bulk {
                record::mark_stashed(&mut keep[start..]);
            }
        } else {
            keep.extend_from_slice(bytes);
        }
    }
    *payload = keep;
    Ok(new_first)
}
