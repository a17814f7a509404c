//! net_memif's control path: what it does on EAL's interrupt thread, and what its ports do when
//! they come and go.
//!
//! The driver (22.11 to 25.11) locks none of it. Its callbacks run while a burst is in its rings,
//! and while another thread closes the port that they are for; a server that is closed leaves its
//! listening socket behind, with a callback that points to freed memory; a client that is gone
//! before the server greets it leaves a callback for a closed socket, at which EAL panics. All of
//! that is put right here: the driver registers its callbacks through the shim (`genie_dpdk_intr_hook`), which gives
//! them to us, and EAL gets [`guarded`] instead. A guarded callback runs alone ([`lock`]), with
//! every memif port's gate shut ([`super::gate`]), and never for what was taken back meanwhile.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use genie_dpdk_sys::{
    self as sys, Api, genie_dpdk_intr_hooks, rte_intr_callback_fn, rte_intr_handle,
    rte_intr_unregister_callback_fn,
};
use nix::libc;

use super::gate::Gate;
use super::identity::{inode, is_in};

const DRIVER: &str = "librte_net_memif";
/// A listener and some connections a port. A peer that connects over and over is refused.
const CALLBACKS_MAX: usize = 1024;

/// A callback that the driver registered.
struct Callback {
    id: u64,
    call: rte_intr_callback_fn,
    argument: *mut c_void,
    fd: c_int,
    /// Which socket that was when it was registered.
    inode: Option<u64>,
    /// The listener by which this connection came, or 0.
    listener: u64,
    removed: Mutex<rte_intr_unregister_callback_fn>,
    /// The driver has taken it back: it must not be called again.
    dead: AtomicBool,
}

/// Pointers to boxes of which EAL has the address.
struct Table {
    callbacks: Vec<*mut Callback>,
    next_id: u64,
}

// SAFETY: the callbacks are only used under the table's lock, or on EAL's interrupt thread while
// EAL keeps them registered.
unsafe impl Send for Table {}

/// Never held while EAL is called, which calls `removed` with its own lock held.
static TABLE: Mutex<Table> = Mutex::new(Table {
    callbacks: Vec::new(),
    next_id: 1,
});

/// The ports of the driver.
pub(super) struct Ports {
    gates: Vec<Arc<Gate>>,
    /// Ports that listen on a socket, and the callbacks of its listener.
    listeners: Option<HashMap<PathBuf, (usize, Vec<u64>)>>,
}

static PORTS: Mutex<Ports> = Mutex::new(Ports {
    gates: Vec::new(),
    listeners: None,
});

thread_local! {
    /// The callback that EAL's interrupt thread is in.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Held by whoever is in the driver's control path.
pub(super) fn lock() -> MutexGuard<'static, Ports> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Comes between drivers and EAL's interrupt thread. Before the first device is added.
pub(crate) fn install(api: &'static Api) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hooks = genie_dpdk_intr_hooks {
            add: Some(add),
            remove: Some(remove),
            remove_later: Some(remove_later),
        };
        // SAFETY: the shim copies the three functions, which live as long as the program.
        unsafe { api.genie_dpdk_intr_hook(&hooks) };
    });
}

/// Does `work`, with [`lock`] held, and says which callbacks were registered in it.
pub(super) fn registered_by<T>(work: impl FnOnce() -> T) -> (T, Vec<u64>) {
    let before = table().next_id;
    let result = work();
    let made = table().callbacks_since(before);
    (result, made)
}

/// Whether a callback is still registered: of a connection, whether it stands.
pub(super) fn is_registered(callback: u64) -> bool {
    let table = table();
    let found = table.each().find(|known| known.id == callback);
    found.is_some_and(|known| !known.dead.load(Ordering::Acquire))
}

impl Ports {
    pub(super) fn add(&mut self, gate: &Arc<Gate>) {
        self.gates.push(Arc::clone(gate));
    }

    pub(super) fn remove(&mut self, gate: &Arc<Gate>) {
        self.gates.retain(|other| !Arc::ptr_eq(other, gate));
    }

    /// Adds a device by `probe`, which may make the listener of `socket`. Says whether the hooks
    /// were seen to work, as they must be for the first port on a socket.
    pub(super) fn listen<T>(&mut self, socket: &Path, probe: impl FnOnce() -> T) -> (T, bool) {
        let (result, made) = registered_by(probe);
        let listeners = self.listeners.get_or_insert_default();
        let (ports, callbacks) = listeners.entry(socket.to_owned()).or_default();
        *ports += 1;
        let hooked = *ports > 1 || !made.is_empty();
        callbacks.extend(made);
        (result, hooked)
    }

    /// After a device with that socket was removed: takes back its listener if it was the last,
    /// which the driver forgets. What is returned must be retired once the lock is let go.
    pub(super) fn silence(&mut self, socket: &Path) -> Vec<u64> {
        let listeners = self.listeners.get_or_insert_default();
        let Some((ports, _)) = listeners.get_mut(socket) else {
            return Vec::new();
        };
        *ports -= 1;
        if *ports > 0 {
            return Vec::new();
        }
        let (_, mut left) = listeners.remove(socket).unwrap_or_default();
        let table = table();
        // Connections that came by it and found no port refer to it too.
        let orphans = table.each().filter(|c| left.contains(&c.listener));
        let orphans: Vec<u64> = orphans.map(|callback| callback.id).collect();
        left.extend(orphans);
        for callback in table.each().filter(|c| left.contains(&c.id)) {
            callback.dead.store(true, Ordering::Release);
        }
        left
    }
}

impl Table {
    fn each(&self) -> impl Iterator<Item = &Callback> {
        self.callbacks.iter().map(|&callback| {
            // SAFETY: what is in the table is a live box.
            unsafe { &*callback }
        })
    }

    fn callbacks_since(&self, id: u64) -> Vec<u64> {
        let new = self.each().filter(|callback| callback.id >= id);
        new.map(|callback| callback.id).collect()
    }

    fn with_id(&self, id: u64) -> Option<*mut Callback> {
        let place = self.each().position(|callback| callback.id == id)?;
        Some(self.callbacks[place])
    }

    fn find(&self, call: rte_intr_callback_fn, argument: *mut c_void) -> Option<*mut Callback> {
        let address = call.map(|call| call as usize);
        let same = |callback: &Callback| {
            callback.call.map(|call| call as usize) == address && callback.argument == argument
        };
        let place = self.each().position(same)?;
        Some(self.callbacks[place])
    }

    fn take(&mut self, callback: *mut Callback) -> Option<Box<Callback>> {
        let place = self.callbacks.iter().position(|&other| other == callback)?;
        // SAFETY: it was a box, and leaves the table, so this is the only time.
        Some(unsafe { Box::from_raw(self.callbacks.swap_remove(place)) })
    }
}

/// Removes callbacks from EAL and closes their sockets. Without [`lock`], which they may wait for.
pub(super) fn retire(api: &Api, callbacks: &[u64]) {
    for &id in callbacks {
        let Some(callback) = table().with_id(id) else {
            continue;
        };
        // SAFETY: nobody but this function takes out of the table what `silence` has returned.
        let fd = unsafe { (*callback).fd };
        while forget(api, callback, fd) == -libc::EAGAIN {
            std::thread::yield_now();
        }
        // SAFETY: the driver has forgotten this descriptor, and EAL has just now.
        unsafe { libc::close(fd) };
    }
}

/// Removes callbacks from EAL whose socket the driver has closed without a word. On EAL's interrupt
/// thread, so before EAL looks at the socket again.
fn sweep() {
    let Some(api) = sys::loaded() else { return };
    let abandoned: Vec<(*mut Callback, c_int)> = {
        let table = table();
        let closed = |callback: &Callback| {
            !callback.dead.load(Ordering::Acquire) && inode(callback.fd) != callback.inode
        };
        let pointers = table.callbacks.iter().copied().zip(table.each());
        let closed = pointers.filter(|(_, callback)| closed(callback));
        closed
            .map(|(place, callback)| (place, callback.fd))
            .collect()
    };
    for (callback, fd) in abandoned {
        forget(api, callback, fd);
    }
}

/// Removes a callback from EAL and from the table; what EAL answers.
fn forget(api: &Api, callback: *mut Callback, fd: c_int) -> c_int {
    // SAFETY: makes a handle for the call; EAL finds the callback by the descriptor in it.
    let removed = unsafe {
        let handle = api.rte_intr_instance_alloc(0);
        api.rte_intr_fd_set(handle, fd);
        let removed = api.genie_dpdk_intr_remove(handle, Some(guarded), callback.cast());
        api.rte_intr_instance_free(handle);
        removed
    };
    if removed > 0 {
        drop(table().take(callback));
    }
    removed
}

/// What EAL's interrupt thread calls instead of the driver's own.
unsafe extern "C" fn guarded(callback: *mut c_void) {
    let ports = lock();
    // SAFETY: EAL calls this while the callback is registered, and it is only freed afterwards.
    let callback = unsafe { &*callback.cast::<Callback>() };
    if callback.dead.load(Ordering::Acquire) {
        return;
    }
    for gate in &ports.gates {
        gate.shut();
    }
    CURRENT.set(callback.id);
    if let Some(call) = callback.call {
        // SAFETY: what the driver has asked for, with its own argument, which it has not taken back.
        unsafe { call(callback.argument) };
    }
    CURRENT.set(0);
    sweep();
    for gate in &ports.gates {
        gate.open();
    }
}

unsafe extern "C" fn add(
    handle: *const rte_intr_handle,
    call: rte_intr_callback_fn,
    argument: *mut c_void,
) -> c_int {
    let Some(api) = sys::loaded() else {
        return -libc::ENOSYS;
    };
    if !is_in(DRIVER, call) {
        // SAFETY: handed on as it came.
        return unsafe { api.genie_dpdk_intr_add(handle, call, argument) };
    }
    // SAFETY: the driver's handle.
    let fd = unsafe { api.rte_intr_fd_get(handle) };
    let callback = {
        let mut table = table();
        if table.callbacks.len() >= CALLBACKS_MAX {
            return -libc::ENOSPC;
        }
        let callback = Box::into_raw(Box::new(Callback {
            id: table.next_id,
            call,
            argument,
            fd,
            inode: inode(fd),
            listener: CURRENT.get(),
            removed: Mutex::new(None),
            dead: AtomicBool::new(false),
        }));
        table.next_id += 1;
        table.callbacks.push(callback);
        callback
    };
    // SAFETY: the driver's handle, and a callback that stays in the table while it is registered.
    let result = unsafe { api.genie_dpdk_intr_add(handle, Some(guarded), callback.cast()) };
    if result < 0 {
        drop(table().take(callback));
    }
    result
}

unsafe extern "C" fn remove(
    handle: *const rte_intr_handle,
    call: rte_intr_callback_fn,
    argument: *mut c_void,
) -> c_int {
    let Some(api) = sys::loaded() else {
        return -libc::ENOSYS;
    };
    let Some(callback) = table().find(call, argument) else {
        // SAFETY: handed on as it came.
        return unsafe { api.genie_dpdk_intr_remove(handle, call, argument) };
    };
    // SAFETY: the driver's handle, and what was registered for it.
    let removed = unsafe { api.genie_dpdk_intr_remove(handle, Some(guarded), callback.cast()) };
    if removed > 0 {
        drop(table().take(callback));
    }
    removed
}

unsafe extern "C" fn remove_later(
    handle: *const rte_intr_handle,
    call: rte_intr_callback_fn,
    argument: *mut c_void,
    removed: rte_intr_unregister_callback_fn,
) -> c_int {
    let Some(api) = sys::loaded() else {
        return -libc::ENOSYS;
    };
    let Some(callback) = table().find(call, argument) else {
        // SAFETY: handed on as it came.
        return unsafe { api.genie_dpdk_intr_remove_later(handle, call, argument, removed) };
    };
    // SAFETY: it is in the table, and only the driver, which is here, takes it out.
    unsafe {
        *(*callback)
            .removed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = removed;
        (*callback).dead.store(true, Ordering::Release);
    }
    loop {
        // SAFETY: the driver's handle, and what was registered for it.
        let result = unsafe {
            let removed = Some(removed_later as _);
            api.genie_dpdk_intr_remove_later(handle, Some(guarded), callback.cast(), removed)
        };
        if result != -libc::EAGAIN {
            return result;
        }
        // It was running when the driver looked, and is not any more: the driver gives up here, and
        // leaves a callback behind for a port that it frees.
        // SAFETY: as above.
        let result = unsafe { api.genie_dpdk_intr_remove(handle, Some(guarded), callback.cast()) };
        if result > 0 {
            // SAFETY: what EAL would call; the driver frees the handle in it.
            unsafe { removed_later(handle.cast_mut(), callback.cast()) };
        }
        if result != -libc::EAGAIN {
            return result;
        }
    }
}

/// Called by EAL when a callback that was to be removed later is gone.
unsafe extern "C" fn removed_later(handle: *mut rte_intr_handle, callback: *mut c_void) {
    let Some(callback) = table().take(callback.cast()) else {
        return;
    };
    let removed = *callback
        .removed
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(removed) = removed {
        // SAFETY: what the driver has asked for, with its own argument.
        unsafe { removed(handle, callback.argument) };
    }
}
