//! What an Apache Kafka of our own wrote: every codec, a compacted topic that it has compacted, transactions that ended
//! and one that did not, topics of whose segments it has deleted the first or all, one without records (shell).

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{COMMITTED, Read, UNCOMMITTED, topic_id_by_kafka};
use crate::broker::{Target, two_data_directories};
use crate::interop::adapter::{Adapter, Library, Writing};
use crate::interop::record::{Record, noise, shapes};
use crate::interop::session::{Session, eventually, now_ms};

/// The topics that Kafka wrote, and where their partitions are now that it has stopped.
#[derive(Debug, Clone)]
pub(in crate::interop) struct Written {
    /// Kafka's `log.dirs`.
    directories: [PathBuf; 2],
    pub(super) topics: Vec<Topic>,
}

#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) id: String,
    pub(super) configs: Configs,
    pub(super) partitions: Vec<Partition>,
}

#[derive(Debug, Clone)]
pub(super) struct Partition {
    home: PathBuf,
    pub(super) uncommitted: Read,
    pub(super) committed: Read,
}

type Configs = &'static [(&'static str, &'static str)];

const CODECS: &str = "codecs";
pub(super) const COMPACTED: &str = "compacted";
const TRANSACTIONAL: &str = "transactional";
const OPEN: &str = "open";
const SHORTENED: &str = "shortened";
const EMPTIED: &str = "emptied";
const EMPTY: &str = "empty";

/// Name, partitions, configuration.
const TOPICS: [(&str, i32, Configs); 7] = [
    (CODECS, 5, &[("segment.bytes", "1048576"), ("index.interval.bytes", "1000")]),
    (
        COMPACTED,
        2,
        &[
            ("cleanup.policy", "compact"),
            ("segment.ms", "5000"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ],
    ),
    (TRANSACTIONAL, 2, &[]),
    (OPEN, 1, &[]),
    (SHORTENED, 1, &[("segment.bytes", "1048576"), ("retention.bytes", "1048576")]),
    (EMPTIED, 1, &[]),
    (EMPTY, 2, &[]),
];

/// Compacts, deletes and begins at once.
const SETTINGS: &[(&str, &str)] = &[
    ("log.cleaner.backoff.ms", "100"),
    ("log.initial.task.delay.ms", "100"),
    ("log.retention.check.interval.ms", "200"),
    ("transaction.state.log.num.partitions", "1"),
];

const LIMIT: Duration = Duration::from_secs(60);
/// What producers call the codecs.
const NAMES: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

impl Written {
    /// Which of Kafka's directories a partition is in.
    pub(super) fn directory_of(&self, home: &Path) -> Result<usize> {
        let place = self.directories.iter().position(|it| home.parent() == Some(it.as_path()));
        place.context("it is in none of Kafka's directories")
    }
}

impl Topic {
    pub(super) fn partition_name(&self, partition: i32) -> String {
        format!("{}-{partition}", self.name)
    }

    /// The directory of each partition.
    pub(super) fn homes(&self) -> impl Iterator<Item = (i32, PathBuf)> {
        (0..).zip(self.partitions.iter().map(|it| it.home.clone()))
    }
}

impl Partition {
    pub(super) fn reads(&self) -> [(&'static str, &Read); 2] {
        [(UNCOMMITTED, &self.uncommitted), (COMMITTED, &self.committed)]
    }
}

/// Written once for all tests of a run.
pub(super) fn by_kafka(session: &mut Session) -> Result<Rc<Written>> {
    if let Some(written) = &session.written_by_kafka {
        return Ok(Rc::clone(written));
    }
    let directory = session.new_topic("adopt-kafka");
    let directory = session.directory().join(directory);
    let mut kafka = Target::Kafka.start_with_two_directories(&directory, SETTINGS)?;
    let mut client = Adapter::new(Library::Java, kafka.address(), &directory);
    let directories = two_data_directories(&directory);
    for (name, partitions, configs) in TOPICS {
        client.create(name, partitions, configs)?;
    }
    write_codecs(&mut client)?;
    write_transactions(&mut client)?;
    let compacted = write_compacted(&mut client, &directories)?;
    write_emptied(&mut client, &directories)?;
    write_shortened(&mut client)?;
    let mut topics = Vec::new();
    for (name, partitions, configs) in TOPICS {
        let id = topic_id_by_kafka(&mut client, kafka.address(), name)?;
        let read = |partition| read(&mut client, &directories, name, partition);
        let partitions = (0..partitions).map(read).collect::<Result<_>>()?;
        topics.push(Topic { name, id, configs, partitions });
    }
    // Without a farewell, which would roll its transaction back.
    client.kill()?;
    kafka.stop()?;
    let written = Rc::new(Written { directories, topics });
    check_written(&written, compacted)?;
    session.written_by_kafka = Some(Rc::clone(&written));
    Ok(written)
}

fn read(
    client: &mut Adapter,
    directories: &[PathBuf; 2],
    topic: &str,
    partition: i32,
) -> Result<Partition> {
    let uncommitted = Read::of(client, topic, partition, UNCOMMITTED)?;
    let committed = Read::of(client, topic, partition, COMMITTED)?;
    Ok(Partition { home: home(directories, topic, partition)?, uncommitted, committed })
}

fn home(directories: &[PathBuf; 2], topic: &str, partition: i32) -> Result<PathBuf> {
    let mut homes = directories.iter().map(|it| it.join(format!("{topic}-{partition}")));
    homes.find(|it| it.is_dir()).with_context(|| format!("{topic}-{partition} is nowhere"))
}

/// Every kind of record, a codec a partition; the first has several segments.
fn write_codecs(client: &mut Adapter) -> Result<()> {
    let start = now_ms() - 600_000;
    for (partition, codec) in (0..).zip(NAMES) {
        let mut records = shapes(start);
        records.iter_mut().for_each(|record| record.partition = partition);
        for idempotence in [true, false] {
            let writing = Writing { codec, idempotence, ..Writing::default() };
            client.produce(CODECS, &records, writing)?;
        }
    }
    let records: Vec<Record> = (0..15).map(|n| large(n, start)).collect();
    client.produce(CODECS, &records, Writing { idempotence: true, ..Writing::default() }).map(drop)
}

/// A tenth of a segment.
fn large(n: i32, start: i64) -> Record {
    let value = noise(100_000, u64::from(n.unsigned_abs()) + 100);
    Record::new(0, start + 1_000 + i64::from(n), Some(b"large"), Some(&value))
}

/// Rounds of the same keys, each in a segment of its own. Gives how many records were written to each partition.
fn write_compacted(client: &mut Adapter, directories: &[PathBuf; 2]) -> Result<usize> {
    const ROUNDS: i64 = 6;
    const KEYS: i64 = 40;
    let start = now_ms() - 600_000;
    for (round, codec) in (0..ROUNDS).zip(NAMES.iter().copied().cycle()) {
        for partition in [0, 1] {
            let record = |n: i64| {
                let (key, value) = (format!("key {}", n % 17), format!("round {round}, {n}"));
                // Some keys are deleted, and some of these written again.
                let value = ((n + round) % 7 != 0).then_some(value);
                let time = start + round * 10_000 + n;
                let value = value.as_deref().map(str::as_bytes);
                Record::new(partition, time, Some(key.as_bytes()), value)
                    .with_header("round", Some(round.to_string().as_bytes()))
                    .with_header("null", None)
            };
            let records: Vec<Record> = (0..KEYS).map(record).collect();
            let writing = Writing { codec, idempotence: round % 2 == 0, ..Writing::default() };
            client.produce(COMPACTED, &records, writing)?;
        }
    }
    for partition in [0, 1] {
        eventually(LIMIT, || Ok(is_compacted(directories, partition)?.then_some(())))
            .context("Kafka does not compact")?;
    }
    Ok(usize::try_from(ROUNDS * KEYS)?)
}

/// Whether Kafka has noted that it has compacted all but the segment that it writes to.
fn is_compacted(directories: &[PathBuf; 2], partition: i32) -> Result<bool> {
    let home = home(directories, COMPACTED, partition)?;
    let mut active = 0;
    for entry in fs::read_dir(&home)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let base = name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok());
        active = active.max(base.unwrap_or_default());
    }
    let noted = home.with_file_name("cleaner-offset-checkpoint");
    let noted = fs::read_to_string(noted).unwrap_or_default();
    let line = format!("{COMPACTED} {partition} {active}");
    Ok(active > 0 && noted.lines().any(|noted| noted == line))
}

/// Transactions beside one another, rolled back and committed, with other records between them; and one that stays open.
fn write_transactions(client: &mut Adapter) -> Result<()> {
    let steps = [
        ("a", "none", ""),
        ("b", "zstd", "commit"),
        ("a", "gzip", "abort"),
        ("c", "lz4", ""),
        ("a", "snappy", "abort"),
        ("c", "none", "commit"),
    ];
    for (id, codec, end) in steps {
        transact(client, TRANSACTIONAL, &[0, 1], (id, codec, end))?;
        let between = lines(&[0], &format!("beside {id}"));
        client.produce(TRANSACTIONAL, &between, Writing::default())?;
    }
    transact(client, OPEN, &[0], ("d", "none", "commit"))?;
    transact(client, OPEN, &[0], ("e", "zstd", ""))?;
    client.produce(OPEN, &lines(&[0], "behind what is open"), Writing::default()).map(drop)
}

fn transact(
    client: &mut Adapter,
    topic: &str,
    partitions: &[i32],
    (id, codec, end): (&str, &str, &str),
) -> Result<()> {
    let records = lines(partitions, &format!("{id}, {end}"));
    let records: Vec<Value> = records.iter().map(Record::to_json).collect();
    client
        .ask(json!({
            "do": "transaction", "id": id, "topic": topic, "codec": codec, "records": records, "end": end,
        }))
        .map(drop)
}

fn lines(partitions: &[i32], text: &str) -> Vec<Record> {
    let line = |n: i64| {
        partitions.iter().map(move |&partition| {
            let value = format!("{text}, {n}");
            Record::new(partition, now_ms() + n, None, Some(value.as_bytes()))
                .with_header("n", Some(n.to_string().as_bytes()))
        })
    };
    (0..7).flat_map(line).collect()
}

/// All records are too old and deleted: the log ends where it did, and only the name of its one segment says where.
fn write_emptied(client: &mut Adapter, directories: &[PathBuf; 2]) -> Result<()> {
    const MONTH_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
    let mut records = lines(&[0], "on its way out");
    records.iter_mut().for_each(|record| record.timestamp -= MONTH_MS);
    client.produce(EMPTIED, &records, Writing::default())?;
    let first = home(directories, EMPTIED, 0)?.join("00000000000000000000.log");
    eventually(LIMIT, || Ok((!first.exists()).then_some(())))
        .context("Kafka does not delete what is too old")
}

/// The newest producer of all writes what Kafka then deletes: only a snapshot remembers it.
fn write_shortened(client: &mut Adapter) -> Result<()> {
    let start = now_ms() - 600_000;
    let records: Vec<Record> = (0..25).map(|n| large(n, start)).collect();
    let (first, rest) = records.split_at_checked(9).context("there are 25")?;
    client.produce(SHORTENED, first, Writing { idempotence: true, ..Writing::default() })?;
    client.produce(SHORTENED, rest, Writing::default())?;
    eventually(LIMIT, || Ok((client.watermarks(SHORTENED, 0)?.0 > 0).then_some(())))
        .context("Kafka does not delete what is too much")
}

/// That all of it is what the tests are about.
fn check_written(written: &Written, compacted: usize) -> Result<()> {
    for Topic { name, partitions, .. } in &written.topics {
        for Partition { uncommitted, committed, home } in partitions {
            let (all, kept) = (uncommitted.records.len(), committed.records.len());
            let is_so = match *name {
                COMPACTED => all < compacted && all >= 17 && kept == all,
                TRANSACTIONAL => 0 < kept && kept < all && committed.end == uncommitted.end,
                OPEN => 0 < kept && kept < all && committed.end < uncommitted.end,
                SHORTENED => uncommitted.start >= 9 && all >= 10,
                EMPTIED => all == 0 && uncommitted.start == 7 && uncommitted.end == 7,
                EMPTY => all == 0 && uncommitted.end == 0,
                _ => all >= 2 * 211 && kept == all,
            };
            ensure!(is_so, "{}: {all} records, {kept} committed", home.display());
        }
    }
    Ok(())
}
