//! Where reading begins, as people write it after `--from`. Pure: what "now" is comes in as an argument.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, ZonedDateTime};
use ottla_client::Position;

/// What `--from` says; a time is still relative, until [`Start::position`] is told what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Beginning,
    End,
    Offset(i64),
    /// So many records before the end of each partition.
    Last(i64),
    Time(Timestamp),
    Ago(SignedDuration),
    /// Local midnight this many days before today.
    DaysAgo(i32),
}

/// `--from` was given something that is none of its forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write one of: beginning, end, an offset (42), the last records of each partition (-10), \
     a time ago (-1h, -30m, -2d), today, yesterday, \
     a time (2026-05-01T08:00:00+02:00) or a day (2026-05-01), UTC without a zone, milliseconds since 1970 (@1767225600000)"
)]
pub struct StartError;

impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "beginning" | "earliest" => Ok(Self::Beginning),
            "end" | "latest" => Ok(Self::End),
            "today" => Ok(Self::DaysAgo(0)),
            "yesterday" => Ok(Self::DaysAgo(1)),
            _ => other_form(text).ok_or(StartError),
        }
    }
}

fn other_form(text: &str) -> Option<Start> {
    if let Some(millis) = text.strip_prefix('@') {
        return Timestamp::from_millisecond(millis.parse().ok()?).ok().map(Start::Time);
    }
    if let Ok(number) = text.parse::<i64>() {
        let last = text.starts_with('-').then(|| number.checked_neg()).flatten();
        return Some(last.map_or(Start::Offset(number), Start::Last));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return duration(ago).map(Start::Ago);
    }
    time(text).map(Start::Time)
}

/// A time, or the begin of a day; in UTC where it names no zone, as Apache Kafka's tools have it.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let without_zone = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    text.parse().ok().or_else(without_zone)
}

/// `90s`, `1h30m`, `2d`; a day is 24 hours here, whatever daylight saving does.
fn duration(text: &str) -> Option<SignedDuration> {
    if let Some(days) = text.strip_suffix('d') {
        return days.parse::<i64>().ok()?.checked_mul(24).map(SignedDuration::from_hours);
    }
    text.parse().ok().filter(|duration| *duration >= SignedDuration::ZERO)
}

impl Start {
    /// Where to begin in a partition, for a command that was started at `now`.
    #[must_use]
    pub fn position(self, now: &ZonedDateTime) -> Position {
        let since = |time: Timestamp| Position::Since(ottla_base::Timestamp(time.as_millisecond()));
        match self {
            Self::Beginning => Position::Earliest,
            Self::End => Position::Latest,
            Self::Offset(offset) => Position::At(ottla_base::Offset(offset)),
            Self::Last(records) => Position::BeforeEnd(records),
            Self::Time(time) => since(time),
            Self::Ago(ago) => {
                since(now.timestamp().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH))
            }
            Self::DaysAgo(days) => since(midnight(now, days)),
        }
    }
}

fn midnight(now: &ZonedDateTime, days_ago: i32) -> Timestamp {
    now.checked_sub(days_ago.days())
        .and_then(|day| day.start_of_day())
        .map_or(Timestamp::UNIX_EPOCH, |day| day.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Option<Position> {
        let now: ZonedDateTime = "2026-05-02T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        text.parse::<Start>().ok().map(|from| from.position(&now))
    }

    fn since(rfc3339: &str) -> Option<Position> {
        let time: Timestamp = rfc3339.parse().unwrap();
        Some(Position::Since(ottla_base::Timestamp(time.as_millisecond())))
    }

    #[test]
    fn the_ends_have_their_names_and_kafkas() {
        assert_eq!(position("beginning"), Some(Position::Earliest));
        assert_eq!(position("earliest"), Some(Position::Earliest));
        assert_eq!(position("end"), Some(Position::Latest));
        assert_eq!(position("latest"), Some(Position::Latest));
    }

    #[test]
    fn a_bare_number_is_an_offset_and_a_negative_one_counts_from_the_end() {
        assert_eq!(position("0"), Some(Position::At(ottla_base::Offset(0))));
        assert_eq!(position("42"), Some(Position::At(ottla_base::Offset(42))));
        assert_eq!(position("-10"), Some(Position::BeforeEnd(10)));
    }

    #[test]
    fn times_are_absolute_or_relative_to_now() {
        assert_eq!(position("2026-05-01T08:00:00Z"), since("2026-05-01T08:00:00Z"));
        assert_eq!(position("2026-05-01T08:00:00.5+02:00"), since("2026-05-01T06:00:00.5Z"));
        assert_eq!(position("2026-05-01T08:00:00"), since("2026-05-01T08:00:00Z"));
        assert_eq!(position("2026-05-01"), since("2026-05-01T00:00:00Z"));
        assert_eq!(position("@1767225600000"), since("2026-01-01T00:00:00Z"));
        assert_eq!(position("-1h"), since("2026-05-02T09:00:00Z"));
        assert_eq!(position("-1h30m"), since("2026-05-02T08:30:00Z"));
        assert_eq!(position("-2d"), since("2026-04-30T10:00:00Z"));
    }

    #[test]
    fn days_begin_at_local_midnight() {
        assert_eq!(position("today"), since("2026-05-01T22:00:00Z"));
        assert_eq!(position("yesterday"), since("2026-04-30T22:00:00Z"));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["", "-", "@", "@x", "1h", "tomorrow", "2026-13-01", "--1h", "- 1h", "1.5"] {
            assert_eq!(position(wrong), None, "{wrong:?}");
        }
    }
}
