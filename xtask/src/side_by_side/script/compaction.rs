//! The same records to both, compacted by both: what is read afterwards, how far each says it has come, and what
//! Apache Kafka's own tool finds in the files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_records::{BatchBuilder, Batches, Codec, Compression, RawBatch};

use super::super::both::Both;
use super::super::subject::{Subject, now_ms};
use super::super::value::Value;
use super::alter_configs::{delete_for_both, set_for_both};
use super::batches::LONG_AGO;
use super::describe_configs::{BROKER, TOPIC};
use super::write;
use crate::interop::fetch::{java_classes, kafka_jars};
use crate::kafka;
use crate::process::run_ok;

const NAME: &str = "compaction";
const RATIO: &str = "min.cleanable.dirty.ratio";
const BACKOFF: &str = "log.cleaner.backoff.ms";
const DELETE_RETENTION_MS: &str = "1500";
const DUMP_LIMIT: Duration = Duration::from_secs(60);

/// One partition for each codec.
const PARTITIONS: [(i32, Compression); 5] = [
    (0, Compression::None),
    (1, Compression::Gzip),
    (2, Compression::Snappy),
    (3, Compression::Lz4),
    (4, Compression::Zstd),
];

/// A segment ends where the next batch is so much later.
const SEGMENT_MS: i64 = 10_000;

pub(super) fn run(both: &mut Both) -> Result<()> {
    set_for_both(both, BROKER, "", &[(BACKOFF, "50")])?;
    let segment_ms = SEGMENT_MS.to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", &segment_ms),
        // Not yet: everything is to be compacted at once, however slow this machine is today.
        (RATIO, "1"),
        ("delete.retention.ms", DELETE_RETENTION_MS),
        ("index.interval.bytes", "0"),
    ];
    both.create(NAME, 5, &configs)?;
    let mut script = Script { both, next_offset: 0, segment: 0 };
    script.fill()?;
    set_for_both(script.both, TOPIC, NAME, &[(RATIO, "0.01")])?;
    script.compare("newest values, tombstones and a producer's last batch", &[0, 1, 3, 6, 17])?;
    script.wait_for_horizons()?;
    script.overwrite()?;
    script.compare("tombstones whose time has come", &[2, 7, 8, 13])?;
    script.overwrite()?;
    script.compare("segments that were put together before", &[20, 21])?;
    script.dump()?;
    delete_for_both(both, BROKER, "", BACKOFF)
}

type Pair<'a> = (&'a str, Option<&'a str>);

struct Script<'a> {
    both: &'a mut Both,
    next_offset: i64,
    segment: i64,
}

impl Script<'_> {
    fn fill(&mut self) -> Result<()> {
        self.write(None, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))])?;
        self.write(Some(0), &[("d", Some("1")), ("e", Some("1"))])?;
        self.write(None, &[("kept whole", Some("1"))])?;
        self.roll();
        self.write(None, &[("a", Some("2")), ("b", None), ("f", Some("1"))])?;
        self.write(Some(2), &[("d", Some("2")), ("g", Some("1"))])?;
        self.roll();
        self.write(None, &[("d", Some("3")), ("g", Some("2")), ("h", None)])?;
        self.write(None, &[("", Some("an empty key")), ("i", Some(""))])?;
        self.roll();
        self.write(None, &[("a", Some("3")), ("j", Some("1"))])?;
        self.write(None, &[("j", Some("2"))])?;
        self.roll();
        self.write(None, &[("active", Some("1"))])
    }

    /// Some of the keys again: the segment that was active is compacted, and those before it once more.
    fn overwrite(&mut self) -> Result<()> {
        self.write(None, &[("c", Some("3")), ("f", None)])?;
        self.roll();
        self.write(None, &[("active", Some("2"))])
    }

    /// Appends a batch to every partition, compressed as that partition's are.
    fn write(&mut self, sequence: Option<i32>, pairs: &[Pair<'_>]) -> Result<()> {
        for (partition, compression) in PARTITIONS {
            let batch = self.batch(compression, sequence, pairs);
            write(self.both, NAME, partition, &batch)?;
        }
        self.next_offset += i64::try_from(pairs.len())?;
        Ok(())
    }

    fn batch(&self, compression: Compression, sequence: Option<i32>, pairs: &[Pair<'_>]) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::from(compression));
        if let Some(sequence) = sequence {
            builder = builder.producer(9_000, 0, sequence);
        }
        let time = LONG_AGO + self.segment * 10 * SEGMENT_MS;
        for (offset, (key, value)) in (self.next_offset..).zip(pairs) {
            let headers = [("offset", Some(&b"of a record"[..])), ("null", None)];
            let headers = if offset % 2 == 0 { &headers[..] } else { &[] };
            let value = value.map(str::as_bytes);
            builder.append(Timestamp(time + offset), Some(key.as_bytes()), value, headers);
        }
        builder.build_bytes()
    }

    fn roll(&mut self) {
        self.segment += 1;
    }

    /// Waits until both have compacted all they may, and compares what is left: not the records at these offsets.
    fn compare(&mut self, what: &str, gone: &[i64]) -> Result<()> {
        // The active segment holds the last batch, of one record.
        let active = self.next_offset - 1;
        let expected: Vec<String> = PARTITIONS
            .iter()
            .map(|(partition, _)| format!("{NAME} {partition} {active}"))
            .collect();
        self.both.set_up(|subject| {
            subject.wait_for("compaction", |subject| {
                let files = subject.data_directories.iter();
                let files = files.map(|directory| directory.join("cleaner-offset-checkpoint"));
                let text: String =
                    files.map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
                Ok(expected.iter().all(|line| text.lines().any(|found| found == line)))
            })
        })?;
        for (partition, compression) in PARTITIONS {
            let found = self.batches(partition)?;
            for batches in &found {
                let offsets = offsets(batches)?;
                let left = gone.iter().find(|offset| offsets.contains(offset));
                ensure!(left.is_none(), "{what}: offset {left:?} is still there");
            }
            let [kafka, ottla] = found.each_ref().map(|batches| shown(batches));
            let step = format!("Compaction: {what}, {}", compression.name());
            self.both.compare(&step, &kafka, &ottla);
        }
        Ok(())
    }

    /// All that can be read of a partition.
    fn batches(&mut self, partition: i32) -> Result<[Vec<RawBatch>; 2]> {
        let end = self.next_offset;
        self.both.each(|subject| read_all(subject, partition, end))
    }

    fn wait_for_horizons(&mut self) -> Result<()> {
        let mut latest = None;
        for (partition, _) in PARTITIONS {
            for batches in self.batches(partition)? {
                let horizons =
                    batches.iter().filter_map(|batch| batch.header().delete_horizon_ms());
                let horizon = horizons.max().context("no tombstone has a horizon")?;
                latest = latest.max(Some(horizon));
            }
        }
        let latest = latest.context("there are partitions")?;
        self.both.set_up(|subject| subject.wait_for("horizons to pass", |_| Ok(now_ms() > latest)))
    }

    /// What `DumpLogSegments` lists of every segment.
    fn dump(&mut self) -> Result<()> {
        for (partition, compression) in PARTITIONS {
            let step = format!("Compaction: DumpLogSegments, {}", compression.name());
            self.both.observe(&step, |subject, _| {
                let name = format!("{NAME}-{partition}");
                let mut directories = subject.data_directories.iter().map(|it| it.join(&name));
                let directory = directories.find(|directory| directory.is_dir());
                dumped(&directory.context("the partition is nowhere")?)
            })?;
        }
        Ok(())
    }
}

fn read_all(subject: &mut Subject, partition: i32, end: i64) -> Result<Vec<RawBatch>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < end {
        let request = fetch(partition, at);
        let response = subject.expect(11, &request)?;
        let answer = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let answer = answer.context("the answer names no partition")?;
        ensure!(answer.error_code == ErrorCode::NONE, "{answer:?}");
        let Some(Records::Bytes(bytes)) = answer.records else { break };
        let before = at;
        for batch in Batches::new(bytes) {
            let batch = batch?;
            at = batch.header().next_offset();
            found.push(batch);
        }
        ensure!(at > before, "nothing is read from {at} on, and {end} is the end");
    }
    Ok(found)
}

fn fetch(partition: i32, fetch_offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 100,
        min_bytes: 0,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: NAME.into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn offsets(batches: &[RawBatch]) -> Result<Vec<i64>> {
    let mut offsets = Vec::new();
    for batch in batches {
        for record in batch.records()? {
            offsets.push(record?.offset.0);
        }
    }
    Ok(offsets)
}

/// Compressors differ in what they make of the same bytes, and horizons are of the broker's own clock.
fn shown(batches: &[RawBatch]) -> Value {
    let leaf = |name: &str, value: &dyn ToString| (name.to_owned(), Value::leaf(value.to_string()));
    let batch = |batch: &RawBatch| {
        let header = batch.header();
        let is_own = header.delete_horizon_ms().is_none();
        let is_plain = header.attributes.compression() == Ok(Compression::None);
        let bytes = match (is_own && is_plain, batch.clone().verify_crc()) {
            (_, Err(error)) => error.to_string(),
            (true, Ok(_)) => format!("{:?}", batch.bytes()),
            (false, Ok(_)) => "a right checksum".to_owned(),
        };
        let base_timestamp = header.delete_horizon_ms().map_or_else(
            || header.base_timestamp.to_string(),
            |horizon| format!("a horizon of now: {}", (now_ms() - horizon).abs() < 60_000),
        );
        let records = match batch.records() {
            Ok(records) => records.map(|record| Value::of(&record)).collect(),
            Err(error) => vec![Value::leaf(error)],
        };
        Value::Fields(vec![
            leaf("base_offset", &header.base_offset),
            leaf("last_offset_delta", &header.last_offset_delta),
            leaf("leader_epoch", &header.partition_leader_epoch),
            leaf("attributes", &header.attributes.0),
            leaf("base_timestamp", &base_timestamp),
            leaf("max_timestamp", &header.max_timestamp),
            leaf("producer_id", &header.producer_id),
            leaf("producer_epoch", &header.producer_epoch),
            leaf("base_sequence", &header.base_sequence),
            leaf("record_count", &header.record_count),
            leaf("bytes", &bytes),
            ("records".to_owned(), Value::List(records)),
        ])
    };
    Value::List(batches.iter().map(batch).collect())
}

/// Names of what depends on the compressor or the clock, each with a value behind it.
const OWN: [&str; 4] = ["position:", "size:", "crc:", "deleteHorizonMs:"];

fn dumped(directory: &Path) -> Result<Value> {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let files: Vec<String> = logs.iter().map(|path| path.display().to_string()).collect();
    let mut command = kafka::java_tools(&kafka_jars()?, &java_classes()?);
    command.arg("org.apache.kafka.tools.DumpLogSegments").args([
        "--deep-iteration",
        "--print-data-log",
        "--files",
        &files.join(","),
    ]);
    let listed = run_ok(command, b"", DUMP_LIMIT)?.stdout_text();
    let lines: Vec<Value> = listed.lines().map(|line| Value::leaf(comparable(line))).collect();
    ensure!(lines.len() > 10, "the tool lists {listed}");
    Ok(Value::List(lines))
}

fn comparable(line: &str) -> String {
    if let Some(path) = line.strip_prefix("Dumping ") {
        return format!("Dumping {}", path.rsplit('/').next().unwrap_or_default());
    }
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word.to_owned());
        if OWN.contains(&word) {
            let value = words.next().unwrap_or_default();
            let is_set = word != "deleteHorizonMs:" || value != "OptionalLong.empty";
            kept.push(is_set.to_string());
        }
    }
    kept.join(" ")
}
