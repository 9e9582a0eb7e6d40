//! What one group may set for itself (pure).

use crate::check::Check;
use crate::property::{Property, boolean, int, string};

pub(super) const ROWS: &[Property] =
    &[
        int("consumer.assignment.interval.ms")
            .or("1000")
            .at_least(0)
            .per_resource()
            .accepted("Shortest time between two assignments of this consumer group."),
        int("consumer.heartbeat.interval.ms")
            .or("5000")
            .at_least(1)
            .per_resource()
            .accepted("Heartbeat interval of this consumer group's members."),
        int("consumer.session.timeout.ms").or("45000").at_least(1).per_resource().accepted(
            "How long a member of this consumer group counts as alive without a heartbeat.",
        ),
        int("share.assignment.interval.ms")
            .or("1000")
            .at_least(0)
            .per_resource()
            .accepted("Shortest time between two assignments of this share group."),
        string("share.auto.offset.reset")
            .or("latest")
            .check(Check::OffsetReset)
            .per_resource()
            .accepted("Where this share group begins on a partition it has not read."),
        int("share.delivery.count.limit")
            .or("5")
            .at_least(2)
            .per_resource()
            .accepted("How often a record is delivered before this share group gives it up."),
        int("share.heartbeat.interval.ms")
            .or("5000")
            .at_least(1)
            .per_resource()
            .accepted("Heartbeat interval of this share group's members."),
        string("share.isolation.level")
            .or("read_uncommitted")
            .one_of(&["read_committed", "read_uncommitted"])
            .per_resource()
            .accepted("Whether this share group sees records of open transactions."),
        int("share.partition.max.record.locks")
            .or("2000")
            .at_least(100)
            .per_resource()
            .accepted("Records of a share partition that may be in delivery at a time."),
        int("share.record.lock.duration.ms")
            .or("30000")
            .at_least(1000)
            .per_resource()
            .accepted("How long a delivered record is reserved for its consumer."),
        boolean("share.renew.acknowledge.enable")
            .or("true")
            .per_resource()
            .accepted("Lets consumers prolong the reservation of a record."),
        int("share.session.timeout.ms")
            .or("45000")
            .at_least(1)
            .per_resource()
            .accepted("How long a member of this share group counts as alive without a heartbeat."),
        int("streams.assignment.interval.ms")
            .or("1000")
            .at_least(0)
            .per_resource()
            .accepted("Shortest time between two assignments of this streams group."),
        int("streams.heartbeat.interval.ms")
            .or("5000")
            .at_least(1)
            .per_resource()
            .accepted("Heartbeat interval of this streams group's members."),
        int("streams.initial.rebalance.delay.ms")
            .or("3000")
            .at_least(0)
            .per_resource()
            .accepted("How long this streams group waits for more members at its start."),
        int("streams.num.standby.replicas")
            .or("0")
            .at_least(0)
            .per_resource()
            .accepted("Standby replicas of each task of this streams group."),
        int("streams.session.timeout.ms").or("45000").at_least(1).per_resource().accepted(
            "How long a member of this streams group counts as alive without a heartbeat.",
        ),
    ];
