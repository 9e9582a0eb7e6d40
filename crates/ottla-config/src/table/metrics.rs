//! Kafka's own metrics reporters (pure); ours are at `ottla.http.listener`.

use crate::check::Check;
use crate::property::{Property, int, list, long, string};

pub(super) const ROWS: &[Property] = &[
    int("kafka.metrics.polling.interval.secs").or("10").at_least(1).low().accepted(
        "How often Kafka's old metrics reporters are called; metrics are at /metrics here.",
    ),
    list("kafka.metrics.reporters")
        .or("")
        .check(Check::List { may_be_empty: true })
        .low()
        .accepted("Java classes that report Kafka's old metrics; metrics are at /metrics here."),
    list("metric.reporters")
        .or("org.apache.kafka.common.metrics.JmxReporter")
        .check(Check::List { may_be_empty: true })
        .low()
        .cluster_wide()
        .accepted("Java classes that report metrics; metrics are at /metrics here."),
    int("metrics.num.samples")
        .or("2")
        .at_least(1)
        .low()
        .accepted("Windows per metric in Kafka; metrics are at /metrics here."),
    string("metrics.recording.level")
        .or("INFO")
        .low()
        .accepted("Which metrics Kafka records; all are recorded here."),
    long("metrics.sample.window.ms")
        .or("30000")
        .at_least(1)
        .low()
        .accepted("Length of a metric's window in Kafka; metrics are at /metrics here."),
    int("telemetry.max.bytes")
        .or("1048576")
        .at_least(1)
        .low()
        .accepted("Largest push of a client's own metrics; none are collected yet."),
];
