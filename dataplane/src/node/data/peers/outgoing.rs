//! Between nodes: what leaves.

use std::io::{self, IoSlice};
use std::sync::Arc;

use genie_session::fault::Fault;
use genie_session::frame::{HEADER_BYTES, Header, Kind};
use genie_session::transfer::Transfer;

use super::super::channel::Bulk;
use super::super::session::{Session, spawn};
use super::super::stream::{ReadHalf, WriteHalf};
use super::super::ways::{Parcel, Parcels, Unwanted};
use super::apart::{APART, Apart, Ticket};
use super::{Ends, executor, hostile, not_wanted, read_place};

/// Bytes of a transfer that leave before it is looked whether something goes ahead of the rest.
const CHUNK_BYTES: u64 = 4 << 20;

/// Sends what there is, until there is nothing more.
pub(super) fn write(
    session: &Session,
    half: &mut WriteHalf,
    parcels: &Parcels,
    unwanted: &Unwanted,
    apart: Option<&Apart>,
) -> io::Result<()> {
    let mut outgoing = Outgoing {
        session,
        half,
        parcels,
        unwanted,
        apart,
        is_shared: false,
    };
    while let Some(parcel) = parcels.next() {
        outgoing.one(parcel)?;
    }
    Ok(())
}

/// A part of a transfer, where it lies.
struct Part {
    transfer: u64,
    place: u64,
    bytes: u64,
    total: u64,
}

struct Outgoing<'a> {
    session: &'a Session,
    half: &'a mut WriteHalf,
    parcels: &'a Parcels,
    /// What the other end said.
    unwanted: &'a Unwanted,
    /// The link that it goes by, if that is one.
    apart: Option<&'a Apart>,
    /// Which may reach the session's memory.
    is_shared: bool,
}

impl<'a> Outgoing<'a> {
    /// Sends a transfer, of which this is the first parcel.
    fn one(&mut self, parcel: Parcel) -> io::Result<()> {
        let mut parcel = parcel;
        let (transfer, mut sent) = (parcel.transfer(), 0);
        let mut is_wanted = true;
        let apart = match &parcel {
            Parcel::Part { total, .. } => self.goes_apart(*total)?,
            Parcel::Fault(..) => None,
        };
        loop {
            let (place, bytes, total) = match parcel {
                Parcel::Fault(_, fault) if is_wanted => return self.fault(transfer, &fault),
                Parcel::Fault(..) => return Ok(()),
                Parcel::Part {
                    place,
                    bytes,
                    total,
                    ..
                } => (place, bytes, total),
            };
            if bytes == 0 {
                return self.bytes(transfer, total, &[]);
            }
            // Apart, its reading side may be told later that it has left.
            let begun = apart.map(|apart| (apart, apart.leaving().begin(place..place + bytes)));
            let part = Part {
                transfer,
                place,
                bytes,
                total,
            };
            let sending = self.part(&part, begun, &mut is_wanted);
            let has_left = match begun {
                Some((apart, ticket)) => apart.leaving().end(ticket),
                None => Some(place),
            };
            if let Some(place) = has_left {
                let _ = executor(self.session)?.place_sent(place);
            }
            sending?;
            sent += bytes;
            if sent >= total {
                break;
            }
            let next = self.parcels.next_of(transfer);
            parcel = next.ok_or(io::ErrorKind::UnexpectedEof)?;
            if parcel.transfer() != transfer {
                return Err(hostile("a transfer that ends in its midst"));
            }
        }
        // What is said of it from now on comes too late, and so does what was said of those before.
        let _ = (self.unwanted).take_all(|other| other <= transfer);
        Ok(())
    }

    /// The link, if a transfer travels apart from the stream.
    fn goes_apart(&mut self, total: u64) -> io::Result<Option<&'a Apart>> {
        let Some(apart) = self.apart else {
            return Ok(None);
        };
        let running = executor(self.session)?;
        if !Apart::takes(running, total) {
            return Ok(None);
        }
        if !self.is_shared {
            apart.share(running)?;
            self.is_shared = true;
        }
        Ok(Some(apart))
    }

    /// Sends a part, unless nobody wants it.
    fn part(
        &mut self,
        part: &Part,
        begun: Option<(&Apart, Ticket)>,
        is_wanted: &mut bool,
    ) -> io::Result<()> {
        let mut start = 0;
        while start < part.bytes {
            if !Transfer(part.transfer).is_urgent() {
                while let Some(urgent) = self.parcels.next_urgent() {
                    self.one(urgent)?;
                }
                if *is_wanted && self.unwanted.take(part.transfer) {
                    *is_wanted = false;
                    self.fault(part.transfer, &not_wanted())?;
                }
            }
            if !*is_wanted {
                return Ok(());
            }
            let (place, len) = (part.place + start, (part.bytes - start).min(CHUNK_BYTES));
            let session = self.session;
            match begun {
                Some((apart, ticket)) => {
                    let patience = session.host().lease;
                    (apart.leaving()).chunk(ticket, patience, || session.is_over())?;
                    let header = Header::new(Kind::Transfer, part.transfer, len).with_payload(9);
                    self.frame(header, part.total, &[APART])?;
                    self.half.have_follow(Bulk { place, len })?;
                }
                None => read_place(session, executor(session)?, place, len, |bytes| {
                    self.bytes(part.transfer, part.total, bytes)
                })?,
            }
            session.host().metrics.peer_bytes_sent.add(len);
            start += len;
        }
        Ok(())
    }

    fn bytes(&mut self, transfer: u64, total: u64, bytes: &[u8]) -> io::Result<()> {
        let header = Header::new(Kind::Transfer, transfer, bytes.len() as u64).with_payload(8);
        self.frame(header, total, bytes)
    }

    /// A frame of a transfer: after its header comes how long it is in all, then `rest`.
    fn frame(&mut self, header: Header, total: u64, rest: &[u8]) -> io::Result<()> {
        let (header, total) = (header.encode(), total.to_le_bytes());
        let mut parts = [&header[..], &total, rest].map(IoSlice::new);
        let used = if rest.is_empty() { 2 } else { 3 };
        self.half.write(&mut parts[..used])
    }

    fn fault(&mut self, transfer: u64, fault: &Fault) -> io::Result<()> {
        let fault = fault.encode();
        let header = Header::new(Kind::TransferFault, transfer, 0);
        let header = header.with_payload(fault.len()).encode();
        (self.half).write(&mut [IoSlice::new(&header), IoSlice::new(&fault)])
    }
}

/// Hears what the other end does not want, until the connection or the session ends.
///
/// # Errors
/// No threads left.
pub(super) fn hear(
    session: &Arc<Session>,
    half: ReadHalf,
    ends: Ends,
    unwanted: Arc<Unwanted>,
    apart: Option<Apart>,
) -> io::Result<()> {
    let (session, mut half) = (Arc::clone(session), half);
    spawn(format!("hears-{:x}", session.id()), move || {
        while let Ok(header) = header(&session, &mut half) {
            // Whatever else it says, it is not listened to any more.
            if header.kind != Kind::Unwanted || !ends.are_of(header.seq) {
                break;
            }
            unwanted.add(header.seq);
        }
        let never = apart.map(|apart| apart.leaving().close());
        for place in never.into_iter().flatten() {
            // An executor that is gone needs no memory.
            let _ = session.running().map(|running| running.place_sent(place));
        }
    })
}

fn header(session: &Session, half: &mut ReadHalf) -> io::Result<Header> {
    let (mut header, mut have) = ([0; HEADER_BYTES], 0);
    while have < HEADER_BYTES {
        match half.read(&mut header[have..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !session.is_over() => {}
            Err(error) => return Err(error),
        }
    }
    Header::decode(&header).map_err(|_| hostile("a frame header that is none"))
}
