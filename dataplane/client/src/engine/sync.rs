//! What threads share things by. Apart, so that `tests/handover.rs` can put loom's in its place.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
