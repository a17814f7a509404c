//! What a loop does between two turns of its engine, when there was nothing to do.

use crate::engine::Engine;
use crate::idle::{DEEP_NAP, Idle};
use crate::wire::Wire;

/// How a loop rested, or why it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// It looks again at once: the last thing came a moment ago.
    Looks,
    /// A program has spoken meanwhile.
    Spoken,
    /// Another thread asks for something.
    Asked,
    /// Frames arrived while the port's interrupt was switched on.
    Arrived,
    /// It slept.
    Napped,
}

/// Rests, after a turn in which nothing was done. `is_asked` says whether another thread waits for
/// the loop.
pub fn rest<W: Wire>(
    engine: &mut Engine<W>,
    idle: &mut Idle,
    is_asked: impl FnOnce() -> bool,
) -> Rest {
    if !idle.idle() {
        return Rest::Looks;
    }
    if !engine.arm() {
        return Rest::Spoken;
    }
    // What can't go on may be able to again without anybody ringing for it.
    let rings = engine.wire().has_interrupt() && !engine.is_blocked();
    let longest = if rings {
        DEEP_NAP
    } else {
        idle.nap_for(engine.connections() > 0)
    };
    let limit = engine.timeout().map_or(longest, |next| next.min(longest));
    // After arming: who asks from here on rings the bell, which stays rung; and what arrived before
    // may not ring the port's, so it is looked for once more.
    let rest = if is_asked() {
        Rest::Asked
    } else {
        let port = engine.wire().arm();
        let rest = if port.is_some() && engine.listen_once() {
            Rest::Arrived
        } else {
            engine.counters().slept();
            idle.nap(port, limit);
            Rest::Napped
        };
        engine.wire().disarm();
        rest
    };
    engine.disarm();
    rest
}
