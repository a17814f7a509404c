//! Bytes that become a value of a session, wherever they come from.

use std::io;

use genie_channel::BULK_PART_MAX;
use genie_session::frame::NO_PLACE;

use super::memory::{SessionMemory, Shared};
use super::running::Running;
use super::session::Session;
use super::staging::{InPlace, Land, Staged};

/// Bytes that come one after the other.
pub trait Source {
    /// Fills all of `into` with the next bytes.
    ///
    /// # Errors
    /// They never come.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<()>;
}

/// Puts the next `bytes` bytes into the session's memory; gives their place. [`NO_PLACE`]: there is no
/// room, and they are dropped; or there are none.
///
/// # Errors
/// Those of the source; the memory's.
pub fn land(
    session: &Session,
    running: &Running,
    bytes: u64,
    source: &mut impl Source,
) -> io::Result<u64> {
    if bytes == 0 {
        return Ok(NO_PLACE);
    }
    let placed = match &running.memory {
        _ if !session.has_room(bytes) => None,
        SessionMemory::Shared(shared) => land_shared(session, running, shared, bytes, source)?,
        SessionMemory::Staged(staged) => land_staged(session, staged, bytes, source)?,
    };
    session.count_arrived(running);
    match placed {
        Some(place) => Ok(place),
        None => {
            session.dropped_bulk();
            skip(bytes, source)?;
            Ok(NO_PLACE)
        }
    }
}

fn skip(mut bytes: u64, source: &mut impl Source) -> io::Result<()> {
    let mut scratch = [0; 16 << 10];
    while bytes > 0 {
        let n = bytes.min(scratch.len() as u64);
        source.fill(&mut scratch[..n as usize])?;
        bytes -= n;
    }
    Ok(())
}

fn land_shared(
    session: &Session,
    running: &Running,
    shared: &Shared,
    bytes: u64,
    source: &mut impl Source,
) -> io::Result<Option<u64>> {
    let Some((place, cold)) = shared.inbound.lock().allocate_cold(bytes) else {
        return Ok(None);
    };
    // Before its bytes come.
    session.count_arrived(running);
    let memory = &shared.inbound_memory;
    let landing = InPlace {
        place,
        cold: cold.then_some(memory),
    };
    let mut start = 0;
    while start < bytes {
        let part = start..bytes.min(start + BULK_PART_MAX);
        let at = landing.place_of(&part);
        // SAFETY: the place was just allocated and is freed only by the executor's word, which has
        // not been told of it; the bytes are written and not read.
        let target = unsafe { memory.bytes_mut(at, part.end - part.start) };
        let filled = target
            .map_err(io::Error::other)
            .and_then(|target| source.fill(target));
        if let Err(error) = filled {
            let _ = shared.inbound.lock().free(place);
            session.count_arrived(running);
            return Err(error);
        }
        start = part.end;
    }
    Ok(Some(place))
}

fn land_staged(
    session: &Session,
    staged: &Staged,
    bytes: u64,
    source: &mut impl Source,
) -> io::Result<Option<u64>> {
    let copies = &session.host().metrics.staged;
    let Some(mut landing) = staged.place(bytes, copies).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let mut start = 0;
    while start < bytes {
        let part = start..bytes.min(start + BULK_PART_MAX);
        let slot = Land::place(&mut landing, &part)?;
        let slot = slot.ok_or_else(|| io::Error::other("no staging memory"))?;
        // SAFETY: the slot was just given for this part, and nobody else knows of it.
        let memory = unsafe { landing.slot(slot, part.end - part.start) }?;
        source.fill(memory)?;
        landing.arrived(slot)?;
        start = part.end;
    }
    landing.finish()?;
    match landing.failure() {
        Some(error) => Err(io::Error::other(error.to_string())),
        None => Ok(Some(landing.place())),
    }
}
