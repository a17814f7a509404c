//! Calls that were recorded before, recorded again.

use genie_client::engine::{At, Error, Replayed, Slots};
use genie_recorder::names;
use genie_session::client::Draft;

use super::{ERROR, NO_ROOM, OK, RawCall, RawResults, slice};
use crate::errors::set_last;
use crate::place::{Place, device};
use crate::{current, profile};

/// `GenieReplayed`.
#[repr(C)]
struct RawReplayed {
    call: RawCall,
    results: RawResults,
    slots: *const u32,
    n_slots: usize,
    first_fresh: u32,
    n_fresh: u32,
    freed: *const u32,
    n_freed: usize,
    site: u32,
}

impl RawReplayed {
    /// # Safety
    /// The pointers are valid for their lengths.
    unsafe fn replayed(&self) -> Replayed<'_> {
        // SAFETY: as the caller says.
        unsafe {
            Replayed {
                draft: Draft {
                    tail: slice(self.results.skeleton, self.results.skeleton_len),
                    tail_numbers: slice(self.results.params, self.results.n_params),
                    fresh: u64::from(self.n_fresh),
                    ..self.call.draft(&[])
                },
                slots: slice(self.slots, self.n_slots),
                first_fresh: self.first_fresh,
                freed: slice(self.freed, self.n_freed),
                site: self.site,
            }
        }
    }
}

/// The slots of a replay, which hold handles.
struct Handles<'a> {
    place: Place,
    slots: &'a mut [u64],
}

impl Slots for Handles<'_> {
    fn get(&self, slot: u32) -> Result<u64, Error> {
        self.place.id_of(self.slots[slot as usize])
    }

    fn put(&mut self, slot: u32, id: u64) {
        self.slots[slot as usize] = self.place.handle(id);
    }

    fn take(&mut self, slot: u32) -> Result<u64, Error> {
        let handle = std::mem::take(&mut self.slots[slot as usize]);
        self.place.id_of(handle)
    }
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_replay(
    calls: *const RawReplayed,
    count: usize,
    index: i32,
    slots: *mut u64,
    n_slots: usize,
    done: *mut usize,
) -> i32 {
    // SAFETY: the backend passes valid arrays, and nobody else uses the slots meanwhile.
    let (calls, slots, done) = unsafe {
        (
            slice(calls, count),
            std::slice::from_raw_parts_mut(slots, n_slots),
            &mut *done,
        )
    };
    match replay(calls, index, slots) {
        Ok(appended) => {
            *done = appended;
            if appended == count { OK } else { NO_ROOM }
        }
        Err(error) => {
            set_last(&error);
            ERROR
        }
    }
}

fn replay(calls: &[RawReplayed], index: i32, slots: &mut [u64]) -> Result<usize, Error> {
    let place = device(index)?;
    let At::Lane(lane) = place.at else {
        return Err(Error::Runtime("a pool replays no records".to_owned()));
    };
    // SAFETY: what the backend passes is valid for the call.
    let replayed = calls.iter().map(|call| unsafe { call.replayed() });
    let mut handles = Handles { place, slots };
    let annotation = profile::annotation();
    (place.session).replay(lane, replayed, &mut handles, names::name, annotation)
}

#[unsafe(no_mangle)]
extern "C" fn genie_position() -> u64 {
    current::get().map_or(0, |session| session.position())
}
