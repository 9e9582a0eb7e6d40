//! Which logs are to be compacted, how far, and how their segments are put together, as Kafka decides it. Pure.
//!
//! A log has a clean part, a dirty one, and one that is not touched yet: from the active segment on, from the last
//! stable offset on, and what is younger than `min.compaction.lag.ms`. Which records are kept is in [`batches`], by the
//! newest offsets of the dirty part's keys, [`keys`].
//!
//! Compaction takes whole segments: one that holds the first offset that must not be touched is not touched at all.

pub mod batches;
pub mod keys;
mod transactions;

use ottla_base::Offset;

use crate::config::LogConfig;
use crate::policy::roll;

/// What is known of a segment that is no longer written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub base_offset: Offset,
    pub size: u64,
    pub offset_index_bytes: u64,
    pub time_index_bytes: u64,
    /// The largest timestamp of its records, or the file's modification time where they have none.
    pub largest_timestamp: i64,
    /// The largest timestamp of its first batch; only asked for where `max.compaction.lag.ms` is set.
    pub first_timestamp: Option<i64>,
}

/// A log whose compaction is considered.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// Oldest first.
    pub segments: &'a [Segment],
    pub active_base_offset: Offset,
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    pub last_stable_offset: Offset,
    /// Up to where it was compacted before, as somebody has written down.
    pub cleaned_to: Option<Offset>,
}

/// How dirty a log is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dirtiness {
    /// From here on, keys have not been compared with those before.
    pub first_dirty_offset: Offset,
    /// Where the first segment begins that must not be touched.
    pub first_uncleanable_offset: Offset,
    pub clean_bytes: u64,
    pub cleanable_bytes: u64,
    /// For how long records have waited beyond `max.compaction.lag.ms`.
    pub overdue_ms: i64,
    /// What was written down cannot be true of this log: it ends before, or starts after.
    pub is_reset: bool,
}

impl Dirtiness {
    /// `None` for a log that has nothing that could be compacted.
    #[must_use]
    pub fn of(log: &Log<'_>, config: &LogConfig, now_ms: i64) -> Option<Self> {
        let (first_dirty_offset, is_reset) = first_dirty_offset(log);
        let first_uncleanable_offset = first_uncleanable(log, first_dirty_offset, config, now_ms);
        let sum = |segments: &[Segment]| segments.iter().map(|segment| segment.size).sum();
        let from = first_dirty_offset.min(first_uncleanable_offset);
        let dirtiness = Self {
            first_dirty_offset,
            first_uncleanable_offset,
            clean_bytes: sum(before(log.segments, first_dirty_offset)),
            cleanable_bytes: sum(between(log.segments, from, first_uncleanable_offset)),
            overdue_ms: overdue_ms(log, first_dirty_offset, config, now_ms),
            is_reset,
        };
        (dirtiness.clean_bytes + dirtiness.cleanable_bytes > 0).then_some(dirtiness)
    }

    /// The new share of all that could be compacted.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let total = self.clean_bytes + self.cleanable_bytes;
        #[allow(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = self.cleanable_bytes as f64 / total as f64;
        share
    }

    #[must_use]
    pub fn is_due(&self, config: &LogConfig) -> bool {
        let is_overdue = self.overdue_ms > 0 && self.cleanable_bytes > 0;
        is_overdue || self.ratio() > config.min_cleanable_dirty_ratio
    }
}

fn first_dirty_offset(log: &Log<'_>) -> (Offset, bool) {
    match log.cleaned_to {
        None => (log.log_start_offset, false),
        Some(offset) if (log.log_start_offset..=log.log_end_offset).contains(&offset) => {
            (offset, false)
        }
        Some(_) => (log.log_start_offset, true),
    }
}

fn first_uncleanable(log: &Log<'_>, dirty: Offset, config: &LogConfig, now_ms: i64) -> Offset {
    let young_from = now_ms.saturating_sub(config.min_compaction_lag_ms.max(0));
    let is_young = |segment: &&Segment| segment.largest_timestamp > young_from;
    let young = (config.min_compaction_lag_ms > 0)
        .then(|| between(log.segments, dirty, log.active_base_offset).iter().find(is_young))
        .flatten()
        .map(|segment| segment.base_offset);
    let bounds = [log.last_stable_offset, log.active_base_offset].into_iter().chain(young);
    let bound = bounds.min().unwrap_or(dirty).max(dirty);
    let holds_bound = between(log.segments, bound, log.active_base_offset).first();
    holds_bound.map_or(log.active_base_offset, |segment| segment.base_offset)
}

fn overdue_ms(log: &Log<'_>, dirty: Offset, config: &LogConfig, now_ms: i64) -> i64 {
    let due = now_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
    let segments = between(log.segments, dirty, log.active_base_offset);
    let timestamps = segments.iter().filter_map(|segment| segment.first_timestamp);
    let earliest = timestamps.filter(|timestamp| *timestamp > 0).min().unwrap_or(i64::MAX);
    due.saturating_sub(earliest).max(0)
}

/// The segments that begin before an offset.
fn before(segments: &[Segment], offset: Offset) -> &[Segment] {
    let end = segments.partition_point(|segment| segment.base_offset < offset);
    segments.get(..end).unwrap_or_default()
}

/// The segment that holds an offset, and those after it that begin before another one.
fn between(segments: &[Segment], from: Offset, to: Offset) -> &[Segment] {
    if from >= to {
        return &[];
    }
    let after = segments.partition_point(|segment| segment.base_offset <= from);
    before(segments, to).get(after.saturating_sub(1)..).unwrap_or_default()
}

/// Puts neighbours together of which one segment is made, so that segments do not become ever smaller. Returns how many
/// are in each group.
///
/// `first_uncleanable_offset` is where the segment after the last one begins.
#[must_use]
pub fn group(
    segments: &[Segment],
    first_uncleanable_offset: Offset,
    config: &LogConfig,
) -> Vec<usize> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let next = segments.get(at + 1).map(|next| next.base_offset);
        let last_offset = Offset(next.unwrap_or(first_uncleanable_offset).0 - 1);
        match groups.last_mut().filter(|group| group.has_room_for(segment, last_offset, config)) {
            Some(group) => group.add(segment),
            None => groups.push(Group::of(segment)),
        }
    }
    groups.iter().map(|group| group.count).collect()
}

struct Group {
    base_offset: Offset,
    count: usize,
    size: u64,
    offset_index_bytes: u64,
    time_index_bytes: u64,
}

impl Group {
    fn of(segment: &Segment) -> Self {
        Self {
            base_offset: segment.base_offset,
            count: 1,
            size: segment.size,
            offset_index_bytes: segment.offset_index_bytes,
            time_index_bytes: segment.time_index_bytes,
        }
    }

    fn has_room_for(&self, segment: &Segment, last_offset: Offset, config: &LogConfig) -> bool {
        self.size + segment.size <= config.segment_bytes
            && self.offset_index_bytes + segment.offset_index_bytes <= config.segment_index_bytes
            && self.time_index_bytes + segment.time_index_bytes <= config.segment_index_bytes
            && (segment.size == 0 || roll::relative(self.base_offset.0, last_offset.0).is_some())
    }

    fn add(&mut self, segment: &Segment) {
        self.count += 1;
        self.size += segment.size;
        self.offset_index_bytes += segment.offset_index_bytes;
        self.time_index_bytes += segment.time_index_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of 10 offsets and 100 bytes, with timestamps 1000, 2000, …; the active one begins at their end.
    fn segments(count: i64) -> Vec<Segment> {
        let segment = |n| Segment {
            base_offset: Offset(n * 10),
            size: 100,
            offset_index_bytes: 8,
            time_index_bytes: 12,
            largest_timestamp: (n + 1) * 1000,
            first_timestamp: Some((n + 1) * 1000 - 500),
        };
        (0..count).map(segment).collect()
    }

    fn log(segments: &[Segment]) -> Log<'_> {
        let active = segments.last().map_or(Offset(0), |last| Offset(last.base_offset.0 + 10));
        Log {
            segments,
            active_base_offset: active,
            log_start_offset: Offset(0),
            log_end_offset: Offset(active.0 + 5),
            last_stable_offset: Offset(active.0 + 5),
            cleaned_to: None,
        }
    }

    fn range(log: &Log<'_>, config: &LogConfig, now_ms: i64) -> (i64, i64) {
        let dirtiness = Dirtiness::of(log, config, now_ms).unwrap();
        (dirtiness.first_dirty_offset.0, dirtiness.first_uncleanable_offset.0)
    }

    #[test]
    fn everything_before_the_active_segment_is_dirty_until_it_was_compacted() {
        let (segments, config) = (segments(4), LogConfig::default());
        let fresh = log(&segments);
        assert_eq!(range(&fresh, &config, 0), (0, 40));
        let later = Log { cleaned_to: Some(Offset(30)), ..fresh };
        assert_eq!(range(&later, &config, 0), (30, 40));
        let dirtiness = Dirtiness::of(&later, &config, 0).unwrap();
        assert_eq!((dirtiness.clean_bytes, dirtiness.cleanable_bytes), (300, 100));
        assert!((dirtiness.ratio() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_log_without_closed_segments_is_no_candidate() {
        assert_eq!(Dirtiness::of(&log(&[]), &LogConfig::default(), 0), None);
    }

    #[test]
    fn nothing_is_touched_from_the_segment_on_that_holds_the_last_stable_offset() {
        let (segments, config) = (segments(4), LogConfig::default());
        for (last_stable, bound) in [(45, 40), (40, 40), (39, 30), (30, 30), (29, 20), (0, 0)] {
            let log = Log { last_stable_offset: Offset(last_stable), ..log(&segments) };
            let found = Dirtiness::of(&log, &config, 0);
            let bound_found = found.map(|it| it.first_uncleanable_offset.0).unwrap_or(0);
            assert_eq!(bound_found, bound, "{last_stable}");
        }
    }

    #[test]
    fn what_is_younger_than_the_lag_waits() {
        let segments = segments(4);
        let config = LogConfig { min_compaction_lag_ms: 1_500, ..LogConfig::default() };
        assert_eq!(range(&log(&segments), &config, 4_500), (0, 30));
        assert_eq!(range(&log(&segments), &config, 4_499), (0, 20));
        assert_eq!(range(&log(&segments), &config, 10_000), (0, 40));
        // What is clean already is not young again, and the dirty part never ends before it begins.
        let later = Log { cleaned_to: Some(Offset(20)), ..log(&segments) };
        assert_eq!(range(&later, &config, 1_000), (20, 20));
    }

    #[test]
    fn a_checkpoint_that_cannot_be_true_makes_everything_dirty() {
        let (segments, config) = (segments(4), LogConfig::default());
        for (cleaned_to, start, expected) in
            [(46, 0, (0, true)), (45, 0, (45, false)), (5, 10, (10, true)), (10, 10, (10, false))]
        {
            let log = Log {
                cleaned_to: Some(Offset(cleaned_to)),
                log_start_offset: Offset(start),
                ..log(&segments)
            };
            let found = Dirtiness::of(&log, &config, 0).unwrap();
            assert_eq!((found.first_dirty_offset.0, found.is_reset), expected);
        }
    }

    #[test]
    fn a_log_is_due_when_more_of_it_is_new_than_the_ratio_or_something_has_waited_too_long() {
        let segments = segments(4);
        let is_due = |min_cleanable_dirty_ratio, max_compaction_lag_ms, cleaned_to, now_ms| {
            let config = LogConfig {
                min_cleanable_dirty_ratio,
                max_compaction_lag_ms,
                ..LogConfig::default()
            };
            let log = Log { cleaned_to: Some(Offset(cleaned_to)), ..log(&segments) };
            Dirtiness::of(&log, &config, now_ms).unwrap().is_due(&config)
        };
        assert!(is_due(0.5, i64::MAX, 10, 0));
        assert!(!is_due(0.5, i64::MAX, 20, 0), "half is not more than half");
        assert!(!is_due(1.0, i64::MAX, 0, 0));
        assert!(!is_due(0.5, 2_000, 20, 4_500), "the third segment begins at 2500");
        assert!(is_due(0.5, 2_000, 20, 4_501));
        assert!(!is_due(0.5, 1, 40, i64::MAX), "nothing is left to do");
    }

    #[test]
    fn neighbours_are_put_together_as_far_as_one_segment_reaches() {
        let segments = segments(5);
        let grouped = |config: LogConfig| group(&segments, Offset(50), &config);
        let config = LogConfig { segment_bytes: 250, ..LogConfig::default() };
        assert_eq!(grouped(config.clone()), [2, 2, 1]);
        assert_eq!(grouped(LogConfig { segment_bytes: 99, ..config }), [1; 5]);
        let narrow = LogConfig { segment_index_bytes: 36, ..LogConfig::default() };
        assert_eq!(grouped(narrow), [3, 2]);
        assert_eq!(grouped(LogConfig::default()), [5]);
        assert_eq!(group(&[], Offset(0), &config), []);
    }

    #[test]
    fn no_group_reaches_further_than_an_index_can_express() {
        let mut segments = segments(3);
        segments[2].base_offset = Offset(i64::from(i32::MAX) - 5);
        let config = LogConfig::default();
        let end = |last: i64| Offset(i64::from(i32::MAX) + last);
        assert_eq!(group(&segments, end(1), &config), [3]);
        assert_eq!(group(&segments, end(2), &config), [2, 1]);
        segments[2].size = 0;
        assert_eq!(group(&segments, end(2), &config), [3], "an empty segment has no offsets");
    }
}
