//! One topic's configuration as the broker and the log use it: the broker's defaults, overridden
//! by what the topic sets for itself (pure).

use std::collections::BTreeMap;

use crate::check::Objection;
use crate::property::{Kind, Property, Scope};
use crate::settings::{Settings, objection_message, read};
use crate::table::{find, properties, topic_synonyms};
use crate::value::Value;

/// A topic's effective configuration. Times are milliseconds, sizes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_type: CompressionType,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    /// `*`, or `PARTITION:BROKER` each.
    pub follower_replication_throttled_replicas: Vec<String>,
    pub index_interval_bytes: i32,
    /// `*`, or `PARTITION:BROKER` each.
    pub leader_replication_throttled_replicas: Vec<String>,
    /// -2 means: as `retention_bytes`; -1: no bound.
    pub local_retention_bytes: i64,
    /// -2 means: as `retention_ms`; -1: no bound.
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub remote_storage_enable: bool,
    /// Negative: no bound.
    pub retention_bytes: i64,
    /// -1: no bound.
    pub retention_ms: i64,
    /// `internal.segment.bytes` when that is set: it has no lower bound, for tests.
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

/// What happens to old data. Both false: nothing, the log grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub compact: bool,
    pub delete: bool,
}

/// Codec of stored batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// Whatever the producer chose.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Why CreateTopics or AlterConfigs answers INVALID_CONFIG, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTopicConfig(pub String);

impl Default for TopicConfig {
    /// The topic of a broker that sets nothing.
    fn default() -> Self {
        Self::from_broker(&Settings::default())
    }
}

impl TopicConfig {
    /// What a topic without overrides gets on a broker with these settings.
    pub fn from_broker(settings: &Settings) -> Self {
        let default = |property: &'static Property| broker_default(settings, property);
        let mut values: Values = properties(Scope::Topic)
            .filter_map(|property| Some((property.name, default(property)?)))
            .collect();
        // Any negative retention of the broker is the topic's -1.
        if let Some(Value::Long(ms)) = values.get_mut("retention.ms") {
            *ms = (*ms).max(-1);
        }
        Self::from_values(&values)
    }

    /// The configuration with a topic's own, already accepted, overrides. Names that a later
    /// version may know are passed over, as Kafka passes them over.
    pub fn with_overrides<'a>(
        &self,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut values = self.to_values();
        for (name, text) in overrides {
            if let Some(property) = find(Scope::Topic, name)
                && let Ok(value) = read(property, text)
            {
                values.insert(property.name, value);
            }
        }
        Self::from_values(&values)
    }

    /// Checks overrides that a client asks for, on top of these defaults: names, values and how
    /// they fit together.
    ///
    /// # Errors
    /// [`InvalidTopicConfig`]: Kafka's sentence about the first thing that is wrong.
    pub fn validate_overrides<'a>(
        &self,
        overrides: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, InvalidTopicConfig> {
        let overrides: Vec<_> = overrides.into_iter().collect();
        let nulls: Vec<&str> =
            overrides.iter().filter(|(_, text)| text.is_none()).map(|(name, _)| *name).collect();
        if !nulls.is_empty() {
            return Err(InvalidTopicConfig(format!(
                "Null value not supported for topic configs: {}",
                nulls.join(",")
            )));
        }
        // Kafka looks at all names before it looks at a value.
        let known = |(name, text): &(&str, Option<&'a str>)| match find(Scope::Topic, name) {
            Some(property) => Ok((property, *text)),
            None => Err(InvalidTopicConfig(format!("Unknown topic config name: {name}"))),
        };
        let overrides = overrides.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let mut values = self.to_values();
        for (property, text) in overrides {
            let text = text.unwrap_or_default();
            let value = read(property, text).map_err(|objection| message(property, objection))?;
            values.insert(property.name, value);
        }
        let config = Self::from_values(&values);
        config.check_together()?;
        Ok(config)
    }

    fn check_together(&self) -> Result<(), InvalidTopicConfig> {
        let (min, max) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
        if min > max {
            return Err(InvalidTopicConfig(format!(
                "conflict topic config setting min.compaction.lag.ms ({min}) > \
                 max.compaction.lag.ms ({max})"
            )));
        }
        if self.remote_storage_enable {
            return Err(InvalidTopicConfig(
                "Tiered Storage functionality is disabled in the broker. \
                 Topic cannot be configured with remote log storage."
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Age at which a segment ends: a compacted topic must not hold records back for longer than
    /// its compaction lag allows.
    pub fn segment_ms_max(&self) -> i64 {
        if self.cleanup_policy.compact && self.max_compaction_lag_ms > 0 {
            self.max_compaction_lag_ms.min(self.segment_ms)
        } else {
            self.segment_ms
        }
    }
}

fn message(property: &Property, objection: Objection) -> InvalidTopicConfig {
    InvalidTopicConfig(objection_message(property, objection))
}

/// The value of a topic property that the topic does not set.
pub(crate) fn broker_default(settings: &Settings, property: &Property) -> Option<Value> {
    let synonyms = topic_synonyms(property.name);
    let set = synonyms.iter().find_map(|(name, conversion)| {
        let value = settings.value(name)?;
        // Only hours and minutes, which are INT, become a LONG.
        let converted = (property.kind == Kind::Long)
            .then(|| value.integer().map(|n| Value::Long(conversion.apply(n))))
            .flatten();
        Some(converted.unwrap_or(value))
    });
    set.or_else(|| {
        let default = property.default?;
        Value::parse(property.kind, default).ok()
    })
}

pub(crate) type Values = BTreeMap<&'static str, Value>;

/// Reads fields out of values that the table guarantees: a missing or mistyped one is a row that
/// was changed without its field, which the test of the defaults finds.
struct Fields<'a>(&'a Values);

impl Fields<'_> {
    fn int(&self, name: &str) -> i32 {
        match self.0.get(name) {
            Some(Value::Int(n)) => *n,
            other => unreachable!("{name} is an INT with a default, not {other:?}"),
        }
    }

    fn long(&self, name: &str) -> i64 {
        match self.0.get(name) {
            Some(Value::Long(n)) => *n,
            other => unreachable!("{name} is a LONG with a default, not {other:?}"),
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Value::Double(n)) => *n,
            other => unreachable!("{name} is a DOUBLE with a default, not {other:?}"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Boolean(true)))
    }

    fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Value::String(s)) => s,
            other => unreachable!("{name} is a STRING with a default, not {other:?}"),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::List(items)) => items.clone(),
            other => unreachable!("{name} is a LIST with a default, not {other:?}"),
        }
    }

    fn list_has(&self, name: &str, item: &str) -> bool {
        matches!(self.0.get(name), Some(Value::List(items)) if items.iter().any(|i| i == item))
    }
}

impl TopicConfig {
    fn from_values(values: &Values) -> Self {
        let f = Fields(values);
        let segment_bytes = if values.contains_key("internal.segment.bytes") {
            f.int("internal.segment.bytes")
        } else {
            f.int("segment.bytes")
        };
        Self {
            cleanup_policy: CleanupPolicy {
                compact: f.list_has("cleanup.policy", "compact"),
                delete: f.list_has("cleanup.policy", "delete"),
            },
            compression_gzip_level: f.int("compression.gzip.level"),
            compression_lz4_level: f.int("compression.lz4.level"),
            compression_type: CompressionType::from_name(f.text("compression.type")),
            compression_zstd_level: f.int("compression.zstd.level"),
            delete_retention_ms: f.long("delete.retention.ms"),
            file_delete_delay_ms: f.long("file.delete.delay.ms"),
            flush_messages: f.long("flush.messages"),
            flush_ms: f.long("flush.ms"),
            follower_replication_throttled_replicas: f
                .list("follower.replication.throttled.replicas"),
            index_interval_bytes: f.int("index.interval.bytes"),
            leader_replication_throttled_replicas: f.list("leader.replication.throttled.replicas"),
            local_retention_bytes: f.long("local.retention.bytes"),
            local_retention_ms: f.long("local.retention.ms"),
            max_compaction_lag_ms: f.long("max.compaction.lag.ms"),
            max_message_bytes: f.int("max.message.bytes"),
            message_timestamp_after_max_ms: f.long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: f.long("message.timestamp.before.max.ms"),
            message_timestamp_type: TimestampType::from_name(f.text("message.timestamp.type")),
            min_cleanable_dirty_ratio: f.double("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: f.long("min.compaction.lag.ms"),
            min_insync_replicas: f.int("min.insync.replicas"),
            preallocate: f.boolean("preallocate"),
            remote_storage_enable: f.boolean("remote.storage.enable"),
            retention_bytes: f.long("retention.bytes"),
            retention_ms: f.long("retention.ms"),
            segment_bytes,
            segment_index_bytes: f.int("segment.index.bytes"),
            segment_jitter_ms: f.long("segment.jitter.ms"),
            segment_ms: f.long("segment.ms"),
            unclean_leader_election_enable: f.boolean("unclean.leader.election.enable"),
        }
    }

    fn to_values(&self) -> Values {
        let policy =
            [("compact", self.cleanup_policy.compact), ("delete", self.cleanup_policy.delete)]
                .into_iter()
                .filter(|(_, on)| *on)
                .map(|(name, _)| name.to_owned())
                .collect();
        let text = |s: &str| Value::String(s.to_owned());
        Values::from([
            ("cleanup.policy", Value::List(policy)),
            ("compression.gzip.level", Value::Int(self.compression_gzip_level)),
            ("compression.lz4.level", Value::Int(self.compression_lz4_level)),
            ("compression.type", text(self.compression_type.name())),
            ("compression.zstd.level", Value::Int(self.compression_zstd_level)),
            ("delete.retention.ms", Value::Long(self.delete_retention_ms)),
            ("file.delete.delay.ms", Value::Long(self.file_delete_delay_ms)),
            ("flush.messages", Value::Long(self.flush_messages)),
            ("flush.ms", Value::Long(self.flush_ms)),
            (
                "follower.replication.throttled.replicas",
                Value::List(self.follower_replication_throttled_replicas.clone()),
            ),
            ("index.interval.bytes", Value::Int(self.index_interval_bytes)),
            (
                "leader.replication.throttled.replicas",
                Value::List(self.leader_replication_throttled_replicas.clone()),
            ),
            ("local.retention.bytes", Value::Long(self.local_retention_bytes)),
            ("local.retention.ms", Value::Long(self.local_retention_ms)),
            ("max.compaction.lag.ms", Value::Long(self.max_compaction_lag_ms)),
            ("max.message.bytes", Value::Int(self.max_message_bytes)),
            ("message.timestamp.after.max.ms", Value::Long(self.message_timestamp_after_max_ms)),
            ("message.timestamp.before.max.ms", Value::Long(self.message_timestamp_before_max_ms)),
            ("message.timestamp.type", text(self.message_timestamp_type.name())),
            ("min.cleanable.dirty.ratio", Value::Double(self.min_cleanable_dirty_ratio)),
            ("min.compaction.lag.ms", Value::Long(self.min_compaction_lag_ms)),
            ("min.insync.replicas", Value::Int(self.min_insync_replicas)),
            ("preallocate", Value::Boolean(self.preallocate)),
            ("remote.storage.enable", Value::Boolean(self.remote_storage_enable)),
            ("retention.bytes", Value::Long(self.retention_bytes)),
            ("retention.ms", Value::Long(self.retention_ms)),
            ("segment.bytes", Value::Int(self.segment_bytes)),
            ("segment.index.bytes", Value::Int(self.segment_index_bytes)),
            ("segment.jitter.ms", Value::Long(self.segment_jitter_ms)),
            ("segment.ms", Value::Long(self.segment_ms)),
            ("unclean.leader.election.enable", Value::Boolean(self.unclean_leader_election_enable)),
        ])
    }
}

impl CompressionType {
    const ALL: [Self; 6] =
        [Self::Producer, Self::Uncompressed, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|t| t.name() == name).unwrap_or(Self::Producer)
    }
}

impl TimestampType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }

    fn from_name(name: &str) -> Self {
        if name == Self::LogAppendTime.name() { Self::LogAppendTime } else { Self::CreateTime }
    }
}
