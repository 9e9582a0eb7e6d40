//! What an operator can set about a log, in Kafka's words and with Kafka's defaults, and what only a test sets. Pure.

use std::sync::Arc;

use ottla_env::{Disk, OsDisk, OsRandom, Random};

/// The settings of one log: the topic's own, or the broker's where the topic has none.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment that would grow larger is closed first.
    pub segment_bytes: u64,
    /// `segment.ms`: the most time between the timestamps of a segment's first and last batch.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to so much earlier, at random, so that not all logs roll at the same moment;
    /// always less than `segment_ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment whose index would grow larger is closed.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: about how many bytes lie between two index entries.
    pub index_interval_bytes: u64,
    /// `retention.ms`: older segments are deleted. −1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest segments are deleted while the log is larger. −1 keeps them.
    pub retention_bytes: i64,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `delete.retention.ms`: how long a tombstone stays once compaction has met it.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`: a log is compacted when a larger share of it than this is new.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger records are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older ones are, however small their share.
    pub max_compaction_lag_ms: i64,
    /// `file.delete.delay.ms`: how long a removed file stays on disk under the name `….deleted`.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`: a flush is due when so many records wait for one.
    pub flush_messages: i64,
    /// `flush.ms`: a flush is due when a record has waited so long.
    pub flush_ms: i64,
    /// `preallocate`: reserve a segment's blocks when it is created.
    pub preallocate: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            delete: true,
            compact: false,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            preallocate: false,
        }
    }
}

/// The settings of a log directory as a whole.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// `log.flush.on.commit`: whether "flushed" means "on the disk" or, as in Kafka, "in the page cache".
    pub flush_on_commit: bool,
    /// `num.recovery.threads.per.data.dir`: how many open logs, and how many close them.
    pub recovery_threads: usize,
    /// About how many segment and index files may be open at once.
    pub open_files_max: usize,
    /// `log.flush.offset.checkpoint.interval.ms`: how often recovery points are written.
    pub checkpoint_interval_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`: how often high watermarks are written.
    pub high_watermark_interval_ms: u64,
    /// `ottla.scrub.bytes.per.second`: how fast what is on disk is read again; 0 is never.
    pub scrub_bytes_per_second: u64,
    /// `ottla.scrub.interval.ms`: how often.
    pub scrub_interval_ms: u64,
    /// How many bytes are appended to all logs before recovery points are written earlier than that: recovery after a
    /// crash reads about so much at most, and what is written in a second.
    pub checkpoint_bytes: u64,
    /// From so many files and directories on, all that waits is flushed at once, in the journal or with the file system.
    pub flush_at_once_from: usize,
    /// How long each of the two files of the journal gets.
    pub journal_bytes: u64,
    /// Of how many bytes in all logs, beside those, recovery may read headers to know the producers.
    pub snapshot_lag_bytes: u64,
    /// `producer.id.expiration.ms`: how long a producer is remembered that writes nothing more.
    pub producer_id_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`: how often such producers are looked for.
    pub producer_id_expiration_check_interval_ms: u64,
    /// `log.dir.reserved.bytes`: what is left free of clients' records on the disk, as long as nobody sets it otherwise.
    pub reserved_bytes: u64,
    /// What everything is written to; the operating system's, but in tests.
    pub disk: Arc<dyn Disk>,
    /// Where names come from that nobody else has, and what is drawn; the operating system, but in tests.
    pub random: Arc<dyn Random>,
    /// Whether flushes and housekeeping are done by threads of the directory's own. Without them somebody has to call
    /// `LogDirectory::flush_requested` and `LogDirectory::housekeep`; with one recovery thread everything is then
    /// done by those who call.
    pub threads: bool,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            flush_on_commit: true,
            recovery_threads: 2,
            open_files_max: 8192,
            checkpoint_interval_ms: 60_000,
            high_watermark_interval_ms: 5_000,
            scrub_bytes_per_second: 10 << 20,
            scrub_interval_ms: 7 * 24 * 60 * 60 * 1000,
            checkpoint_bytes: 256 << 20,
            flush_at_once_from: 8,
            journal_bytes: 32 << 20,
            snapshot_lag_bytes: 256 << 20,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
            producer_id_expiration_check_interval_ms: 600_000,
            reserved_bytes: 0,
            disk: Arc::new(OsDisk),
            random: Arc::new(OsRandom),
            threads: true,
        }
    }
}
