//! A connection that hostile frames are thrown at.

use genie_transport::{Connection, Grant, Role, Time};

use super::transfer::{GRANT, whole};
use super::{Memory, config};

pub const REGION_BYTES: u64 = 10_000;

/// A victim with open grants, a transfer and a message under way.
pub fn victim() -> (Connection, Memory, Vec<Grant>) {
    let mut memory = Memory::default();
    let mut connection = Connection::new(config(Role::Responder, 1, false), Time(0)).unwrap();
    let grants = (0..3).map(|_| {
        let region = memory.add_region(REGION_BYTES as usize);
        connection.grant(region, REGION_BYTES).unwrap()
    });
    let grants = grants.collect();
    let source = memory.add_source(vec![1; 100_000]);
    connection.send(whole(GRANT, source, 100_000)).unwrap();
    connection.send_message(b"hello").unwrap();
    (connection, memory, grants)
}
