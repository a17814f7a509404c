//! Bytes that become a value of a session, wherever they come from.

use std::io;

use genie_channel::BULK_PART_MAX;
use genie_session::frame::NO_PLACE;

use super::memory::{SessionMemory, Shared};
use super::running::Running;
use super::session::Session;
use super::staging::{InPlace, Land, Landing, Staged};

/// Bytes that come one after the other.
pub trait Source {
    /// Why they don't.
    type Error: From<LandError>;

    /// Fills all of `into` with the next bytes.
    ///
    /// # Errors
    /// They never come.
    fn fill(&mut self, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Whether these bytes travel apart from others, straight into memory ([`Source::take`]).
    fn takes_apart(&self, bytes: u64) -> bool {
        let _ = bytes;
        false
    }

    /// Has all bytes that travel apart put where `land` says. `None`: they are not wanted.
    ///
    /// # Errors
    /// As [`Source::fill`].
    fn take(&mut self, bytes: u64, land: Option<&mut dyn Land>) -> Result<(), Self::Error> {
        let _ = (bytes, land);
        Err(LandError("these bytes come one after the other".to_owned()).into())
    }

    /// Whether nothing can land any more where [`Source::take`] failed.
    fn is_quiet(&self) -> bool {
        false
    }
}

/// The memory, or its device, can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LandError(pub String);

impl LandError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<LandError> for io::Error {
    fn from(error: LandError) -> Self {
        Self::other(error)
    }
}

/// Puts the next `bytes` bytes into the session's memory; gives their place. [`NO_PLACE`]: there is no
/// room, and they are dropped.
///
/// # Errors
/// Those of the source; [`LandError`].
pub fn land<S: Source>(
    session: &Session,
    running: &Running,
    bytes: u64,
    source: &mut S,
) -> Result<u64, S::Error> {
    let placed = match &running.memory {
        _ if !session.has_room(bytes) => None,
        SessionMemory::Shared(shared) => land_shared(session, running, shared, bytes, source)?,
        SessionMemory::Staged(staged) => land_staged(session, staged, bytes, source)?,
    };
    session.count_arrived(running);
    if let Some(place) = placed {
        return Ok(place);
    }
    session.dropped_bulk();
    if source.takes_apart(bytes) {
        source.take(bytes, None)?;
    } else {
        skip(bytes, source)?;
    }
    Ok(NO_PLACE)
}

/// Reads and drops.
fn skip<S: Source>(mut bytes: u64, source: &mut S) -> Result<(), S::Error> {
    let mut scratch = [0; 16 << 10];
    while bytes > 0 {
        let n = bytes.min(scratch.len() as u64);
        source.fill(&mut scratch[..n as usize])?;
        bytes -= n;
    }
    Ok(())
}

/// Into memory that the executor maps. `None`: there is no room, and nothing was read.
fn land_shared<S: Source>(
    session: &Session,
    running: &Running,
    shared: &Shared,
    bytes: u64,
    source: &mut S,
) -> Result<Option<u64>, S::Error> {
    let Some((place, cold)) = shared.inbound.lock().allocate_cold(bytes) else {
        return Ok(None);
    };
    // Before its bytes come.
    session.count_arrived(running);
    let mut landing = InPlace {
        place,
        cold: cold.then_some(&shared.inbound_memory),
    };
    if source.takes_apart(bytes) {
        let taken = source.take(bytes, Some(&mut landing));
        // If that fails, what brings them may still write there: then the place stays taken.
        if taken.is_err() && source.is_quiet() {
            let _ = shared.inbound.lock().free(place);
            session.count_arrived(running);
        }
        return taken.map(|()| Some(place));
    }
    match fill_in_place(shared, &landing, bytes, source) {
        Ok(()) => Ok(Some(place)),
        Err(error) => {
            // Nobody else writes there, and the executor has not been told of it.
            let _ = shared.inbound.lock().free(place);
            session.count_arrived(running);
            Err(error)
        }
    }
}

/// Part by part: a connection that stands still while the pages of gigabytes are taken looks dead.
fn fill_in_place<S: Source>(
    shared: &Shared,
    landing: &InPlace<'_>,
    bytes: u64,
    source: &mut S,
) -> Result<(), S::Error> {
    let mut start = 0;
    while start < bytes {
        let part = start..bytes.min(start + BULK_PART_MAX);
        let at = landing.place_of(&part);
        let memory = &shared.inbound_memory;
        // SAFETY: the place was just allocated and is freed only by the executor's word, which has
        // not been told of it; the bytes are written and not read.
        let target = unsafe { memory.bytes_mut(at, part.end - part.start) };
        source.fill(target.map_err(LandError::of)?)?;
        start = part.end;
    }
    Ok(())
}

/// Into a device's memory, by way of staging memory. `None`: as for [`land_shared`].
fn land_staged<S: Source>(
    session: &Session,
    staged: &Staged,
    bytes: u64,
    source: &mut S,
) -> Result<Option<u64>, S::Error> {
    let copies = &session.host().metrics.staged;
    let Some(mut landing) = staged.place(bytes, copies).map_err(LandError::of)? else {
        return Ok(None);
    };
    let landed = if source.takes_apart(bytes) {
        source.take(bytes, Some(&mut landing))
    } else {
        fill_staged(&mut landing, bytes, source)
    };
    let landed = landed.and_then(|()| {
        landing
            .finish()
            .map_err(|error| LandError::of(error).into())
    });
    match landing.failure() {
        // What a device says is the session's end, and its client is told.
        Some(error) => Err(LandError::of(error).into()),
        None => landed.map(|()| Some(landing.place())),
    }
}

/// Part by part.
fn fill_staged<S: Source>(
    landing: &mut Landing<'_>,
    bytes: u64,
    source: &mut S,
) -> Result<(), S::Error> {
    let mut start = 0;
    while start < bytes {
        let part = start..bytes.min(start + BULK_PART_MAX);
        let slot = Land::place(landing, &part).map_err(LandError::of)?;
        // The parts before it are with the device, or done: there is room for this one.
        let slot = slot.ok_or_else(|| LandError::of("no staging memory"))?;
        // SAFETY: the slot was just given for this part, and nobody else knows of it.
        let memory = unsafe { landing.slot(slot, part.end - part.start) };
        source.fill(memory.map_err(LandError::of)?)?;
        landing.arrived(slot).map_err(LandError::of)?;
        start = part.end;
    }
    Ok(())
}
