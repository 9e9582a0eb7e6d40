//! How brokers copy from each other (pure).

use crate::property::{Property, boolean, int, long, string};

pub(super) const ROWS: &[Property] = &[
    boolean("auto.leader.rebalance.enable")
        .or("true")
        .high()
        .honoured("Moves leadership back to preferred replicas."),
    long("leader.imbalance.check.interval.seconds")
        .or("300")
        .at_least(1)
        .high()
        .honoured("How often the balance of leaders is checked."),
    int("num.replica.fetchers")
        .or("1")
        .at_least(1)
        .high()
        .cluster_wide()
        .honoured("Connections that fetch from each other broker; partitions are spread over them as in Kafka."),
    int("replica.fetch.backoff.ms")
        .or("1000")
        .at_least(0)
        .honoured("Pause of a fetcher after an error."),
    int("replica.fetch.max.bytes")
        .or("1048576")
        .at_least(0)
        .honoured("Bytes per partition in a fetch among brokers."),
    int("replica.fetch.min.bytes")
        .or("1")
        .high()
        .honoured("Bytes that a fetch among brokers waits for."),
    int("replica.fetch.response.max.bytes")
        .or("10485760")
        .at_least(0)
        .honoured("Bytes in one answer to a fetch among brokers."),
    int("replica.fetch.wait.max.ms")
        .or("500")
        .high()
        .honoured("Longest wait of a fetch among brokers."),
    long("replica.high.watermark.checkpoint.interval.ms").or("5000").high().honoured(
        "How often high watermarks are written down; with one replica they follow from the log.",
    ),
    long("replica.lag.time.max.ms")
        .or("30000")
        .high()
        .honoured("How long a replica may lag before it leaves the in-sync replicas."),
    string("replica.selector.class").honoured(
        "Which replica consumers read from: Kafka's LeaderSelector or RackAwareReplicaSelector; any other class stops the start.",
    ),
    int("replica.socket.receive.buffer.bytes")
        .or("65536")
        .high()
        .accepted("Receive buffer of connections among brokers."),
    int("replica.socket.timeout.ms")
        .or("30000")
        .high()
        .accepted("Socket timeout of connections among brokers."),
    boolean("follower.fetch.last.tiered.offset.enable")
        .or("false")
        .cluster_wide()
        .accepted("Lets an empty follower begin after the data in remote storage."),
];
