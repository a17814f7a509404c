//! recorder.h, implemented.

mod devices;
mod replay;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use genie_session::client::Draft;
use genie_session::machine::Metas;
use genie_session::record::Kind;
use genie_session::skeleton;
use parking_lot::Mutex;

use genie_client::engine::{
    At, Bytes, Error, Host as _, Next, Origin, Recorded, Results, Signature, SiteId,
};
use genie_recorder::{host_cache, names};

use crate::errors::set_last;
use crate::host::Python;
use crate::place::{Place, device, place_of};
use crate::{current, fork, place, profile, sites};

const OK: i32 = 0;
const UNKNOWN_SHAPE: i32 = 1;
const ERROR: i32 = 2;
const NO_ROOM: i32 = 3;

/// `GenieCall`.
#[repr(C)]
pub struct RawCall {
    op: u32,
    key_has_data: u32,
    skeleton: *const u8,
    skeleton_len: usize,
    storages: *const u64,
    n_storages: usize,
    params: *const i64,
    n_params: usize,
    data: *const i64,
    n_data: usize,
    device: i32,
    sequence_nr: i64,
    forward_nr: i64,
}

/// `GenieResults`.
#[repr(C)]
pub struct RawResults {
    skeleton: *const u8,
    skeleton_len: usize,
    params: *const i64,
    n_params: usize,
}

/// `GenieSyncResults`.
#[repr(C)]
pub struct RawSyncResults {
    results: RawResults,
    first_fresh: u64,
    value_skeleton: *const u8,
    value_skeleton_len: usize,
    value_data: *const i64,
    n_value_data: usize,
}

/// `GenieView`.
#[repr(C)]
pub struct RawView {
    storage: u64,
    flags: u8,
    dtype: u8,
    offset: i64,
    sizes: *const i64,
    strides: *const i64,
    ndim: usize,
}

/// What this thread's last call gave out.
#[derive(Default)]
struct Kept {
    ids: Vec<u64>,
    results: Option<Arc<Results>>,
    metas: Metas,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// # Safety
/// `pointer` is valid for `len` values, or `len` is zero.
unsafe fn slice<'a, T>(pointer: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(pointer, len) }
}

/// # Safety
/// `pointer` is valid for `len` bytes, which nothing else uses meanwhile, or `len` is zero.
unsafe fn slice_mut<'a>(pointer: *mut u8, len: usize) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts_mut(pointer, len) }
}

fn status(result: Result<i32, Error>) -> i32 {
    result.unwrap_or_else(|error| {
        set_last(&error);
        ERROR
    })
}

impl RawCall {
    /// # Safety
    /// The pointers are valid for their lengths.
    unsafe fn draft<'a>(&self, ids: &'a [u64]) -> Draft<'a> {
        // SAFETY: as the caller says.
        unsafe {
            Draft {
                op: self.op,
                skeleton: slice(self.skeleton, self.skeleton_len),
                storages: ids,
                params: slice(self.params, self.n_params),
                data: slice(self.data, self.n_data),
                ..Draft::new(Kind::Op)
            }
        }
    }

    /// # Safety
    /// The pointers are valid for their lengths.
    unsafe fn signature<'a>(&self) -> Signature<'a> {
        // SAFETY: as the caller says.
        unsafe {
            Signature {
                op: self.op,
                skeleton: slice(self.skeleton, self.skeleton_len),
                params: slice(self.params, self.n_params),
                data: slice(
                    self.data,
                    if self.key_has_data == 0 {
                        0
                    } else {
                        self.n_data
                    },
                ),
            }
        }
    }

    /// Where it runs: where its tensors are, or where its result is to be.
    fn place(&self, handles: &[u64]) -> Result<Place, Error> {
        match handles.first() {
            Some(&handle) => place_of(handle),
            None => device(self.device),
        }
    }

    fn origin(&self) -> Origin {
        Origin {
            sequence_nr: self.sequence_nr,
            forward_nr: self.forward_nr,
            annotation: profile::annotation(),
        }
    }
}

/// The line that records a call. A backward has its forward's, which is looked up when it is
/// appended.
fn site_of(origin: Origin) -> SiteId {
    if origin.forward_nr < 0 {
        sites::here()
    } else {
        0
    }
}

fn raw(results: &Results) -> RawResults {
    RawResults {
        skeleton: results.skeleton.as_ptr(),
        skeleton_len: results.skeleton.len(),
        params: results.params.as_ptr(),
        n_params: results.params.len(),
    }
}

/// # Safety
/// `name` is NUL-terminated.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_intern(name: *const c_char) -> u32 {
    debug_assert!(!fork::is_forked(), "genie_usable was not asked");
    // SAFETY: as the caller says.
    names::intern(&unsafe { CStr::from_ptr(name) }.to_string_lossy())
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_record(
    call: *const RawCall,
    results: *mut RawResults,
    first_fresh: *mut u64,
) -> i32 {
    // SAFETY: as the caller says.
    status(unsafe { record(&*call, results, first_fresh) })
}

/// # Safety
/// As recorder.h says.
unsafe fn record(
    call: &RawCall,
    results: *mut RawResults,
    first_fresh: *mut u64,
) -> Result<i32, Error> {
    // SAFETY: as the caller says.
    let handles = unsafe { slice(call.storages, call.n_storages) };
    let place = call.place(handles)?;
    let origin = call.origin();
    let site = site_of(origin);
    let mut ids = KEPT.with(|kept| std::mem::take(&mut kept.borrow_mut().ids));
    ids.clear();
    for &handle in handles {
        ids.push(place.id_of(handle)?);
    }
    // SAFETY: as the caller says.
    let (draft, signature) = unsafe { (call.draft(&ids), call.signature()) };
    let name = || names::name(call.op);
    let found = (place.session).record_at(place.at, &draft, &signature, name, origin, site)?;
    KEPT.with(|kept| {
        let kept = &mut *kept.borrow_mut();
        kept.ids = ids;
        let (appended, known) = match found {
            Recorded::Done(appended, known) => (appended, known),
            Recorded::UnknownShape => return Ok(UNKNOWN_SHAPE),
            Recorded::NoRoom => return Ok(NO_ROOM),
        };
        // SAFETY: the backend passes valid places.
        unsafe {
            first_fresh.write(place.handle(appended.first_fresh));
            results.write(raw(&known));
        }
        kept.results = Some(known);
        Ok(OK)
    })
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_learn(call: *const RawCall, results: *const RawResults) -> i32 {
    // SAFETY: as the caller says.
    let (call, results) = unsafe { (&*call, &*results) };
    // SAFETY: as the caller says.
    let (skeleton, params, signature) = unsafe {
        (
            slice(results.skeleton, results.skeleton_len).to_vec(),
            slice(results.params, results.n_params).to_vec(),
            call.signature(),
        )
    };
    status((|| {
        let operator = names::name(call.op);
        tracing::debug!(target: "capture", operator, "shapes of a new signature");
        let results = Results::new(signature.skeleton, skeleton, params)
            .map_err(|error| Error::Runtime(format!("inferred results: {error}")))?;
        current::session()?.learn(&signature, results);
        Ok(OK)
    })())
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_call_sync(call: *const RawCall, out: *mut RawSyncResults) -> i32 {
    // SAFETY: as the caller says.
    status(unsafe { call_sync(&*call, out) })
}

/// # Safety
/// As recorder.h says.
unsafe fn call_sync(call: &RawCall, out: *mut RawSyncResults) -> Result<i32, Error> {
    // SAFETY: as the caller says.
    let handles = unsafe { slice(call.storages, call.n_storages) };
    let place = call.place(handles)?;
    let ids: Result<Vec<u64>, Error> = handles.iter().map(|&h| place.id_of(h)).collect();
    let ids = ids?;
    let origin = call.origin();
    let site = site_of(origin);
    // SAFETY: as the caller says.
    let draft = Draft {
        kind: Kind::CallSync,
        ..unsafe { call.draft(&ids) }
    };
    let name = names::name(call.op);
    let (first_fresh, metas) =
        (place.session).call_sync_at(place.at, &draft, name, origin, site)?;
    KEPT.with(|kept| {
        let metas = {
            let kept = &mut *kept.borrow_mut();
            kept.metas = metas;
            RawSyncResults {
                results: RawResults {
                    skeleton: kept.metas.out_skeleton.as_ptr(),
                    skeleton_len: kept.metas.out_skeleton.len(),
                    params: kept.metas.out_params.as_ptr(),
                    n_params: kept.metas.out_params.len(),
                },
                first_fresh: place.handle(first_fresh),
                value_skeleton: kept.metas.value_skeleton.as_ptr(),
                value_skeleton_len: kept.metas.value_skeleton.len(),
                value_data: kept.metas.value_data.as_ptr(),
                n_value_data: kept.metas.value_data.len(),
            }
        };
        // SAFETY: the backend passes a valid place.
        unsafe { out.write(metas) };
    });
    Ok(OK)
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_alloc(index: i32, nbytes: u64, storage: *mut u64) -> i32 {
    profile::begins();
    status((|| {
        let place = device(index)?;
        let made = place.session.alloc(place.at, nbytes, sites::here())?;
        // SAFETY: the backend passes a valid place.
        unsafe { storage.write(place.handle(made)) };
        Ok(OK)
    })())
}

#[unsafe(no_mangle)]
extern "C" fn genie_free(storage: u64) {
    place::free(storage);
}

#[unsafe(no_mangle)]
extern "C" fn genie_resize(storage: u64, nbytes: u64) -> i32 {
    status((|| {
        let place = place_of(storage)?;
        let id = place.id_of(storage)?;
        place.session.resize(place.at, id, nbytes).map(|()| OK)
    })())
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_upload(storage: u64, source: *const c_void, nbytes: u64) -> i32 {
    profile::begins();
    status((|| {
        let place = place_of(storage)?;
        let id = place.id_of(storage)?;
        let len = usize::try_from(nbytes).map_err(|error| Error::Value(error.to_string()))?;
        let (session, site) = (place.session, sites::here());
        // SAFETY: as the caller says.
        unsafe { session.upload_at(place.at, id, source.cast(), len, site) }.map(|()| OK)
    })())
}

unsafe extern "C" {
    /// shim/ahead.h
    fn genie_backend_is_there(storage: u64, nbytes: u64) -> i32;
}

/// Bytes of a storage.
#[repr(C)]
struct RawBytes {
    storage: u64,
    offset: u64,
    nbytes: u64,
}

impl RawBytes {
    /// The same, if they are there.
    fn at(&self, place: &Place) -> Option<Bytes> {
        Some(Bytes {
            storage: place.id_of(self.storage).ok()?,
            offset: self.offset,
            len: self.nbytes,
        })
    }
}

impl RawView {
    /// Its skeleton and params, as a fetch has them.
    ///
    /// # Safety
    /// The pointers are valid for their lengths.
    unsafe fn encode(&self) -> Result<([u8; 4], Vec<i64>), Error> {
        let ndim = u8::try_from(self.ndim).map_err(|error| Error::Value(error.to_string()))?;
        let skeleton = [skeleton::tag::TENSOR, self.flags, self.dtype, ndim];
        let mut params = Vec::with_capacity(1 + 2 * self.ndim);
        params.push(self.offset);
        // SAFETY: as the caller says.
        unsafe {
            params.extend_from_slice(slice(self.sizes, self.ndim));
            params.extend_from_slice(slice(self.strides, self.ndim));
        }
        Ok((skeleton, params))
    }
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_fetch(
    view: *const RawView,
    destination: *mut c_void,
    nbytes: u64,
    whole: u64,
    next: *const RawBytes,
    n_next: usize,
) -> i32 {
    // SAFETY: as the caller says.
    let (view, next) = unsafe { (&*view, slice(next, n_next)) };
    profile::begins();
    status((|| {
        let place = place_of(view.storage)?;
        let values: Vec<Bytes> = (next.iter()).map_while(|one| one.at(&place)).collect();
        // SAFETY: it takes any numbers.
        let is_there = |one: &Bytes| unsafe {
            genie_backend_is_there(place.handle(one.storage), one.len) != 0
        };
        let next = Next {
            values: &values,
            is_there: &is_there,
        };
        let ids = [place.id_of(view.storage)?];
        // SAFETY: as the caller says.
        let (skeleton, params) = unsafe { view.encode() }?;
        let draft = Draft {
            skeleton: &skeleton,
            storages: &ids,
            params: &params,
            ..Draft::new(Kind::Fetch)
        };
        let len = usize::try_from(nbytes).map_err(|error| Error::Value(error.to_string()))?;
        // SAFETY: as the caller says; the memory was made for this and holds no references.
        let into = unsafe { slice_mut(destination.cast::<u8>(), len) };
        (place.session)
            .fetch_at(place.at, &draft, into, whole, next, sites::here())
            .map(|()| OK)
    })())
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_expect(values: *const RawBytes, count: usize) {
    // SAFETY: as the caller says.
    let values = unsafe { slice(values, count) };
    place::expect_bytes(values.iter().map(|one| Bytes {
        storage: one.storage,
        offset: one.offset,
        len: one.nbytes,
    }));
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_move(
    view: *const RawView,
    index: i32,
    nbytes: u64,
    storage: *mut u64,
) -> i32 {
    // SAFETY: as the caller says.
    let view = unsafe { &*view };
    status((|| {
        let (from, to) = (place_of(view.storage)?, device(index)?);
        let ids = [from.id_of(view.storage)?];
        // SAFETY: as the caller says.
        let (skeleton, params) = unsafe { view.encode() }?;
        let draft = Draft {
            skeleton: &skeleton,
            storages: &ids,
            params: &params,
            ..Draft::new(Kind::Send)
        };
        let (At::Lane(source), At::Lane(target)) = (from.at, to.at) else {
            return Err(Error::Runtime("a pool has one index".to_owned()));
        };
        let session = from.session;
        let id = session.move_to(source, &draft, target, nbytes, sites::here())?;
        // SAFETY: the backend passes a valid place.
        unsafe { storage.write(to.handle(id)) };
        Ok(OK)
    })())
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_host_take(nbytes: u64, capacity: *mut u64) -> *mut c_void {
    if fork::is_forked() {
        return std::ptr::null_mut();
    }
    let bytes = usize::try_from(nbytes).unwrap_or(usize::MAX);
    let Some(block) = host_cache::CACHE.lock().take(bytes) else {
        return std::ptr::null_mut();
    };
    let (start, size) = block.into_raw();
    // SAFETY: the backend passes a valid place.
    unsafe { capacity.write(size as u64) };
    start.as_ptr().cast()
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_host_give(memory: *mut c_void, capacity: u64) {
    if let Some(start) = std::ptr::NonNull::new(memory.cast()) {
        // SAFETY: both came from `genie_host_take`, and go back once.
        let block = unsafe { host_cache::Block::from_raw(start, capacity as usize) };
        // A forked child has inherited it, and unmaps its own.
        if !fork::is_forked() {
            host_cache::CACHE.lock().give(block);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn genie_wait_for_room() -> i32 {
    status(
        current::session()
            .and_then(|session| session.wait_for_room())
            .map(|()| OK),
    )
}

#[unsafe(no_mangle)]
extern "C" fn genie_usable() -> i32 {
    status(fork::check().map(|()| OK))
}

#[unsafe(no_mangle)]
extern "C" fn genie_barrier() -> i32 {
    status(
        current::session()
            .and_then(|session| session.barrier(sites::here()))
            .map(|()| OK),
    )
}

/// # Safety
/// As recorder.h says.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_warn(text: *const c_char) {
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    Python.warn(&text.to_string_lossy());
}

/// # Safety
/// `name` is NUL-terminated.
#[unsafe(no_mangle)]
unsafe extern "C" fn genie_count_fallback(name: *const c_char) -> i32 {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    if fork::is_forked() {
        return 0;
    }
    current::count_fallback();
    // SAFETY: as the caller says.
    let name = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned();
    tracing::debug!(target: "capture", operator = %name, "runs on this CPU");
    i32::from(SEEN.lock().get_or_insert_with(HashSet::new).insert(name))
}
