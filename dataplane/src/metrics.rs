//! Counters of the daemon, and their text for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use genie_gpudev::{PoolsStats, Sandbox};
use genie_poll::counters::Snapshot;
use genie_session::fault::Code;
use prometheus_client::metrics::counter::{self, ConstCounter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{self, ConstGauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

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
const FAULT_CODES: [(Code, &str); 13] = [
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
    (Code::LinAlg, "linear_algebra"),
    (Code::Type, "type"),
];

/// What takes how long, and how large it is.
#[derive(Debug)]
pub struct Times {
    /// What the node takes to open a session, in seconds.
    pub session_open: Histogram,
    /// From a session's opening to its first result, in seconds.
    pub first_result: Histogram,
    /// What the analysis of a segment takes, in seconds.
    pub analysis: Histogram,
    /// Bytes of each fetch.
    pub fetch_bytes: Histogram,
}

impl Default for Times {
    fn default() -> Self {
        // With the one that takes all above it, 14 buckets: 100 us to 0.4 s, 1 ms to 4 s, 16
        // bytes to 1 GiB.
        let seconds = |least: f64| Histogram::new(exponential_buckets(least, 2.0, 13));
        Self {
            session_open: seconds(1e-4),
            first_result: seconds(1e-3),
            analysis: seconds(1e-4),
            fetch_bytes: Histogram::new(exponential_buckets(16.0, 4.0, 13)),
        }
    }
}

/// Everything that is counted. What belongs to a session is in its own counters, too.
#[derive(Debug)]
#[allow(missing_docs, reason = "`render` says what each is")]
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
    pub executors_forbidden: Counter,
    pub zygotes_replaced: Counter,
    pub connections: Counter,
    pub connections_rejected: Counter,
    /// Bytes of values that went to other nodes, and that came from other devices.
    pub peer_bytes_sent: Counter,
    /// See there.
    pub peer_bytes_received: Counter,
    pub times: Times,
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
            executors_forbidden: Counter::default(),
            zygotes_replaced: Counter::default(),
            connections: Counter::default(),
            connections_rejected: Counter::default(),
            peer_bytes_sent: Counter::default(),
            peer_bytes_received: Counter::default(),
            times: Times::default(),
            faults: Default::default(),
        }
    }
}

/// What is only known when asked.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Takes new sessions.
    pub ready: bool,
    /// Sessions there are.
    pub sessions: u64,
    /// Bytes that sessions' tensors hold.
    pub session_memory_bytes: u64,
    /// What all sessions together may take of this machine's memory.
    pub memory_bytes: u64,
    /// What is charged of it.
    pub memory_charged_bytes: u64,
    /// The pools of uploads that sessions have on a device.
    pub pools: PoolsStats,
    /// Segments whose plan was known.
    pub plan_cache_hits: u64,
    /// Segments that had to be analysed.
    pub plan_cache_misses: u64,
    /// Of the data path: 0 is the best.
    pub transport_level: u8,
    /// What holds executors in.
    pub sandbox: Sandbox,
    /// Processes that executors are started from.
    pub zygotes: u64,
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

    /// The text that `/metrics` serves: OpenMetrics, which Prometheus reads.
    #[must_use]
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut page = Page::default();
        let process = crate::process::usage();
        let uptime = self.started.elapsed().as_secs_f64();
        page.gauge("genie_up_seconds", "Time since the daemon started.", uptime);
        page.gauge(
            "genie_ready",
            "1 when new sessions are taken.",
            f64::from(u8::from(gauges.ready)),
        );
        page.gauge(
            "process_resident_memory_bytes",
            "Memory of the daemon, without executors.",
            process.resident_bytes as f64,
        );
        page.gauge(
            "genie_sessions",
            "Sessions there are.",
            gauges.sessions as f64,
        );
        page.gauge(
            "genie_session_memory_bytes",
            "Bytes that the tensors of all sessions hold.",
            gauges.session_memory_bytes as f64,
        );
        page.gauge(
            "genie_memory_bytes",
            "Memory of this machine that sessions may take, all together.",
            gauges.memory_bytes as f64,
        );
        page.gauge(
            "genie_memory_charged_bytes",
            "What is charged of it.",
            gauges.memory_charged_bytes as f64,
        );
        page.gauge(
            "genie_pools",
            "Pools of a device's memory that sessions have for uploads.",
            gauges.pools.pools as f64,
        );
        page.gauge(
            "genie_pool_bytes",
            "Their sizes.",
            gauges.pools.capacity_bytes as f64,
        );
        page.gauge(
            "genie_pool_used_bytes",
            "Taken in them.",
            gauges.pools.in_use_bytes as f64,
        );
        page.gauge(
            "genie_transport_level",
            "Level of the data path: 0 DPDK direct, 1 DPDK staged, 2 TCP.",
            f64::from(gauges.transport_level),
        );
        page.gauge(
            "genie_zygotes",
            "Processes that executors are started from.",
            gauges.zygotes as f64,
        );
        let sandbox = Family::<Labels, gauge::Gauge>::default();
        for held in &gauges.sandbox.parts {
            sandbox
                .get_or_create(&vec![("part", held.part.to_string())])
                .set(i64::from(held.had));
        }
        page.register(
            "genie_sandbox",
            "1 where this part of what holds executors in is in force.",
            sandbox,
        );
        page.counter(
            "process_cpu_seconds",
            "CPU time of the daemon, without executors.",
            process.cpu_seconds,
        );
        for (name, help, value) in [
            (
                "genie_sessions_opened",
                "Sessions opened.",
                self.sessions_opened.value(),
            ),
            (
                "genie_sessions_refused",
                "Sessions refused.",
                self.sessions_refused.value(),
            ),
            (
                "genie_sessions_lost",
                "Sessions that ended without the client's goodbye.",
                self.sessions_lost.value(),
            ),
            ("genie_records", "Records executed.", self.records.value()),
            (
                "genie_frames_received",
                "Frames from clients.",
                self.frames_received.value(),
            ),
            (
                "genie_frames_sent",
                "Frames to clients.",
                self.frames_sent.value(),
            ),
            (
                "genie_bytes_received",
                "Bytes from clients.",
                self.bytes_received.value(),
            ),
            (
                "genie_bytes_sent",
                "Bytes to clients.",
                self.bytes_sent.value(),
            ),
            (
                "genie_bulk_dropped",
                "Uploads dropped for lack of memory.",
                self.bulk_dropped.value(),
            ),
            (
                "genie_staged_copies",
                "Copies between staging memory and a device, each one submission.",
                self.staged.submissions.value(),
            ),
            (
                "genie_staged_to_device_bytes",
                "Bytes copied from staging memory to a device.",
                self.staged.to_device.value(),
            ),
            (
                "genie_staged_from_device_bytes",
                "Bytes copied from a device to staging memory.",
                self.staged.from_device.value(),
            ),
            (
                "genie_plans_installed",
                "Plans installed.",
                self.plans_installed.value(),
            ),
            (
                "genie_plan_cache_hits",
                "Segments whose structure was known.",
                gauges.plan_cache_hits,
            ),
            (
                "genie_plan_cache_misses",
                "Segments that were analysed.",
                gauges.plan_cache_misses,
            ),
            (
                "genie_executors_started",
                "Executors started.",
                self.executors_started.value(),
            ),
            (
                "genie_executors_died",
                "Executors that died by themselves.",
                self.executors_died.value(),
            ),
            (
                "genie_executors_forbidden",
                "Executors that made a system call which is forbidden to them.",
                self.executors_forbidden.value(),
            ),
            (
                "genie_zygotes_replaced",
                "Processes that start executors, replaced since too many of those crashed.",
                self.zygotes_replaced.value(),
            ),
            (
                "genie_connections",
                "Connections accepted.",
                self.connections.value(),
            ),
            (
                "genie_connections_rejected",
                "Connections that spoke no known protocol, were too slow or too many.",
                self.connections_rejected.value(),
            ),
            (
                "genie_peer_bytes_sent",
                "Bytes of values that went to other nodes.",
                self.peer_bytes_sent.value(),
            ),
            (
                "genie_peer_bytes_received",
                "Bytes of values that came from other devices of their session.",
                self.peer_bytes_received.value(),
            ),
            (
                "genie_log_lines_lost",
                "Lines of the log that found no room, or could not be written.",
                genie_server::logging::lost(),
            ),
        ] {
            page.counter(name, help, value);
        }
        let faults = Family::<Labels, counter::Counter>::default();
        for ((_, label), count) in FAULT_CODES.iter().zip(&self.faults) {
            faults
                .get_or_create(&vec![("code", (*label).to_owned())])
                .inc_by(count.value());
        }
        page.register("genie_faults", "Faults sent to clients, by code.", faults);
        let times = &self.times;
        for (name, help, histogram) in [
            (
                "genie_session_open_seconds",
                "What the node takes to open a session.",
                &times.session_open,
            ),
            (
                "genie_first_result_seconds",
                "From a session's opening to its first result.",
                &times.first_result,
            ),
            (
                "genie_analysis_seconds",
                "What the analysis of a segment takes, waiting included.",
                &times.analysis,
            ),
            (
                "genie_fetch_bytes",
                "Sizes of what clients fetch.",
                &times.fetch_bytes,
            ),
        ] {
            page.register(name, help, histogram.clone());
        }
        if let Some(link) = &gauges.link {
            page.link(link);
        }
        page.text()
    }
}

type Labels = Vec<(&'static str, String)>;

/// Metrics as they are now.
#[derive(Default)]
struct Page(Registry);

impl Page {
    fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        // The crate adds the full stop.
        self.0.register(name, help.trim_end_matches('.'), metric);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.register(name, help, ConstGauge::new(value));
    }

    /// The name's end, `_total`, is the crate's.
    fn counter<N>(&mut self, name: &str, help: &str, value: N)
    where
        ConstCounter<N>: Metric,
    {
        self.register(name, help, ConstCounter::new(value));
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
            self.counter(&format!("genie_link_{name}"), help, value);
        }
        let drops = Family::<Labels, counter::Counter>::default();
        for (reason, count) in link.drops.iter() {
            drops
                .get_or_create(&vec![("reason", reason.to_string())])
                .inc_by(count);
        }
        self.register(
            "genie_link_drops",
            "Frames that the transport dropped, by reason.",
            drops,
        );
    }

    fn text(self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (Metrics, Gauges) {
        let gauges = Gauges {
            ready: true,
            link: Some(Snapshot::default()),
            ..Gauges::default()
        };
        (Metrics::default(), gauges)
    }

    #[test]
    fn every_sample_has_a_head_and_a_number() {
        let (metrics, gauges) = full();
        metrics.fault(Code::OutOfMemory);
        metrics.fault_byte(5);
        metrics.fault_byte(200);
        let text = metrics.render(&gauges);
        let mut name = "";
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                name = head.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(name), "{line}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("genie_faults_total{code=\"out_of_memory\"} 1\n"));
        assert!(text.contains("genie_link_frames_received_total 0\n"));
        assert_eq!(metrics.faults(), 2);
    }

    #[test]
    fn histograms_have_few_buckets_and_count_what_they_saw() {
        let (metrics, gauges) = full();
        metrics.times.first_result.observe(0.04);
        metrics.times.fetch_bytes.observe(1e12);
        let text = metrics.render(&gauges);
        for name in [
            "genie_session_open_seconds",
            "genie_first_result_seconds",
            "genie_analysis_seconds",
            "genie_fetch_bytes",
        ] {
            let buckets = text.matches(&format!("{name}_bucket{{")).count();
            assert!((2..=14).contains(&buckets), "{name} has {buckets}");
        }
        assert!(text.contains("genie_first_result_seconds_count 1\n"));
        assert!(text.contains("genie_fetch_bytes_bucket{le=\"+Inf\"} 1\n"));
    }

    #[test]
    fn a_scrape_takes_less_than_a_millisecond() {
        let (metrics, gauges) = full();
        let best = (0..50).map(|_| {
            let started = Instant::now();
            assert!(metrics.render(&gauges).len() > 1000);
            started.elapsed()
        });
        let best = best.min().unwrap();
        assert!(best < std::time::Duration::from_millis(1), "{best:?}");
    }
}
