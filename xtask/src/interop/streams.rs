//! Kafka Streams, unmodified: a word count whose state lives in the cluster (shell).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::adapter::{Library, Writing};
use super::fetch;
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::kafka;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 2;

pub(super) fn tests() -> Vec<Test> {
    let name = "streams: a word count loses nothing to kill -9, nor to the loss of its state store";
    vec![
        Test::new(name, Library::Java.needs(), word_count)
            .once_served("DescribeConfigs(32)")
            .once_served("OffsetCommit(8)"),
    ]
}

struct WordCount {
    application: String,
    input: String,
    output: String,
    /// How often each word was written.
    written: BTreeMap<String, u64>,
    lines: i64,
}

fn word_count(session: &mut Session) -> Result<()> {
    let mut count = WordCount {
        application: session.new_topic("word-count"),
        input: session.new_topic("lines"),
        output: session.new_topic("words"),
        written: BTreeMap::new(),
        lines: 0,
    };
    let client = session.adapter(Library::Java);
    client.create(&count.input, PARTITIONS, &[])?;
    client.create(&count.output, 1, &[("cleanup.policy", "compact")])?;
    let (first, second) = (session.directory().join("first"), session.directory().join("second"));
    count.write(session, 40)?;
    let process = count.start(session, &first)?;
    count.settle(session).context("from the beginning")?;
    process.kill()?;
    count.write(session, 40)?;
    // Elsewhere: what was counted comes back from the changelog alone.
    let process = count.start(session, &second)?;
    count.settle(session).context("with a new state store, after kill -9")?;
    let status = process.stop(STOP_LIMIT)?;
    ensure!(status.code() == Some(143), "asked to end, it ended with {status}");
    count.write(session, 40)?;
    let process = count.start(session, &second)?;
    count.settle(session).context("with the state store of the run before")?;
    process.stop(STOP_LIMIT).map(drop)
}

impl WordCount {
    fn start(&self, session: &Session, state: &Path) -> Result<Process> {
        let (jars, classes) = fetch::applications()?;
        let mut command = kafka::java_tools(&jars, &classes);
        command.args(["WordCount", &session.bootstrap(), &self.application]);
        command.args([&self.input, &self.output]).arg(state);
        let log = session.directory().join(format!("word-count-{}.log", self.lines));
        let mut process = Process::spawn("WordCount", command, &log)?;
        process.wait_for_line(LIMIT, |line| (line == "state RUNNING").then_some(()))?;
        Ok(process)
    }

    fn write(&mut self, session: &mut Session, lines: i64) -> Result<()> {
        let mut records = Vec::new();
        for line in self.lines..self.lines + lines {
            let words = ["all".to_owned(), format!("word-{}", line % 7), format!("line-{line}")];
            let partition = i32::try_from(line % i64::from(PARTITIONS))?;
            let text = words.join(" ");
            records.push(Record::new(partition, now_ms(), None, Some(text.as_bytes())));
            for word in words {
                *self.written.entry(word).or_default() += 1;
            }
        }
        self.lines += lines;
        session.adapter(Library::Java).produce(&self.input, &records, Writing::default()).map(drop)
    }

    /// Waits until everything is counted and committed, so that no line is counted twice.
    fn settle(&self, session: &mut Session) -> Result<()> {
        let each = self.lines / i64::from(PARTITIONS);
        eventually(LIMIT, || {
            let committed =
                session.adapter(Library::Java).committed(&self.application, &self.input)?;
            let all: BTreeMap<i32, i64> =
                (0..PARTITIONS).map(|partition| (partition, each)).collect();
            Ok((committed == all && self.counted(session)? == self.written).then_some(()))
        })
        .with_context(|| match self.counted(session) {
            Ok(counted) => format!("counted are {counted:?}"),
            Err(error) => format!("the counts cannot be read: {error:#}"),
        })
    }

    /// The last count of each word.
    fn counted(&self, session: &mut Session) -> Result<BTreeMap<String, u64>> {
        let client = session.adapter(Library::Java);
        let (low, high) = client.watermarks(&self.output, 0)?;
        let read = client.consume(&self.output, 0, low, usize::try_from(high - low)?)?;
        let mut counts = BTreeMap::new();
        for (_, record) in read {
            let word = String::from_utf8(record.key.context("a count without a word")?)?;
            let count = String::from_utf8(record.value.context("a word without a count")?)?;
            counts.insert(word, count.parse()?);
        }
        Ok(counts)
    }
}
