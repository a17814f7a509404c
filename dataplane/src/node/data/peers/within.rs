//! Within a node: from one session's memory to the other's.

use std::io;
use std::sync::{Arc, Weak};

use genie_session::transfer::Transfer;

use super::super::landing::Source;
use super::super::running::Running;
use super::super::session::Session;
use super::super::ways::{Parcel, Parcels};
use super::{Ends, executor, hostile, not_wanted, read_place, receive, tell_fault, tell_here};

/// Carries what comes from `from` to `to`, until one of them ends.
pub(super) fn carry(
    from: &Arc<Session>,
    to: &Weak<Session>,
    ends: Ends,
    parcels: &Parcels,
) -> io::Result<()> {
    while let Some(parcel) = parcels.next() {
        let to = to.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        if to.is_over() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let here = executor(&to)?;
        let carrier = Carrier {
            from,
            to: &to,
            here,
            ends,
            parcels,
        };
        carrier.one(parcel)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Carrier<'a> {
    from: &'a Session,
    to: &'a Session,
    here: &'a Running,
    ends: Ends,
    parcels: &'a Parcels,
}

impl Carrier<'_> {
    /// Carries a transfer, of which this is the first parcel.
    fn one(self, parcel: Parcel) -> io::Result<()> {
        let (to, here) = (self.to, self.here);
        if !self.ends.are_of(parcel.transfer()) {
            return Err(hostile("a value of other devices"));
        }
        match parcel {
            Parcel::Fault(transfer, fault) => tell_fault(to, here, transfer, fault, self.ends.from),
            Parcel::Part {
                transfer,
                place,
                bytes,
                total,
            } => {
                let mut source = Copied {
                    carrier: self,
                    running: executor(self.from)?,
                    transfer,
                    part: (place, bytes),
                    done: 0,
                    left: total.saturating_sub(bytes),
                    is_aborted: false,
                };
                let landed = receive(to, here, total, &mut source);
                source.give_back();
                if source.is_aborted {
                    source.skip();
                    return tell_fault(to, here, transfer, not_wanted(), self.ends.from);
                }
                tell_here(to, here, transfer, total, landed?)
            }
        }
    }
}

/// The bytes of one transfer, where they lie in the sender's memory.
struct Copied<'a> {
    carrier: Carrier<'a>,
    running: &'a Running,
    transfer: u64,
    part: (u64, u64),
    done: u64,
    /// Bytes of the parts that have yet to come.
    left: u64,
    /// Nobody wants it any more.
    is_aborted: bool,
}

impl Copied<'_> {
    /// The part at hand is not needed any more.
    fn give_back(&mut self) {
        if self.part.1 > 0 {
            let _ = self.running.place_sent(self.part.0);
        }
        self.part = (0, 0);
    }

    fn next_part(&mut self) -> io::Result<()> {
        self.give_back();
        match self.carrier.parcels.next_of(self.transfer) {
            Some(Parcel::Part {
                transfer,
                place,
                bytes,
                ..
            }) if transfer == self.transfer => {
                (self.part, self.done) = ((place, bytes), 0);
                self.left = self.left.saturating_sub(bytes);
                Ok(())
            }
            _ => Err(io::Error::other("a transfer that ends in its midst")),
        }
    }

    /// Parts that come nevertheless.
    fn skip(&mut self) {
        while self.left > 0 && self.next_part().is_ok() {}
        self.give_back();
    }

    /// Before more of it: what goes ahead, and whether it is wanted.
    fn between(&mut self) -> io::Result<()> {
        if Transfer(self.transfer).is_urgent() {
            return Ok(());
        }
        while let Some(urgent) = self.carrier.parcels.next_urgent() {
            self.carrier.one(urgent)?;
        }
        if self.carrier.to.unwanted.take(self.transfer) {
            self.is_aborted = true;
            return Err(io::Error::other("nobody wants it"));
        }
        Ok(())
    }
}

impl Source for Copied<'_> {
    type Error = io::Error;

    fn fill(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        self.between()?;
        while !into.is_empty() {
            if self.done == self.part.1 {
                self.next_part()?;
                continue;
            }
            let n = (self.part.1 - self.done).min(into.len() as u64);
            let (target, rest) = into.split_at_mut(n as usize);
            let mut at = 0;
            read_place(
                self.carrier.from,
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
