//! The figures of a run, and how they read as Markdown and as JSON (pure).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::{Stage, goals};

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

/// One line: a quantity, measured several times for each subject.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) best: Best,
    samples: BTreeMap<Subject, Vec<f64>>,
}

impl Row {
    /// A quantity of which less is better.
    pub(super) fn least(title: impl Into<String>, unit: impl Into<String>) -> Self {
        let samples = BTreeMap::new();
        Self { title: title.into(), unit: unit.into(), best: Best::Least, samples }
    }

    /// A quantity of which more is better.
    pub(super) fn most(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { best: Best::Most, ..Self::least(title, unit) }
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

    pub(super) fn ratio(&self, subject: Subject, to: Subject) -> Option<f64> {
        let (this, that) = (self.best(subject)?, self.best(to)?);
        (that > 0.0).then_some(this / that)
    }

    /// What [`Section::json`] made. Whether the least or the most counts shows from the figure that did.
    fn parse(json: &Value) -> Result<Self> {
        let mut row = Self::least(text(json, "title")?, text(json, "unit")?);
        let figures = json.get("figures").and_then(Value::as_object).context("no figures")?;
        let mut told = Vec::new();
        for (name, figure) in figures {
            let subject = Subject::ALL.into_iter().find(|subject| subject.name() == name);
            let subject = subject.with_context(|| format!("nobody is called {name}"))?;
            for run in figure.get("runs").and_then(Value::as_array).context("no runs")? {
                row.add(subject, run.as_f64().context("a run is no number")?);
            }
            told.push((subject, figure.get("best").and_then(Value::as_f64)));
        }
        let counts = |row: &Self| told.iter().all(|(subject, best)| row.best(*subject) == *best);
        if !counts(&row) {
            row.best = Best::Most;
        }
        ensure!(counts(&row), "{}: neither the least nor the most counts", row.title);
        Ok(row)
    }
}

/// A string of an object.
fn text<'a>(json: &'a Value, name: &str) -> Result<&'a str> {
    json.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))
}

/// The rows under one heading.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) stage: Stage,
    pub(super) rows: Vec<Row>,
}

impl Section {
    pub(super) const fn new(stage: Stage, rows: Vec<Row>) -> Self {
        Self { stage, rows }
    }

    /// The table below the heading.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let headings = Subject::ALL.map(Subject::heading).join(" | ");
        let rule = "---:|".repeat(Subject::ALL.len());
        writeln!(text, "| | unit | {headings} | Ottla ÷ Kafka | no flush ÷ Kafka | goal |").ok();
        writeln!(text, "|---|---|{rule}---:|---:|---|").ok();
        for row in &self.rows {
            let cells = Subject::ALL.map(|subject| cell(row.best(subject), "")).join(" | ");
            let ratio = cell(row.ratio(Subject::Ottla, Subject::Kafka), "×");
            let unflushed = cell(row.ratio(Subject::Unflushed, Subject::Kafka), "×");
            let goals: Vec<_> =
                goals::of(self, row).iter().map(|goal| goal.text(self, row)).collect();
            let (title, unit, goals) = (&row.title, &row.unit, goals.join("<br>"));
            writeln!(text, "| {title} | {unit} | {cells} | {ratio} | {unflushed} | {goals} |").ok();
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({ "title": self.stage.title(), "rows": rows })
    }

    fn row_json(&self, row: &Row) -> Value {
        let figures = row.samples.iter().map(|(&subject, samples)| {
            (subject.name().to_owned(), json!({ "best": row.best(subject), "runs": samples }))
        });
        let goals: Vec<_> = goals::of(self, row).iter().map(|goal| goal.json(self, row)).collect();
        json!({
            "title": row.title,
            "unit": row.unit,
            "figures": figures.collect::<serde_json::Map<_, _>>(),
            "ottla_to_kafka": row.ratio(Subject::Ottla, Subject::Kafka),
            "ottla_unflushed_to_kafka": row.ratio(Subject::Unflushed, Subject::Kafka),
            "goals": goals,
        })
    }

    /// What [`Self::json`] made, but for the goals, which are today's.
    pub(super) fn parse(json: &Value) -> Result<Self> {
        let title = text(json, "title")?;
        let stage = Stage::value_variants().iter().find(|stage| stage.title() == title);
        let stage = stage.with_context(|| format!("no part of a run is called {title}"))?;
        let rows = json.get("rows").and_then(Value::as_array).context("no rows")?;
        let rows = rows.iter().map(Row::parse).collect::<Result<_>>();
        Ok(Self::new(*stage, rows.with_context(|| format!("section {title}"))?))
    }
}

fn cell(value: Option<f64>, suffix: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| figure(value) + suffix)
}

/// Three significant digits, and never more than a person reads.
pub(super) fn figure(value: f64) -> String {
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

    #[test]
    fn the_least_of_several_runs_counts_for_cost_and_the_most_for_throughput() {
        let mut rows = [Row::least("CPU", "s"), Row::most("throughput", "MB/s")];
        for row in &mut rows {
            [3.0, 1.0, 2.0].into_iter().for_each(|sample| row.add(Subject::Floor, sample));
        }
        assert_eq!(rows.map(|row| row.best(Subject::Floor)), [Some(1.0), Some(3.0)]);
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut row = Row::least("kcat reads 100-byte records", "CPU s per million");
        [3.0, 2.0].into_iter().for_each(|sample| row.add(Subject::Kafka, sample));
        row.add(Subject::Ottla, 0.5);
        let text = Section::new(Stage::Clients, vec![row]).markdown();
        let line = text.lines().last().unwrap();
        let cells = "2.00 | 0.500 | – | – | – | 0.250× | – | ≤ 1.00× Kafka: 0.250× reached |";
        assert_eq!(line, format!("| kcat reads 100-byte records | CPU s per million | {cells}"));
    }

    #[test]
    fn a_section_is_the_same_when_it_is_read_back() {
        let mut rows = vec![Row::least("CPU", "s"), Row::most("throughput", "MB/s")];
        for (row, subject) in rows.iter_mut().zip([Subject::Unflushed, Subject::Kafka]) {
            [3.25, 1.5].into_iter().for_each(|sample| row.add(subject, sample));
        }
        let section = Section::new(Stage::Produce, rows);
        let again = Section::parse(&section.json()).unwrap();
        assert_eq!(again.json(), section.json());
        assert_eq!(again.markdown(), section.markdown());
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        let error = |figures: Value| {
            let row = json!({ "title": "CPU", "unit": "s", "figures": figures });
            let section = json!({ "title": "Produce", "rows": [row] });
            format!("{:#}", Section::parse(&section).unwrap_err())
        };
        let nobody = error(json!({ "nobody": { "best": 1.0, "runs": [1.0] } }));
        assert_eq!(nobody, "section Produce: nobody is called nobody");
        let middle = error(json!({ "ottla": { "best": 2.0, "runs": [1.0, 2.0, 3.0] } }));
        assert_eq!(middle, "section Produce: CPU: neither the least nor the most counts");
    }
}
