//! Makes a frame of its plan: header, data, tags.

use super::Connection;
use super::plan::Plan;
use crate::checksum::CHECKSUM_BYTES;
use crate::header::{HEADER_BYTES, Header};
use crate::limits::REFERENCE_MIN;
use crate::outbox::TransferId;
use crate::regions::{Regions, Span};
use crate::split::Spans;

/// A frame in its buffer.
pub(super) struct Frame {
    /// Bytes in the buffer.
    pub(super) len: usize,
    /// Data that follow them from elsewhere.
    pub(super) spans: Spans,
}

/// Where the data of a frame are.
enum Data<'a> {
    /// Behind the head already.
    Copied,
    /// To be sealed from here to there.
    Outside(&'a [u8]),
    /// They stay elsewhere. This is their sum.
    Summed(u32),
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
        let mut spans = Spans::default();
        if self.seal.is_sealed() {
            if let Some(data) = outside(plan, regions)? {
                let len = self.seal_frame(plan, out, &Data::Outside(data));
                return Ok(len.map(|len| Frame { len, spans }));
            }
        } else if split
            && plan.data_len >= REFERENCE_MIN
            && let Some(sum) = sum(plan, regions, &mut spans)?
        {
            let len = self.seal_frame(plan, out, &Data::Summed(sum));
            return Ok(len.map(|len| Frame { len, spans }));
        }
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
        let len = self.seal_frame(plan, out, &Data::Copied);
        Ok(len.map(|len| Frame {
            len,
            spans: Spans::default(),
        }))
    }

    /// Writes header and tags, and data where they are to be in `out`, and returns the bytes of the
    /// frame that are there.
    fn seal_frame(&mut self, plan: &Plan, out: &mut [u8], data: &Data<'_>) -> Option<usize> {
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
        let data_tag_len = if has_data { tag } else { 0 };
        let head_len = HEADER_BYTES + plan.control_len + data_tag_len;
        let (head, rest) = out.split_at_mut_checked(head_len)?;
        let (head_tag, rest) = rest.split_at_mut_checked(tag)?;
        self.seal.reached(number);
        let mut len = head_len + tag;
        let (fixed, body) = head.split_first_chunk_mut::<HEADER_BYTES>()?;
        header.encode(fixed);
        if has_data {
            let data_tag = body.get_mut(plan.control_len..)?;
            if let Data::Summed(sum) = data {
                *data_tag.first_chunk_mut::<CHECKSUM_BYTES>()? = sum.to_be_bytes();
            } else {
                let (seal, place) = (&self.seal, rest.get_mut(..plan.data_len)?);
                match data {
                    Data::Outside(from) => {
                        seal.seal_data_from(number, fixed, from, place, data_tag)?;
                    }
                    _ => seal.seal_data(number, fixed, place, data_tag)?,
                }
                len += plan.data_len;
            }
        }
        self.seal.seal_head(number, head, head_tag)?;
        Some(len)
    }
}

/// All data where they lie, if they are one piece and the driver lets them be seen.
fn outside<'a>(plan: &Plan, regions: &'a mut impl Regions) -> Result<Option<&'a [u8]>, TransferId> {
    let [Some((piece, transfer)), None, ..] = &plan.pieces else {
        return Ok(None);
    };
    let offset = transfer.source_offset + piece.offset;
    let seen = regions.bytes(transfer.source, offset, piece.len);
    seen.map_err(|_gone| piece.id)
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
