//! The C interface to libtorch; `cpp/dispatch.h` describes it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;

use genie_session::fault::Code;
use genie_session::machine::{Call, Failure, Metas, View};

// The linker needs to be told of libtorch by somebody: tch's build does it.
use tch as _;

/// A c10::StorageImpl.
#[repr(C)]
pub struct RawStorage {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawOperator {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawCall {
    skeleton: *const u8,
    skeleton_len: usize,
    storages: *const *mut RawStorage,
    storages_len: usize,
    params: *const i64,
    params_len: usize,
    data: *const i64,
    data_len: usize,
    out: *const u8,
    out_len: usize,
    out_params: *const i64,
    out_params_len: usize,
}

#[repr(C)]
struct RawMetas {
    out: *const u8,
    out_len: usize,
    out_params: *const i64,
    out_params_len: usize,
    value: *const u8,
    value_len: usize,
    value_data: *const i64,
    value_data_len: usize,
}

#[repr(C)]
struct RawView {
    storage: *mut RawStorage,
    flags: u8,
    dtype: u8,
    offset: i64,
    sizes: *const i64,
    strides: *const i64,
    ndim: usize,
}

#[repr(C)]
struct RawLibraryOperator {
    name: *const c_char,
    schema: *const c_char,
    is_carried: c_int,
}

unsafe extern "C" {
    fn genie_load_shared(path: *const c_char) -> c_int;
    fn genie_library_load(path: *const c_char) -> c_int;
    fn genie_library_operators(len: *mut usize) -> *const RawLibraryOperator;
    fn genie_last_error(len: *mut usize) -> *const c_char;
    fn genie_torch_version() -> *const c_char;
    fn genie_schema_hash() -> u64;
    fn genie_look_around();
    #[cfg(test)]
    fn genie_operator_exists(name: *const c_char, overload: *const c_char) -> c_int;
    fn genie_watch_cores();
    fn genie_start(cuda_index: c_int, threads: u32) -> c_int;
    fn genie_synchronize() -> c_int;
    fn genie_operator_find(
        name: *const c_char,
        overload: *const c_char,
        found: *mut *const RawOperator,
    ) -> c_int;
    fn genie_call(
        op: *const RawOperator,
        call: *const RawCall,
        fresh: *mut *mut RawStorage,
    ) -> c_int;
    fn genie_call_sync(
        op: *const RawOperator,
        call: *const RawCall,
        reserved: u64,
        fresh: *mut *mut RawStorage,
        fresh_len: *mut usize,
        metas: *mut RawMetas,
    ) -> c_int;
    fn genie_storage_new(bytes: u64, storage: *mut *mut RawStorage) -> c_int;
    fn genie_storage_copy(
        source: *const c_void,
        bytes: u64,
        storage: *mut *mut RawStorage,
    ) -> c_int;
    fn genie_storage_clone(storage: *mut RawStorage, copy: *mut *mut RawStorage) -> c_int;
    fn genie_storage_place(
        data: *mut c_void,
        bytes: u64,
        place: u64,
        storage: *mut *mut RawStorage,
    ) -> c_int;
    fn genie_storage_resize(storage: *mut RawStorage, bytes: u64) -> c_int;
    fn genie_storage_bytes(storage: *const RawStorage) -> u64;
    fn genie_storage_data(storage: *const RawStorage) -> *const c_void;
    fn genie_storage_share(storage: *mut RawStorage) -> *mut RawStorage;
    fn genie_storage_free(storage: *mut RawStorage);
    fn genie_fetch(view: *const RawView, target: *mut c_void, target_bytes: u64) -> c_int;
}

/// What the last call on this thread raised, if `code` is not zero.
fn check(code: c_int) -> Result<(), Failure> {
    if code == 0 {
        return Ok(());
    }
    let mut len = 0;
    // SAFETY: the message is valid until the thread's next failure, and is copied here.
    let message = unsafe {
        let text = genie_last_error(&mut len);
        String::from_utf8_lossy(std::slice::from_raw_parts(text.cast(), len)).into_owned()
    };
    let code = Code::ALL
        .into_iter()
        .find(|&known| known as c_int == code)
        .unwrap_or(Code::Operator);
    Err(Failure::new(code, message))
}

/// Version of the libtorch that was loaded.
pub fn torch_version() -> String {
    // SAFETY: a constant C string.
    unsafe { CStr::from_ptr(genie_torch_version()) }
        .to_string_lossy()
        .into_owned()
}

/// Fingerprint of libtorch's operators.
pub fn schema_hash() -> u64 {
    // SAFETY: it has no preconditions.
    unsafe { genie_schema_hash() }
}

/// An operator that a library defines.
pub struct LibraryOperator {
    /// `torchvision::nms`.
    pub name: String,
    /// As PyTorch prints it.
    pub schema: String,
    /// A record can carry a call of it.
    pub is_carried: bool,
}

/// Loads a shared object, with all of its symbols.
pub fn load_shared(path: &CStr) -> Result<(), Failure> {
    // SAFETY: a C string; the process has one thread.
    check(unsafe { genie_load_shared(path.as_ptr()) })
}

/// Loads a shared object that defines operators, and gives these.
pub fn load_library(path: &CStr) -> Result<Vec<LibraryOperator>, Failure> {
    // SAFETY: a C string; the process has one thread.
    check(unsafe { genie_library_load(path.as_ptr()) })?;
    let mut len = 0;
    // SAFETY: the operators are valid until the next library is loaded, and are copied here. Their
    // texts are C strings.
    let found = unsafe {
        let first = genie_library_operators(&mut len);
        if len == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(first, len)
        }
    };
    let text = |raw| {
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(raw) };
        text.to_string_lossy().into_owned()
    };
    Ok(found
        .iter()
        .map(|operator| LibraryOperator {
            name: text(operator.name),
            schema: text(operator.schema),
            is_carried: operator.is_carried != 0,
        })
        .collect())
}

/// Opens what tells how busy the machine is: executors that are forked later may not.
pub fn watch_cores() {
    // SAFETY: it has no preconditions; the process has one thread.
    unsafe { genie_watch_cores() }
}

/// Lets libtorch look at the machine, by files in /proc and /sys: what it can do is known from then
/// on, and an executor without files has the same kernels.
pub fn look_around() {
    // SAFETY: it has no preconditions.
    unsafe { genie_look_around() }
}

/// Prepares this thread, which must be the only one to call what is below.
pub fn start(cuda_index: Option<u8>, threads: u32) -> Result<(), Failure> {
    // SAFETY: it has no preconditions.
    check(unsafe { genie_start(cuda_index.map_or(-1, c_int::from), threads) })
}

/// Waits until the device has done what it was told.
///
/// # Errors
/// The device failed.
pub fn synchronize() -> Result<(), Failure> {
    // SAFETY: called by the thread that called `genie_start`.
    check(unsafe { genie_synchronize() })
}

/// `aten::add.Tensor` as name and overload.
fn split_name(name: &str) -> Option<(CString, CString)> {
    let (name, overload) = name.split_once('.').unwrap_or((name, ""));
    Some((CString::new(name).ok()?, CString::new(overload).ok()?))
}

/// True if libtorch has an operator of this name.
#[cfg(test)]
pub fn operator_exists(name: &str) -> bool {
    // SAFETY: both are C strings.
    split_name(name).is_some_and(|(name, overload)| unsafe {
        genie_operator_exists(name.as_ptr(), overload.as_ptr()) != 0
    })
}

/// A resolved operator. Lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Operator(NonNull<RawOperator>);

impl Operator {
    /// Resolves `aten::add.Tensor`.
    pub fn find(name: &str) -> Result<Self, Failure> {
        let unknown = || {
            Failure::new(
                Code::NotImplemented,
                format!("{name} is no operator of this libtorch"),
            )
        };
        let (base, overload) = split_name(name).ok_or_else(unknown)?;
        let mut found = std::ptr::null();
        // SAFETY: both are C strings and `found` a valid place.
        check(unsafe { genie_operator_find(base.as_ptr(), overload.as_ptr(), &mut found) })?;
        NonNull::new(found.cast_mut()).map(Self).ok_or_else(unknown)
    }

    /// Runs it; appends the fresh results in order. `storages` are the arguments', in order.
    pub fn call(
        self,
        call: &Call<'_>,
        storages: &[*mut RawStorage],
        fresh: &mut Vec<Storage>,
    ) -> Result<(), Failure> {
        let raw = raw_call(call, storages);
        let fresh_len = call.fresh as usize;
        fresh.reserve(fresh_len);
        // SAFETY: the operator is resolved, the streams are slices that outlive the call, the
        // storages are alive (they come from `Storage`s that the caller holds), and there is
        // room for `fresh_len` results, which is the number of FRESH items in `out_skeleton` (the
        // log counted them when it measured the skeleton).
        // `Storage` is a transparent non-null pointer; every result is written on success.
        unsafe {
            let room = fresh
                .as_mut_ptr()
                .add(fresh.len())
                .cast::<*mut RawStorage>();
            check(genie_call(self.0.as_ptr(), &raw, room))?;
            fresh.set_len(fresh.len() + fresh_len);
        }
        Ok(())
    }

    /// Runs it; gives what came out, and the fresh results.
    pub fn call_sync(
        self,
        call: &Call<'_>,
        storages: &[*mut RawStorage],
    ) -> Result<(Metas, Vec<Storage>), Failure> {
        let raw = raw_call(call, storages);
        let mut fresh: Vec<*mut RawStorage> = vec![std::ptr::null_mut(); call.fresh as usize];
        let mut fresh_len = 0;
        let mut metas = std::mem::MaybeUninit::<RawMetas>::uninit();
        // SAFETY: as in `call`, with room for `call.fresh` results, which it never exceeds.
        check(unsafe {
            genie_call_sync(
                self.0.as_ptr(),
                &raw,
                call.fresh,
                fresh.as_mut_ptr(),
                &mut fresh_len,
                metas.as_mut_ptr(),
            )
        })?;
        // SAFETY: written on success.
        let metas = unsafe { metas.assume_init() };
        fresh.truncate(fresh_len);
        let fresh = fresh
            .into_iter()
            .filter_map(|raw| NonNull::new(raw).map(Storage))
            .collect();
        let metas = Metas {
            out_skeleton: copied(metas.out, metas.out_len),
            out_params: copied(metas.out_params, metas.out_params_len),
            value_skeleton: copied(metas.value, metas.value_len),
            value_data: copied(metas.value_data, metas.value_data_len),
        };
        Ok((metas, fresh))
    }
}

fn raw_call(call: &Call<'_>, storages: &[*mut RawStorage]) -> RawCall {
    RawCall {
        skeleton: call.skeleton.as_ptr(),
        skeleton_len: call.skeleton.len(),
        storages: storages.as_ptr(),
        storages_len: storages.len(),
        params: call.params.as_ptr(),
        params_len: call.params.len(),
        data: call.data.as_ptr(),
        data_len: call.data.len(),
        out: call.out_skeleton.as_ptr(),
        out_len: call.out_skeleton.len(),
        out_params: call.out_params.as_ptr(),
        out_params_len: call.out_params.len(),
    }
}

fn copied<T: Copy>(from: *const T, len: usize) -> Vec<T> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: only called for the vectors that genie_call_sync filled on this thread just now.
    unsafe { std::slice::from_raw_parts(from, len) }.to_vec()
}

/// One reference to a storage of libtorch.
#[derive(Debug)]
#[repr(transparent)]
pub struct Storage(NonNull<RawStorage>);

impl Storage {
    /// Uninitialised bytes.
    pub fn new(bytes: u64) -> Result<Self, Failure> {
        // SAFETY: `raw` is a valid place.
        Self::made(|raw| unsafe { genie_storage_new(bytes, raw) })
    }

    /// A copy of `bytes`.
    pub fn copy(bytes: &[u8]) -> Result<Self, Failure> {
        // SAFETY: the slice is valid for its length, `raw` a valid place.
        Self::made(|raw| unsafe {
            genie_storage_copy(bytes.as_ptr().cast(), bytes.len() as u64, raw)
        })
    }

    /// Another storage of the same bytes.
    pub fn duplicate(&self) -> Result<Self, Failure> {
        // SAFETY: the storage is alive, `raw` a valid place.
        Self::made(|raw| unsafe { genie_storage_clone(self.0.as_ptr(), raw) })
    }

    /// The `bytes` bytes at the device's address `data` themselves, given back through `genie_place_release` when
    /// the storage dies, and also if there is an error.
    ///
    /// # Safety
    /// They are valid, aligned to 64 and nobody else's until then.
    pub unsafe fn place(data: NonNull<u8>, bytes: u64, place: u64) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the bytes; `raw` is a valid place.
        Self::made(|raw| unsafe { genie_storage_place(data.as_ptr().cast(), bytes, place, raw) })
    }

    fn made(make: impl FnOnce(*mut *mut RawStorage) -> c_int) -> Result<Self, Failure> {
        let mut raw = std::ptr::null_mut();
        check(make(&mut raw))?;
        NonNull::new(raw)
            .map(Self)
            .ok_or_else(|| Failure::new(Code::Operator, "no storage"))
    }

    /// For a call, while this reference lives.
    pub fn as_raw(&self) -> *mut RawStorage {
        self.0.as_ptr()
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        // SAFETY: the storage is alive.
        unsafe { genie_storage_bytes(self.0.as_ptr()) }
    }

    /// Address of its first byte, if it is in the machine's memory.
    pub fn address(&self) -> Option<usize> {
        // SAFETY: the storage is alive.
        let data = unsafe { genie_storage_data(self.0.as_ptr()) };
        NonNull::new(data.cast_mut()).map(|data| data.as_ptr() as usize)
    }

    /// Another reference to the same storage.
    pub fn share(&self) -> Option<Self> {
        // SAFETY: the storage is alive; the new reference belongs to the new value.
        NonNull::new(unsafe { genie_storage_share(self.0.as_ptr()) }).map(Self)
    }

    /// Another size; keeps what fits.
    pub fn resize(&self, bytes: u64) -> Result<(), Failure> {
        // SAFETY: the storage is alive.
        check(unsafe { genie_storage_resize(self.0.as_ptr(), bytes) })
    }

    /// Copies the elements of `view`, which is one of this storage, row-major to `target`, an
    /// address of the device. Another queue sees them after [`synchronize`].
    ///
    /// # Safety
    /// `bytes` bytes at `target` may be written.
    pub unsafe fn fetch(
        &self,
        view: &View<'_>,
        target: NonNull<u8>,
        bytes: u64,
    ) -> Result<(), Failure> {
        let raw = RawView {
            storage: self.0.as_ptr(),
            flags: view.flags,
            dtype: view.dtype,
            offset: view.offset,
            sizes: view.sizes.as_ptr(),
            strides: view.strides.as_ptr(),
            ndim: view.sizes.len().min(view.strides.len()),
        };
        // SAFETY: the storage is alive, sizes and strides have `ndim` numbers each; the caller
        // vouches for the target.
        check(unsafe { genie_fetch(&raw, target.as_ptr().cast(), bytes) })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: this value owns one reference and gives it up here.
        unsafe { genie_storage_free(self.0.as_ptr()) };
    }
}
