//! Topics that Apache Kafka wrote, adopted by Ottla (docs/decisions/015-adoption.md), by night: a Kafka is started,
//! written to, read and stopped for it (shell).
//!
//! What is expected of Ottla is what Kafka's own consumer was given before.

mod recorded;
mod written;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::adapter::{Adapter, Library, Writing, answer_records, number, part};
use super::record::Record;
use super::session::{Session, now_ms};
use super::{Length, Test};
use crate::broker::{Broker, Target, two_data_directories};
use crate::ottla;
use crate::process::{Finished, run, run_ok};
pub(super) use written::Written;
use written::{COMPACTED, Partition, Topic};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn tests(length: Length) -> Vec<Test> {
    let mut tests = recorded::tests();
    if length == Length::Long {
        let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
            Test::new(format!("adopt: {sentence}"), Library::Java.needs(), run).without_broker()
        };
        tests.extend([
            test(
                "what Kafka's consumer was given of Kafka is what it is given of Ottla, after every start",
                read_the_same,
            ),
            test("writing goes on where Kafka ended, also with idempotence", write_on),
            test("partitions in several of Kafka's log.dirs go into several of Ottla's", spread),
        ]);
    }
    tests
}

/// What a reader of a partition is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    start: i64,
    end: i64,
    records: Vec<(i64, Record)>,
}

const UNCOMMITTED: &str = "read_uncommitted";
const COMMITTED: &str = "read_committed";

impl Read {
    fn of(client: &mut Adapter, topic: &str, partition: i32, isolation: &str) -> Result<Self> {
        let answer = client.ask(json!({
            "do": "read", "topic": topic, "partition": partition, "isolation": isolation,
        }))?;
        let (start, end) = (number(&answer, "start")?, number(&answer, "end")?);
        Ok(Self { start, end, records: answer_records(&answer)? })
    }

    /// Fails at the first record that is another one.
    fn check(&self, found: &Self) -> Result<()> {
        for ((offset, record), (found_offset, found)) in self.records.iter().zip(&found.records) {
            ensure!(offset == found_offset, "offset {found_offset} comes, and not {offset}");
            if let Some(difference) = record.difference(found) {
                bail!("offset {offset}: {difference}");
            }
        }
        let counts = (self.records.len(), found.records.len());
        ensure!(counts.0 == counts.1, "{} records, and not {}", counts.1, counts.0);
        let bounds = |read: &Self| read.start..read.end;
        ensure!(self == found, "it is {:?}, and not {:?}", bounds(found), bounds(self));
        Ok(())
    }

    /// What a compacted partition must keep, however often it is compacted.
    fn last_of_each_key(&self) -> BTreeMap<&[u8], &(i64, Record)> {
        let keyed = self.records.iter().filter_map(|it| Some((it.1.key.as_deref()?, it)));
        keyed.collect()
    }
}

/// An Ottla that has run, and is stopped.
fn stopped(session: &mut Session, start: fn(&Path) -> Result<Broker>) -> Result<Broker> {
    let name = session.new_topic("adopt");
    let mut broker = start(&session.directory().join(name))?;
    broker.stop()?;
    Ok(broker)
}

/// That compacts as soon as it can, so that what is read may have been.
const SETTINGS: &[(&str, &str)] = &[("log.cleaner.backoff.ms", "100")];

fn start_one(directory: &Path) -> Result<Broker> {
    Target::Ottla.start(directory, SETTINGS)
}

fn start_two(directory: &Path) -> Result<Broker> {
    Target::Ottla.start_with_two_directories(directory, SETTINGS)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn adopt_command(directories: &[PathBuf], configs: &[(&str, &str)]) -> Result<Command> {
    let mut command = Command::new(ottla::binary()?);
    command.args(["topic", "adopt"]).args(directories);
    for (name, value) in configs {
        command.arg("--config").arg(format!("{name}={value}"));
    }
    Ok(command)
}

fn adopt(directories: &[PathBuf], configs: &[(&str, &str)]) -> Result<()> {
    run_ok(adopt_command(directories, configs)?, b"", LIMIT).map(drop)
}

/// What the command says when it refuses with this code.
fn refused(directories: &[PathBuf], code: i32) -> Result<String> {
    let finished = run(adopt_command(directories, &[])?, b"", LIMIT)?;
    let said = finished.stderr_text();
    ensure!(finished.status.code() == Some(code), "{:?}: {said}", finished.status);
    Ok(said)
}

/// One of the client commands, which must end with success.
fn client(broker: &Broker, arguments: &[&str], input: &str) -> Result<Finished> {
    let mut command = Command::new(ottla::binary()?);
    command.args(arguments).env("OTTLA_BOOTSTRAP", broker.address());
    run_ok(command, input.as_bytes(), LIMIT)
}

/// As `ottla topic describe` shows it.
fn described(broker: &Broker, topic: &str) -> Result<Value> {
    let shown = client(broker, &["topic", "describe", topic, "--output", "json"], "")?;
    let topics: Value = serde_json::from_slice(&shown.stdout).context("not JSON")?;
    topics.get(0).cloned().context("nothing is described")
}

fn topic_id(broker: &Broker, topic: &str) -> Result<String> {
    let described = described(broker, topic)?;
    Ok(part(&described, "/topic_id").as_str().context("no topic id")?.to_owned())
}

/// As Kafka's client for administrators is told it.
fn topic_id_by_kafka(client: &mut Adapter, bootstrap: &str, topic: &str) -> Result<String> {
    let arguments = ["--bootstrap-server", bootstrap, "--describe", "--topic", topic];
    let output = client.tool("tools.TopicCommand", &arguments, b"")?;
    let mut words = output.out.split_whitespace().skip_while(|word| *word != "TopicId:").skip(1);
    Ok(words.next().with_context(|| format!("no id: {output:?}"))?.to_owned())
}

/// An Ottla that has adopted all topics, with their partitions in one directory, and a client for it.
fn adopted(session: &mut Session, written: &Written) -> Result<(Broker, Adapter)> {
    let mut broker = stopped(session, start_one)?;
    let data = broker.data_directory();
    for topic in &written.topics {
        for (partition, home) in topic.homes() {
            copy(&home, &data.join(topic.partition_name(partition)))?;
        }
        adopt(&[data.join(topic.partition_name(0))], topic.configs)
            .with_context(|| format!("{} is not adopted", topic.name))?;
    }
    broker.restart()?;
    let client = Adapter::new(Library::Java, broker.address(), broker.directory());
    Ok((broker, client))
}

/// Each topic has its id, its configuration and its records.
fn check_all(broker: &Broker, client: &mut Adapter, written: &Written) -> Result<()> {
    for topic in &written.topics {
        check_topic(broker, client, topic).with_context(|| topic.name.to_owned())?;
    }
    Ok(())
}

fn check_topic(broker: &Broker, client: &mut Adapter, topic: &Topic) -> Result<()> {
    let ids =
        [topic_id(broker, topic.name)?, topic_id_by_kafka(client, broker.address(), topic.name)?];
    ensure!(ids.iter().all(|id| *id == topic.id), "its id is {ids:?}, and not {}", topic.id);
    let configs = client.configs(topic.name)?;
    for &(name, value) in topic.configs {
        let found = configs.get(name).cloned().flatten();
        ensure!(found.as_deref() == Some(value), "{name} is {found:?}, and not {value}");
    }
    for (index, partition) in (0..).zip(&topic.partitions) {
        for (isolation, expected) in partition.reads() {
            let found = Read::of(client, topic.name, index, isolation)?;
            expected.check(&found).with_context(|| format!("partition {index}, {isolation}"))?;
        }
    }
    Ok(())
}

fn read_the_same(session: &mut Session) -> Result<()> {
    let written = written::by_kafka(session)?;
    let (mut broker, mut client) = adopted(session, &written)?;
    check_all(&broker, &mut client, &written)?;
    nothing_was_complained_of(&broker)?;
    let wishes = fs::read_dir(broker.data_directory())?
        .filter_map(|entry| Some(entry.ok()?.path().join("ottla.adopt")))
        .filter(|wish| wish.exists());
    ensure!(wishes.count() == 0, "what was wished for was done, and is still wished for");
    broker.stop()?;
    broker.restart()?;
    check_all(&broker, &mut client, &written).context("after another start")?;
    nothing_was_complained_of(&broker)?;
    broker.kill9()?;
    broker.restart()?;
    check_all(&broker, &mut client, &written).context("after kill -9")
}

fn nothing_was_complained_of(broker: &Broker) -> Result<()> {
    let log = fs::read_to_string(broker.log())?;
    let complaint = log.lines().find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(complaint.is_none(), "it complains: {complaint:?}");
    Ok(())
}

fn write_on(session: &mut Session) -> Result<()> {
    let mut written = written::by_kafka(session)?.as_ref().clone();
    let (mut broker, mut client) = adopted(session, &written)?;
    for topic in &mut written.topics {
        let name = topic.name;
        for (index, partition) in (0..).zip(&mut topic.partitions) {
            write_to(&mut client, name, index, partition)
                .with_context(|| format!("{name}-{index}"))?;
        }
    }
    check_kept(&mut client, &written)?;
    broker.stop()?;
    broker.restart()?;
    check_kept(&mut client, &written).context("after another start")
}

/// A few records of each kind of producer, which are expected from then on.
fn write_to(
    client: &mut Adapter,
    topic: &str,
    index: i32,
    partition: &mut Partition,
) -> Result<()> {
    for (codec, idempotence) in [("none", true), ("zstd", true), ("lz4", false)] {
        let record = |n: i64| {
            let key = format!("new {codec} {n}");
            Record::new(index, now_ms() + n, Some(key.as_bytes()), Some(b"written to Ottla"))
                .with_header("codec", Some(codec.as_bytes()))
        };
        let records: Vec<Record> = (0..5).map(record).collect();
        let writing = Writing { codec, idempotence, ..Writing::default() };
        let offsets = client.produce(topic, &records, writing)?;
        let all = &mut partition.uncommitted;
        let expected: Vec<i64> = (all.end..).take(records.len()).collect();
        ensure!(offsets == expected, "the records get {offsets:?}, and not {expected:?}");
        all.end += i64::try_from(records.len())?;
        all.records.extend(offsets.into_iter().zip(records));
    }
    Ok(())
}

/// All of what Kafka wrote and what came after it. A compacted topic has a new segment now, so that more of it may go.
fn check_kept(client: &mut Adapter, written: &Written) -> Result<()> {
    for topic in &written.topics {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let found = Read::of(client, topic.name, index, UNCOMMITTED)?;
            let expected = &partition.uncommitted;
            if topic.name == COMPACTED {
                let (kept, wanted) = (found.last_of_each_key(), expected.last_of_each_key());
                ensure!(kept == wanted, "kept are {kept:?}, and not {wanted:?}");
            } else {
                expected.check(&found).with_context(|| topic.partition_name(index))?;
            }
        }
    }
    Ok(())
}

fn spread(session: &mut Session) -> Result<()> {
    let written = written::by_kafka(session)?;
    let mut broker = stopped(session, start_two)?;
    let ours = two_data_directories(broker.directory());
    let mut topics_in_both = 0;
    for topic in &written.topics {
        let mut named = BTreeMap::new();
        for (partition, home) in topic.homes() {
            let data = ours.get(written.directory_of(&home)?).context("there are two")?;
            let here = data.join(topic.partition_name(partition));
            copy(&home, &here)?;
            named.insert(data, here);
        }
        topics_in_both += usize::from(named.len() == 2);
        let named: Vec<PathBuf> = named.into_values().collect();
        adopt(&named, topic.configs).with_context(|| format!("{} is not adopted", topic.name))?;
    }
    ensure!(topics_in_both > 0, "Kafka has put each topic into one directory");
    broker.restart()?;
    let mut client = Adapter::new(Library::Java, broker.address(), broker.directory());
    check_all(&broker, &mut client, &written)?;
    broker.stop()?;
    broker.restart()?;
    check_all(&broker, &mut client, &written).context("after another start")?;
    nothing_was_complained_of(&broker)?;
    for topic in &written.topics {
        for (partition, home) in topic.homes() {
            let data = ours.get(written.directory_of(&home)?).context("there are two")?;
            let name = topic.partition_name(partition);
            ensure!(data.join(&name).is_dir(), "{name} is not where it was put");
        }
    }
    Ok(())
}
