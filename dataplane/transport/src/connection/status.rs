//! How a connection stands, and what it did.

use std::time::Duration;

use super::Connection;
use crate::error::ConnectionError;

/// What a connection did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that were sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Tensor bytes that were sent again.
    pub bytes_repeated: u64,
    /// Frames that were taken for lost.
    pub frames_lost: u64,
    /// Frames that were taken for lost and arrived all the same.
    pub frames_late: u64,
    /// Frames that the peer got with other data than were summed.
    pub frames_damaged: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Frames that were accepted.
    pub frames_received: u64,
    /// Tensor bytes that were written to regions.
    pub bytes_placed: u64,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// Why it ended, if it did.
    pub ended: Option<ConnectionError>,
    /// Transfers that are not finished.
    pub transfers: usize,
    /// Their bytes that were never sent.
    pub unsent_bytes: u64,
    /// Pieces that wait to be sent again.
    pub repeats: usize,
    /// Messages that are not acknowledged.
    pub messages: u64,
    /// Grants that are open.
    pub grants: usize,
    /// Bytes in flight, headers included.
    pub in_flight_bytes: u64,
    /// Bytes that may be in flight.
    pub window_bytes: u64,
    /// Tensor bytes that the peer takes.
    pub credit_bytes: u64,
    /// Tensor bytes that the driver has not released.
    pub held_bytes: u64,
    /// Bytes of a frame that passes.
    pub mtu: usize,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_variation: Duration,
    /// Submissions to the device, and their bytes.
    pub submissions: u64,
    /// Bytes of all submissions.
    pub submitted_bytes: u64,
}

impl Connection {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            ended: self.alive().err(),
            transfers: self.outbox.len(),
            unsent_bytes: self.outbox.unsent_bytes(),
            repeats: self.repeats.len(),
            messages: self.messages_out.unacked(),
            grants: self.grants.open_count(),
            in_flight_bytes: self.sent.bytes(),
            window_bytes: self.control.window(),
            credit_bytes: self.peer_credit,
            held_bytes: self.held,
            mtu: self.mtu.confirmed(),
            rtt: self.rtt.smoothed(),
            rtt_variation: self.rtt.variation(),
            submissions: self.outbox.submissions,
            submitted_bytes: self.outbox.submitted_bytes,
        }
    }
}
