//! How often one line of the program may be said. A stranger who makes the node say the same again
//! and again fills no disk.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::pace::{Bucket, Pace};

/// What is said so often is no news.
const PACE: Pace = Pace {
    per_second: 10.0,
    burst: 100.0,
};
/// How long to wait before it is said how many were left out.
const SAID_AFTER: Duration = Duration::from_secs(1);

/// Leaves out what is said too often, and says so. One for each place in the program that logs:
/// their number is the program's own.
#[derive(Default)]
pub struct Paced(Mutex<HashMap<Identifier, Said>>);

struct Said {
    bucket: Bucket,
    left_out: u64,
    since: Instant,
}

impl Paced {
    /// Whether it may be said, and how many before it were not.
    fn may_say(&self, what: Identifier, now: Instant) -> Option<u64> {
        let mut all = self.0.lock();
        let said = all.entry(what).or_insert_with(|| Said {
            bucket: Bucket::new(PACE, now),
            left_out: 0,
            since: now,
        });
        if !said.bucket.try_take(PACE, now) {
            if said.left_out == 0 {
                said.since = now;
            }
            said.left_out += 1;
            return None;
        }
        if now.saturating_duration_since(said.since) < SAID_AFTER {
            return Some(0);
        }
        Some(std::mem::take(&mut said.left_out))
    }
}

impl<S: Subscriber> Layer<S> for Paced {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            // Who asked for these wants them.
            return true;
        }
        let Some(left_out) = self.may_say(metadata.callsite(), Instant::now()) else {
            return false;
        };
        if left_out > 0 {
            let (target, line) = (metadata.target(), metadata.line().unwrap_or_default());
            tracing::warn!("{left_out} lines as the next ({target}, line {line}) were left out");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Callsite as _;

    struct Here;
    static META: tracing::Metadata<'static> = tracing::metadata! {
        name: "here",
        target: "test",
        level: Level::INFO,
        fields: &[],
        callsite: &Here,
        kind: tracing::metadata::Kind::EVENT,
    };
    impl tracing::Callsite for Here {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            &META
        }
    }

    #[test]
    fn what_repeats_is_left_out_and_counted() {
        let (paced, start) = (Paced::default(), Instant::now());
        let here = META.callsite();
        let said = (0..1000)
            .filter(|_| paced.may_say(here.clone(), start).is_some())
            .count();
        assert_eq!(said, 100);
        let later = start + Duration::from_secs(2);
        assert_eq!(paced.may_say(here.clone(), later), Some(900));
        assert_eq!(paced.may_say(here, later), Some(0));
        assert_eq!(Here.metadata().name(), "here");
    }
}
