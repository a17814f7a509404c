//! From a tensor's handle to what it is of: a session, and there a device or the pool of all.

use genie_client::engine::{At, Bytes, Error, Exception, Session};

use crate::{current, fork};

const ID_BITS: u32 = 48;
const ID_MASK: u64 = (1 << ID_BITS) - 1;

/// What a tensor is on.
#[derive(Clone, Copy)]
pub struct Place {
    /// Of this session.
    pub session: &'static Session,
    /// A device of it, or all.
    pub at: At<'static>,
    number: u16,
}

impl Place {
    /// The handle of a storage there.
    pub fn handle(&self, id: u64) -> u64 {
        u64::from(self.number) << ID_BITS | id
    }

    /// The storage of a handle.
    ///
    /// # Errors
    /// It is elsewhere.
    pub fn id_of(&self, handle: u64) -> Result<u64, Error> {
        if number_of(handle) == self.number {
            return Ok(handle & ID_MASK);
        }
        if current::get().is_some_and(|session| session.numbered(number_of(handle)).is_some()) {
            return Err(Error::Runtime(
                "Expected all tensors to be on the same device, but found at least two devices of \
                 this session"
                    .to_owned(),
            ));
        }
        Err(stale())
    }
}

fn number_of(handle: u64) -> u16 {
    (handle >> ID_BITS) as u16
}

fn stale() -> Error {
    Error::Genie(
        Exception::StaleTensor,
        "this tensor belongs to an earlier session, whose memory is gone: make it again in this \
         one"
        .to_owned(),
    )
}

/// What a tensor that exists is on: a lost one says why it was lost.
///
/// # Errors
/// Its session is over; no session.
pub fn place_of(handle: u64) -> Result<Place, Error> {
    fork::check()?;
    let number = number_of(handle);
    let session = match current::get() {
        Some(session) => session,
        None => {
            current::check_number(number)?;
            current::session()?
        }
    };
    let at = session.numbered(number).ok_or_else(stale)?;
    Ok(Place {
        session,
        at,
        number,
    })
}

/// What is behind an index of the session in use.
///
/// # Errors
/// No session, and none to be had; no such index.
pub fn device(index: i32) -> Result<Place, Error> {
    let session = current::session()?;
    let at = usize::try_from(index).ok();
    let at = at.and_then(|index| session.index(index));
    let at = at.ok_or_else(|| {
        Error::Runtime(format!(
            "remote_accelerator:{index} does not exist: the session has {} device(s)",
            session.indices()
        ))
    })?;
    Ok(Place {
        session,
        at,
        number: session.number(at),
    })
}

/// A storage died.
pub fn free(handle: u64) {
    if let Some(session) = current::get()
        && let Some(at) = session.numbered(number_of(handle))
        && handle & ID_MASK != 0
    {
        session.free_at(at, handle & ID_MASK);
    }
}

/// The devices of storages, by their place in the session; -1 for one that nobody holds.
///
/// # Errors
/// No session.
pub fn places(handles: &[u64], places: &mut [i32]) -> Result<(), Error> {
    let session = current::session()?;
    let values: Vec<u64> = handles.iter().map(|handle| handle & ID_MASK).collect();
    session.places(&values, |index, device| {
        places[index] = device.map_or(-1, |device| i32::try_from(device).unwrap_or(-1));
    });
    Ok(())
}

/// Where the storage at a fake address is, and why if not because the program said so.
pub fn find(address: u64) -> Option<(Vec<usize>, &'static str)> {
    let session = current::get()?;
    let handle = handle_at(address)?;
    match session.numbered(number_of(handle))? {
        At::Lane(lane) => {
            let index = session
                .lanes()
                .iter()
                .position(|one| one.number == lane.number)?;
            Some((vec![index], ""))
        }
        At::Pool => {
            let found = session.find(handle & ID_MASK)?;
            Some((found.lanes, found.why))
        }
    }
}

/// The program is going to look at bytes of storages, by their fake addresses: address, offset and length.
pub fn expect(values: Vec<(u64, u64, u64)>) {
    let found = values.into_iter().filter_map(|(address, offset, len)| {
        let storage = handle_at(address)?;
        Some(Bytes {
            storage,
            offset,
            len,
        })
    });
    expect_bytes(found);
}

/// The same, by their handles.
pub fn expect_bytes(values: impl Iterator<Item = Bytes>) {
    let Some(session) = current::get() else {
        return;
    };
    let first = session.first().number;
    session.expect(values.filter_map(|bytes| {
        let index = number_of(bytes.storage).checked_sub(first)?;
        let storage = bytes.storage & ID_MASK;
        Some((usize::from(index), Bytes { storage, ..bytes }))
    }));
}

/// The handle that a fake address tells (shim/allocator.cpp).
fn handle_at(address: u64) -> Option<u64> {
    const STEP_BITS: u32 = 9;
    const ADDRESS_ID_BITS: u32 = 40;
    let index = (address ^ 1 << 62) >> STEP_BITS;
    let is_ours = address >> 62 == 1 && address & ((1 << STEP_BITS) - 1) == 0;
    let id = index & ((1 << ADDRESS_ID_BITS) - 1);
    is_ours.then_some((index >> ADDRESS_ID_BITS) << ID_BITS | id)
}
