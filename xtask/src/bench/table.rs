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

/// Which of several rounds counts, for the figure and for what it is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// The best round of a total or a median that is better when it is less: what disturbs such a measurement on a
    /// shared machine only ever adds.
    Least,
    /// The same of one that is better when it is more.
    Most,
    /// The round in the middle, and of two in the middle the greater one: of a tail, of which a lucky round has less than
    /// there is; of a ratio, whose lower part may have been disturbed; and of memory, which nobody else adds to.
    Median,
    /// The worst round: of what is itself about the worst case, such as the slowest answer or the time without a broker.
    Greatest,
}

impl Counts {
    const ALL: [Self; 4] = [Self::Least, Self::Most, Self::Median, Self::Greatest];

    /// In the JSON.
    const fn name(self) -> &'static str {
        match self {
            Self::Least => "least",
            Self::Most => "most",
            Self::Median => "median",
            Self::Greatest => "greatest",
        }
    }

    /// Beside the figures.
    const fn word(self) -> &'static str {
        match self {
            Self::Least | Self::Most => "best",
            Self::Median => "median",
            Self::Greatest => "worst",
        }
    }

    fn of(self, samples: &[f64]) -> Option<f64> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        match self {
            Self::Least => sorted.first(),
            Self::Most | Self::Greatest => sorted.last(),
            Self::Median => sorted.get(sorted.len() / 2),
        }
        .copied()
    }
}

/// Where the rounds of a subject differ by more than this factor, the table shows each of them.
const SPREAD_MAX: f64 = 1.5;

/// One line: a quantity, measured several times for each subject.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) title: String,
    pub(super) unit: String,
    counts: Counts,
    samples: BTreeMap<Subject, Vec<f64>>,
}

impl Row {
    fn new(counts: Counts, title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { title: title.into(), unit: unit.into(), counts, samples: BTreeMap::new() }
    }

    /// A cost of which less is better, as a total or a median: the least counts.
    pub(super) fn least(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self::new(Counts::Least, title, unit)
    }

    /// A throughput: the most counts.
    pub(super) fn most(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self::new(Counts::Most, title, unit)
    }

    /// A tail, a ratio or an amount of memory: the round in the middle counts.
    pub(super) fn median(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self::new(Counts::Median, title, unit)
    }

    /// A worst case of which less is better: the greatest counts.
    pub(super) fn greatest(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self::new(Counts::Greatest, title, unit)
    }

    /// A percentile of latencies: half of all is a cost like any other, what lies beyond is a tail.
    pub(super) fn percentile(
        share: f64,
        title: impl Into<String>,
        unit: impl Into<String>,
    ) -> Self {
        let counts = if share > 0.5 { Counts::Median } else { Counts::Least };
        Self::new(counts, title, unit)
    }

    pub(super) fn add(&mut self, subject: Subject, sample: f64) {
        self.samples.entry(subject).or_default().push(sample);
    }

    /// Forgets all rounds of a subject, of which one was not as it is said to be.
    pub(super) fn withdraw(&mut self, subject: Subject) {
        self.samples.remove(&subject);
    }

    /// The figure of the round that counts.
    pub(super) fn counted(&self, subject: Subject) -> Option<f64> {
        self.counts.of(self.samples.get(&subject)?)
    }

    pub(super) fn ratio(&self, subject: Subject, to: Subject) -> Option<f64> {
        let (this, that) = (self.counted(subject)?, self.counted(to)?);
        (that > 0.0).then_some(this / that)
    }

    /// Which of how many rounds counts, and who has played fewer than others.
    fn rounds(&self) -> String {
        let most = self.samples.values().map(Vec::len).max().unwrap_or(0);
        let fewer = self.samples.iter().filter(|(_, samples)| samples.len() < most);
        let fewer: Vec<_> = fewer
            .map(|(subject, samples)| format!("{}: {} only", subject.heading(), samples.len()))
            .collect();
        let all = if most > 1 { format!("{} of {most}", self.counts.word()) } else { "one".into() };
        [vec![all], fewer].concat().join("; ")
    }

    /// The rounds of each subject whose rounds say more than the one that counts.
    fn spread(&self) -> Option<String> {
        let differ = |samples: &[f64]| {
            let (least, most) = (Counts::Least.of(samples), Counts::Most.of(samples));
            least.zip(most).is_some_and(|(least, most)| most > least * SPREAD_MAX)
        };
        let told: Vec<_> = self
            .samples
            .iter()
            .filter(|(_, samples)| differ(samples))
            .map(|(subject, samples)| {
                let samples: Vec<_> = samples.iter().copied().map(figure).collect();
                format!("{} {}", subject.heading(), samples.join(" · "))
            })
            .collect();
        (!told.is_empty()).then(|| format!("{} ({}): {}", self.title, self.unit, told.join("; ")))
    }

    /// What [`Section::json`] made.
    fn parse(json: &Value) -> Result<Self> {
        let name = text(json, "counts")?;
        let counts = Counts::ALL.into_iter().find(|counts| counts.name() == name);
        let counts = counts.with_context(|| format!("no round is called {name}"))?;
        let mut row = Self::new(counts, text(json, "title")?, text(json, "unit")?);
        let figures = json.get("figures").and_then(Value::as_object).context("no figures")?;
        for (name, figure) in figures {
            let subject = Subject::ALL.into_iter().find(|subject| subject.name() == name);
            let subject = subject.with_context(|| format!("nobody is called {name}"))?;
            for run in figure.get("runs").and_then(Value::as_array).context("no runs")? {
                row.add(subject, run.as_f64().context("a run is no number")?);
            }
            let told = figure.get("counted").and_then(Value::as_f64);
            let is_it = told.is_some() && told == row.counted(subject);
            ensure!(is_it, "{}: what is counted is not the {} round", row.title, counts.name());
        }
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
        writeln!(text, "| | unit | round | {headings} | Ottla ÷ Kafka | no flush ÷ Kafka | goal |")
            .ok();
        writeln!(text, "|---|---|---|{rule}---:|---:|---|").ok();
        for row in &self.rows {
            let cells = Subject::ALL.map(|subject| cell(row.counted(subject), "")).join(" | ");
            let ratio = cell(row.ratio(Subject::Ottla, Subject::Kafka), "×");
            let unflushed = cell(row.ratio(Subject::Unflushed, Subject::Kafka), "×");
            let goals: Vec<_> =
                goals::of(self, row).iter().map(|goal| goal.text(self, row)).collect();
            let (title, unit, goals) = (&row.title, &row.unit, goals.join("<br>"));
            let rounds = row.rounds();
            let ratios = format!("{ratio} | {unflushed}");
            writeln!(text, "| {title} | {unit} | {rounds} | {cells} | {ratios} | {goals} |").ok();
        }
        let spreads: Vec<_> = self.rows.iter().filter_map(Row::spread).collect();
        if !spreads.is_empty() {
            writeln!(text, "\nAll rounds, where they differ by more than {SPREAD_MAX}×:\n").ok();
            spreads.iter().for_each(|spread| text += &format!("- {spread}\n"));
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({ "title": self.stage.title(), "rows": rows })
    }

    fn row_json(&self, row: &Row) -> Value {
        let figures = row.samples.iter().map(|(&subject, samples)| {
            (subject.name().to_owned(), json!({ "counted": row.counted(subject), "runs": samples }))
        });
        let goals: Vec<_> = goals::of(self, row).iter().map(|goal| goal.json(self, row)).collect();
        json!({
            "title": row.title,
            "unit": row.unit,
            "counts": row.counts.name(),
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

    const ROUNDS: [f64; 3] = [3.0, 1.0, 2.0];

    fn with(mut row: Row, subject: Subject, rounds: &[f64]) -> Row {
        rounds.iter().for_each(|round| row.add(subject, *round));
        row
    }

    #[test]
    fn each_quantity_says_which_of_its_rounds_counts() {
        let rows = [
            Row::least("CPU", "s"),
            Row::most("throughput", "MB/s"),
            Row::median("memory", "MiB"),
            Row::greatest("failover", "s"),
            Row::percentile(0.5, "p50", "ms"),
            Row::percentile(0.99, "p99", "ms"),
        ];
        let counted = rows.map(|row| with(row, Subject::Floor, &ROUNDS).counted(Subject::Floor));
        assert_eq!(counted, [1.0, 3.0, 2.0, 3.0, 1.0, 2.0].map(Some));
        let of_two = with(Row::median("memory", "MiB"), Subject::Floor, &[1.0, 2.0]);
        assert_eq!(of_two.counted(Subject::Floor), Some(2.0));
    }

    #[test]
    fn a_ratio_is_that_of_the_figures_that_count() {
        let row = with(Row::greatest("failover", "s"), Subject::Ottla, &ROUNDS);
        let row = with(row, Subject::Kafka, &[12.0]);
        assert_eq!(row.ratio(Subject::Ottla, Subject::Kafka), Some(0.25));
    }

    #[test]
    fn the_table_says_which_round_counts_and_who_played_fewer() {
        let row = with(Row::greatest("failover", "s"), Subject::Ottla, &ROUNDS);
        assert_eq!(row.rounds(), "worst of 3");
        assert_eq!(with(row, Subject::Kafka, &[12.0]).rounds(), "worst of 3; Kafka: 1 only");
        assert_eq!(with(Row::least("CPU", "s"), Subject::Ottla, &[1.0]).rounds(), "one");
    }

    #[test]
    fn rounds_that_differ_much_are_all_shown() {
        let row = with(Row::greatest("failover", "s"), Subject::Ottla, &[10.348, 1.97, 2.217]);
        let row = with(row, Subject::Kafka, &[10.0, 12.0]);
        let text = Section::new(Stage::Cluster, vec![row]).markdown();
        let told = "\n\nAll rounds, where they differ by more than 1.5×:\n\n\
            - failover (s): Ottla 10.3 · 1.97 · 2.22\n";
        assert!(text.ends_with(told), "{text}");
        let spread = |rounds: &[f64]| with(Row::least("CPU", "s"), Subject::Ottla, rounds).spread();
        assert_eq!(spread(&[2.0, 3.0]), None);
        assert_eq!(spread(&[0.0, 0.0]), None);
        assert!(spread(&[0.0, 2.0]).is_some());
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut row = Row::least("kcat reads 100-byte records", "CPU s per million");
        [2.5, 2.0].into_iter().for_each(|sample| row.add(Subject::Kafka, sample));
        [0.5, 0.5].into_iter().for_each(|sample| row.add(Subject::Ottla, sample));
        let text = Section::new(Stage::Clients, vec![row]).markdown();
        let line = text.lines().last().unwrap();
        let cells = "2.00 | 0.500 | – | – | – | 0.250× | – | ≤ 1.00× Kafka: 0.250× reached |";
        assert_eq!(
            line,
            format!("| kcat reads 100-byte records | CPU s per million | best of 2 | {cells}")
        );
    }

    #[test]
    fn a_section_is_the_same_when_it_is_read_back() {
        let rows = [Row::least("CPU", "s"), Row::most("throughput", "MB/s")]
            .into_iter()
            .chain([Row::median("memory", "MiB"), Row::greatest("the slowest", "ms")]);
        let rows = rows.map(|row| with(row, Subject::Unflushed, &[3.25, 1.5])).collect();
        let section = Section::new(Stage::Produce, rows);
        let again = Section::parse(&section.json()).unwrap();
        assert_eq!(again.json(), section.json());
        assert_eq!(again.markdown(), section.markdown());
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        let error = |figures: Value| {
            let row = json!({ "title": "CPU", "unit": "s", "counts": "least", "figures": figures });
            let section = json!({ "title": "Produce", "rows": [row] });
            format!("{:#}", Section::parse(&section).unwrap_err())
        };
        let nobody = error(json!({ "nobody": { "counted": 1.0, "runs": [1.0] } }));
        assert_eq!(nobody, "section Produce: nobody is called nobody");
        let middle = error(json!({ "ottla": { "counted": 2.0, "runs": [1.0, 2.0, 3.0] } }));
        assert_eq!(middle, "section Produce: CPU: what is counted is not the least round");
    }
}
