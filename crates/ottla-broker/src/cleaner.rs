//! Compaction of logs as the configuration wants it. Shell.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ottla_config::CleanerConfig;
use ottla_env::Clock;
use ottla_log::{CleanerOptions, LogCleaner};

use crate::replicas::Replicas;

/// Starts what compacts the logs of these partitions; `None` where the configuration wants none of it.
///
/// # Errors
/// When the system has no more threads.
pub(crate) fn start(
    config: &CleanerConfig,
    replicas: &Arc<Replicas>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Arc<LogCleaner>>> {
    if !config.log_cleaner_enable {
        tracing::warn!("log.cleaner.enable=false: no log is compacted, whatever its policy");
        return Ok(None);
    }
    let (replicas, clock) = (Arc::clone(replicas), Arc::clone(clock));
    let cleaner = LogCleaner::start(replicas, options(config), clock);
    Ok(Some(Arc::new(cleaner.context("can't start a thread that compacts logs")?)))
}

/// A number that is less than nothing is nothing.
#[must_use]
pub(crate) fn options(config: &CleanerConfig) -> CleanerOptions {
    CleanerOptions {
        threads: usize::try_from(config.log_cleaner_threads).unwrap_or(0),
        backoff: Duration::from_millis(u64::try_from(config.log_cleaner_backoff_ms).unwrap_or(0)),
        dedupe_buffer_bytes: u64::try_from(config.log_cleaner_dedupe_buffer_size).unwrap_or(0),
        load_factor: config.log_cleaner_io_buffer_load_factor,
        io_buffer_bytes: usize::try_from(config.log_cleaner_io_buffer_size).unwrap_or(0),
        io_bytes_per_second: config.log_cleaner_io_max_bytes_per_second,
    }
}
