//! What is published: each part of the benchmark with what it was measured on. It is read back, so that a run of some
//! parts replaces those and leaves the others as they are. Shell: the files of docs/benchmarks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Stage;
use super::table::Section;
use crate::machine::Machine;
use crate::workspace;

/// How figures were come by.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) machine: Machine,
    pub(super) quick: bool,
    pub(super) runs: u32,
    pub(super) pinned: bool,
}

impl Measured {
    fn markdown(&self) -> String {
        let size = if self.quick { " of little data" } else { "" };
        let pinned = if self.pinned { ", brokers pinned to one core" } else { "" };
        let (machine, runs) = (self.machine.markdown(), self.runs);
        format!("{machine} {runs} rounds{size}{pinned}.")
    }

    fn json(&self) -> Value {
        json!({
            "machine": self.machine.json(),
            "quick": self.quick,
            "runs": self.runs,
            "pinned": self.pinned,
        })
    }

    fn parse(json: &Value) -> Result<Self> {
        let machine = json.get("machine").context("no machine")?;
        let flag =
            |name| json.get(name).and_then(Value::as_bool).with_context(|| format!("no {name}"));
        let runs = json.get("runs").and_then(Value::as_u64).context("no runs")?;
        Ok(Self {
            machine: Machine::parse(machine)?,
            quick: flag("quick")?,
            runs: u32::try_from(runs)?,
            pinned: flag("pinned")?,
        })
    }
}

/// One part, as it was measured last.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) section: Section,
    pub(super) measured: Measured,
}

/// In the order of the parts, each once.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sections: Vec<Published>,
}

impl Report {
    pub(super) fn of(sections: Vec<Section>, measured: &Measured) -> Self {
        let mut report = Self::default();
        let published = |section| Published { section, measured: measured.clone() };
        sections.into_iter().map(published).for_each(|section| report.replace(section));
        report
    }

    fn replace(&mut self, new: Published) {
        self.sections.retain(|old| old.section.stage != new.section.stage);
        self.sections.push(new);
        self.sections.sort_by_key(|published| published.section.stage);
    }

    /// Takes over from another one what it has.
    fn replace_all(&mut self, newer: Self) {
        newer.sections.into_iter().for_each(|section| self.replace(section));
    }

    /// What [`Self::json`] made. Where a section does not say what it was measured on, the file says it of all of them.
    fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let sections = json.get("sections").and_then(Value::as_array).context("no sections")?;
        let mut report = Self::default();
        for section in sections {
            let measured = Measured::parse(section.get("measured").unwrap_or(&json))?;
            report.replace(Published { section: Section::parse(section)?, measured });
        }
        Ok(report)
    }

    pub(super) fn json(&self) -> Result<String> {
        let sections = self.sections.iter().map(|Published { section, measured }| {
            let mut json = section.json();
            if let Some(json) = json.as_object_mut() {
                json.insert("measured".to_owned(), measured.json());
            }
            json
        });
        let json = json!({ "sections": sections.collect::<Vec<_>>() });
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = "# Ottla beside Apache Kafka\n\n\
            `cargo xtask bench` wrote this; parts may be older than others. \
            [What is measured, and how to read it](../performance.md).\n"
            .to_owned();
        for Published { section, measured } in &self.sections {
            let (title, table) = (section.stage.title(), section.markdown());
            text += &format!("\n## {title}\n\n{}\n\n{table}", measured.markdown());
        }
        text
    }

    /// Puts these parts beside what was published of the others.
    pub(super) fn publish(self) -> Result<()> {
        let mut report = published()?;
        report.replace_all(self);
        write(&json_file(), &report.json()?)?;
        write(&json_file().with_extension("md"), &report.markdown())
    }
}

/// What is published now.
pub(super) fn published() -> Result<Report> {
    let file = json_file();
    if !file.exists() {
        return Ok(Report::default());
    }
    read(&file)
}

/// Publishes figures that an earlier run left with `--json`, or those parts of them.
pub(super) fn import(file: &Path, only: &[Stage]) -> Result<()> {
    let mut report = read(file)?;
    report.sections.retain(|it| only.is_empty() || only.contains(&it.section.stage));
    ensure!(!report.sections.is_empty(), "{} has none of these parts", file.display());
    let is_whole = |it: &Published| !it.measured.quick;
    ensure!(report.sections.iter().all(is_whole), "{} is of little data", file.display());
    report.publish()
}

fn json_file() -> PathBuf {
    workspace::root().join("docs/benchmarks/latest.json")
}

fn read(file: &Path) -> Result<Report> {
    let text = fs::read_to_string(file);
    let report = text.map_err(Into::into).and_then(|text| Report::parse(&text));
    report.with_context(|| format!("cannot read {}", file.display()))
}

pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::table::{Row, Subject};
    use super::*;

    fn measured(commit: &str) -> Measured {
        let machine = json!({
            "commit": commit,
            "date": "2026-11-26",
            "kafka": "4.3.1",
            "cores": 2,
            "processor": "a processor",
            "kernel": "6.18",
            "memory_mib": 24106.0,
            "load_average_before": "0.96",
        });
        let machine = Machine::parse(&machine).unwrap();
        Measured { machine, quick: false, runs: 3, pinned: false }
    }

    fn section(stage: Stage, figure: f64) -> Section {
        let mut row = Row::least("memory", "MiB");
        row.add(Subject::Ottla, figure);
        Section::new(stage, vec![row])
    }

    #[test]
    fn what_is_measured_again_replaces_what_was_published_and_nothing_else() {
        let old = vec![section(Stage::Startup, 1.0), section(Stage::Groups, 2.0)];
        let published = Report::of(old, &measured("old")).json().unwrap();
        let mut report = Report::parse(&published).unwrap();
        let new = vec![section(Stage::Active, 5.0), section(Stage::Groups, 4.0)];
        report.replace_all(Report::of(new, &measured("new")));
        let said: Vec<_> = report
            .sections
            .iter()
            .map(|it| {
                let figure = it.section.rows[0].counted(Subject::Ottla).unwrap();
                (it.section.stage, figure, it.measured.machine.commit.as_str())
            })
            .collect();
        let expected = [
            (Stage::Startup, 1.0, "old"),
            (Stage::Groups, 4.0, "new"),
            (Stage::Active, 5.0, "new"),
        ];
        assert_eq!(said, expected);
        let text = report.markdown();
        let old = "## Start-up and idle\n\nCommit old, 2026-11-26. Apache Kafka 4.3.1. 2 cores";
        assert!(text.contains(old) && text.contains("## Groups\n\nCommit new, "), "{text}");
    }

    #[test]
    fn a_report_is_the_same_when_it_is_read_back() {
        let report = Report::of(vec![section(Stage::Shapes, 0.25)], &measured("a"));
        let again = Report::parse(&report.json().unwrap()).unwrap();
        assert_eq!(again.json().unwrap(), report.json().unwrap());
        assert_eq!(again.markdown(), report.markdown());
    }

    #[test]
    fn a_file_may_say_of_all_sections_together_what_they_were_measured_on() {
        let mut file = measured("together").json();
        file["sections"] = json!([section(Stage::Latency, 3.0).json()]);
        let report = Report::parse(&file.to_string()).unwrap();
        assert_eq!(report.sections[0].measured.machine.commit, "together");
    }

    #[test]
    fn what_is_published_for_people_is_what_is_published_for_programs() {
        let text = fs::read_to_string(json_file().with_extension("md")).unwrap();
        assert_eq!(text, published().unwrap().markdown());
    }
}
