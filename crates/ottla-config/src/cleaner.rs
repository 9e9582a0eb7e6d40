//! How logs are compacted, as far as a broker decides it for all of them (pure).

use crate::settings::Settings;

/// What `log.cleaner.*` says beside the defaults of topics.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Only looked at when a broker starts.
    pub log_cleaner_enable: bool,
    pub log_cleaner_threads: i32,
    pub log_cleaner_backoff_ms: i64,
    pub log_cleaner_dedupe_buffer_size: i64,
    pub log_cleaner_io_buffer_load_factor: f64,
    pub log_cleaner_io_buffer_size: i32,
    pub log_cleaner_io_max_bytes_per_second: f64,
}

impl CleanerConfig {
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            log_cleaner_enable: settings.boolean("log.cleaner.enable"),
            log_cleaner_threads: settings.int("log.cleaner.threads"),
            log_cleaner_backoff_ms: settings.long("log.cleaner.backoff.ms"),
            log_cleaner_dedupe_buffer_size: settings.long("log.cleaner.dedupe.buffer.size"),
            log_cleaner_io_buffer_load_factor: settings.double("log.cleaner.io.buffer.load.factor"),
            log_cleaner_io_buffer_size: settings.int("log.cleaner.io.buffer.size"),
            log_cleaner_io_max_bytes_per_second: settings
                .double("log.cleaner.io.max.bytes.per.second"),
        }
    }
}
