//! Transfers as most tests want them: all of a source, into all of a grant.

use genie_transport::{
    Connection, Grant, Priority, RegionId, Regions, SourceId, Time, Transfer, TransferId,
};

use super::{Link, Memory, Nowhere, Pair, Random, configs};

pub const MIB: u64 = 1 << 20;

/// A grant as a peer may have made it.
pub const GRANT: Grant = Grant {
    region: RegionId(0),
    generation: 0,
};

pub fn whole(grant: Grant, source: SourceId, len: u64) -> Transfer {
    Transfer {
        grant,
        offset: 0,
        source,
        source_offset: 0,
        len,
        priority: Priority::Normal,
    }
}

/// Lets a connection send all that it may now, and counts the frames.
pub fn drain(connection: &mut Connection, now: Time, memory: &mut impl Regions) -> u64 {
    let mut out = vec![0; 9000];
    let mut frames = 0;
    while connection.poll_transmit(now, memory, &mut out).is_some() {
        frames += 1;
    }
    frames
}

impl Pair<Memory> {
    /// Has the first end send `bytes` to a new region of the second.
    pub fn send(&mut self, bytes: Vec<u8>) -> (Grant, TransferId) {
        let len = bytes.len();
        let region = self.ends[1].memory.add_region(len);
        let source = self.ends[0].memory.add_source(bytes);
        let grant = self.connection(1).grant(region, len as u64).unwrap();
        let transfer = whole(grant, source, len as u64);
        (grant, self.connection(0).send(transfer).unwrap())
    }
}

impl Pair<Nowhere> {
    /// A connection over which the first end always has something to send, as long as each transfer
    /// that ends is followed by another.
    pub fn busy(link: Link, random: Random) -> Self {
        let mut pair = Self::new(link, random, [Nowhere, Nowhere]);
        pair.open(configs(1, false));
        for _ in 0..32 {
            pair.send_mib();
        }
        pair
    }

    pub fn send_mib(&mut self) {
        let grant = self.connection(1).grant(RegionId(0), MIB).unwrap();
        let transfer = whole(grant, SourceId(0), MIB);
        self.connection(0).send(transfer).unwrap();
    }
}
