//! Makes a frame of its plan: header, data, tags.

use super::Connection;
use super::transmit::Plan;
use crate::header::{HEADER_BYTES, Header};
use crate::limits::REFERENCE_MIN;
use crate::outbox::TransferId;
use crate::protect::{CHECKSUM_BYTES, Part};
use crate::regions::{Regions, Span};
use crate::split::Spans;

/// A frame in its buffer.
pub(super) struct Frame {
    /// Bytes in the buffer.
    pub(super) len: usize,
    /// Data that follow them from elsewhere.
    pub(super) spans: Spans,
}

impl Connection {
    /// Reads or sums the sources, seals the frame; or names the transfer whose source is gone.
    /// `None` when `out` is too small.
    pub(super) fn fill(
        &mut self,
        plan: &Plan,
        regions: &mut impl Regions,
        out: &mut [u8],
        split: bool,
    ) -> Result<Option<Frame>, TransferId> {
        let split = split && !self.seal.is_sealed() && plan.data_len >= REFERENCE_MIN;
        let mut spans = Spans::default();
        let summed = if split {
            sum(plan, regions, &mut spans)?
        } else {
            None
        };
        if summed.is_none() {
            spans = Spans::default();
            let tags = self.seal.tag_len() * (1 + usize::from(plan.data_len > 0));
            let mut at = HEADER_BYTES + plan.control_len + tags;
            for (piece, transfer) in plan.pieces.iter().flatten() {
                let Some(into) = out.get_mut(at..at + piece.len) else {
                    return Ok(None);
                };
                let offset = transfer.source_offset + piece.offset;
                regions
                    .read(transfer.source, offset, into)
                    .map_err(|_gone| piece.id)?;
                at += piece.len;
            }
        }
        Ok(self
            .seal_frame(plan, out, summed)
            .map(|len| Frame { len, spans }))
    }

    /// Writes header and tags and returns the bytes of the frame that are in `out`. Data that are
    /// elsewhere come with their sum.
    fn seal_frame(&mut self, plan: &Plan, out: &mut [u8], summed: Option<u32>) -> Option<usize> {
        let (number, tag) = (self.sent.next_number(), self.seal.tag_len());
        let header = Header {
            connection: self.config.id,
            epoch: self.config.epoch,
            packet_number: number,
            sealed: self.seal.is_sealed(),
            sender: self.config.role,
            control_len: u16::try_from(plan.control_len).ok()?,
            data_len: u16::try_from(plan.data_len).ok()?,
        };
        let has_data = plan.data_len > 0;
        let body_len = plan.control_len + if has_data { tag } else { 0 };
        let (head, rest) = out.split_first_chunk_mut::<HEADER_BYTES>()?;
        header.encode(head);
        let (body, rest) = rest.split_at_mut_checked(body_len)?;
        let (body_tag, rest) = rest.split_at_mut_checked(tag)?;
        self.seal.reached(number);
        let mut len = HEADER_BYTES + body_len + tag;
        if has_data {
            let data_tag = body.get_mut(plan.control_len..)?;
            match summed {
                Some(sum) => data_tag
                    .get_mut(..CHECKSUM_BYTES)?
                    .copy_from_slice(&sum.to_be_bytes()),
                None => {
                    let data = rest.get_mut(..plan.data_len)?;
                    self.seal.seal(Part::Data, number, head, data, data_tag)?;
                    len += plan.data_len;
                }
            }
        }
        self.seal.seal(Part::Header, number, head, body, body_tag)?;
        Some(len)
    }
}

/// The sum of all data, if the driver can tell.
fn sum(
    plan: &Plan,
    regions: &mut impl Regions,
    spans: &mut Spans,
) -> Result<Option<u32>, TransferId> {
    let mut sum = 0;
    for (piece, transfer) in plan.pieces.iter().flatten() {
        let span = Span {
            source: transfer.source,
            offset: transfer.source_offset + piece.offset,
            len: piece.len as u64,
        };
        let summed = regions.crc(span.source, span.offset, span.len, sum);
        match summed.map_err(|_gone| piece.id)? {
            Some(next) => sum = next,
            None => return Ok(None),
        }
        spans.push(span);
    }
    Ok(Some(sum))
}
