//! IP packets that wait for their neighbor's hardware address.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::limits::{PARKED_MAX, PARKED_TIMEOUT};

#[derive(Debug)]
struct Packet {
    hop: Ipv4Addr,
    until: Duration,
    bytes: Vec<u8>,
}

/// A bounded list of packets, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Parked(Vec<Packet>);

impl Parked {
    /// Keeps a packet until `hop` is known; says how many others were dropped for it.
    pub(crate) fn park(&mut self, hop: Ipv4Addr, bytes: &[u8], now: Duration) -> u64 {
        let mut dropped = self.expire(now);
        if self.0.len() == PARKED_MAX {
            self.0.remove(0);
            dropped += 1;
        }
        self.0.push(Packet {
            hop,
            until: now + PARKED_TIMEOUT,
            bytes: bytes.to_vec(),
        });
        dropped
    }

    /// Takes the oldest packet whose neighbor is known.
    pub(crate) fn release(
        &mut self,
        known: impl Fn(Ipv4Addr) -> Option<[u8; 6]>,
    ) -> Option<([u8; 6], Vec<u8>)> {
        let (at, mac) = self
            .0
            .iter()
            .enumerate()
            .find_map(|(at, packet)| Some((at, known(packet.hop)?)))?;
        Some((mac, self.0.remove(at).bytes))
    }

    /// Drops what waited too long, and says how many.
    pub(crate) fn expire(&mut self, now: Duration) -> u64 {
        let before = self.0.len();
        self.0.retain(|packet| packet.until > now);
        (before - self.0.len()) as u64
    }
}
