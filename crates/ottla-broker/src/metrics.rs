//! What the broker counts about itself, in Prometheus' text format; docs/metrics.md lists the names beside Kafka's.

mod cleaner;
mod replication;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ottla_protocol::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use cleaner::CleanerMetrics;
use replication::ReplicationMetrics;

/// The API that a request metric is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ApiLabel {
    api: &'static str,
}

/// The log directory that a metric is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DirectoryLabel {
    directory: String,
}

type Latencies = Family<ApiLabel, Histogram, fn() -> Histogram>;

/// All metrics of a broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ApiLabel, Counter>,
    latencies: Latencies,
    pub connections: Gauge,
    pub bad_frames: Counter,
    pub bytes_out: Counter,
    bytes_in: Counter,
    records_in: Counter,
    pub partitions: Gauge,
    pub producer_ids: Gauge,
    pub quarantined_ranges: Gauge,
    pub scrubbed_bytes: Gauge,
    pub fetch_sessions: Gauge,
    directories_offline: Family<DirectoryLabel, Gauge>,
    directories_full: Family<DirectoryLabel, Gauge>,
    pub cleaner: CleanerMetrics,
    pub replication: ReplicationMetrics,
    uptime: Gauge<f64, AtomicU64>,
}

/// Upper bounds of the latency buckets in seconds, from 50 µs to 30 s.
const LATENCY_BUCKETS: [f64; 12] =
    [0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let latencies: Latencies = Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS));
        let mut metrics = Self {
            registry: Registry::with_prefix("ottla"),
            requests: Family::default(),
            latencies,
            connections: Gauge::default(),
            bad_frames: Counter::default(),
            bytes_out: Counter::default(),
            bytes_in: Counter::default(),
            records_in: Counter::default(),
            partitions: Gauge::default(),
            producer_ids: Gauge::default(),
            quarantined_ranges: Gauge::default(),
            scrubbed_bytes: Gauge::default(),
            fetch_sessions: Gauge::default(),
            directories_offline: Family::default(),
            directories_full: Family::default(),
            cleaner: CleanerMetrics::default(),
            replication: ReplicationMetrics::default(),
            uptime: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "request_latency",
            "Time from a whole request to its answer, waits included",
            Unit::Seconds,
            self.latencies.clone(),
        );
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register(
            "connections_closed_on_error",
            "Connections closed because of what the peer sent",
            self.bad_frames.clone(),
        );
        registry.register("bytes_out", "Bytes of answers sent", self.bytes_out.clone());
        registry.register("bytes_in", "Bytes of record batches appended", self.bytes_in.clone());
        registry.register("records_in", "Records appended", self.records_in.clone());
        registry.register("partitions", "Partitions on this broker", self.partitions.clone());
        registry.register(
            "producer_ids",
            "Idempotent producers that partitions remember",
            self.producer_ids.clone(),
        );
        registry.register(
            "quarantined_ranges",
            "Ranges of records that are damaged on disk and refused to readers",
            self.quarantined_ranges.clone(),
        );
        registry.register(
            "scrubbed_bytes",
            "Bytes of records read again since the start, to find what the disk has changed",
            self.scrubbed_bytes.clone(),
        );
        registry.register(
            "fetch_sessions",
            "Incremental fetch sessions",
            self.fetch_sessions.clone(),
        );
        registry.register(
            "log_directory_offline",
            "1 for a log directory whose disk has failed",
            self.directories_offline.clone(),
        );
        registry.register(
            "log_directory_full",
            "1 for a log directory that has no room for clients' records",
            self.directories_full.clone(),
        );
        self.cleaner.register(registry);
        self.replication.register(registry);
        registry.register_with_unit(
            "uptime",
            "Time since the broker was ready",
            Unit::Seconds,
            self.uptime.clone(),
        );
    }

    /// One batch of `bytes` with `records` was appended.
    pub(crate) fn appended(&self, bytes: usize, records: i32) {
        self.bytes_in.inc_by(bytes as u64);
        self.records_in.inc_by(u64::try_from(records).unwrap_or(0));
    }

    pub(crate) fn set_directory(&self, path: &Path, is_offline: bool, is_full: bool) {
        let label = DirectoryLabel { directory: path.display().to_string() };
        self.directories_offline.get_or_create(&label).set(is_offline.into());
        self.directories_full.get_or_create(&label).set(is_full.into());
    }

    pub(crate) fn request_done(&self, api_key: ApiKey, elapsed: Duration) {
        let label = ApiLabel { api: api_key.name() };
        self.requests.get_or_create(&label).inc();
        self.latencies.get_or_create(&label).observe(elapsed.as_secs_f64());
    }

    /// Everything as text, `application/openmetrics-text`.
    #[must_use]
    pub(crate) fn render(&self, uptime: Duration) -> String {
        self.uptime.set(uptime.as_secs_f64());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            let _ = writeln!(text, "# a metric could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_up_under_its_apis_name() {
        let metrics = Metrics::default();
        metrics.request_done(ApiKey::Produce, Duration::from_millis(3));
        let text = metrics.render(Duration::from_secs(1));
        assert!(text.contains("ottla_requests_total{api=\"Produce\"} 1"), "{text}");
        assert!(text.contains("ottla_request_latency_seconds_count{api=\"Produce\"} 1"), "{text}");
    }
}
