//! The end of a process that this one started.

use std::process::Child;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(1);

/// Waits for its end, and brings it about where it does not come within `grace`.
pub fn within(process: &mut Child, grace: Duration) {
    let began = Instant::now();
    while matches!(process.try_wait(), Ok(None)) {
        if began.elapsed() >= grace {
            let _ = process.kill();
            let _ = process.wait();
            return;
        }
        std::thread::sleep(TICK);
    }
}
