//! The figures of a run, and how they read as Markdown and as JSON (pure).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Whose figures a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Kafka,
    Ottla,
    /// Ottla with `log.flush.on.commit=false`, which promises what Kafka promises.
    Unflushed,
    Floor,
    /// The floor that flushes to disk before it answers.
    FlushingFloor,
}

impl Subject {
    pub(super) const ALL: [Self; 5] =
        [Self::Kafka, Self::Ottla, Self::Unflushed, Self::Floor, Self::FlushingFloor];

    /// Also the name of its directory and its key in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Ottla => "ottla",
            Self::Unflushed => "ottla-unflushed",
            Self::Floor => "floor",
            Self::FlushingFloor => "floor-flushing",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Ottla => "Ottla",
            Self::Unflushed => "Ottla, no flush",
            Self::Floor => "floor",
            Self::FlushingFloor => "floor, flush",
        }
    }
}

/// Which of several runs counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Best {
    Least,
    Most,
}

/// What Ottla, as it comes, is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// At most so much, in the row's unit.
    AtMost(f64),
    /// At most so many times Kafka's figure.
    TimesKafka(f64),
}

/// One line: a quantity, measured several times for each subject.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) best: Best,
    pub(super) goal: Option<Goal>,
    samples: BTreeMap<Subject, Vec<f64>>,
}

impl Row {
    /// A quantity of which less is better.
    pub(super) fn least(title: impl Into<String>, unit: &'static str) -> Self {
        let samples = BTreeMap::new();
        Self { title: title.into(), unit, best: Best::Least, goal: None, samples }
    }

    /// A quantity of which more is better.
    pub(super) fn most(title: impl Into<String>, unit: &'static str) -> Self {
        Self { best: Best::Most, ..Self::least(title, unit) }
    }

    pub(super) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(super) fn add(&mut self, subject: Subject, sample: f64) {
        self.samples.entry(subject).or_default().push(sample);
    }

    /// The best of all runs: what disturbs a measurement on a shared machine only ever adds.
    pub(super) fn best(&self, subject: Subject) -> Option<f64> {
        let samples = self.samples.get(&subject)?.iter().copied();
        match self.best {
            Best::Least => samples.reduce(f64::min),
            Best::Most => samples.reduce(f64::max),
        }
    }

    fn ratio(&self, subject: Subject, to: Subject) -> Option<f64> {
        let (this, that) = (self.best(subject)?, self.best(to)?);
        (that > 0.0).then_some(this / that)
    }

    /// Whether Ottla reaches the goal; unknown when something was not measured.
    fn is_reached(&self) -> Option<bool> {
        match self.goal? {
            Goal::AtMost(limit) => Some(self.best(Subject::Ottla)? <= limit),
            Goal::TimesKafka(limit) => Some(self.ratio(Subject::Ottla, Subject::Kafka)? <= limit),
        }
    }

    fn goal_text(&self) -> String {
        let Some(goal) = self.goal else { return String::new() };
        let wanted = match goal {
            Goal::AtMost(limit) => format!("≤ {}", figure(limit)),
            Goal::TimesKafka(limit) => format!("≤ {}×", figure(limit)),
        };
        match self.is_reached() {
            Some(true) => format!("{wanted}: reached"),
            Some(false) => format!("{wanted}: **missed**"),
            None => wanted,
        }
    }
}

/// The rows under one heading.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) rows: Vec<Row>,
}

impl Section {
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        let headings = Subject::ALL.map(Subject::heading).join(" | ");
        let rule = "---:|".repeat(Subject::ALL.len());
        writeln!(text, "| | unit | {headings} | Ottla ÷ Kafka | no flush ÷ Kafka | goal |").ok();
        writeln!(text, "|---|---|{rule}---:|---:|---|").ok();
        for row in &self.rows {
            let cells = Subject::ALL.map(|subject| cell(row.best(subject), "")).join(" | ");
            let ratio = cell(row.ratio(Subject::Ottla, Subject::Kafka), "×");
            let unflushed = cell(row.ratio(Subject::Unflushed, Subject::Kafka), "×");
            let (title, unit, goal) = (&row.title, row.unit, row.goal_text());
            writeln!(text, "| {title} | {unit} | {cells} | {ratio} | {unflushed} | {goal} |").ok();
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        json!({ "title": self.title, "rows": rows })
    }
}

fn row_json(row: &Row) -> Value {
    let figures = row.samples.iter().map(|(&subject, samples)| {
        (subject.name().to_owned(), json!({ "best": row.best(subject), "runs": samples }))
    });
    let goal = row.goal.map(|goal| match goal {
        Goal::AtMost(limit) => json!({ "at_most": limit }),
        Goal::TimesKafka(limit) => json!({ "times_kafka_at_most": limit }),
    });
    json!({
        "title": row.title,
        "unit": row.unit,
        "figures": figures.collect::<serde_json::Map<_, _>>(),
        "ottla_to_kafka": row.ratio(Subject::Ottla, Subject::Kafka),
        "ottla_unflushed_to_kafka": row.ratio(Subject::Unflushed, Subject::Kafka),
        "goal": goal,
        "goal_reached": row.is_reached(),
    })
}

fn cell(value: Option<f64>, suffix: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| figure(value) + suffix)
}

/// Three significant digits, and never more than a person reads.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(kafka: f64, ottla: f64) -> Row {
        let mut row = Row::least("CPU", "s").goal(Goal::TimesKafka(0.5));
        row.add(Subject::Kafka, kafka + 1.0);
        row.add(Subject::Kafka, kafka);
        row.add(Subject::Ottla, ottla);
        row
    }

    #[test]
    fn the_least_of_several_runs_counts_for_cost_and_the_most_for_throughput() {
        let mut rows = [Row::least("CPU", "s"), Row::most("throughput", "MB/s")];
        for row in &mut rows {
            [3.0, 1.0, 2.0].into_iter().for_each(|sample| row.add(Subject::Floor, sample));
        }
        assert_eq!(rows.map(|row| row.best(Subject::Floor)), [Some(1.0), Some(3.0)]);
    }

    #[test]
    fn a_goal_is_reached_missed_or_unknown() {
        assert_eq!(measured(2.0, 1.0).goal_text(), "≤ 0.500×: reached");
        assert_eq!(measured(2.0, 1.1).goal_text(), "≤ 0.500×: **missed**");
        assert_eq!(Row::least("CPU", "s").goal(Goal::AtMost(50.0)).goal_text(), "≤ 50.0");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let section = Section { title: "Produce", rows: vec![measured(2.0, 0.5)] };
        let text = section.markdown();
        let line = text.lines().last().unwrap();
        assert_eq!(line, "| CPU | s | 2.00 | 0.500 | – | – | – | 0.250× | – | ≤ 0.500×: reached |");
    }
}
