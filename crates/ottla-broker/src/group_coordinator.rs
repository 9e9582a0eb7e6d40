//! Groups' side of the coordinators: which partition a group belongs to, and how long to wait for an answer. Shell.
//!
//! Invariant: a group belongs to the same partition for as long as the topic is there and the process runs, however much
//! the topic grows: what the group has committed is in that partition. After a restart the new number counts, as in
//! Apache Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_config::BrokerConfig;
use ottla_coordinator::group::{
    GroupShard, Query, Reply, Request, Settings, TopicDeleted, group_partition,
};
use ottla_env::Clock;
use ottla_records::Compression;

use crate::coordinators::{Coordinators, LogSettings};
use crate::replica::Replica;

/// The coordinator of all groups whose partition of `__consumer_offsets` is led here.
#[derive(Debug)]
pub(crate) struct GroupCoordinator {
    coordinators: Coordinators<GroupShard>,
    /// Partitions of `__consumer_offsets` when it was first seen; 0 while there is none.
    partition_count: AtomicI32,
}

impl GroupCoordinator {
    pub(crate) fn new(config: &BrokerConfig, clock: Arc<dyn Clock>) -> Self {
        let settings = settings(config);
        let codec = i16::try_from(config.offsets_topic_compression_codec).ok();
        let timeout_ms = u64::try_from(config.offsets_commit_timeout_ms).unwrap_or(0);
        let log_settings = LogSettings {
            compression: codec.and_then(Compression::from_id).unwrap_or(Compression::None),
            store_timeout: Duration::from_millis(timeout_ms),
        };
        let make_shard = move || GroupShard::new(settings.clone());
        Self {
            coordinators: Coordinators::new(clock, log_settings, make_shard),
            partition_count: AtomicI32::new(0),
        }
    }

    /// `__consumer_offsets` is there, and has so many partitions now.
    pub(crate) fn topic_seen(&self, partition_count: usize) {
        let now = i32::try_from(partition_count).unwrap_or(i32::MAX);
        // Whoever was first has said it.
        let _ = self.partition_count.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes up a partition of `__consumer_offsets`.
    pub(crate) fn elected(&self, replica: &Arc<Replica>) {
        self.coordinators.elected(replica);
    }

    /// Puts one down.
    pub(crate) fn resigned(&self, partition: i32) {
        self.coordinators.resigned(partition);
    }

    /// `__consumer_offsets` is gone; another one may have another number of partitions.
    pub(crate) fn topic_gone(&self) {
        self.partition_count.store(0, Ordering::Relaxed);
    }

    /// Where a group is coordinated.
    ///
    /// # Errors
    /// NOT_COORDINATOR while the topic does not exist.
    pub(crate) fn partition_of(&self, group: &str) -> Result<i32, ErrorCode> {
        match self.partition_count.load(Ordering::Relaxed) {
            0 => Err(ErrorCode::NOT_COORDINATOR),
            count => Ok(group_partition(group, count)),
        }
    }

    /// Sorts groups by the partition that they belong to, so that each is asked once.
    pub(crate) fn by_partition(
        &self,
        groups: impl IntoIterator<Item = ByteString>,
    ) -> Vec<Vec<ByteString>> {
        let mut sorted: BTreeMap<Option<i32>, Vec<ByteString>> = BTreeMap::new();
        for group in groups {
            sorted.entry(self.partition_of(&group).ok()).or_default().push(group);
        }
        sorted.into_values().collect()
    }

    /// Asks a group's coordinator. What depends on other members takes as long as they do.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE when it takes too long to store what
    /// must be stored, or why it was not.
    pub(crate) async fn ask<T: TryFrom<Reply, Error = Reply>>(
        &self,
        group: &str,
        request: Request,
    ) -> Result<T, ErrorCode> {
        let partition = self.partition_of(group)?;
        self.coordinators.ask(partition, request).await.map(fitting)
    }

    /// Asks what is committed.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS
    pub(crate) async fn query<T: TryFrom<Reply, Error = Reply>>(
        &self,
        group: &str,
        query: Query,
    ) -> Result<T, ErrorCode> {
        let partition = self.partition_of(group)?;
        self.coordinators.query(partition, query).await.map(fitting)
    }

    /// Asks all partitions that are led here, and chains what they say.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS when one of them is.
    pub(crate) async fn query_all<T>(&self, query: impl Fn() -> Query) -> Result<Vec<T>, ErrorCode>
    where
        Vec<T>: TryFrom<Reply, Error = Reply>,
    {
        let mut all = Vec::new();
        for partition in self.coordinators.led() {
            match self.coordinators.query(partition, query()).await {
                Ok(reply) => all.extend(fitting::<Vec<T>>(reply)),
                // It was put down in between: another broker tells of its groups.
                Err(ErrorCode::NOT_COORDINATOR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Topics are gone: the offsets that groups have in them go, too.
    pub(crate) fn topics_deleted(&self, topics: &[TopicDeleted]) {
        self.coordinators.tell_all(|| Request::TopicsDeleted(topics.to_vec()));
    }
}

fn fitting<T: TryFrom<Reply, Error = Reply>>(reply: Reply) -> T {
    reply.try_into().expect("each request has its own kind of reply")
}

fn settings(config: &BrokerConfig) -> Settings {
    Settings {
        session_timeout_min_ms: config.group_min_session_timeout_ms,
        session_timeout_max_ms: config.group_max_session_timeout_ms,
        members_max: usize::try_from(config.group_max_size).unwrap_or(0),
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        offset_metadata_max: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        ..Settings::default()
    }
}
