//! Congestion control behind a trait, with a delay-based default.

use std::time::Duration;

use crate::rtt::Rtt;
use crate::time::Time;

/// Decides how many bytes may be in flight.
pub trait Controller: Send {
    /// Packets of `bytes` were acknowledged; `rtt` holds the newest sample. `round_ended` is true
    /// once for each round trip.
    fn on_ack(&mut self, now: Time, bytes: u64, rtt: &Rtt, round_ended: bool);
    /// Packets of `bytes` were lost.
    fn on_loss(&mut self, now: Time, bytes: u64);
    /// The peer was silent for several probe timeouts.
    fn on_silence(&mut self);
    /// Bytes that may be in flight.
    fn window(&self) -> u64;
    /// Bytes a second at which to send.
    fn pace(&self, rtt: &Rtt) -> u64;
}

/// Windows, in bytes.
const WINDOW_MIN: u64 = 16 << 10;
const WINDOW_INITIAL: u64 = 128 << 10;
const WINDOW_MAX: u64 = 32 << 20;
/// Of a large frame.
const FRAME: u64 = 9 << 10;
/// Queueing above the least round-trip time that a very large window aims at.
const QUEUEING_TARGET: Duration = Duration::from_micros(50);
/// Added to the window in each round trip.
const INCREASE: u64 = 16 << 10;
/// The share of the excess delay that is taken back, and the most in one round trip.
const BETA: f64 = 0.8;
const DECREASE_MAX: f64 = 0.5;
/// Loss below this share is the link's noise, not a full queue.
const LOSS_TOLERATED: f64 = 0.10;
/// Smaller windows aim at more, by the root of this over the window, so that flows that share a queue
/// come to share it evenly though each knows the path's own delay only roughly (Swift's flow
/// scaling).
const WINDOW_LARGE: f64 = (1 << 20) as f64;
const SCALE_MAX: f64 = 6.0;
/// How often a round drains the queue, and the share of what the path holds that it sends.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
const DRAIN: f64 = 0.75;
/// Weight of the newest round in the mean loss.
const LOSS_GAIN: f64 = 0.125;

/// The default, after Swift (Kumar et al., SIGCOMM 2020): below a target delay the window grows by
/// a constant in each round trip, above it it shrinks in proportion to the excess, at most once in
/// a round trip. Departures:
/// - it starts by doubling, as Swift's fabric RTTs are not given here;
/// - loss counts only beyond a tolerated share (as in BBRv2), since a lossy link is to be filled and
///   a full queue shows as delay first;
/// - the delay of a round is the mean of its samples, each cut to a multiple of the last round's: an
///   end whose core was lent to others for milliseconds is no queue. (The least would do for that,
///   but favours flows with many samples.)
/// - from time to time a round is sent with less than the path holds, so that the queue drains and
///   its own delay is not taken for the path's (BBR's ProbeRTT). Else a flow that finds another's
///   queue would push it aside.
#[derive(Debug)]
pub struct Delay {
    window: f64,
    starting: bool,
    acked: u64,
    lost: u64,
    loss: f64,
    /// The samples of this round, and their mean in the last.
    samples: (Duration, u32),
    delay: Option<Duration>,
    drained: Time,
    /// The window to go back to after a round that drains.
    saved: Option<f64>,
}

impl Default for Delay {
    fn default() -> Self {
        Self {
            window: WINDOW_INITIAL as f64,
            starting: true,
            acked: 0,
            lost: 0,
            loss: 0.0,
            samples: (Duration::ZERO, 0),
            delay: None,
            drained: Time(0),
            saved: None,
        }
    }
}

impl Delay {
    fn end_round(&mut self, now: Time, rtt: &Rtt) {
        let total = self.acked + self.lost;
        if total > 0 {
            let share = self.lost as f64 / total as f64;
            self.loss += (share - self.loss) * LOSS_GAIN;
        }
        let queueing = QUEUEING_TARGET.max(rtt.min() / 8).as_secs_f64();
        let scale = (WINDOW_LARGE / self.window).sqrt().min(SCALE_MAX);
        let target = rtt.min().as_secs_f64() + queueing * (1.0 + scale);
        let delay = self.delay.unwrap_or(rtt.smoothed()).as_secs_f64();
        if delay > target {
            self.starting = false;
            let excess = BETA * (delay - target) / delay;
            self.window *= 1.0 - excess.min(DECREASE_MAX);
        } else if self.loss > LOSS_TOLERATED {
            self.starting = false;
            self.window *= 1.0 - (self.loss / 2.0).min(DECREASE_MAX);
        } else if self.starting {
            self.window *= 2.0;
        } else {
            self.window += INCREASE as f64;
        }
        self.window = self.window.clamp(WINDOW_MIN as f64, WINDOW_MAX as f64);
        if now.since(self.drained) >= DRAIN_EVERY && !self.starting {
            self.drained = now;
            self.saved = Some(self.window);
            let path = self.window * rtt.min().as_secs_f64() / delay.max(1e-9);
            self.window = (path * DRAIN).max(WINDOW_MIN as f64);
        }
    }
}

impl Controller for Delay {
    fn on_ack(&mut self, now: Time, bytes: u64, rtt: &Rtt, round_ended: bool) {
        self.acked += bytes;
        let most = self.delay.map(|delay| 2 * delay + QUEUEING_TARGET);
        let sample = rtt.path().min(most.unwrap_or(Duration::MAX));
        self.samples = (self.samples.0 + sample, self.samples.1 + 1);
        if !round_ended {
            return;
        }
        self.delay = Some(self.samples.0 / self.samples.1);
        self.samples = (Duration::ZERO, 0);
        if let Some(window) = self.saved.take() {
            self.window = window;
        } else if (self.acked + self.lost + FRAME) as f64 * 2.0 >= self.window {
            // A window that is not used says nothing about the path: it must not grow. One may lack
            // a frame, which did not fit.
            self.end_round(now, rtt);
        }
        (self.acked, self.lost) = (0, 0);
    }

    fn on_loss(&mut self, _now: Time, bytes: u64) {
        self.lost += bytes;
    }

    fn on_silence(&mut self) {
        self.window = WINDOW_MIN as f64;
        self.starting = true;
        self.saved = None;
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn pace(&self, rtt: &Rtt) -> u64 {
        let gain = if self.starting { 2.0 } else { 1.25 };
        let delay = self.delay.unwrap_or(rtt.smoothed()).as_secs_f64();
        (gain * self.window / delay.max(1e-6)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(control: &mut Delay, rtt: &Rtt, count: u32, lost_share: f64) {
        for _ in 0..count {
            let bytes = control.window();
            let lost = (bytes as f64 * lost_share) as u64;
            control.on_loss(Time(0), lost);
            control.on_ack(Time(0), bytes - lost, rtt, true);
        }
    }

    fn rtt(samples_us: &[u64]) -> Rtt {
        let mut rtt = Rtt::default();
        for us in samples_us {
            rtt.sample(Time(0), Duration::from_micros(*us), Duration::ZERO);
        }
        rtt
    }

    #[test]
    fn it_grows_on_a_free_path_and_shrinks_when_delay_rises() {
        let mut control = Delay::default();
        rounds(&mut control, &rtt(&[100]), 4, 0.0);
        assert_eq!(control.window(), WINDOW_INITIAL * 16);
        let queued: Vec<u64> = std::iter::once(100).chain([1000; 40]).collect();
        rounds(&mut control, &rtt(&queued), 6, 0.0);
        assert!(
            control.window() < WINDOW_INITIAL * 3,
            "{}",
            control.window()
        );
        assert!(control.window() >= WINDOW_MIN);
    }

    #[test]
    fn noise_is_tolerated_and_heavy_loss_is_not() {
        let mut control = Delay::default();
        rounds(&mut control, &rtt(&[100]), 50, 0.05);
        assert!(control.window() > WINDOW_INITIAL);
        rounds(&mut control, &rtt(&[100]), 100, 0.4);
        assert_eq!(control.window(), WINDOW_MIN);
    }

    #[test]
    fn an_idle_window_does_not_grow() {
        let mut control = Delay::default();
        for _ in 0..100 {
            control.on_ack(Time(0), 100, &rtt(&[100]), true);
        }
        assert_eq!(control.window(), WINDOW_INITIAL);
    }
}
