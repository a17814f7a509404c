//! Between nodes: what arrives.

use std::io::{self, IoSlice};

use genie_channel::BULK_PART_MAX;
use genie_session::fault::Fault;
use genie_session::frame::{HEADER_BYTES, Header, Kind, PAYLOAD_MAX};
use genie_session::transfer::Transfer;

use super::super::landing::Source;
use super::super::link::Carrier;
use super::super::memory::SessionMemory;
use super::super::session::Session;
use super::super::staging::Land;
use super::super::stream::{ReadHalf, WriteHalf};
use super::apart::{self, APART, Within};
use super::{Ends, executor, hostile, receive, tell_fault, tell_here};

/// What another node sends, which is not trusted.
pub(super) struct Incoming<'a> {
    pub(super) half: ReadHalf,
    pub(super) to: &'a Session,
    pub(super) ends: Ends,
    /// Of the transfer at hand: its name, its bytes in all, those that were announced and not read,
    /// those that were not announced.
    pub(super) part: Option<(u64, u64, u64, u64)>,
    /// Back to the sender.
    pub(super) answers: WriteHalf,
    /// Why the transfer at hand ends in its midst.
    pub(super) aborted: Option<Fault>,
    /// The bytes of the transfer at hand travel apart.
    pub(super) is_apart: bool,
    /// The link that it comes by, if that is one, until it may reach the session's memory.
    pub(super) carrier: Option<Carrier>,
}

impl Incoming<'_> {
    fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.half.read_much(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => into = &mut into[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A node that has nothing to send is silent; the kernel asks whether it is there.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.to.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<Header> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header)?;
        let header = Header::decode(&header).map_err(|_| hostile("a frame header that is none"))?;
        match header.kind {
            Kind::Transfer | Kind::TransferFault if self.ends.are_of(header.seq) => Ok(header),
            Kind::Transfer | Kind::TransferFault => Err(hostile("a value of other devices")),
            _ => Err(hostile("a frame that a node never sends to another")),
        }
    }

    /// The bytes of a transfer in all, and whether they travel apart.
    fn total(&mut self, header: &Header) -> io::Result<(u64, bool)> {
        let (mut total, mut how) = ([0; 8], [0]);
        let is_apart = match header.payload_len {
            8 => false,
            9 if matches!(self.half, ReadHalf::Channel(_)) => true,
            _ => return Err(hostile("a transfer that does not tell how long it is")),
        };
        self.read(&mut total)?;
        if is_apart {
            self.read(&mut how)?;
            if how != [APART] || header.aux == 0 || header.aux > BULK_PART_MAX {
                return Err(hostile("a part that can't travel apart"));
            }
        }
        Ok((u64::from_le_bytes(total), is_apart))
    }

    fn fault(&mut self, header: &Header) -> io::Result<Fault> {
        let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
        self.read(&mut fault)?;
        Fault::decode(&fault).map_err(|_| hostile("a fault that is none"))
    }

    /// Says what nobody wants of what comes.
    fn decline(&mut self) -> io::Result<()> {
        let ends = self.ends;
        for transfer in self.to.unwanted.take_all(|transfer| ends.are_of(transfer)) {
            let header = Header::new(Kind::Unwanted, transfer, 0).encode();
            self.answers.write(&mut [IoSlice::new(&header)])?;
        }
        Ok(())
    }

    /// Takes one transfer.
    pub(super) fn take(&mut self) -> io::Result<()> {
        self.decline()?;
        let header = self.header()?;
        self.one(&header)
    }

    fn one(&mut self, header: &Header) -> io::Result<()> {
        let to = self.to;
        if header.kind == Kind::TransferFault {
            let fault = self.fault(header)?;
            let running = executor(to)?;
            return tell_fault(to, running, header.seq, fault, self.ends.from);
        }
        let (total, is_apart) = self.total(header)?;
        let left = total.checked_sub(header.aux);
        let left = left.ok_or_else(|| hostile("more bytes than were announced"))?;
        if header.aux == 0 && total > 0 {
            return Err(hostile("a part without bytes"));
        }
        self.part = Some((header.seq, total, header.aux, left));
        let running = executor(to)?;
        if is_apart && let Some(carrier) = self.carrier.take() {
            apart::share(&carrier, running)?;
        }
        self.is_apart = is_apart;
        let place = receive(to, running, total, self);
        self.part = None;
        match self.aborted.take() {
            Some(fault) => tell_fault(to, running, header.seq, fault, self.ends.from),
            None => tell_here(to, running, header.seq, total, place?),
        }
    }

    /// The part at hand, of which there is something.
    fn more(&mut self) -> io::Result<(u64, u64, u64, u64)> {
        let (transfer, total, here, left) =
            self.part.ok_or_else(|| hostile("bytes of no transfer"))?;
        if here > 0 {
            return Ok((transfer, total, here, left));
        }
        let Some(header) = self.next_of(transfer)? else {
            return Err(io::Error::other("no more of it comes"));
        };
        let same = header.kind == Kind::Transfer
            && header.seq == transfer
            && self.total(&header)? == (total, self.is_apart);
        let left = left.checked_sub(header.aux);
        let (true, Some(left), 1..) = (same, left, header.aux) else {
            return Err(hostile("a transfer that is not the one at hand"));
        };
        let part = (transfer, total, header.aux, left);
        self.part = Some(part);
        Ok(part)
    }

    /// The header before more of the transfer at hand: what goes ahead of it is taken first. `None`: no
    /// more of it comes.
    fn next_of(&mut self, transfer: u64) -> io::Result<Option<Header>> {
        loop {
            self.decline()?;
            let header = self.header()?;
            if header.seq == transfer && header.kind == Kind::TransferFault {
                // Memory of a device can't be taken back in the midst of what comes there.
                if matches!(executor(self.to)?.memory, SessionMemory::Staged(_)) {
                    return Err(hostile("a transfer that ends in its midst"));
                }
                self.aborted = Some(self.fault(&header)?);
                return Ok(None);
            }
            let goes_ahead = Transfer(header.seq).is_urgent() && !Transfer(transfer).is_urgent();
            if !goes_ahead {
                return Ok(Some(header));
            }
            let at_hand = (self.part.take(), self.is_apart);
            self.one(&header)?;
            (self.part, self.is_apart) = at_hand;
        }
    }
}

impl Source for Incoming<'_> {
    type Error = io::Error;

    fn takes_apart(&self, _bytes: u64) -> bool {
        self.is_apart
    }

    /// Each chunk was here before the next was asked for, so nothing more lands once one ends it.
    fn is_quiet(&self) -> bool {
        self.aborted.is_some()
    }

    fn take(&mut self, bytes: u64, mut land: Option<&mut dyn Land>) -> io::Result<()> {
        let mut start = 0;
        while start < bytes {
            let (transfer, total, here, left) = self.more()?;
            match &mut land {
                Some(land) => {
                    let mut within = Within { land: *land, start };
                    self.half.take(here, Some(&mut within))?;
                }
                None => self.half.take(here, None)?,
            }
            self.part = Some((transfer, total, 0, left));
            start += here;
        }
        Ok(())
    }

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let (transfer, total, here, left) = self.more()?;
            let n = here.min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            self.read(target)?;
            self.part = Some((transfer, total, here - n, left));
            into = rest;
        }
        Ok(())
    }
}
