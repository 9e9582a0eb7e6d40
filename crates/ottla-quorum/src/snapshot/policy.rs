//! When a snapshot is due, and which old ones go, as Kafka decides it. Pure.

use std::time::Duration;

use ottla_base::{Offset, Timestamp};

use super::store::Kept;

/// What an operator can set about the metadata log's snapshots, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub bytes_between: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0 lets time play no part.
    pub interval_ms: u64,
    /// `metadata.max.retention.bytes`, of log and snapshots together; negative is without a limit.
    pub retention_bytes: i64,
    /// `metadata.max.retention.ms`; negative is without a limit.
    pub retention_ms: i64,
}

impl Default for SnapshotLimits {
    /// Kafka's.
    fn default() -> Self {
        Self {
            bytes_between: 20 << 20,
            interval_ms: 60 * 60 * 1000,
            retention_bytes: 100 << 20,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
        }
    }
}

/// Since when, and since which part of the log, no snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) end_offset: Offset,
    /// Bytes of the log that were applied by then.
    pub(crate) bytes: u64,
    /// By any clock that is not set back.
    pub(crate) at: Duration,
}

impl Since {
    /// Whether a snapshot of the log up to `end_offset` is due. Without anything new none ever is.
    pub(crate) fn is_due(
        &self,
        limits: &SnapshotLimits,
        end_offset: Offset,
        bytes: u64,
        now: Duration,
    ) -> bool {
        let has_grown = bytes.saturating_sub(self.bytes) >= limits.bytes_between;
        let is_late = self.deadline(limits, end_offset).is_some_and(|deadline| deadline <= now);
        end_offset > self.end_offset && (has_grown || is_late)
    }

    /// When one is due if nothing more comes.
    pub(crate) fn deadline(&self, limits: &SnapshotLimits, end_offset: Offset) -> Option<Duration> {
        let may_be = end_offset > self.end_offset && limits.interval_ms > 0;
        may_be.then(|| self.at.saturating_add(Duration::from_millis(limits.interval_ms)))
    }
}

/// The first of these snapshots, which are ordered, that stays: those before it are too old, or with them the log takes
/// too much room. The last one always stays. `log_size` is that of the log's files, in bytes.
pub(crate) fn first_kept(
    kept: &[Kept],
    log_size: u64,
    limits: &SnapshotLimits,
    now: Timestamp,
) -> Option<Kept> {
    let by_age = kept.iter().take_while(|it| expires(it, limits, now).is_some_and(|at| at <= now));
    let aged = by_age.count().min(kept.len().saturating_sub(1));
    let mut rest = kept.get(aged..)?;
    let mut size = rest.iter().map(|it| it.len).sum::<u64>() + log_size;
    while let [oldest, others @ ..] = rest
        && !others.is_empty()
        && u64::try_from(limits.retention_bytes).is_ok_and(|allowed| size > allowed)
    {
        size -= oldest.len;
        rest = others;
    }
    rest.first().copied()
}

/// When the oldest of these snapshots is to go, if ever.
pub(crate) fn next_expiry(
    kept: &[Kept],
    limits: &SnapshotLimits,
    now: Timestamp,
) -> Option<Timestamp> {
    match kept {
        [oldest, _, ..] => expires(oldest, limits, now),
        [] | [_] => None,
    }
}

/// A snapshot of records that have no time never grows old.
fn expires(kept: &Kept, limits: &SnapshotLimits, now: Timestamp) -> Option<Timestamp> {
    let has_time = kept.timestamp >= Timestamp(0) && limits.retention_ms >= 0;
    // Kafka's are too old when they are older than that.
    let at = kept.timestamp.0.saturating_add(limits.retention_ms).saturating_add(1);
    (has_time && now >= Timestamp(0)).then_some(Timestamp(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SnapshotId;
    use ottla_base::LeaderEpoch;

    const LIMITS: SnapshotLimits = SnapshotLimits {
        bytes_between: 100,
        interval_ms: 1000,
        retention_bytes: 500,
        retention_ms: 60_000,
    };
    const SINCE: Since = Since { end_offset: Offset(10), bytes: 50, at: Duration::from_secs(5) };

    fn is_due(limits: &SnapshotLimits, end: i64, bytes: u64, now_ms: u64) -> bool {
        SINCE.is_due(limits, Offset(end), bytes, Duration::from_millis(now_ms))
    }

    #[test]
    fn a_snapshot_is_due_after_so_many_bytes_or_so_much_time_and_never_without_something_new() {
        assert!(!is_due(&LIMITS, 11, 149, 5999));
        assert!(is_due(&LIMITS, 11, 150, 5000));
        assert!(is_due(&LIMITS, 11, 51, 6000));
        assert!(!is_due(&LIMITS, 10, 1000, 99_999));
        let timeless = SnapshotLimits { interval_ms: 0, ..LIMITS };
        assert!(!is_due(&timeless, 11, 149, 99_999));
        assert!(is_due(&timeless, 11, 150, 5000));
        assert_eq!(SINCE.deadline(&LIMITS, Offset(10)), None);
        assert_eq!(SINCE.deadline(&LIMITS, Offset(11)), Some(Duration::from_secs(6)));
        assert_eq!(SINCE.deadline(&timeless, Offset(11)), None);
    }

    /// Snapshots of 100 bytes each, one every second.
    fn kept(count: i64) -> Vec<Kept> {
        let kept = |n| Kept {
            id: SnapshotId { end_offset: Offset(n * 10), epoch: LeaderEpoch(1) },
            entries: 1,
            len: 100,
            timestamp: Timestamp(n * 1000),
        };
        (1..=count).map(kept).collect()
    }

    fn first(count: i64, log_size: u64, limits: &SnapshotLimits, now: i64) -> Option<i64> {
        let kept = first_kept(&kept(count), log_size, limits, Timestamp(now));
        kept.map(|kept| kept.id.end_offset.0)
    }

    #[test]
    fn old_snapshots_go_and_the_last_one_stays_however_old_it_is() {
        assert_eq!(first(0, 0, &LIMITS, 0), None);
        assert_eq!(first(3, 0, &LIMITS, 61_000), Some(10));
        assert_eq!(first(3, 0, &LIMITS, 61_001), Some(20));
        assert_eq!(first(3, 0, &LIMITS, i64::MAX), Some(30));
        let unlimited = SnapshotLimits { retention_ms: -1, retention_bytes: -1, ..LIMITS };
        assert_eq!(first(3, 1 << 40, &unlimited, i64::MAX), Some(10));
    }

    #[test]
    fn snapshots_go_while_they_and_the_log_take_more_room_than_they_may() {
        assert_eq!(first(3, 200, &LIMITS, 0), Some(10));
        assert_eq!(first(3, 201, &LIMITS, 0), Some(20));
        assert_eq!(first(3, 300, &LIMITS, 0), Some(20));
        assert_eq!(first(3, 301, &LIMITS, 0), Some(30));
        assert_eq!(first(3, 1 << 40, &LIMITS, 0), Some(30));
    }

    #[test]
    fn the_next_to_go_is_the_oldest_if_there_are_others() {
        let next = |count| next_expiry(&kept(count), &LIMITS, Timestamp(0));
        assert_eq!((next(0), next(1), next(2)), (None, None, Some(Timestamp(61_001))));
        let unlimited = SnapshotLimits { retention_ms: -1, ..LIMITS };
        assert_eq!(next_expiry(&kept(2), &unlimited, Timestamp(0)), None);
    }
}
