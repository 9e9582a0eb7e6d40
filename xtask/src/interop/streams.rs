//! Kafka Streams, unmodified: a word count whose state lives in the cluster (shell).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::adapter::{Adapter, Library, Writing};
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
    bootstrap: String,
    directory: PathBuf,
    /// Of the topics that the application makes.
    replication: i32,
    application: String,
    input: String,
    output: String,
    /// How often each word was written.
    written: BTreeMap<String, u64>,
    lines: i64,
}

fn word_count(session: &mut Session) -> Result<()> {
    let directory = session.directory().to_path_buf();
    let (first, second) = (directory.join("first"), directory.join("second"));
    let mut count = WordCount {
        bootstrap: session.bootstrap(),
        directory,
        replication: 1,
        application: session.new_topic("word-count"),
        input: session.new_topic("lines"),
        output: session.new_topic("words"),
        written: BTreeMap::new(),
        lines: 0,
    };
    let java = session.adapter(Library::Java);
    count.create_topics(java)?;
    count.write(java, 40)?;
    let process = count.start(&first)?;
    count.settle(java, u64::eq).context("from the beginning")?;
    process.kill()?;
    count.write(java, 40)?;
    // Elsewhere: what was counted comes back from the changelog alone.
    let process = count.start(&second)?;
    count.settle(java, u64::eq).context("with a new state store, after kill -9")?;
    let status = process.stop(STOP_LIMIT)?;
    ensure!(status.code() == Some(143), "asked to end, it ended with {status}");
    count.write(java, 40)?;
    let process = count.start(&second)?;
    count.settle(java, u64::eq).context("with the state store of the run before")?;
    process.stop(STOP_LIMIT).map(drop)
}

/// Counts words while something happens to the three nodes, which calls back now and then: what was written is counted
/// once at least, which is all that the application asks for.
#[cfg(feature = "cluster")]
pub(super) fn through(
    java: &mut Adapter,
    bootstrap: &str,
    directory: &Path,
    happen: impl FnOnce(&mut Adapter, &mut dyn FnMut(&mut Adapter) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut count = WordCount {
        bootstrap: bootstrap.to_owned(),
        directory: directory.to_path_buf(),
        replication: 3,
        application: "word-count".to_owned(),
        input: "lines".to_owned(),
        output: "words".to_owned(),
        written: BTreeMap::new(),
        lines: 0,
    };
    count.create_topics(java)?;
    count.write(java, 40)?;
    let process = count.start(&directory.join("state"))?;
    count.settle(java, u64::eq).context("before anything happens")?;
    happen(java, &mut |java| count.write(java, 40))?;
    count.settle(java, |counted, written| counted >= written).context("after all")?;
    process.stop(STOP_LIMIT).map(drop)
}

impl WordCount {
    fn create_topics(&self, java: &mut Adapter) -> Result<()> {
        java.create(&self.input, PARTITIONS, &[])?;
        java.create(&self.output, 1, &[("cleanup.policy", "compact")])
    }

    fn start(&self, state: &Path) -> Result<Process> {
        let (jars, classes) = fetch::applications()?;
        let mut command = kafka::java_tools(&jars, &classes);
        command.args(["WordCount", &self.bootstrap, &self.application]);
        command.args([&self.input, &self.output]).arg(state).arg(self.replication.to_string());
        let log = self.directory.join(format!("word-count-{}.log", self.lines));
        let mut process = Process::spawn("WordCount", command, &log)?;
        process.wait_for_line(LIMIT, |line| (line == "state RUNNING").then_some(()))?;
        Ok(process)
    }

    fn write(&mut self, java: &mut Adapter, lines: i64) -> Result<()> {
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
        java.produce(&self.input, &records, Writing::default()).map(drop)
    }

    /// Waits until everything is committed, so that no line is counted twice, and each word counted as it should be:
    /// `holds(counted, written)`.
    fn settle(&self, java: &mut Adapter, holds: fn(&u64, &u64) -> bool) -> Result<()> {
        let each = self.lines / i64::from(PARTITIONS);
        let all: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, each)).collect();
        eventually(LIMIT, || {
            let committed = java.committed(&self.application, &self.input)?;
            let counted = self.counted(java)?;
            let is_committed = committed == all && self.has_committed_words(java)?;
            let holds = |(word, written)| counted.get(word).is_some_and(|it| holds(it, written));
            let is_counted = self.written.iter().all(holds) && counted.len() == self.written.len();
            Ok((is_committed && is_counted).then_some(()))
        })
        .with_context(|| match self.counted(java) {
            Ok(counted) => format!("of {:?} counted are {counted:?}", self.written),
            Err(error) => format!("the counts cannot be read: {error:#}"),
        })
    }

    /// Whether the words, which go from task to task through topics of the application's own, are committed, too: another
    /// task does that, at another time than for the lines.
    fn has_committed_words(&self, java: &mut Adapter) -> Result<bool> {
        let topics = java.topics()?;
        let is_own = |topic: &&String| {
            topic.starts_with(&self.application) && topic.ends_with("-repartition")
        };
        for topic in topics.iter().filter(is_own) {
            let committed = java.committed(&self.application, topic)?;
            for partition in 0..PARTITIONS {
                let (_, end) = java.watermarks(topic, partition)?;
                if end > 0 && committed.get(&partition) != Some(&end) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The last count of each word.
    fn counted(&self, java: &mut Adapter) -> Result<BTreeMap<String, u64>> {
        let (low, high) = java.watermarks(&self.output, 0)?;
        let read = java.consume(&self.output, 0, low, usize::try_from(high - low)?)?;
        let mut counts = BTreeMap::new();
        for (_, record) in read {
            let word = String::from_utf8(record.key.context("a count without a word")?)?;
            let count = String::from_utf8(record.value.context("a word without a count")?)?;
            counts.insert(word, count.parse()?);
        }
        Ok(counts)
    }
}
