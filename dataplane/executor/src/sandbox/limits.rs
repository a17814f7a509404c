//! What an executor may take of the machine besides memory, which its budget bounds.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files: two rings, two arenas or a socket, and a pool while it is mapped.
const FILES_MAX: u64 = 1024;

/// Bounds this process. What is bounded more tightly already stays so.
pub fn apply() {
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
