//! When the active segment is closed and a new one begun, as Kafka decides it. Pure.

use crate::config::LogConfig;
use crate::index::{Entry, OffsetEntry, TimeEntry};

/// What is known of the active segment.
#[derive(Debug, Clone, Copy)]
pub struct ActiveSegment {
    pub base_offset: i64,
    pub size: u64,
    pub created_ms: i64,
    /// The largest timestamp of the first batch; `None` while there is none, negative when it has none.
    pub first_timestamp: Option<i64>,
    pub offset_entries: u32,
    pub time_entries: u32,
    /// How much earlier than `segment.ms` this segment is rolled.
    pub jitter_ms: i64,
}

/// What is about to be appended.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    pub size: u64,
    pub max_timestamp: i64,
    pub last_offset: i64,
}

#[must_use]
pub fn should_roll(
    active: &ActiveSegment,
    incoming: &Incoming,
    config: &LogConfig,
    now_ms: i64,
) -> bool {
    if relative(active.base_offset, incoming.last_offset).is_none() {
        return true;
    }
    active.size > 0
        && (active.size + incoming.size > config.segment_bytes
            || waited_ms(active, incoming, now_ms) > config.segment_ms - active.jitter_ms
            || is_full(active, config))
}

/// An offset as the index files store it, if it fits.
#[must_use]
pub fn relative(base_offset: i64, offset: i64) -> Option<u32> {
    // Kafka reads the field as a signed integer.
    let relative = i32::try_from(offset.checked_sub(base_offset)?).ok()?;
    u32::try_from(relative).ok()
}

/// Record time decides where there is any, so that a replayed topic is cut as the original was.
fn waited_ms(active: &ActiveSegment, incoming: &Incoming, now_ms: i64) -> i64 {
    match active.first_timestamp {
        Some(first) if first >= 0 => incoming.max_timestamp.saturating_sub(first),
        _ => now_ms.saturating_sub(active.created_ms),
    }
}

/// The time index keeps one slot free for the entry that is written when the segment is closed.
fn is_full(active: &ActiveSegment, config: &LogConfig) -> bool {
    let offset_entries_max = config.segment_index_bytes / OffsetEntry::SIZE as u64;
    let time_entries_max = config.segment_index_bytes / TimeEntry::SIZE as u64;
    u64::from(active.offset_entries) >= offset_entries_max
        || u64::from(active.time_entries) + 1 >= time_entries_max
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: ActiveSegment = ActiveSegment {
        base_offset: 100,
        size: 500,
        created_ms: 10_000,
        first_timestamp: Some(20_000),
        offset_entries: 0,
        time_entries: 0,
        jitter_ms: 0,
    };
    const INCOMING: Incoming = Incoming { size: 100, max_timestamp: 20_500, last_offset: 120 };

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 600, segment_ms: 1000, ..LogConfig::default() }
    }

    #[test]
    fn a_segment_is_rolled_before_it_grows_too_large() {
        assert!(!should_roll(&ACTIVE, &INCOMING, &config(), 0));
        assert!(should_roll(&ACTIVE, &Incoming { size: 101, ..INCOMING }, &config(), 0));
        let empty = ActiveSegment { size: 0, ..ACTIVE };
        assert!(!should_roll(&empty, &Incoming { size: 10_000, ..INCOMING }, &config(), 0));
    }

    #[test]
    fn record_time_rolls_where_there_is_any_and_wall_time_otherwise() {
        let late = Incoming { max_timestamp: 21_001, ..INCOMING };
        assert!(should_roll(&ACTIVE, &late, &config(), 0));
        let jittered = ActiveSegment { jitter_ms: 600, ..ACTIVE };
        assert!(should_roll(&jittered, &INCOMING, &config(), 0));
        for first_timestamp in [None, Some(-1)] {
            let untimed = ActiveSegment { first_timestamp, ..ACTIVE };
            assert!(!should_roll(&untimed, &late, &config(), 11_000));
            assert!(should_roll(&untimed, &late, &config(), 11_001));
        }
    }

    #[test]
    fn a_full_index_rolls() {
        let config = LogConfig { segment_index_bytes: 120, ..config() };
        let with =
            |offset_entries, time_entries| ActiveSegment { offset_entries, time_entries, ..ACTIVE };
        assert!(!should_roll(&with(14, 8), &INCOMING, &config, 0));
        assert!(should_roll(&with(15, 0), &INCOMING, &config, 0));
        assert!(should_roll(&with(0, 9), &INCOMING, &config, 0));
    }

    #[test]
    fn an_offset_that_the_index_cannot_express_rolls_even_an_empty_segment() {
        let empty = ActiveSegment { size: 0, ..ACTIVE };
        let at = |last_offset| Incoming { last_offset, ..INCOMING };
        assert!(!should_roll(&empty, &at(100 + i64::from(i32::MAX)), &config(), 0));
        assert!(should_roll(&empty, &at(101 + i64::from(i32::MAX)), &config(), 0));
        assert_eq!(relative(100, 99), None);
        assert_eq!(relative(i64::MIN, i64::MAX), None);
    }
}
