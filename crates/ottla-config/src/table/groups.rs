//! The coordinators of classic, consumer, share and streams groups, for every group (pure).

use crate::check::Check;
use crate::property::{Property, int, list, long, short, string};

pub(super) const ROWS: &[Property] = &[
    int("group.coordinator.append.linger.ms")
        .or("-1")
        .at_least(-1)
        .accepted("How long the group coordinator gathers records before it writes them."),
    int("group.coordinator.background.threads")
        .or("2")
        .at_least(1)
        .high()
        .accepted("Threads for the group coordinator's background work."),
    int("group.coordinator.cached.buffer.max.bytes")
        .or("1048588")
        .at_least(524288)
        .cluster_wide()
        .accepted("Largest buffer that the group coordinator keeps for reuse."),
    list("group.coordinator.rebalance.protocols")
        .or("classic,consumer,streams")
        .check(Check::ListOf {
            values: &["consumer", "classic", "share", "streams"],
            may_be_empty: false,
        })
        .accepted("Which group protocols are on. Only classic groups are served yet, and they cannot be off."),
    int("group.coordinator.threads")
        .or("4")
        .at_least(1)
        .high()
        .accepted("Threads of the group coordinator."),
    int("group.initial.rebalance.delay.ms")
        .or("3000")
        .honoured("How long a new group waits for more members before its first rebalance."),
    int("group.max.session.timeout.ms")
        .or("1800000")
        .honoured("Longest session timeout that a classic member may ask for."),
    int("group.min.session.timeout.ms")
        .or("6000")
        .honoured("Shortest session timeout that a classic member may ask for."),
    int("group.max.size").or("2147483647").at_least(1).honoured("Most members of a classic group."),
    int("group.consumer.assignment.interval.ms")
        .or("1000")
        .at_least(0)
        .cluster_wide()
        .accepted("Shortest time between two assignments of a consumer group."),
    list("group.consumer.assignors")
        .or("uniform,range")
        .check(Check::List { may_be_empty: false })
        .accepted("Assignors for consumer groups; the first is the default."),
    int("group.consumer.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Heartbeat interval that consumer group members are given."),
    int("group.consumer.max.assignment.interval.ms")
        .or("15000")
        .at_least(0)
        .accepted("Upper bound for a group's own assignment interval."),
    int("group.consumer.max.heartbeat.interval.ms")
        .or("15000")
        .at_least(1)
        .accepted("Upper bound for a consumer group's own heartbeat interval."),
    int("group.consumer.max.session.timeout.ms")
        .or("60000")
        .at_least(1)
        .accepted("Upper bound for a consumer group's own session timeout."),
    int("group.consumer.max.size")
        .or("2147483647")
        .at_least(1)
        .accepted("Most members of a consumer group."),
    string("group.consumer.migration.policy")
        .or("bidirectional")
        .check(Check::OneOfIgnoringCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]))
        .accepted(
            "Whether groups may change between the classic and the consumer protocol while in use.",
        ),
    int("group.consumer.min.assignment.interval.ms")
        .or("0")
        .at_least(0)
        .accepted("Lower bound for a group's own assignment interval."),
    int("group.consumer.min.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Lower bound for a consumer group's own heartbeat interval."),
    int("group.consumer.min.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("Lower bound for a consumer group's own session timeout."),
    int("group.consumer.regex.refresh.interval.ms")
        .or("600000")
        .at_least(10000)
        .internal()
        .accepted("How often topics are matched anew against subscribed patterns."),
    int("group.consumer.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("How long a consumer group member counts as alive without a heartbeat."),
    int("group.share.assignment.interval.ms")
        .or("1000")
        .at_least(0)
        .cluster_wide()
        .accepted("Shortest time between two assignments of a share group."),
    list("group.share.assignors")
        .or("simple")
        .check(Check::List { may_be_empty: false })
        .accepted("Assignor for share groups."),
    int("group.share.delivery.count.limit")
        .or("5")
        .between(2, 10)
        .accepted("How often a record is delivered before a share group gives it up."),
    int("group.share.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Heartbeat interval that share group members are given."),
    int("group.share.initialize.retry.interval.ms")
        .or("30000")
        .at_least(1)
        .low()
        .internal()
        .accepted("Pause before a share group's state is initialized again."),
    int("group.share.max.assignment.interval.ms")
        .or("15000")
        .at_least(0)
        .accepted("Upper bound for a share group's own assignment interval."),
    int("group.share.max.delivery.count.limit")
        .or("10")
        .between(5, 25)
        .accepted("Upper bound for a share group's own delivery limit."),
    int("group.share.max.heartbeat.interval.ms")
        .or("15000")
        .at_least(1)
        .accepted("Upper bound for a share group's own heartbeat interval."),
    int("group.share.max.partition.max.record.locks")
        .or("4000")
        .between(2000, 10000)
        .accepted("Upper bound for a share group's own lock limit."),
    int("group.share.max.record.lock.duration.ms")
        .or("60000")
        .between(30000, 3600000)
        .accepted("Upper bound for a share group's own lock duration."),
    int("group.share.max.session.timeout.ms")
        .or("60000")
        .at_least(1)
        .accepted("Upper bound for a share group's own session timeout."),
    int("group.share.max.share.sessions")
        .or("2000")
        .at_least(1)
        .accepted("Most share sessions of a broker."),
    int("group.share.max.size")
        .or("200")
        .between(1, 1000)
        .accepted("Most members of a share group."),
    int("group.share.min.assignment.interval.ms")
        .or("0")
        .at_least(0)
        .accepted("Lower bound for a share group's own assignment interval."),
    int("group.share.min.delivery.count.limit")
        .or("2")
        .between(2, 5)
        .accepted("Lower bound for a share group's own delivery limit."),
    int("group.share.min.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Lower bound for a share group's own heartbeat interval."),
    int("group.share.min.partition.max.record.locks")
        .or("100")
        .between(100, 2000)
        .accepted("Lower bound for a share group's own lock limit."),
    int("group.share.min.record.lock.duration.ms")
        .or("15000")
        .between(1000, 30000)
        .accepted("Lower bound for a share group's own lock duration."),
    int("group.share.min.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("Lower bound for a share group's own session timeout."),
    int("group.share.partition.max.record.locks")
        .or("2000")
        .between(100, 10000)
        .accepted("Records of a share partition that may be in delivery at a time."),
    string("group.share.persister.class.name")
        .or("org.apache.kafka.server.share.persister.DefaultStatePersister")
        .internal()
        .accepted("Java class that keeps the state of share groups; no meaning here."),
    int("group.share.record.lock.duration.ms")
        .or("30000")
        .between(1000, 3600000)
        .accepted("How long a delivered record is reserved for its consumer."),
    int("group.share.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("How long a share group member counts as alive without a heartbeat."),
    int("group.streams.assignment.interval.ms")
        .or("1000")
        .at_least(0)
        .cluster_wide()
        .accepted("Shortest time between two assignments of a streams group."),
    int("group.streams.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Heartbeat interval that streams group members are given."),
    int("group.streams.initial.rebalance.delay.ms")
        .or("3000")
        .at_least(0)
        .accepted("How long a new streams group waits for more members."),
    int("group.streams.max.assignment.interval.ms")
        .or("15000")
        .at_least(0)
        .accepted("Upper bound for a streams group's own assignment interval."),
    int("group.streams.max.heartbeat.interval.ms")
        .or("15000")
        .at_least(1)
        .accepted("Upper bound for a streams group's own heartbeat interval."),
    int("group.streams.max.session.timeout.ms")
        .or("60000")
        .at_least(1)
        .accepted("Upper bound for a streams group's own session timeout."),
    int("group.streams.max.size")
        .or("2147483647")
        .at_least(1)
        .accepted("Most members of a streams group."),
    int("group.streams.max.standby.replicas")
        .or("2")
        .at_least(0)
        .accepted("Upper bound for a streams group's own number of standby replicas."),
    int("group.streams.min.assignment.interval.ms")
        .or("0")
        .at_least(0)
        .accepted("Lower bound for a streams group's own assignment interval."),
    int("group.streams.min.heartbeat.interval.ms")
        .or("5000")
        .at_least(1)
        .accepted("Lower bound for a streams group's own heartbeat interval."),
    int("group.streams.min.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("Lower bound for a streams group's own session timeout."),
    int("group.streams.num.standby.replicas")
        .or("0")
        .at_least(0)
        .accepted("Standby replicas of each task of a streams group."),
    int("group.streams.session.timeout.ms")
        .or("45000")
        .at_least(1)
        .accepted("How long a streams group member counts as alive without a heartbeat."),
    int("offset.metadata.max.bytes")
        .or("4096")
        .high()
        .honoured("Longest note that a client may store with a committed offset."),
    int("offsets.commit.timeout.ms")
        .or("5000")
        .at_least(1)
        .high()
        .honoured("How long an offset commit may wait for its replicas."),
    int("offsets.load.buffer.size")
        .or("5242880")
        .at_least(1)
        .high()
        .accepted("Bytes read at a time when a coordinator loads committed offsets."),
    long("offsets.retention.check.interval.ms")
        .or("600000")
        .at_least(1)
        .high()
        .honoured("How often expired committed offsets are looked for."),
    int("offsets.retention.minutes")
        .or("10080")
        .at_least(1)
        .high()
        .honoured("How long committed offsets are kept after their group is empty."),
    int("offsets.topic.compression.codec")
        .or("0")
        .high()
        .honoured("Codec of the topic of committed offsets, by number."),
    int("offsets.topic.num.partitions")
        .or("50")
        .at_least(1)
        .high()
        .honoured("Partitions of the topic of committed offsets; never change it once it exists."),
    short("offsets.topic.replication.factor")
        .or("3")
        .at_least(1)
        .high()
        .honoured("Replicas of the topic of committed offsets. Where there is one, because there was one broker, it gets the others by itself as soon as there are brokers for them: what the active controller's properties say counts, and 1 stays 1."),
    int("offsets.topic.segment.bytes")
        .or("104857600")
        .at_least(1)
        .high()
        .honoured("Segment size of the topic of committed offsets."),
    int("share.coordinator.append.linger.ms")
        .or("-1")
        .at_least(-1)
        .accepted("How long the share coordinator gathers records before it writes them."),
    int("share.coordinator.cached.buffer.max.bytes")
        .or("1048588")
        .at_least(524288)
        .cluster_wide()
        .accepted("Largest buffer that the share coordinator keeps for reuse."),
    int("share.coordinator.cold.partition.snapshot.interval.ms")
        .or("300000")
        .at_least(1)
        .low()
        .internal()
        .accepted("How often the state of idle share partitions is written whole."),
    int("share.coordinator.load.buffer.size")
        .or("5242880")
        .at_least(1)
        .high()
        .accepted("Bytes read at a time when the share coordinator loads its state."),
    int("share.coordinator.snapshot.update.records.per.snapshot")
        .or("500")
        .between(0, 500)
        .accepted("Updates of a share partition between two whole snapshots."),
    int("share.coordinator.state.topic.compression.codec")
        .or("0")
        .high()
        .accepted("Codec of the topic of share group state, by number."),
    short("share.coordinator.state.topic.min.isr")
        .or("2")
        .at_least(1)
        .high()
        .honoured("min.insync.replicas of the topic of share group state."),
    int("share.coordinator.state.topic.num.partitions")
        .or("50")
        .at_least(1)
        .high()
        .honoured("Partitions of the topic of share group state; never change it once it exists."),
    int("share.coordinator.state.topic.prune.interval.ms")
        .or("300000")
        .at_least(1)
        .low()
        .internal()
        .accepted("How often superseded share group state is deleted."),
    short("share.coordinator.state.topic.replication.factor")
        .or("3")
        .at_least(1)
        .high()
        .honoured("Replicas of the topic of share group state."),
    int("share.coordinator.state.topic.segment.bytes")
        .or("104857600")
        .at_least(1)
        .high()
        .honoured("Segment size of the topic of share group state."),
    int("share.coordinator.threads")
        .or("1")
        .at_least(1)
        .accepted("Threads of the share coordinator."),
    int("share.coordinator.write.timeout.ms")
        .or("5000")
        .at_least(1)
        .high()
        .accepted("How long a write of share group state may wait for its replicas."),
];
