//! What compaction has done, and what there is to do: [`CleanerState`] as of the last time that somebody asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla_log::CleanerState;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Default)]
pub(crate) struct CleanerMetrics {
    cleanings: Counter,
    bytes_read: Counter,
    bytes_written: Counter,
    batches_dropped: Counter,
    dirty_ratio_max: Number,
    overdue: Number,
    buffer_utilization: Number,
    last_cleaning: Number,
    idle: Number,
    uncleanable_partitions: Gauge,
    uncleanable_bytes: Gauge,
}

impl CleanerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("log_cleaner");
        registry.register("cleanings", "Compactions of a log", self.cleanings.clone());
        registry.register("bytes_read", "Bytes that were compacted", self.bytes_read.clone());
        registry.register("bytes_written", "Bytes that were left", self.bytes_written.clone());
        registry.register(
            "batches_dropped",
            "Record batches of which nothing was left",
            self.batches_dropped.clone(),
        );
        registry.register(
            "dirty_ratio_max",
            "Share of new data in the log that has the largest one",
            self.dirty_ratio_max.clone(),
        );
        registry.register(
            "buffer_utilization",
            "How full the memory for keys was in the last compaction",
            self.buffer_utilization.clone(),
        );
        registry.register(
            "uncleanable_partitions",
            "Logs in which compaction has met damage, and which it leaves alone",
            self.uncleanable_partitions.clone(),
        );
        registry.register(
            "uncleanable_bytes",
            "Bytes of those logs that would be compacted",
            self.uncleanable_bytes.clone(),
        );
        self.register_times(registry);
    }

    fn register_times(&self, registry: &mut Registry) {
        let times = [
            ("overdue", "Longest wait beyond max.compaction.lag.ms", &self.overdue),
            ("last_cleaning", "Time that the last compaction took", &self.last_cleaning),
            ("idle", "Time since logs were last looked at", &self.idle),
        ];
        for (name, help, metric) in times {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
    }

    pub(crate) fn set(&self, state: &CleanerState) {
        // Nobody else adds to these.
        let total = |counter: &Counter, value| counter.inner().store(value, Ordering::Relaxed);
        total(&self.cleanings, state.cleanings);
        total(&self.bytes_read, state.bytes_read);
        total(&self.bytes_written, state.bytes_written);
        total(&self.batches_dropped, state.batches_dropped);
        let seconds = |gauge: &Number, time: Duration| gauge.set(time.as_secs_f64());
        seconds(&self.overdue, state.overdue);
        seconds(&self.last_cleaning, state.last_duration);
        seconds(&self.idle, state.idle);
        self.dirty_ratio_max.set(state.dirtiest_ratio);
        self.buffer_utilization.set(state.keys_share);
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.uncleanable_partitions.set(count(state.uncleanable_logs as u64));
        self.uncleanable_bytes.set(count(state.uncleanable_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_compaction_shows_up_under_its_own_names() {
        let metrics = Metrics::default();
        let state = CleanerState {
            cleanings: 2,
            bytes_read: 300,
            dirtiest_ratio: 0.25,
            uncleanable_logs: 1,
            idle: Duration::from_millis(1_500),
            ..CleanerState::default()
        };
        metrics.cleaner.set(&state);
        let text = metrics.render(Duration::from_secs(1));
        for line in [
            "ottla_log_cleaner_cleanings_total 2",
            "ottla_log_cleaner_bytes_read_total 300",
            "ottla_log_cleaner_dirty_ratio_max 0.25",
            "ottla_log_cleaner_uncleanable_partitions 1",
            "ottla_log_cleaner_idle_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
