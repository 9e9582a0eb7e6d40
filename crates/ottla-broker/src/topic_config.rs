//! A topic's configuration as the log and the validation of produced batches see it. Pure.

use ottla_base::TopicPartition;
use ottla_config::{CompressionType, TimestampType, TopicConfig};
use ottla_log::LogConfig;
use ottla_records::{Codec, Compression, Rules};

/// What the log of a topic with this configuration does.
#[must_use]
pub(crate) fn log_config(config: &TopicConfig) -> LogConfig {
    let size = |bytes: i32| u64::try_from(bytes).unwrap_or(0);
    LogConfig {
        segment_bytes: size(config.segment_bytes),
        segment_ms: config.segment_ms_max(),
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: size(config.segment_index_bytes),
        index_interval_bytes: size(config.index_interval_bytes),
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        delete: config.cleanup_policy.delete,
        compact: config.cleanup_policy.compact,
        delete_retention_ms: config.delete_retention_ms,
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        file_delete_delay_ms: config.file_delete_delay_ms,
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
        preallocate: config.preallocate,
    }
}

/// What a batch must fulfil to get into a partition of a topic with this configuration.
#[must_use]
pub(crate) fn rules(partition: TopicPartition, config: &TopicConfig) -> Rules {
    Rules {
        max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(0),
        compacted: config.cleanup_policy.compact,
        timestamp_type: match config.message_timestamp_type {
            TimestampType::CreateTime => ottla_records::TimestampType::CreateTime,
            TimestampType::LogAppendTime => ottla_records::TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        codec: codec(config),
        ..Rules::new(partition)
    }
}

/// `None` keeps what the producer chose.
fn codec(config: &TopicConfig) -> Option<Codec> {
    let codec = |compression, level| Some(Codec { compression, level });
    match config.compression_type {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => codec(Compression::None, None),
        CompressionType::Gzip => codec(Compression::Gzip, Some(config.compression_gzip_level)),
        CompressionType::Snappy => codec(Compression::Snappy, None),
        CompressionType::Lz4 => codec(Compression::Lz4, Some(config.compression_lz4_level)),
        CompressionType::Zstd => codec(Compression::Zstd, Some(config.compression_zstd_level)),
    }
}
