//! What a session has sent and received.

use std::sync::atomic::{AtomicU64, Ordering};

use genie_control_api::v1::SubmitSegmentReply;
use parking_lot::Mutex;

/// What the control plane said of the last segment that it analysed.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// Workload class.
    pub workload_class: String,
    /// From 0 to 1.
    pub confidence: f64,
    /// Warnings, the last few.
    pub warnings: Vec<String>,
}

/// Counters of a session; relaxed, since they order nothing.
#[derive(Debug, Default)]
pub struct Counters {
    messages_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    round_trips: AtomicU64,
    fetched_ahead: AtomicU64,
    faults: AtomicU64,
    moves: AtomicU64,
    moved_bytes: AtomicU64,
    relayed_bytes: AtomicU64,
    analysis: Mutex<Analysis>,
}

/// A reading of [`Counters`].
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Messages to the node, data path and submitted segments.
    pub messages_sent: u64,
    /// Messages from the node.
    pub messages_received: u64,
    /// Bytes to the node, before encryption.
    pub bytes_sent: u64,
    /// Bytes from the node, before encryption.
    pub bytes_received: u64,
    /// Answers that were waited for.
    pub round_trips: u64,
    /// Looks at what had been asked for before, which are no round trips.
    pub fetched_ahead: u64,
    /// Operators that failed on the node.
    pub faults: u64,
    /// Values that went from one device to another.
    pub moves: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Those of them that went through this process, since their nodes can't reach each other.
    pub relayed_bytes: u64,
    /// Of the last segment analysed.
    pub analysis: Analysis,
}

impl Counters {
    /// A message of `bytes` left.
    pub fn sent(&self, bytes: u64) {
        self.messages_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A message of `bytes` came.
    pub fn received(&self, bytes: u64) {
        self.messages_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Its raw bytes came too.
    pub fn received_raw(&self, bytes: u64) {
        self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An answer that was waited for came.
    pub fn round_trip(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// A look was at what had been asked for before.
    pub fn fetched_ahead(&self) {
        self.fetched_ahead.fetch_add(1, Ordering::Relaxed);
    }

    /// An operator failed on the node.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// A value of `bytes` goes from one device to another.
    pub fn moved(&self, bytes: u64) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The same, through this process.
    pub fn relayed(&self, bytes: u64) {
        self.moved(bytes);
        self.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A segment was analysed.
    pub fn analysed(&self, reply: &SubmitSegmentReply) {
        let mut analysis = self.analysis.lock();
        analysis.workload_class.clone_from(&reply.workload_class);
        analysis.confidence = reply.confidence;
        for warning in &reply.warnings {
            if analysis.warnings.len() < 16 && !analysis.warnings.contains(warning) {
                analysis.warnings.push(warning.clone());
            }
        }
    }

    /// The values now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            messages_sent: of(&self.messages_sent),
            messages_received: of(&self.messages_received),
            bytes_sent: of(&self.bytes_sent),
            bytes_received: of(&self.bytes_received),
            round_trips: of(&self.round_trips),
            fetched_ahead: of(&self.fetched_ahead),
            faults: of(&self.faults),
            moves: of(&self.moves),
            moved_bytes: of(&self.moved_bytes),
            relayed_bytes: of(&self.relayed_bytes),
            analysis: self.analysis.lock().clone(),
        }
    }
}
