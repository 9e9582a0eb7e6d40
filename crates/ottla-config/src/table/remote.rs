//! Remote (tiered) storage: there is none yet (pure).

use crate::check::Check;
use crate::property::{Property, boolean, double, int, long, string};

pub(super) const ROWS: &[Property] = &[
    boolean("remote.log.storage.system.enable").or("false").refused("Turns remote storage on.", "set it to false: there is no remote storage yet, and data would be kept on this disk only"),
    int("remote.fetch.max.wait.ms").or("500").at_least(1).cluster_wide().accepted("Longest wait for data from remote storage; no remote storage yet."),
    long("remote.list.offsets.request.timeout.ms").or("30000").at_least(1).cluster_wide().accepted("Longest search for an offset in remote storage; no remote storage yet."),
    long("remote.log.index.file.cache.total.size.bytes").or("1073741824").at_least(1).low().cluster_wide().accepted("Disk space for cached remote indexes; no remote storage yet."),
    long("remote.log.index.file.cache.ttl.ms").or("900000").at_least(-1).low().internal().accepted("How long a remote index stays cached; no remote storage yet."),
    int("remote.log.manager.copier.thread.pool.size").or("10").at_least(1).cluster_wide().accepted("Threads that copy segments to remote storage; no remote storage yet."),
    long("remote.log.manager.copy.max.bytes.per.second").or("9223372036854775807").at_least(1).cluster_wide().accepted("Bytes per second copied to remote storage; no remote storage yet."),
    int("remote.log.manager.copy.quota.window.num").or("11").at_least(1).accepted("How many windows the copy quota remembers; no remote storage yet."),
    int("remote.log.manager.copy.quota.window.size.seconds").or("1").at_least(1).accepted("Length of one window of the copy quota; no remote storage yet."),
    int("remote.log.manager.expiration.thread.pool.size").or("10").at_least(1).cluster_wide().accepted("Threads that delete expired remote segments; no remote storage yet."),
    long("remote.log.manager.fetch.max.bytes.per.second").or("9223372036854775807").at_least(1).cluster_wide().accepted("Bytes per second read from remote storage; no remote storage yet."),
    int("remote.log.manager.fetch.quota.window.num").or("11").at_least(1).accepted("How many windows the fetch quota remembers; no remote storage yet."),
    int("remote.log.manager.fetch.quota.window.size.seconds").or("1").at_least(1).accepted("Length of one window of the fetch quota; no remote storage yet."),
    int("remote.log.manager.follower.thread.pool.size").or("2").at_least(1).cluster_wide().accepted("Threads of the remote work of followers; no remote storage yet."),
    long("remote.log.manager.task.interval.ms").or("30000").at_least(1).low().accepted("How often remote work runs; no remote storage yet."),
    long("remote.log.manager.task.retry.backoff.max.ms").or("30000").at_least(1).low().internal().accepted("Longest pause before failed remote work is tried again; no remote storage yet."),
    long("remote.log.manager.task.retry.backoff.ms").or("500").at_least(1).low().internal().accepted("First pause before failed remote work is tried again; no remote storage yet."),
    double("remote.log.manager.task.retry.jitter").or("0.2").check(Check::BetweenDoubles(0.0, 0.5)).low().internal().accepted("Random part of that pause; no remote storage yet."),
    int("remote.log.manager.thread.pool.size").or("2").at_least(1).accepted("Threads of remote work in general; no remote storage yet."),
    int("remote.log.metadata.custom.metadata.max.bytes").or("128").at_least(0).low().accepted("Largest note that a remote storage plug-in may keep per segment; no remote storage yet."),
    string("remote.log.metadata.manager.class.name").or("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager").check(Check::NonEmpty).accepted("Java class that remembers remote segments; no meaning here."),
    string("remote.log.metadata.manager.class.path").accepted("Where that class is; no meaning here."),
    string("remote.log.metadata.manager.impl.prefix").or("rlmm.config.").check(Check::NonEmpty).accepted("Prefix of the properties for that class; no meaning here."),
    string("remote.log.metadata.manager.listener.name").check(Check::NonEmpty).accepted("Listener that this class connects to; no meaning here."),
    int("remote.log.reader.max.pending.tasks").or("100").at_least(1).accepted("Reads from remote storage that may wait; no remote storage yet."),
    int("remote.log.reader.threads").or("10").at_least(1).cluster_wide().accepted("Threads that read from remote storage; no remote storage yet."),
    string("remote.log.storage.manager.class.name").check(Check::NonEmpty).accepted("Java class that stores remote segments; no meaning here."),
    string("remote.log.storage.manager.class.path").accepted("Where that class is; no meaning here."),
    string("remote.log.storage.manager.impl.prefix").or("rsm.config.").check(Check::NonEmpty).accepted("Prefix of the properties for that class; no meaning here."),
];
