//! Ottla's own properties: what Kafka has no name for (pure).

use crate::check::Check;
use crate::property::{Property, boolean, long, string};

pub(super) const ROWS: &[Property] = &[
    boolean("log.flush.on.commit").or("true").high().honoured(
        "Acknowledged means on disk; false means in the system's page cache, as in Kafka.",
    ),
    long("log.dir.reserved.bytes").or("67108864").at_least(0).high().cluster_wide().honoured(
        "Free bytes on a directory's disk that clients' records do not take: with less they are refused, with an error that clients retry, and the broker's own writes go on. 0 leaves everything to them.",
    ),
    string("ottla.http.listener").or("127.0.0.1:9644").check(Check::HttpListener).honoured(
        "host:port of /metrics, /healthz and /readyz; none switches them off, port 0 takes a free one.",
    ),
    long("ottla.scrub.bytes.per.second").or("10485760").at_least(0).honoured(
        "How fast flushed records are read again to find what the disk has changed; 0 is never.",
    ),
    long("ottla.scrub.interval.ms").or("604800000").at_least(1).honoured(
        "How often all flushed records are read again.",
    ),
    string("ottla.log.format")
        .or("text")
        .one_of(&["text", "json"])
        .honoured("Form of the broker's own log lines on standard error."),
    string("ottla.log.level")
        .or("info")
        .one_of(&["error", "warn", "info", "debug", "trace"])
        .honoured("Which of the broker's own log lines are written."),
];
