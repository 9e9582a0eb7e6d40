//! How logs are compacted, as far as a broker decides it for all of them (pure).

use crate::settings::Settings;

/// What `log.cleaner.*` says beside the defaults of topics.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Only looked at when a broker starts.
    pub enable: bool,
    pub threads: i32,
    pub backoff_ms: i64,
    pub dedupe_buffer_size: i64,
    pub io_buffer_load_factor: f64,
    pub io_buffer_size: i32,
    pub io_max_bytes_per_second: f64,
}

impl CleanerConfig {
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            enable: settings.boolean("log.cleaner.enable"),
            threads: settings.int("log.cleaner.threads"),
            backoff_ms: settings.long("log.cleaner.backoff.ms"),
            dedupe_buffer_size: settings.long("log.cleaner.dedupe.buffer.size"),
            io_buffer_load_factor: settings.double("log.cleaner.io.buffer.load.factor"),
            io_buffer_size: settings.int("log.cleaner.io.buffer.size"),
            io_max_bytes_per_second: settings.double("log.cleaner.io.max.bytes.per.second"),
        }
    }
}
