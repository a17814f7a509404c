//! How long to measure.

use std::time::Duration;

/// When a test is warm, and when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Not counted.
    pub warmup: Duration,
    /// Counted.
    pub time: Duration,
}

/// Parses a number of seconds, whole or not, up to an hour.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(format!("{text:?} is not between 0 and 3600 seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
