//! kaskade, a dashboard for the terminal, unmodified: keys go in, what its screen shows is compared (shell).

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Test;
use super::adapter::{Library, Writing, answer, exchange, object};
use super::fetch;
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::process::Process;
use crate::workspace;

const LIMIT: Duration = Duration::from_secs(30);
/// A key that has shown nothing after so long was not heard.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
pub(super) const NEEDS: &[&str] = &["python3", "java", "javac", "mvn"];
const ENTER: &str = "\r";
const ESCAPE: &str = "\u{1b}";
const BACKSPACE: &str = "\u{7f}";
/// Ctrl-D, Ctrl-S.
const DELETE: &str = "\u{4}";
const SAVE: &str = "\u{13}";

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("kaskade: {sentence}"), NEEDS, run).once_served("DescribeConfigs(32)")
    };
    vec![
        test("shows topics, their partitions, configuration, and the lag of groups", shows)
            .of_one(),
        test("creates and deletes topics", creates).of_one(),
        test("shows records as they are consumed", consumes),
    ]
}

/// A Python that has the dashboard beside it.
pub(super) fn install() -> Result<PathBuf> {
    fetch::python("requirements-dashboard")
}

/// The dashboard in a terminal.
struct Dashboard(Process);

impl Dashboard {
    fn run(session: &mut Session, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(install()?);
        command.arg(workspace::root().join("interop/python/terminal.py"));
        let log = session.new_topic("dashboard");
        let log = session.directory().join(format!("{log}.log"));
        let mut dashboard = Self(Process::spawn("the dashboard's terminal", command, &log)?);
        let bootstrap = session.bootstrap();
        let arguments = [arguments, &["--bootstrap-servers", &bootstrap]].concat();
        dashboard.ask(json!({ "do": "run", "program": "kaskade", "arguments": arguments }))?;
        Ok(dashboard)
    }

    fn ask(&mut self, mut request: Value) -> Result<Value> {
        if let Some(request) = request.as_object_mut() {
            request.insert("name".to_owned(), json!("dashboard"));
        }
        answer(&exchange(&mut self.0, &request)?, "the terminal")
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.ask(json!({ "do": "press", "keys": keys })).map(drop)
    }

    fn lines(&mut self) -> Result<Vec<String>> {
        object(&self.ask(json!({ "do": "screen" }))?, "lines")
    }

    /// Waits for a screen that is as wanted.
    fn wait(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<()> {
        self.wait_at_most(LIMIT, what, wanted)
    }

    fn wait_at_most(
        &mut self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Result<()> {
        let mut last = Vec::new();
        let shown = eventually(limit, || {
            last = self.lines()?;
            Ok(wanted(&last).then_some(()))
        });
        shown.with_context(|| format!("no {what} on the screen:\n{}", last.join("\n")))
    }

    fn wait_for_text(&mut self, text: &str) -> Result<()> {
        self.wait(text, has_text(text))
    }

    /// Waits for a row of a table with these cells, one after the other.
    fn wait_for_row(&mut self, cells: &[&str]) -> Result<()> {
        self.wait(&format!("row {cells:?}"), |lines| lines.iter().any(|line| has_row(line, cells)))
    }

    /// Types a name where the cursor is, and waits until it is all there: the keys that end an input overtake its letters.
    fn fill_in(&mut self, name: &str) -> Result<()> {
        let erase = BACKSPACE.repeat(name.len());
        self.until_heard(name, &erase, &format!("input {name:?}"), |lines| {
            lines.iter().any(|line| is_input(line, name))
        })
    }

    /// Presses keys until the screen is as wanted: while it is being filled they may go nowhere. Others take back before that
    /// what has been heard of them.
    fn until_heard(
        &mut self,
        keys: &str,
        take_back: &str,
        what: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.press(keys)?;
            let heard = self.wait_at_most(HEARD_WITHIN, what, &wanted);
            if heard.is_ok() || Instant::now() >= deadline {
                return heard;
            }
            self.press(take_back)?;
        }
    }

    /// Shows only one topic.
    fn filter(&mut self, topic: &str) -> Result<()> {
        self.wait_for_text("Topics [")?;
        self.until_heard("/", "", "dialogue", has_text("Filter Topics"))?;
        self.fill_in(topic)?;
        self.press(ENTER)?;
        self.wait_for_text(&format!("Topics [*{topic}*]"))
    }

    fn end(mut self) -> Result<()> {
        self.ask(json!({ "do": "end" })).map(drop)
    }
}

fn has_text(text: &str) -> impl Fn(&[String]) -> bool {
    move |lines| lines.iter().any(|line| line.contains(text))
}

fn has_row(line: &str, cells: &[&str]) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(cells.len()).any(|window| window == cells)
}

/// In a table other cells would follow.
fn is_input(line: &str, text: &str) -> bool {
    line.split('│').any(|part| part.trim() == text)
}

/// A topic of three partitions with ten records each.
fn written(session: &mut Session) -> Result<String> {
    let topic = session.new_topic("shown");
    let client = session.adapter(Library::Java);
    client.create(&topic, 3, &[("retention.ms", "7654321")])?;
    let record = |number: i32| {
        Record::new(number % 3, now_ms(), None, Some(format!("value-{number}").as_bytes()))
    };
    let records: Vec<Record> = (0..30).map(record).collect();
    client.produce(&topic, &records, Writing::default())?;
    Ok(topic)
}

fn shows(session: &mut Session) -> Result<()> {
    let topic = written(session)?;
    let group = format!("{topic}-group");
    let offsets = json!({ "0": 4, "1": 4, "2": 4 });
    let commit = json!({ "do": "commit", "group": group, "topic": topic, "offsets": offsets });
    session.adapter(Library::Java).ask(commit)?;
    let mut dashboard = Dashboard::run(session, &["admin"])?;
    dashboard.filter(&topic)?;
    // Partitions, replicas, those in sync, groups, members, records, lag.
    dashboard.wait_for_row(&[&topic, "3", "1", "1", "1", "0", "≈30", "≈18"])?;
    dashboard.press("d")?;
    dashboard.wait_for_text(&format!("Topic Details [{topic}]"))?;
    for partition in ["0", "1", "2"] {
        // Leader, earliest, end, records, in sync, replicas.
        dashboard.wait_for_row(&[partition, "1", "0", "10", "10", "[1]", "[1]"])?;
    }
    dashboard.press("l")?;
    dashboard.wait_for_row(&["retention.ms", "7654321"])?;
    dashboard.press("l")?;
    dashboard.wait_for_text(&group)?;
    dashboard.press(ESCAPE)?;
    dashboard.end()
}

fn creates(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("made-by-hand");
    let mut dashboard = Dashboard::run(session, &["admin"])?;
    dashboard.wait_for_text("Topics [")?;
    dashboard.press("n")?;
    dashboard.wait_for_text("Create Topic")?;
    dashboard.fill_in(&topic)?;
    dashboard.press(SAVE)?;
    eventually(LIMIT, || {
        Ok(session.adapter(Library::Java).topics()?.contains(&topic).then_some(()))
    })
    .context("the topic is not made")?;
    dashboard.filter(&topic)?;
    dashboard.wait_for_row(&[&topic, "1", "1", "1"])?;
    dashboard.press(DELETE)?;
    dashboard.wait_for_text(&format!("Delete Topic [{topic}]"))?;
    dashboard.fill_in(&topic)?;
    dashboard.press(ENTER)?;
    eventually(LIMIT, || {
        Ok((!session.adapter(Library::Java).topics()?.contains(&topic)).then_some(()))
    })
    .context("the topic is not deleted")?;
    dashboard.end()
}

fn consumes(session: &mut Session) -> Result<()> {
    let topic = written(session)?;
    let arguments = ["consumer", "--topic", &topic, "--earliest", "--value", "string"];
    let mut dashboard = Dashboard::run(session, &arguments)?;
    // It takes 25 records at a time, and more when asked.
    dashboard.wait_for_text("value-0")?;
    dashboard.press("n")?;
    for value in ["value-28", "value-29"] {
        dashboard.wait_for_text(value)?;
    }
    dashboard.end()
}
