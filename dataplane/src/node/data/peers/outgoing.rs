//! Between nodes: what leaves.

use std::io::{self, IoSlice};

use crossbeam_channel::Receiver;
use genie_session::frame::{Header, Kind};

use super::super::session::Session;
use super::super::socket::SocketWrite;
use super::super::ways::Parcel;
use super::{executor, read_place};

/// Sends what there is, until there is nothing more.
pub(super) fn write(
    session: &Session,
    half: &mut SocketWrite,
    parcels: &Receiver<Parcel>,
) -> io::Result<()> {
    while let Ok(parcel) = parcels.recv() {
        match parcel {
            Parcel::Fault(transfer, fault) => {
                let fault = fault.encode();
                let header = Header::new(Kind::TransferFault, transfer, 0);
                let header = header.with_payload(fault.len()).encode();
                half.write(&mut [IoSlice::new(&header), IoSlice::new(&fault)])?;
            }
            Parcel::Part {
                transfer,
                place,
                bytes,
                total,
            } => {
                let header = Header::new(Kind::Transfer, transfer, bytes).with_payload(8);
                let (header, total) = (header.encode(), total.to_le_bytes());
                let mut front: &[&[u8]] = &[&header, &total];
                if bytes == 0 {
                    half.write(&mut [IoSlice::new(&header), IoSlice::new(&total)])?;
                    continue;
                }
                let running = executor(session)?;
                let written = read_place(session, running, place, bytes, |bytes| {
                    let mut parts: Vec<_> = front.iter().map(|part| IoSlice::new(part)).collect();
                    parts.push(IoSlice::new(bytes));
                    front = &[];
                    half.write(&mut parts)
                });
                let _ = running.place_sent(place);
                written?;
                session.host().metrics.peer_bytes_sent.add(bytes);
            }
        }
    }
    Ok(())
}
