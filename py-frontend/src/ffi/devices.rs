//! What the backend asks of the session's devices: `shim/recorder.h`.

use std::ffi::{CStr, c_char};

use genie_client::engine::{Lane, Offered};

use super::{OK, slice, status};
use crate::{current, place};

#[unsafe(no_mangle)]
extern "C" fn genie_device_count() -> i32 {
    current::get().map_or(0, |session| session.indices() as i32)
}

#[unsafe(no_mangle)]
extern "C" fn genie_devices_to_be_had() -> i32 {
    current::get_or_connect().map_or(0, |session| session.indices() as i32)
}

#[unsafe(no_mangle)]
extern "C" fn genie_device_limit(device: i32) -> u64 {
    let Some(session) = current::get() else {
        return 0;
    };
    let limit = |lane: &Lane| lane.opened.memory_budget_bytes;
    let lanes = session.lanes();
    match session.is_pool() {
        // One device, of the memory of all.
        true => lanes.iter().map(limit).fold(0, u64::saturating_add),
        false => usize::try_from(device)
            .ok()
            .and_then(|at| lanes.get(at))
            .map_or(0, limit),
    }
}

#[unsafe(no_mangle)]
extern "C" fn genie_is_host(device: i32) -> i32 {
    let (Some(session), Ok(at)) = (current::get(), usize::try_from(device)) else {
        return 0;
    };
    i32::from(session.computes_on_cpu(at))
}

#[unsafe(no_mangle)]
extern "C" fn genie_is_pool() -> i32 {
    current::get().map_or(0, |session| i32::from(session.is_pool()))
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_offers(device: i32, name: *const c_char, schema: *const c_char) -> i32 {
    let (Some(session), Ok(device)) = (current::get(), usize::try_from(device)) else {
        return 0;
    };
    // SAFETY: as the caller says.
    let (name, schema) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(schema)) };
    match (name.to_str(), schema.to_str()) {
        (Ok(name), Ok(schema)) => match session.offers(device, name, schema) {
            Offered::No => 0,
            Offered::Yes => 1,
            Offered::Another => 2,
        },
        _ => 0,
    }
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_places(storages: *const u64, count: usize, places: *mut i32) -> i32 {
    // SAFETY: as the caller says; any i32 is one.
    let (handles, places) = unsafe {
        let places = std::slice::from_raw_parts_mut(places, count);
        (slice(storages, count), places)
    };
    status(place::places(handles, places).map(|()| OK))
}
