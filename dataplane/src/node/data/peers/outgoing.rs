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
use super::apart::Apart;
use super::incoming::hostile;
use super::{Ends, executor, not_wanted, read_place};

/// After how long a transfer is: its bytes travel apart.
pub(super) const APART: u8 = 1;
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

impl Outgoing<'_> {
    /// Sends a transfer, of which this is the first parcel.
    fn one(&mut self, parcel: Parcel) -> io::Result<()> {
        let mut parcel = parcel;
        let (transfer, mut sent) = (parcel.transfer(), 0);
        let mut is_wanted = true;
        let is_apart = match &parcel {
            Parcel::Part { total, .. } => self.goes_apart(*total)?,
            Parcel::Fault(..) => false,
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
            match self.apart.filter(|_| is_apart) {
                None => {
                    let part = self.part(transfer, place, bytes, total, &mut is_wanted);
                    let _ = executor(self.session)?.place_sent(place);
                    part?;
                }
                Some(apart) => {
                    apart.leaving().begin(place..place + bytes);
                    let part = self.part(transfer, place, bytes, total, &mut is_wanted);
                    // Else the reading side is told when it has left.
                    if let Some(place) = apart.leaving().end() {
                        let _ = executor(self.session)?.place_sent(place);
                    }
                    part?;
                }
            }
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

    /// Whether a transfer travels apart from the stream.
    fn goes_apart(&mut self, total: u64) -> io::Result<bool> {
        let Some(apart) = self.apart else {
            return Ok(false);
        };
        let running = executor(self.session)?;
        if !Apart::takes(running, total) {
            return Ok(false);
        }
        if !self.is_shared {
            apart.share(running)?;
            self.is_shared = true;
        }
        Ok(true)
    }

    /// Sends what lies at a place, unless nobody wants it.
    fn part(
        &mut self,
        transfer: u64,
        place: u64,
        bytes: u64,
        total: u64,
        is_wanted: &mut bool,
    ) -> io::Result<()> {
        let mut start = 0;
        while start < bytes {
            if !Transfer(transfer).is_urgent() {
                while let Some(urgent) = self.parcels.next_urgent() {
                    self.one(urgent)?;
                }
                if *is_wanted && self.unwanted.take(transfer) {
                    *is_wanted = false;
                    self.fault(transfer, &not_wanted())?;
                }
            }
            if !*is_wanted {
                return Ok(());
            }
            let len = (bytes - start).min(CHUNK_BYTES);
            let (session, running) = (self.session, executor(self.session)?);
            match self.apart.filter(|_| Apart::takes(running, total)) {
                Some(apart) => self.chunk(apart, transfer, total, place + start, len)?,
                None => read_place(session, running, place + start, len, |bytes| {
                    self.bytes(transfer, total, bytes)
                })?,
            }
            session.host().metrics.peer_bytes_sent.add(len);
            start += len;
        }
        Ok(())
    }

    /// Has a chunk leave apart, from where it lies.
    fn chunk(
        &mut self,
        apart: &Apart,
        transfer: u64,
        total: u64,
        place: u64,
        len: u64,
    ) -> io::Result<()> {
        let session = self.session;
        (apart.leaving()).chunk(session.host().lease, || session.is_over())?;
        let header = Header::new(Kind::Transfer, transfer, len).with_payload(9);
        let (header, total) = (header.encode(), total.to_le_bytes());
        let parts = [&header[..], &total, &[APART]].map(IoSlice::new);
        let mut parts = parts;
        self.half.write(&mut parts)?;
        self.half.have_follow(Bulk { place, len })
    }

    fn bytes(&mut self, transfer: u64, total: u64, bytes: &[u8]) -> io::Result<()> {
        let header = Header::new(Kind::Transfer, transfer, bytes.len() as u64).with_payload(8);
        let (header, total) = (header.encode(), total.to_le_bytes());
        let parts = [&header[..], &total, bytes].map(IoSlice::new);
        let used = if bytes.is_empty() { 2 } else { 3 };
        let mut parts = parts;
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
