//! Counters of the daemon, and their text for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use genie_gpudev::PoolsStats;
use genie_poll::counters::Snapshot;
use genie_session::fault::Code;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was copied, by the device's queues.
#[derive(Debug, Default)]
pub struct Copies {
    /// Submissions to a queue, both directions.
    pub submissions: Counter,
    /// Bytes to the device.
    pub to_device: Counter,
    /// Bytes from the device.
    pub from_device: Counter,
}

/// Codes that faults are counted by, with their label.
const FAULT_CODES: [(Code, &str); 11] = [
    (Code::Operator, "operator"),
    (Code::OutOfMemory, "out_of_memory"),
    (Code::NotAllowed, "not_allowed"),
    (Code::Protocol, "protocol"),
    (Code::ExecutorDied, "executor_died"),
    (Code::Draining, "draining"),
    (Code::SessionGone, "session_gone"),
    (Code::Index, "index"),
    (Code::NotImplemented, "not_implemented"),
    (Code::Value, "value"),
    (Code::Busy, "busy"),
];

/// Everything that is counted. What belongs to a session is in its own counters, too.
#[derive(Debug)]
#[allow(missing_docs, reason = "`FAMILIES` says what each is")]
pub struct Metrics {
    started: Instant,
    pub sessions_opened: Counter,
    pub sessions_refused: Counter,
    pub sessions_lost: Counter,
    pub records: Counter,
    pub frames_received: Counter,
    pub frames_sent: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
    pub bulk_dropped: Counter,
    pub staged: Copies,
    pub plans_installed: Counter,
    pub executors_started: Counter,
    pub executors_died: Counter,
    pub connections: Counter,
    pub connections_rejected: Counter,
    faults: [Counter; FAULT_CODES.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            sessions_opened: Counter::default(),
            sessions_refused: Counter::default(),
            sessions_lost: Counter::default(),
            records: Counter::default(),
            frames_received: Counter::default(),
            frames_sent: Counter::default(),
            bytes_received: Counter::default(),
            bytes_sent: Counter::default(),
            bulk_dropped: Counter::default(),
            staged: Copies::default(),
            plans_installed: Counter::default(),
            executors_started: Counter::default(),
            executors_died: Counter::default(),
            connections: Counter::default(),
            connections_rejected: Counter::default(),
            faults: Default::default(),
        }
    }
}

/// What is only known when asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Takes new sessions.
    pub ready: bool,
    /// Sessions there are.
    pub sessions: u64,
    /// Bytes that sessions' tensors hold.
    pub session_memory_bytes: u64,
    /// The pools of uploads that sessions have on a device.
    pub pools: PoolsStats,
    /// Segments whose plan was known.
    pub plan_cache_hits: u64,
    /// Segments that had to be analysed.
    pub plan_cache_misses: u64,
    /// Of the data path: 0 is the best.
    pub transport_level: u8,
    /// What the poll loop did, where there is one.
    pub link: Option<Snapshot>,
}

impl Metrics {
    /// Milliseconds since the daemon started.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a fault that went to a client.
    pub fn fault(&self, code: Code) {
        let known = FAULT_CODES.iter().position(|(known, _)| *known == code);
        if let Some(counter) = known.and_then(|at| self.faults.get(at)) {
            counter.increment();
        }
    }

    /// Counts a fault by the first byte of its encoding.
    pub fn fault_byte(&self, code: u8) {
        if let Some(&(code, _)) = FAULT_CODES.iter().find(|(known, _)| *known as u8 == code) {
            self.fault(code);
        }
    }

    /// All faults together.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.iter().map(Counter::value).sum()
    }

    /// The text that `/metrics` serves.
    #[must_use]
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut out = Text(String::with_capacity(4096));
        let process = crate::process::usage();
        let uptime = self.started.elapsed().as_secs_f64();
        out.gauge("genie_up_seconds", "Time since the daemon started.", uptime);
        out.gauge(
            "genie_ready",
            "1 when new sessions are taken.",
            f64::from(u8::from(gauges.ready)),
        );
        out.counter_f64(
            "process_cpu_seconds_total",
            "CPU time of the daemon, without executors.",
            process.cpu_seconds,
        );
        out.gauge(
            "process_resident_memory_bytes",
            "Memory of the daemon, without executors.",
            process.resident_bytes as f64,
        );
        out.gauge(
            "genie_sessions",
            "Sessions there are.",
            gauges.sessions as f64,
        );
        out.gauge(
            "genie_session_memory_bytes",
            "Bytes that the tensors of all sessions hold.",
            gauges.session_memory_bytes as f64,
        );
        out.gauge(
            "genie_pools",
            "Pools of a device's memory that sessions have for uploads.",
            gauges.pools.pools as f64,
        );
        out.gauge(
            "genie_pool_bytes",
            "Their sizes.",
            gauges.pools.capacity_bytes as f64,
        );
        out.gauge(
            "genie_pool_used_bytes",
            "Taken in them.",
            gauges.pools.in_use_bytes as f64,
        );
        for (name, help, value) in [
            (
                "genie_sessions_opened_total",
                "Sessions opened.",
                self.sessions_opened.value(),
            ),
            (
                "genie_sessions_refused_total",
                "Sessions refused.",
                self.sessions_refused.value(),
            ),
            (
                "genie_sessions_lost_total",
                "Sessions that ended without the client's goodbye.",
                self.sessions_lost.value(),
            ),
            (
                "genie_records_total",
                "Records executed.",
                self.records.value(),
            ),
            (
                "genie_frames_received_total",
                "Frames from clients.",
                self.frames_received.value(),
            ),
            (
                "genie_frames_sent_total",
                "Frames to clients.",
                self.frames_sent.value(),
            ),
            (
                "genie_bytes_received_total",
                "Bytes from clients.",
                self.bytes_received.value(),
            ),
            (
                "genie_bytes_sent_total",
                "Bytes to clients.",
                self.bytes_sent.value(),
            ),
            (
                "genie_bulk_dropped_total",
                "Uploads dropped for lack of memory.",
                self.bulk_dropped.value(),
            ),
            (
                "genie_staged_copies_total",
                "Copies between staging memory and a device, each one submission.",
                self.staged.submissions.value(),
            ),
            (
                "genie_staged_to_device_bytes_total",
                "Bytes copied from staging memory to a device.",
                self.staged.to_device.value(),
            ),
            (
                "genie_staged_from_device_bytes_total",
                "Bytes copied from a device to staging memory.",
                self.staged.from_device.value(),
            ),
            (
                "genie_plans_installed_total",
                "Plans installed.",
                self.plans_installed.value(),
            ),
            (
                "genie_plan_cache_hits_total",
                "Segments whose structure was known.",
                gauges.plan_cache_hits,
            ),
            (
                "genie_plan_cache_misses_total",
                "Segments that were analysed.",
                gauges.plan_cache_misses,
            ),
            (
                "genie_executors_started_total",
                "Executors started.",
                self.executors_started.value(),
            ),
            (
                "genie_executors_died_total",
                "Executors that died by themselves.",
                self.executors_died.value(),
            ),
            (
                "genie_connections_total",
                "Connections accepted.",
                self.connections.value(),
            ),
            (
                "genie_connections_rejected_total",
                "Connections that spoke no known protocol, were too slow or too many.",
                self.connections_rejected.value(),
            ),
            (
                "genie_log_lines_lost_total",
                "Lines of the log that found no room, or could not be written.",
                crate::logging::lost(),
            ),
        ] {
            out.counter(name, help, value);
        }
        out.gauge(
            "genie_transport_level",
            "Level of the data path: 0 DPDK direct, 1 DPDK staged, 2 TCP.",
            f64::from(gauges.transport_level),
        );
        if let Some(link) = &gauges.link {
            out.link(link);
        }
        out.head(
            "genie_faults_total",
            "Faults sent to clients, by code.",
            "counter",
        );
        for ((_, label), counter) in FAULT_CODES.iter().zip(&self.faults) {
            out.line(&format!(
                "genie_faults_total{{code=\"{label}\"}} {}",
                counter.value()
            ));
        }
        out.0
    }
}

/// Prometheus' text format, version 0.0.4.
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(&format!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(&format!("{name} {value}"));
    }

    fn link(&mut self, link: &Snapshot) {
        self.gauge(
            "genie_link_connections",
            "Connections of the transport on the link.",
            link.connections as f64,
        );
        for (name, help, value) in [
            ("turns", "Times around the poll loop.", link.turns),
            (
                "busy_turns",
                "Times around it with something to do.",
                link.busy_turns,
            ),
            ("sleeps", "Times that it slept.", link.sleeps),
            (
                "frames_received",
                "Frames from the link.",
                link.frames_received,
            ),
            ("frames_sent", "Frames to the link.", link.frames_sent),
            (
                "frames_gathered",
                "Frames whose data a device checked and placed.",
                link.frames_gathered,
            ),
            (
                "frames_dropped",
                "Frames of no connection, damaged, forged, or seen before.",
                link.frames_dropped + link.frames_damaged,
            ),
            (
                "frames_stuck",
                "Frames that the link did not take: it was down.",
                link.frames_stuck,
            ),
            (
                "frames_by_reference",
                "Frames sent whose data were not copied.",
                link.frames_by_reference,
            ),
            (
                "host_dropped",
                "Frames that the link's own stack dropped: malformed, for others, of no host.",
                link.host_dropped,
            ),
            (
                "host_refused",
                "Handshakes and TCP connections that the link's own stack refused or gave up.",
                link.host_refused,
            ),
            (
                "submissions",
                "Batches of transfers, on connections that ended.",
                link.submissions,
            ),
            (
                "submitted_bytes",
                "Tensor bytes in them.",
                link.submitted_bytes,
            ),
            (
                "frames_segmented",
                "Frames dropped because they came in more than one part.",
                link.frames_segmented,
            ),
            (
                "pool_exhausted",
                "Times that there was no packet to write a frame to.",
                link.pool_exhausted,
            ),
            (
                "frames_unroutable",
                "Frames to peers that are not known yet.",
                link.frames_unroutable,
            ),
            (
                "frames_lost",
                "Frames sent again, on connections that ended.",
                link.frames_lost,
            ),
            (
                "bytes_repeated",
                "Tensor bytes sent again, on connections that ended.",
                link.bytes_repeated,
            ),
        ] {
            self.counter(&format!("genie_link_{name}_total"), help, value);
        }
        let name = "genie_link_drops_total";
        let help = "Frames that the transport dropped, by reason.";
        self.head(name, help, "counter");
        for (reason, count) in link.drops.iter() {
            self.line(&format!("{name}{{reason=\"{reason}\"}} {count}"));
        }
    }

    fn counter_f64(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "counter");
        self.line(&format!("{name} {value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_head_and_a_number() {
        let metrics = Metrics::default();
        metrics.fault(Code::OutOfMemory);
        metrics.fault_byte(5);
        metrics.fault_byte(200);
        let text = metrics.render(&Gauges {
            ready: true,
            link: Some(Snapshot::default()),
            ..Gauges::default()
        });
        let mut name = "";
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                name = head.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(name), "{line}");
                assert!(
                    line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(),
                    "{line}"
                );
            }
        }
        assert!(text.contains("genie_faults_total{code=\"out_of_memory\"} 1\n"));
        assert_eq!(metrics.faults(), 2);
    }
}
