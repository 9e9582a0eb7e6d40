//! What the last night has shown, part by part, as `docs/nightly.json` and `docs/nightly.md` have it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::tally::Tally;
use crate::test::Row;
use crate::workspace;

/// The parts that were run, in the order in which a whole night runs them.
#[derive(Debug)]
pub(super) struct Night<'a> {
    order: &'a [&'a str],
    parts: Vec<Played>,
}

/// A part, and what it was run on.
#[derive(Debug)]
pub(super) struct Played {
    name: String,
    machine: Machine,
    seconds: f64,
    tally: Tally,
    /// Of the worlds that it has played.
    first_seed: Option<u64>,
}

impl Played {
    pub(super) fn of(row: &Row, first_seed: Option<u64>, machine: &Machine) -> Self {
        Self {
            name: row.name.to_owned(),
            machine: machine.clone(),
            seconds: row.took.as_secs_f64().round(),
            tally: row.tally.clone(),
            first_seed,
        }
    }

    fn json(&self) -> Value {
        let Self { name, machine, seconds, tally, first_seed } = self;
        let Tally { passed, failed, skipped } = tally;
        json!({
            "part": name, "machine": machine.json(), "seconds": seconds,
            "passed": passed, "failed": failed, "skipped": skipped,
            "first_seed": first_seed,
        })
    }

    /// What [`Self::json`] made.
    fn parse(json: &Value) -> Result<Self> {
        let field = |name: &str| json.get(name).with_context(|| format!("a part without {name}"));
        let names = |name: &str| {
            let names = field(name)?.as_array().with_context(|| format!("{name} is no list"))?;
            let names = names.iter().map(|it| it.as_str().map(str::to_owned));
            names.collect::<Option<Vec<_>>>().with_context(|| format!("{name} has no texts"))
        };
        let passed = field("passed")?.as_u64().context("passed is no number")?;
        Ok(Self {
            name: field("part")?.as_str().context("part is no text")?.to_owned(),
            machine: Machine::parse(field("machine")?)?,
            seconds: field("seconds")?.as_f64().context("seconds is no number")?,
            tally: Tally {
                passed: usize::try_from(passed)?,
                failed: names("failed")?,
                skipped: names("skipped")?,
            },
            // A part of an older night does not say.
            first_seed: json.get("first_seed").and_then(Value::as_u64),
        })
    }
}

impl<'a> Night<'a> {
    /// What is published now of these parts.
    pub(super) fn published(order: &'a [&'a str]) -> Result<Self> {
        let mut night = Self { order, parts: Vec::new() };
        if let Ok(text) = fs::read_to_string(json_file()) {
            let json: Value = serde_json::from_str(&text).context("docs/nightly.json")?;
            for part in json.as_array().context("docs/nightly.json is no list")? {
                night.put(Played::parse(part)?);
            }
        }
        Ok(night)
    }

    /// Takes the place of what the part was before. What is no part any more goes.
    pub(super) fn put(&mut self, part: Played) {
        self.parts.retain(|it| it.name != part.name);
        self.parts.push(part);
        let place = |part: &Played| self.order.iter().position(|name| *name == part.name);
        self.parts.retain(|part| place(part).is_some());
        self.parts.sort_by_key(place);
    }

    pub(super) fn publish(&self) -> Result<()> {
        let json: Vec<Value> = self.parts.iter().map(Played::json).collect();
        let text = serde_json::to_string_pretty(&json)? + "\n";
        let written = fs::write(json_file(), text);
        let written =
            written.and_then(|()| fs::write(json_file().with_extension("md"), self.markdown()));
        written.context("the result can't be written")
    }

    fn markdown(&self) -> String {
        let mut text = "# The last night\n\n`cargo xtask nightly --write` wrote this; parts may be older than others.\n\n\
            | what | commit | date | seconds | result |\n| --- | --- | --- | ---: | --- |\n"
            .to_owned();
        for Played { name, machine, seconds, tally, first_seed } in &self.parts {
            let Machine { commit, date, .. } = machine;
            let seeds = first_seed.map_or_else(String::new, |it| format!(", seeds from {it} on"));
            writeln!(text, "| {name} | {commit} | {date} | {seconds:.0} | {tally}{seeds} |").ok();
        }
        let was_run = |name: &&str| self.parts.iter().any(|part| part.name == *name);
        for name in self.order.iter().filter(|name| !was_run(name)) {
            writeln!(text, "| {name} | | | | never run |").ok();
        }
        let mut name_all = |heading: &str, of: fn(&Tally) -> &Vec<String>| {
            let all = || self.parts.iter().filter(|part| !of(&part.tally).is_empty());
            for (at, part) in all().enumerate() {
                if at == 0 {
                    write!(text, "\n## {heading}\n\n").ok();
                }
                for name in of(&part.tally) {
                    writeln!(text, "- {}: {name}", part.name).ok();
                }
            }
        };
        name_all("Failed", |tally| &tally.failed);
        name_all("Skipped", |tally| &tally.skipped);
        text
    }
}

fn json_file() -> PathBuf {
    workspace::root().join("docs/nightly.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(name: &str, commit: &str, failed: &[&str]) -> Played {
        let machine = json!({
            "commit": commit, "date": "2026-01-02", "kafka": "4.3.1", "cores": 2, "processor": "p",
            "kernel": "k", "memory_mib": 1.0, "load_average_before": "0.1",
        });
        Played {
            name: name.to_owned(),
            machine: Machine::parse(&machine).unwrap(),
            seconds: 3.0,
            tally: Tally {
                passed: 2,
                failed: failed.iter().map(|it| (*it).to_owned()).collect(),
                skipped: Vec::new(),
            },
            first_seed: None,
        }
    }

    #[test]
    fn a_part_takes_the_place_of_its_last_run_and_the_others_stay() {
        let mut night = Night { order: &["one", "two", "three"], parts: Vec::new() };
        for part in [played("two", "a", &[]), played("one", "a", &["x"]), played("gone", "a", &[])]
        {
            night.put(part);
        }
        night.put(Played { first_seed: Some(70_000), ..played("two", "b", &["y: why"]) });
        let text = night.markdown();
        let rows: Vec<&str> =
            text.lines().filter(|line| line.contains("passed") || line.contains("never")).collect();
        assert_eq!(
            rows,
            [
                "| one | a | 2026-01-02 | 3 | 2 passed, 1 failed |",
                "| two | b | 2026-01-02 | 3 | 2 passed, 1 failed, seeds from 70000 on |",
                "| three | | | | never run |",
            ]
        );
        assert!(text.ends_with("## Failed\n\n- one: x\n- two: y: why\n"), "{text}");
    }

    #[test]
    fn what_is_written_of_a_part_is_read_back() {
        let part = Played { first_seed: Some(7), ..played("one", "a", &["x: why"]) };
        assert_eq!(Played::parse(&part.json()).unwrap().json(), part.json());
    }
}
