//! Which old segments to delete, as Kafka decides it. Pure.

use ottla_base::Offset;

use crate::config::LogConfig;

/// What retention needs to know of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base_offset: Offset,
    /// The next segment's base offset, or the log end offset.
    pub end_offset: Offset,
    pub size: u64,
    /// The largest timestamp of its records, or the file's modification time where they have none.
    pub largest_timestamp: i64,
    pub is_active: bool,
}

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// All of it is before the log start offset.
    LogStartOffset,
    /// The log is larger than `retention.bytes`.
    Size,
    /// Its newest record is older than `retention.ms`.
    Time,
}

/// A segment to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    pub base_offset: Offset,
    pub reason: Reason,
}

/// The segments to delete, oldest first; always a prefix of the log.
///
/// Nothing at or after `safe_below` goes: the high watermark, or what is not yet safe in remote storage.
/// The active segment may be among them; the executor begins a new one first.
#[must_use]
pub fn plan(
    segments: &[SegmentInfo],
    now_ms: i64,
    config: &LogConfig,
    log_start_offset: Offset,
    safe_below: Offset,
) -> Vec<Removal> {
    let mut excess = excess_bytes(segments, config);
    let mut removals = Vec::new();
    for segment in segments {
        let empty = segment.is_active && segment.size == 0;
        if empty || segment.end_offset > safe_below {
            break;
        }
        let Some(reason) = reason(segment, now_ms, config, log_start_offset, excess) else { break };
        excess = excess.saturating_sub(segment.size);
        removals.push(Removal { base_offset: segment.base_offset, reason });
    }
    removals
}

fn reason(
    segment: &SegmentInfo,
    now_ms: i64,
    config: &LogConfig,
    log_start_offset: Offset,
    excess: u64,
) -> Option<Reason> {
    if !segment.is_active && segment.end_offset <= log_start_offset {
        return Some(Reason::LogStartOffset);
    }
    if !config.delete {
        return None;
    }
    // A segment goes only if the log stays at least as large as it may be without it.
    if excess > 0 && segment.size <= excess {
        return Some(Reason::Size);
    }
    let age_ms = now_ms.saturating_sub(segment.largest_timestamp);
    (config.retention_ms >= 0 && age_ms > config.retention_ms).then_some(Reason::Time)
}

fn excess_bytes(segments: &[SegmentInfo], config: &LogConfig) -> u64 {
    let size: u64 = segments.iter().map(|segment| segment.size).sum();
    u64::try_from(config.retention_bytes).map_or(0, |allowed| size.saturating_sub(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: Offset = Offset(i64::MAX);

    /// Segments of 10 offsets and 100 bytes, with timestamps 1000, 2000, …; the last is active.
    fn segments(count: i64) -> Vec<SegmentInfo> {
        let segment = |n| SegmentInfo {
            base_offset: Offset(n * 10),
            end_offset: Offset(n * 10 + 10),
            size: 100,
            largest_timestamp: (n + 1) * 1000,
            is_active: n == count - 1,
        };
        (0..count).map(segment).collect()
    }

    fn keep_all() -> LogConfig {
        LogConfig { retention_ms: -1, retention_bytes: -1, ..LogConfig::default() }
    }

    fn bases(removals: &[Removal]) -> Vec<(i64, Reason)> {
        removals.iter().map(|removal| (removal.base_offset.0, removal.reason)).collect()
    }

    fn planned(
        config: &LogConfig,
        now_ms: i64,
        log_start: i64,
        safe: Offset,
    ) -> Vec<(i64, Reason)> {
        bases(&plan(&segments(4), now_ms, config, Offset(log_start), safe))
    }

    #[test]
    fn without_limits_everything_stays() {
        assert_eq!(planned(&keep_all(), i64::MAX, 0, SAFE), []);
    }

    #[test]
    fn segments_whose_newest_record_is_too_old_go() {
        let config = LogConfig { retention_ms: 500, ..keep_all() };
        assert_eq!(planned(&config, 2500, 0, SAFE), [(0, Reason::Time)]);
        assert_eq!(planned(&config, 2501, 0, SAFE), [(0, Reason::Time), (10, Reason::Time)]);
        assert_eq!(planned(&config, 99_999, 0, SAFE).len(), 4, "the active one too");
        let zero = LogConfig { retention_ms: 0, ..keep_all() };
        assert_eq!(planned(&zero, 1001, 0, SAFE), [(0, Reason::Time)]);
    }

    #[test]
    fn the_log_never_shrinks_below_its_size_limit() {
        let with = |retention_bytes| LogConfig { retention_bytes, ..keep_all() };
        assert_eq!(planned(&with(400), 0, 0, SAFE), []);
        assert_eq!(planned(&with(301), 0, 0, SAFE), []);
        assert_eq!(planned(&with(300), 0, 0, SAFE), [(0, Reason::Size)]);
        assert_eq!(planned(&with(199), 0, 0, SAFE), [(0, Reason::Size), (10, Reason::Size)]);
    }

    #[test]
    fn what_lies_before_the_log_start_goes_whatever_the_policy() {
        let compacted = LogConfig { delete: false, compact: true, ..LogConfig::default() };
        assert_eq!(planned(&compacted, i64::MAX, 19, SAFE), [(0, Reason::LogStartOffset)]);
        let both = [(0, Reason::LogStartOffset), (10, Reason::LogStartOffset)];
        assert_eq!(planned(&compacted, i64::MAX, 20, SAFE), both);
        assert_eq!(planned(&compacted, i64::MAX, 40, SAFE).len(), 3, "never the active one");
    }

    #[test]
    fn nothing_goes_that_is_not_safe() {
        let config = LogConfig { retention_ms: 0, ..keep_all() };
        assert_eq!(planned(&config, 99_999, 0, Offset(19)), [(0, Reason::Time)]);
        assert_eq!(planned(&config, 99_999, 0, Offset(9)), []);
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let mut segments = segments(1);
        segments[0].size = 0;
        let config = LogConfig { retention_ms: 0, ..keep_all() };
        assert_eq!(plan(&segments, 99_999, &config, Offset(0), SAFE), []);
    }
}
