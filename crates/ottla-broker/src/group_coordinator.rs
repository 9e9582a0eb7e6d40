//! Groups' side of the coordinators: which partition a group belongs to, and how long to wait for an answer. Shell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_config::BrokerConfig;
use ottla_coordinator::group::{
    GroupShard, Query, Reply, Request, Settings, TopicDeleted, group_partition,
};
use ottla_env::Clock;
use ottla_metadata::{Image, topic_name};
use ottla_records::Compression;

use crate::coordinators::{Coordinators, LogSettings};
use crate::replicas::Replica;

/// The coordinator of all groups whose partition of `__consumer_offsets` is led here.
#[derive(Debug)]
pub(crate) struct GroupCoordinator(Coordinators<GroupShard>);

impl GroupCoordinator {
    pub(crate) fn new(config: &BrokerConfig, clock: Arc<dyn Clock>) -> Self {
        let settings = settings(config);
        let codec = i16::try_from(config.offsets_topic_compression_codec).ok();
        let timeout_ms = u64::try_from(config.offsets_commit_timeout_ms).unwrap_or(0);
        let log_settings = LogSettings {
            compression: codec.and_then(Compression::from_id).unwrap_or(Compression::None),
            store_timeout: Duration::from_millis(timeout_ms),
        };
        Self(Coordinators::new(clock, log_settings, move || GroupShard::new(settings.clone())))
    }

    /// Takes up a partition of `__consumer_offsets`.
    pub(crate) fn elected(&self, replica: &Arc<Replica>) {
        self.0.elected(replica);
    }

    /// Puts one down.
    pub(crate) fn resigned(&self, partition: i32) {
        self.0.resigned(partition);
    }

    /// Asks a group's coordinator. What depends on other members takes as long as they do.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE when it takes too long to store what
    /// must be stored, or why it was not.
    pub(crate) async fn ask<T: TryFrom<Reply, Error = Reply>>(
        &self,
        image: &Image,
        group: &str,
        request: Request,
    ) -> Result<T, ErrorCode> {
        let partition = partition_of(image, group)?;
        self.0.ask(partition, request).await.map(fitting)
    }

    /// Asks what is committed.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS
    pub(crate) async fn query<T: TryFrom<Reply, Error = Reply>>(
        &self,
        image: &Image,
        group: &str,
        query: Query,
    ) -> Result<T, ErrorCode> {
        let partition = partition_of(image, group)?;
        self.0.query(partition, query).await.map(fitting)
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
        for partition in self.0.led() {
            match self.0.query(partition, query()).await {
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
        self.0.tell_all(|| Request::TopicsDeleted(topics.to_vec()));
    }
}

/// Where a group is coordinated.
///
/// # Errors
/// NOT_COORDINATOR while the topic does not exist.
fn partition_of(image: &Image, group: &str) -> Result<i32, ErrorCode> {
    let topic = image.topic_by_name(topic_name::CONSUMER_OFFSETS);
    let count = topic.map_or(0, |topic| topic.partitions().count());
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if count == 0 { Err(ErrorCode::NOT_COORDINATOR) } else { Ok(group_partition(group, count)) }
}

/// Sorts groups by the partition that they belong to, so that each is asked once.
pub(crate) fn by_partition(
    image: &Image,
    groups: impl IntoIterator<Item = ByteString>,
) -> Vec<Vec<ByteString>> {
    let mut sorted: BTreeMap<Option<i32>, Vec<ByteString>> = BTreeMap::new();
    for group in groups {
        sorted.entry(partition_of(image, &group).ok()).or_default().push(group);
    }
    sorted.into_values().collect()
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
