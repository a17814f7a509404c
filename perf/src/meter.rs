//! Counts and times what is measured.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::interrupt;
use crate::options::times::Times;
use crate::report::{CpuSeconds, Latency, Measurement};

/// The quantiles of a latency curve.
const CURVE: [f64; 14] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0,
];

/// A meter and its warm-up, in a test that does one thing again and again.
pub struct Timed<'a> {
    /// Counts nothing before the warm-up is over.
    pub meter: &'a mut Meter,
    warm_at: Instant,
    time: Duration,
    is_warm: bool,
}

impl<'a> Timed<'a> {
    /// The warm-up begins now.
    pub fn new(meter: &'a mut Meter, times: Times) -> Self {
        Self {
            meter,
            warm_at: Instant::now() + times.warmup,
            time: times.time,
            is_warm: false,
        }
    }

    /// Whether to go on. When the warm-up is over, `begins` is called and time counts.
    pub fn goes_on(&mut self, begins: impl FnOnce() -> Result<()>) -> Result<bool> {
        if !self.is_warm {
            if interrupt::asked() || Instant::now() < self.warm_at {
                return Ok(!interrupt::asked());
            }
            self.is_warm = true;
            begins()?;
            self.meter.start();
        }
        Ok(self.meter.goes_on(self.time))
    }

    /// Does what does not count.
    pub fn apart<T>(&mut self, work: impl FnOnce(&mut Meter) -> T) -> T {
        self.meter.stop();
        let done = work(self.meter);
        if self.is_warm {
            self.meter.start();
        }
        done
    }
}

/// CPU time of this process, user and system.
#[must_use]
pub fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The meter of one test. Time counts only between [`Meter::start`] and [`Meter::stop`].
pub struct Meter {
    /// Nanoseconds.
    histogram: Histogram<u64>,
    count: u64,
    active: Duration,
    cpu: Duration,
    window: Option<(Instant, Duration)>,
    /// Bytes that differed.
    pub verify_errors: u64,
}

impl Meter {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self {
            // Up to a minute, three digits.
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            count: 0,
            active: Duration::ZERO,
            cpu: Duration::ZERO,
            window: None,
            verify_errors: 0,
        })
    }

    /// Time counts from here.
    pub fn start(&mut self) {
        self.window = Some((Instant::now(), cpu_time()));
    }

    /// Time no longer counts.
    pub fn stop(&mut self) {
        if let Some((began, cpu)) = self.window.take() {
            self.active += began.elapsed();
            self.cpu += cpu_time().saturating_sub(cpu);
        }
    }

    /// How much was counted so far, with the window that is open.
    #[must_use]
    pub fn counted(&self) -> Duration {
        let open = self
            .window
            .map_or(Duration::ZERO, |(began, _)| began.elapsed());
        self.active + open
    }

    /// One more is done; it began then.
    pub fn done(&mut self, began: Instant) {
        self.many(1, began.elapsed());
    }

    /// `count` more are done, which took `each`.
    pub fn many(&mut self, count: u64, each: Duration) {
        if self.window.is_some() {
            self.note(count, each);
        }
    }

    /// What was done in the last window, which is closed: how long each took.
    pub fn add(&mut self, times: impl Iterator<Item = Duration>) {
        for took in times {
            self.note(1, took);
        }
    }

    fn note(&mut self, count: u64, each: Duration) {
        self.count += count;
        let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record_n(nanos.max(1), count);
    }

    /// Whether to go on. At least one is counted, however long it takes, unless somebody asked for
    /// an end.
    #[must_use]
    pub fn goes_on(&self, time: Duration) -> bool {
        !interrupt::asked() && (self.count == 0 || self.counted() < time)
    }

    /// The result. `ways`: how often the bytes crossed. `None` when nothing was counted.
    #[must_use]
    pub fn finish(mut self, of: &Of) -> Option<Measurement> {
        self.stop();
        if self.count == 0 {
            return None;
        }
        let seconds = self.active.as_secs_f64().max(1e-9);
        let gbit = self.count as f64 * of.size_bytes as f64 * 8.0 * f64::from(of.ways) / 1e9;
        let here = self.cpu.as_secs_f64();
        let cores = (here + of.cpu_there.unwrap_or(0.0)) / seconds;
        let micros = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Measurement {
            test: of.test.to_owned(),
            size_bytes: of.size_bytes,
            batch: of.batch,
            transfers: self.count,
            seconds,
            gbit_per_s: gbit / seconds,
            // CPU time comes in ticks on some kernels: a short run may show none.
            gbit_per_s_per_core: if cores > 0.0 {
                gbit / seconds / cores
            } else {
                0.0
            },
            messages_per_s: self.count as f64 / seconds,
            latency_us: Latency {
                p50: micros(0.5),
                p90: micros(0.9),
                p99: micros(0.99),
                p999: micros(0.999),
                max: self.histogram.max() as f64 / 1e3,
            },
            latency_curve_us: CURVE.iter().map(|&at| (at, micros(at))).collect(),
            cpu_seconds: CpuSeconds {
                here,
                there: of.cpu_there,
            },
            retransmissions: of.retransmissions,
            frames_dropped: of.frames_dropped,
            verify_errors: self.verify_errors,
        })
    }
}

/// What a meter does not know about its test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Of<'a> {
    /// Name in the report.
    pub test: &'a str,
    /// Of one message or transfer.
    pub size_bytes: u64,
    /// Under way at a time.
    pub batch: u32,
    /// How often the bytes cross: 2 there and back.
    pub ways: u32,
    /// CPU time of the other end, if it is known, in seconds.
    pub cpu_there: Option<f64>,
    /// Of both ends.
    pub retransmissions: u64,
    /// Of both ends.
    pub frames_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of<'_> = Of {
        test: "lat",
        size_bytes: 1000,
        batch: 1,
        ways: 2,
        cpu_there: Some(1.0),
        retransmissions: 3,
        frames_dropped: 0,
    };

    #[test]
    fn only_what_falls_into_a_window_counts() {
        let mut meter = Meter::new().unwrap();
        meter.many(5, Duration::from_micros(10));
        assert!(meter.finish(&OF).is_none());
        let mut meter = Meter::new().unwrap();
        meter.start();
        meter.many(2, Duration::from_micros(10));
        meter.stop();
        meter.many(7, Duration::from_secs(1));
        let active = meter.active.as_secs_f64();
        let result = meter.finish(&OF).unwrap();
        assert_eq!(result.transfers, 2);
        assert!((result.latency_us.max - 10.0).abs() < 0.1);
        assert!((result.gbit_per_s * active * 1e9 - 32_000.0).abs() < 1.0);
        assert_eq!(
            (result.retransmissions, result.cpu_seconds.there),
            (3, Some(1.0))
        );
    }

    #[test]
    fn what_is_done_before_the_warm_up_is_over_or_apart_does_not_count() {
        let mut meter = Meter::new().unwrap();
        let times = |warmup| Times {
            warmup: Duration::from_secs(warmup),
            time: Duration::from_secs(3600),
        };
        let mut timed = Timed::new(&mut meter, times(3600));
        assert!(timed.goes_on(|| panic!("it is not over")).unwrap());
        timed.meter.many(1, Duration::from_secs(1));
        let mut timed = Timed::new(&mut meter, times(0));
        let mut begins = 0;
        for _ in 0..2 {
            let went = timed.goes_on(|| {
                begins += 1;
                Ok(())
            });
            assert!(went.unwrap());
            timed.meter.many(1, Duration::from_micros(10));
            timed.apart(|meter| meter.many(1, Duration::from_secs(1)));
        }
        assert_eq!(begins, 1);
        assert_eq!(meter.finish(&OF).unwrap().transfers, 2);
    }
}
