//! What the figures of a run are to reach: a table by the row's name, and whether a row reaches it (pure).
//!
//! A goal is no part of a figure: a table drawn again from the figures of last month shows the goals of today.

use serde_json::{Value, json};

use super::Stage;
use super::table::{Row, Section, Subject, figure};

/// What a row is to reach. Ratios are looked at with and without flush, each beside its own floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// At most so much, in the row's unit.
    AtMost(f64),
    /// At most so many times Kafka's figure.
    TimesKafka(f64),
    /// At most so many times what a program needs that does nothing but the same system calls.
    TimesFloor(f64),
    /// At most so many times Kafka's figure without flush, where Kafka does not flush either.
    UnflushedTimesKafka(f64),
    /// At most so many flushes and one round trip, as the two floors have them.
    Flushes(f64),
    /// At most so many round trips; with flush, and so many flushes.
    RoundTrips { round_trips: f64, flushes: f64 },
    /// At most so many times Ottla's figure of another row of the section, named by its title.
    TimesRow(f64, &'static str),
}

/// Part of the run, title and unit of a row, and its goals.
type Named = (Stage, &'static str, &'static str, &'static [Goal]);

const PER_MILLION: &str = "CPU s per million";
const PER_GB: &str = "CPU s per GB";

const PRODUCE: &[Goal] = &[Goal::TimesKafka(0.25), Goal::TimesFloor(1.5)];
const CONSUME: &[Goal] = &[Goal::TimesKafka(1.0), Goal::TimesFloor(1.3)];

const ONE_ACTIVE_P99: &str = "acks=all, 200 requests/s to 1 partitions, p99";

const END_TO_END: &[Goal] = &[Goal::RoundTrips { round_trips: 3.0, flushes: 2.0 }];

/// A test finds each of them in what is published of its section.
const GOALS: &[Named] = &[
    (Stage::Startup, "start to first answer", "ms", &[Goal::AtMost(20.0)]),
    (Stage::Startup, "memory idle, resident", "MiB", &[Goal::AtMost(20.0)]),
    (Stage::Startup, "memory after load, resident", "MiB", &[Goal::TimesKafka(0.1)]),
    (Stage::Produce, "produce, acks=1, 100-byte records", PER_MILLION, PRODUCE),
    (Stage::Produce, "produce, acks=all, 100-byte records", PER_MILLION, PRODUCE),
    (Stage::Produce, "produce, acks=1, 1 KiB records", PER_GB, PRODUCE),
    (Stage::Produce, "produce, acks=all, 1 KiB records", PER_GB, PRODUCE),
    (Stage::Consume, "consume, 100-byte records", PER_MILLION, CONSUME),
    (Stage::Consume, "consume, 1 KiB records", PER_GB, CONSUME),
    (Stage::Latency, "end to end, acks=1, p50", "ms", END_TO_END),
    (Stage::Latency, "end to end, acks=all, p50", "ms", END_TO_END),
    (
        Stage::Clients,
        "ProducerPerformance, 100-byte records, acks=1",
        PER_MILLION,
        &[Goal::TimesKafka(0.5)],
    ),
    (
        Stage::Clients,
        "ProducerPerformance, 100-byte records, acks=all",
        PER_MILLION,
        &[Goal::TimesKafka(0.5)],
    ),
    (Stage::Clients, "kcat reads 100-byte records", PER_MILLION, &[Goal::TimesKafka(1.0)]),
    (Stage::Readers, "20 consumers against one, broker CPU per GB", "×", &[Goal::AtMost(1.1)]),
    (Stage::Readers, "a cold scan's effect on that p99", "×", &[Goal::AtMost(2.0)]),
    (Stage::Groups, "1,000 groups of 10 members, heartbeat p99", "ms", &[Goal::AtMost(20.0)]),
    (Stage::Groups, "1,000 groups of 10 members, CPU", "cores", &[Goal::AtMost(0.5)]),
    (
        Stage::Groups,
        "restart with a million commits, to all groups' offsets",
        "ms",
        &[Goal::AtMost(3_000.0)],
    ),
    (
        Stage::Active,
        "acks=all, 200 requests/s to 1000 partitions, p99",
        "ms",
        &[Goal::TimesRow(3.0, ONE_ACTIVE_P99)],
    ),
    (
        Stage::Partitions,
        "10,000 partitions, created as ten times 1,000 topics",
        "s",
        &[Goal::AtMost(10.0)],
    ),
    (Stage::Partitions, "9,999 partitions, created as one topic", "s", &[Goal::AtMost(10.0)]),
    // 150 MB, and one hundredth of a core.
    (Stage::Partitions, "10,000 partitions, memory, resident", "MiB", &[Goal::AtMost(143.0)]),
    (Stage::Partitions, "10,000 partitions, CPU idle", "ms per s", &[Goal::AtMost(10.0)]),
    (
        Stage::Partitions,
        "10,000 partitions, start after a clean stop",
        "ms",
        &[Goal::AtMost(2_000.0)],
    ),
    (
        Stage::Partitions,
        "10,000 partitions, all written, kill -9, start",
        "ms",
        &[Goal::AtMost(2_000.0)],
    ),
    (
        Stage::Restart,
        "1024 MiB in one partition, kill -9 while written, start",
        "ms",
        &[Goal::AtMost(2_000.0)],
    ),
    (
        Stage::Restart,
        "8192 MiB in one partition, kill -9 while written, start",
        "ms",
        &[Goal::AtMost(2_000.0)],
    ),
    (
        Stage::Cluster,
        "rf 3, acks=all, 1 KiB records, three brokers together",
        PER_GB,
        &[Goal::UnflushedTimesKafka(0.333)],
    ),
    (Stage::Cluster, "rf 3, acks=all, one record at a time, p50", "ms", &[Goal::Flushes(3.0)]),
    // No step where a fetch that waits for records holds something up.
    (
        Stage::Cluster,
        "rf 3, acks=all, one record at a time, the slowest",
        "ms",
        &[Goal::AtMost(400.0)],
    ),
    // 30 MB.
    (Stage::Connections, "5,000 idle connections, memory, resident", "MiB", &[Goal::AtMost(28.6)]),
];

/// What is asked of a row.
pub(super) fn of(section: &Section, row: &Row) -> &'static [Goal] {
    let is_meant =
        |named: &&Named| named.0 == section.stage && named.1 == row.title && named.2 == row.unit;
    GOALS.iter().find(is_meant).map_or(&[], |named| named.3)
}

impl Goal {
    const fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit)
            | Self::TimesKafka(limit)
            | Self::TimesFloor(limit)
            | Self::UnflushedTimesKafka(limit)
            | Self::Flushes(limit)
            | Self::RoundTrips { round_trips: limit, .. }
            | Self::TimesRow(limit, _) => limit,
        }
    }

    /// The figure that is limited, for Ottla with or without flush; `None` when something was not measured.
    fn found(self, section: &Section, row: &Row, subject: Subject) -> Option<f64> {
        match self {
            Self::AtMost(_) => row.counted(subject),
            Self::TimesKafka(_) | Self::UnflushedTimesKafka(_) => {
                row.ratio(subject, Subject::Kafka)
            }
            Self::Flushes(_) => {
                let (round_trip, flush) = floors_of(row)?;
                (flush > 0.0).then_some((row.counted(subject)? - round_trip) / flush)
            }
            Self::RoundTrips { flushes, .. } => {
                let (round_trip, flush) = floors_of(row)?;
                let flushes = if subject == Subject::Ottla { flushes } else { 0.0 };
                Some((row.counted(subject)? - flushes * flush) / round_trip)
            }
            Self::TimesFloor(_) => row.ratio(subject, floor_of(row, subject)),
            Self::TimesRow(_, title) => {
                let other = section.rows.iter().find(|row| row.title == title)?.counted(subject)?;
                (other > 0.0).then_some(row.counted(subject)? / other)
            }
        }
    }

    fn is_reached(self, section: &Section, row: &Row, subject: Subject) -> Option<bool> {
        Some(self.found(section, row, subject)? <= self.limit())
    }

    /// Without flush Ottla promises what Kafka promises. A limit in the row's unit is for what it promises as it comes.
    const fn subjects(self) -> &'static [Subject] {
        match self {
            Self::AtMost(_) | Self::Flushes(_) => &[Subject::Ottla],
            Self::UnflushedTimesKafka(_) => &[Subject::Unflushed],
            Self::TimesKafka(_)
            | Self::TimesFloor(_)
            | Self::RoundTrips { .. }
            | Self::TimesRow(..) => &[Subject::Ottla, Subject::Unflushed],
        }
    }

    fn wanted(self) -> String {
        let limit = figure(self.limit());
        match self {
            Self::AtMost(_) => format!("≤ {limit}"),
            Self::TimesKafka(_) => format!("≤ {limit}× Kafka"),
            Self::UnflushedTimesKafka(_) => format!("no flush ≤ {limit}× Kafka"),
            Self::Flushes(_) => format!("≤ {limit} fdatasync + a round trip"),
            Self::TimesFloor(_) => format!("≤ {limit}× floor"),
            Self::RoundTrips { flushes, .. } => {
                format!("≤ {limit}× floor + {} fdatasync with flush", figure(flushes))
            }
            Self::TimesRow(_, title) => format!("≤ {limit}× \"{title}\""),
        }
    }

    /// The goal, and of each subject whether it is reached.
    pub(super) fn text(self, section: &Section, row: &Row) -> String {
        let mut text = self.wanted();
        for (&subject, lead) in self.subjects().iter().zip([": ", "; no flush "]) {
            let Some(found) = self.found(section, row, subject) else { continue };
            text += lead;
            let is_told = self.subjects().len() > 1 || matches!(self, Self::Flushes(_));
            if is_told {
                text += &format!("{}× ", figure(found));
            }
            text += if found <= self.limit() { "reached" } else { "**missed**" };
        }
        text
    }

    pub(super) fn json(self, section: &Section, row: &Row) -> Value {
        let reached = |subject| self.is_reached(section, row, subject);
        let mut json = match self {
            Self::AtMost(limit) => json!({ "at_most": limit }),
            Self::TimesKafka(limit) => json!({ "times_kafka_at_most": limit }),
            Self::UnflushedTimesKafka(limit) => {
                json!({ "unflushed_times_kafka_at_most": limit })
            }
            Self::Flushes(limit) => json!({ "flushes_at_most": limit }),
            Self::TimesFloor(limit) => json!({ "times_floor_at_most": limit }),
            Self::RoundTrips { round_trips, flushes } => {
                json!({ "round_trips_at_most": round_trips, "flushes_beside": flushes })
            }
            Self::TimesRow(limit, title) => json!({ "times_row_at_most": limit, "row": title }),
        };
        let verdicts = self
            .subjects()
            .iter()
            .map(|&subject| (format!("{}_reaches_it", subject.name()), json!(reached(subject))));
        if let Some(json) = json.as_object_mut() {
            json.extend(verdicts);
        }
        json
    }
}

/// A round trip, and what a flush adds to it.
fn floors_of(row: &Row) -> Option<(f64, f64)> {
    let round_trip = row.counted(Subject::Floor)?;
    Some((round_trip, row.counted(Subject::FlushingFloor)? - round_trip))
}

/// With flush beside a floor that flushes, where one was measured.
fn floor_of(row: &Row, subject: Subject) -> Subject {
    match subject {
        Subject::Ottla if row.counted(Subject::FlushingFloor).is_some() => Subject::FlushingFloor,
        _ => Subject::Floor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figures: &[(Subject, f64)]) -> Row {
        let mut row = Row::least("produce, acks=all, 1 KiB records", PER_GB);
        figures.iter().for_each(|&(subject, figure)| row.add(subject, figure));
        row
    }

    fn texts(row: Row) -> Vec<String> {
        let section = Section::new(Stage::Produce, vec![row]);
        let row = &section.rows[0];
        of(&section, row).iter().map(|goal| goal.text(&section, row)).collect()
    }

    #[test]
    fn a_ratio_is_judged_with_and_without_flush_each_beside_its_own_floor() {
        let found = texts(row(&[
            (Subject::Kafka, 2.0),
            (Subject::Ottla, 1.0),
            (Subject::Unflushed, 0.5),
            (Subject::Floor, 0.25),
            (Subject::FlushingFloor, 0.8),
        ]));
        let kafka = "≤ 0.250× Kafka: 0.500× **missed**; no flush 0.250× reached";
        let floor = "≤ 1.50× floor: 1.25× reached; no flush 2.00× **missed**";
        assert_eq!(found, [kafka, floor]);
    }

    #[test]
    fn a_latency_is_counted_in_flushes_beyond_a_round_trip() {
        let mut row = Row::least("rf 3, acks=all, one record at a time, p50", "ms");
        let figures =
            [(Subject::Floor, 0.1), (Subject::FlushingFloor, 0.6), (Subject::Ottla, 1.35)];
        figures.into_iter().for_each(|(subject, figure)| row.add(subject, figure));
        let section = Section::new(Stage::Cluster, vec![row]);
        let row = &section.rows[0];
        let found = Goal::Flushes(3.0).found(&section, row, Subject::Ottla).unwrap();
        assert!((found - 2.5).abs() < 1e-9);
        assert!(of(&section, row)[0].text(&section, row).ends_with(": 2.50× reached"));
    }

    #[test]
    fn a_way_from_end_to_end_is_counted_in_round_trips_beside_its_flushes() {
        let mut row = Row::least("end to end, acks=all, p50", "ms");
        let figures = [
            (Subject::Floor, 0.25),
            (Subject::FlushingFloor, 0.75),
            (Subject::Ottla, 2.0),
            (Subject::Unflushed, 0.5),
        ];
        figures.into_iter().for_each(|(subject, figure)| row.add(subject, figure));
        let section = Section::new(Stage::Latency, vec![row]);
        let row = &section.rows[0];
        let text = of(&section, row)[0].text(&section, row);
        assert!(text.ends_with(": 4.00× **missed**; no flush 2.00× reached"), "{text}");
    }

    #[test]
    fn a_goal_is_judged_by_the_round_that_counts() {
        let idle = |rounds: [f64; 3]| {
            let mut row = Row::greatest("10,000 partitions, CPU idle", "ms per s");
            rounds.into_iter().for_each(|round| row.add(Subject::Ottla, round));
            let section = Section::new(Stage::Partitions, vec![row]);
            let row = &section.rows[0];
            of(&section, row)[0].text(&section, row)
        };
        assert_eq!(idle([3.5, 2.0, 24.0]), "≤ 10.0: **missed**");
        assert_eq!(idle([3.5, 2.0, 4.0]), "≤ 10.0: reached");
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(texts(row(&[(Subject::Ottla, 1.0)])), ["≤ 0.250× Kafka", "≤ 1.50× floor"]);
    }

    #[test]
    fn a_row_may_be_limited_by_another_one() {
        let mut rows = [1, 1000].map(|partitions| {
            let title = format!("acks=all, 200 requests/s to {partitions} partitions, p99");
            Row::least(title, "ms")
        });
        rows[0].add(Subject::Ottla, 0.5);
        rows[1].add(Subject::Ottla, 1.0);
        let section = Section::new(Stage::Active, rows.to_vec());
        let [goal] = of(&section, &section.rows[1]) else { panic!("one goal") };
        assert_eq!(goal.found(&section, &section.rows[1], Subject::Ottla), Some(2.0));
        let json = goal.json(&section, &section.rows[1]);
        assert_eq!(json["ottla_reaches_it"], json!(true));
        assert_eq!(json["ottla-unflushed_reaches_it"], Value::Null);
    }

    #[test]
    fn every_goal_is_for_a_row_that_is_published_with_its_section() {
        let report = super::super::report::published().unwrap();
        let is_missing = |named: &&Named| {
            let section = report.sections.iter().find(|it| it.section.stage == named.0);
            section.is_some_and(|it| {
                let rows = &it.section.rows;
                !rows.iter().any(|row| row.title == named.1 && row.unit == named.2)
            })
        };
        assert_eq!(GOALS.iter().filter(is_missing).collect::<Vec<_>>(), Vec::<&Named>::new());
    }
}
