//! Idempotent producers and transactions (pure).

use crate::property::{Property, boolean, int, short};

pub(super) const ROWS: &[Property] = &[
    int("add.partitions.to.txn.retry.backoff.max.ms").or("100").at_least(0).high().accepted(
        "Longest time that adding a partition to a transaction is retried in the broker.",
    ),
    int("add.partitions.to.txn.retry.backoff.ms")
        .or("20")
        .at_least(1)
        .high()
        .accepted("Pause between such retries."),
    int("producer.id.expiration.check.interval.ms")
        .or("600000")
        .at_least(1)
        .low()
        .internal()
        .honoured("How often producers that fell silent are looked for."),
    int("producer.id.expiration.ms")
        .or("86400000")
        .at_least(1)
        .low()
        .cluster_wide()
        .honoured("How long the state of a silent idempotent producer is kept."),
    int("transaction.abort.timed.out.transaction.cleanup.interval.ms")
        .or("10000")
        .at_least(1)
        .low()
        .accepted("How often transactions that ran out of time are looked for."),
    int("transaction.max.timeout.ms")
        .or("900000")
        .at_least(1)
        .high()
        .accepted("Longest transaction timeout that a producer may ask for."),
    boolean("transaction.partition.verification.enable").or("true").low().cluster_wide().accepted(
        "Checks that a partition belongs to a transaction before its records are written.",
    ),
    int("transaction.remove.expired.transaction.cleanup.interval.ms")
        .or("3600000")
        .at_least(1)
        .low()
        .accepted("How often expired transactional ids are looked for."),
    int("transaction.state.log.load.buffer.size")
        .or("5242880")
        .at_least(1)
        .high()
        .accepted("Bytes read at a time when a coordinator loads transactions."),
    int("transaction.state.log.min.isr")
        .or("2")
        .at_least(1)
        .high()
        .honoured("min.insync.replicas of the topic of transaction state."),
    int("transaction.state.log.num.partitions")
        .or("50")
        .at_least(1)
        .high()
        .honoured("Partitions of the topic of transaction state; never change it once it exists."),
    short("transaction.state.log.replication.factor")
        .or("3")
        .at_least(1)
        .high()
        .honoured("Replicas of the topic of transaction state."),
    int("transaction.state.log.segment.bytes")
        .or("104857600")
        .at_least(1)
        .high()
        .honoured("Segment size of the topic of transaction state."),
    boolean("transaction.two.phase.commit.enable")
        .or("false")
        .low()
        .accepted("Lets an outside coordinator decide about transactions."),
    int("transactional.id.expiration.ms")
        .or("604800000")
        .at_least(1)
        .high()
        .accepted("How long an idle transactional id is remembered."),
];
