//! What nobody waits for, and the session's end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use genie_control_api::v1::CloseSessionRequest;
use genie_session::client::{ClientLog, Message};
use genie_session::frame::{Header, Kind};

use super::heartbeat::PING_AFTER;
use super::shapes::ShapeCache;
use super::trace::Trace;
use super::{
    Error, Exception, FLUSH_AFTER, IDLE_AFTER, IDLE_TICK, REST, REST_RECORDS, Session, TRIM_AFTER,
};

/// How long what was said last may take to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Session {
    /// Sends what nobody waits for, reads what nobody waits for, until the session ends.
    pub(super) fn housekeeping(&self) {
        let mut last_work = Instant::now();
        let mut waits = self.slots.waits();
        let mut rests = false;
        while !self.is_lost.load(Ordering::Acquire) {
            if last_work.elapsed() > IDLE_AFTER && self.slots.waiting() == 0 {
                self.wake.sleep(&self.link, &self.dirty, IDLE_TICK);
            } else if rests {
                let is_wanted = || self.append.lock().unsent >= REST_RECORDS;
                self.wake.rest(is_wanted, REST);
            } else {
                std::thread::sleep(FLUSH_AFTER);
            }
            let waited = self.slots.waits() != waits;
            waits = self.slots.waits();
            let dirty = self.dirty.load(Ordering::Relaxed);
            rests = (waited || self.slots.waiting() > 0) && !dirty && !self.outbox.has_work();
            if waited || dirty {
                last_work = Instant::now();
            }
            if dirty {
                let mut append = self.append.lock();
                self.flush_into_outbox(&mut append);
            }
            if self.outbox.has_work() {
                let _ = self.pump();
            }
            // Whoever waits reads for itself.
            if self.slots.waiting() == 0 {
                self.slots.turn(&self.reading, |reading| {
                    while self.slots.waiting() == 0
                        && (reading.has_frame() || self.link.wait_readable(Duration::ZERO))
                    {
                        last_work = Instant::now();
                        if !self.read_frame(reading).unwrap_or(false) {
                            break;
                        }
                    }
                });
            }
            if last_work.elapsed() > TRIM_AFTER {
                self.host.rest();
                self.link.trim();
            }
            // The lease has to be kept also while nobody waits.
            let _ = if self.slots.waiting() > 0 {
                self.look_after_node(PING_AFTER)
            } else {
                self.look_after_node(self.lease() / 4)
            };
        }
        self.control.abandon();
    }

    /// A session that is silent for so long is ended by the node.
    fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.opened.lease_ms.max(1000)))
    }

    /// Ends the session in good order.
    pub fn close(&self) {
        if self.check().is_ok() {
            let mut append = self.append.lock();
            self.flush_into_outbox(&mut append);
            let message = Message {
                header: Header::new(Kind::Goodbye, 0, 0),
                payload: Vec::new(),
            };
            self.outbox.put(message);
            drop(append);
            let _ = self.pump();
            // Others may be at it.
            let began = Instant::now();
            while !self.outbox.is_empty() && self.check().is_ok() && began.elapsed() < LAST_WORDS {
                std::thread::sleep(FLUSH_AFTER);
            }
        }
        // Before the node closes the connection, which would be another reason.
        let reason = Error::Genie(
            Exception::StaleTensor,
            "this tensor's session was closed by genie.disconnect()".to_owned(),
        );
        let _ = self.lost.set(reason.clone());
        let request = CloseSessionRequest {
            session_id: self.opened.session_id,
            data_token: self.opened.data_token.clone(),
        };
        self.control.close(request, Duration::from_millis(500));
        self.lose(reason);
        // The session itself stays, since others may still look at it; what it held does not.
        let mut append = self.append.lock();
        append.log = ClientLog::new();
        append.shapes = ShapeCache::default();
        append.trace = Trace::small();
    }
}
