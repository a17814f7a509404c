//! Within a node: from one session's memory to the other's.

use std::io;
use std::sync::{Arc, Weak};

use crossbeam_channel::Receiver;

use super::super::landing::Source;
use super::super::running::Running;
use super::super::session::Session;
use super::super::ways::Parcel;
use super::incoming::hostile;
use super::{Ends, executor, read_place, receive, tell_fault, tell_here};

/// Carries what comes from `from` to `to`, until one of them ends.
pub(super) fn carry(
    from: &Arc<Session>,
    to: &Weak<Session>,
    ends: Ends,
    parcels: &Receiver<Parcel>,
) -> io::Result<()> {
    while let Ok(parcel) = parcels.recv() {
        let to = to.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        if to.is_over() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let here = executor(&to)?;
        let (Parcel::Fault(transfer, _) | Parcel::Part { transfer, .. }) = &parcel;
        if !ends.are_of(*transfer) {
            return Err(hostile("a value of other devices"));
        }
        match parcel {
            Parcel::Fault(transfer, fault) => tell_fault(&to, here, transfer, fault, ends.from)?,
            Parcel::Part {
                transfer,
                place,
                bytes,
                total,
            } => {
                let mut source = Copied {
                    session: from,
                    running: executor(from)?,
                    parcels,
                    transfer,
                    part: (place, bytes),
                    done: 0,
                };
                let landed = receive(&to, here, total, &mut source);
                source.give_back();
                tell_here(&to, here, transfer, total, landed?)?;
            }
        }
    }
    Ok(())
}

/// The bytes of one transfer, where they lie in the sender's memory.
struct Copied<'a> {
    session: &'a Session,
    running: &'a Running,
    parcels: &'a Receiver<Parcel>,
    transfer: u64,
    part: (u64, u64),
    done: u64,
}

impl Copied<'_> {
    /// The part at hand is not needed any more.
    fn give_back(&self) {
        if self.part.1 > 0 {
            let _ = self.running.place_sent(self.part.0);
        }
    }
}

impl Source for Copied<'_> {
    type Error = io::Error;

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if self.done == self.part.1 {
                self.give_back();
                self.part = (0, 0);
                match self.parcels.recv() {
                    Ok(Parcel::Part {
                        transfer,
                        place,
                        bytes,
                        ..
                    }) if transfer == self.transfer => {
                        (self.part, self.done) = ((place, bytes), 0);
                    }
                    _ => return Err(io::Error::other("a transfer that ends in its midst")),
                }
                continue;
            }
            let n = (self.part.1 - self.done).min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            let mut at = 0;
            read_place(
                self.session,
                self.running,
                self.part.0 + self.done,
                n,
                |bytes| {
                    target[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                    Ok(())
                },
            )?;
            self.done += n;
            into = rest;
        }
        Ok(())
    }
}
