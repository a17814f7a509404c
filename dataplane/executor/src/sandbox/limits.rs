//! What an executor may take of the machine besides memory, which its budget bounds.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files: two rings, two arenas or a socket, and a pool while it is mapped.
const FILES_MAX: u64 = 1024;
/// Threads and processes of a user of its own, which is all executors of a zygote, for each core (and
/// two more: the rest of an executor): so that many sessions have room and a bomb does not.
const THREADS_MAX_EACH: u64 = 1024;

/// Bounds this process. What is bounded more tightly already stays so. Threads are bounded for a user
/// of its own only: another user's are not all executors.
pub fn apply(own_user: bool) {
    if own_user {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        lower(Resource::RLIMIT_NPROC, (cores + 2) * THREADS_MAX_EACH);
    }
    // A client's tensors are not for the disk.
    lower(Resource::RLIMIT_CORE, 0);
    lower(Resource::RLIMIT_NOFILE, FILES_MAX);
    // Message queues, and signals that wait.
    lower(Resource::RLIMIT_MSGQUEUE, 0);
}

fn lower(resource: Resource, max: u64) {
    if let Ok((_, hard)) = getrlimit(resource) {
        let max = max.min(hard);
        // Lowering is always allowed.
        let _ = setrlimit(resource, max, max);
    }
}
