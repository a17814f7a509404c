//! Between nodes: what arrives.

use std::io;

use genie_session::fault::Fault;
use genie_session::frame::{HEADER_BYTES, Header, Kind, PAYLOAD_MAX};

use super::super::landing::Source;
use super::super::session::Session;
use super::super::socket::SocketRead;
use super::{Ends, executor, receive, tell_fault, tell_here};

/// What another node sends, which is not trusted.
pub(super) struct Incoming<'a> {
    pub(super) half: SocketRead,
    pub(super) to: &'a Session,
    pub(super) ends: Ends,
    /// Of the transfer at hand: its name, its bytes in all, those that were announced and not read,
    /// those that were not announced.
    pub(super) part: Option<(u64, u64, u64, u64)>,
}

pub(super) fn hostile(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
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

    /// The bytes of a transfer in all.
    fn total(&mut self, header: &Header) -> io::Result<u64> {
        let mut total = [0; 8];
        if header.payload_len as usize != total.len() {
            return Err(hostile("a transfer that does not tell how long it is"));
        }
        self.read(&mut total)?;
        Ok(u64::from_le_bytes(total))
    }

    /// Takes one transfer.
    pub(super) fn take(&mut self) -> io::Result<()> {
        let to = self.to;
        let header = self.header()?;
        if header.kind == Kind::TransferFault {
            let mut fault = vec![0; (header.payload_len as usize).min(PAYLOAD_MAX)];
            self.read(&mut fault)?;
            let fault = Fault::decode(&fault).map_err(|_| hostile("a fault that is none"))?;
            let running = executor(to)?;
            return tell_fault(to, running, header.seq, fault, self.ends.from);
        }
        let total = self.total(&header)?;
        let left = total.checked_sub(header.aux);
        let left = left.ok_or_else(|| hostile("more bytes than were announced"))?;
        if header.aux == 0 && total > 0 {
            return Err(hostile("a part without bytes"));
        }
        self.part = Some((header.seq, total, header.aux, left));
        let running = executor(to)?;
        let place = receive(to, running, total, self)?;
        tell_here(to, running, header.seq, total, place)
    }
}

impl Source for Incoming<'_> {
    type Error = io::Error;

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let (transfer, total, here, left) =
                self.part.ok_or_else(|| hostile("bytes of no transfer"))?;
            if here == 0 {
                let header = self.header()?;
                let same = header.kind == Kind::Transfer
                    && header.seq == transfer
                    && self.total(&header)? == total;
                let left = left.checked_sub(header.aux);
                let (true, Some(left), 1..) = (same, left, header.aux) else {
                    return Err(hostile("a transfer that is not the one at hand"));
                };
                self.part = Some((transfer, total, header.aux, left));
                continue;
            }
            let n = here.min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            self.read(target)?;
            self.part = Some((transfer, total, here - n, left));
            into = rest;
        }
        Ok(())
    }
}
