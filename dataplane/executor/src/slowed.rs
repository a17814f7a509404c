//! A device that is slowed down, to test with.

use std::time::Instant;

/// Runs an operator as if the device had this speed, of 100 percent: it keeps its core for as much longer
/// as the device is slower, as a slower core would.
pub fn run<R>(speed_percent: u32, operator: impl FnOnce() -> R) -> R {
    if speed_percent >= 100 {
        return operator();
    }
    let began = Instant::now();
    let done = operator();
    let all = began.elapsed() * 100 / speed_percent;
    while began.elapsed() < all {
        std::hint::spin_loop();
    }
    done
}
