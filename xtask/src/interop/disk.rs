//! What the broker leaves on disk, read by Kafka's own dump tool (shell).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Test;
use super::adapter::{Library, ToolOutput, Writing};
use super::record::{Record, hex, noise};
use super::session::{Session, now_ms};

/// Words of the dump tool about a fault; it ends with success in spite of most of them.
const COMPLAINTS: [&str; 4] = ["isvalid: false", "corrupt", "Exception", "Could not deserialize"];

/// What the stopped broker's directory holds.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    /// A topic of several segments.
    segments: String,
    /// A topic with a configuration of its own.
    configured: String,
}

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("disk: {sentence}"), Library::Java.needs(), run)
    };
    vec![
        test("after SIGTERM the clean marker is there, and then every record", stop_cleanly)
            .of_one(),
        test("DumpLogSegments reads every record of every segment", dump_segments).without_broker(),
        test("DumpLogSegments finds every producer's last batch in the snapshots", dump_snapshots)
            .without_broker(),
        test("DumpLogSegments finds the indexes sane and true", dump_indexes).without_broker(),
        test("DumpLogSegments decodes the metadata log", dump_metadata).without_broker(),
    ]
}

fn stop_cleanly(session: &mut Session) -> Result<()> {
    write_segments(session)?;
    session.broker.stop()?;
    let marker = session.broker.data_directory()?.join(".kafka_cleanshutdown");
    ensure!(marker.exists(), "{} is missing", marker.display());
    session.broker.restart()?;
    session.check_ledger(Library::Java)
}

/// Writes what the dump tool is to read and stops the broker, so that its files stand still.
fn stopped(session: &mut Session) -> Result<Stopped> {
    if let Some(stopped) = session.stopped.clone()
        && !session.broker.is_running()
    {
        return Ok(stopped);
    }
    session.revive()?;
    let segments = write_segments(session)?;
    let configured = session.new_topic("configured");
    session.adapter(Library::Java).create(&configured, 2, &[("retention.ms", "123456")])?;
    session.broker.stop()?;
    let stopped = Stopped { segments, configured };
    session.stopped = Some(stopped.clone());
    Ok(stopped)
}

/// Several segments with several index entries each.
fn write_segments(session: &mut Session) -> Result<String> {
    let topic = session.new_topic("segments");
    let configs = [("segment.bytes", "1048576"), ("index.interval.bytes", "1000")];
    session.adapter(Library::Java).create(&topic, 1, &configs)?;
    let start = now_ms() - 60_000;
    for (round, codec) in (0_i64..).zip(["none", "gzip", "none", "zstd", "none", "none"]) {
        let records: Vec<Record> = (0_i64..60)
            .map(|i| {
                let seed = u64::try_from(round * 100 + i).unwrap_or_default();
                Record::new(
                    0,
                    start + round * 1000 + i,
                    Some(b"k"),
                    Some(hex(&noise(4_500, seed)).as_bytes()),
                )
            })
            .collect();
        let writing = Writing { codec, idempotence: true, ..Writing::default() };
        session.write(Library::Java, &topic, &records, writing)?;
    }
    Ok(topic)
}

fn dump_segments(session: &mut Session) -> Result<()> {
    let topic = stopped(session)?.segments;
    let logs = files(&session.broker.data_directory()?, &["log"], is_partition)?;
    let output = dumped(session, &["--print-data-log"], &logs)?;
    let prefix = format!("/{topic}-0/");
    let of_topic = output
        .out
        .split("Dumping ")
        .filter(|part| part.lines().next().is_some_and(|file| file.contains(&prefix)));
    let (mut segments, mut records) = (0, 0);
    for part in of_topic {
        segments += 1;
        records += part.lines().filter(|line| line.starts_with("| offset: ")).count();
    }
    ensure!(segments >= 3, "{segments} segments of {topic} were dumped");
    ensure!(records == 360, "{records} of 360 records were dumped");
    Ok(())
}

/// Where a producer's last batch is, as the tool prints it of a segment and of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LastBatch {
    last_sequence: String,
    last_offset: String,
}

fn dump_snapshots(session: &mut Session) -> Result<()> {
    let topic = stopped(session)?.segments;
    let data_directory = session.broker.data_directory()?;
    let snapshots = files(&data_directory, &["snapshot"], is_partition)?;
    dumped(session, &[], &snapshots)?;
    let directory = data_directory.join(format!("{topic}-0"));
    let files = |extension: &str| -> Result<Vec<PathBuf>> {
        let mut files = sorted(&directory)?;
        files.retain(|file| file.extension().is_some_and(|found| found == extension));
        Ok(files)
    };
    let (segments, snapshots) = (files("log")?, files("snapshot")?);
    ensure!(segments.len() >= 3, "{} segments of {topic}", segments.len());
    let mut expected = BTreeMap::new();
    for (at, segment) in segments.iter().enumerate() {
        let listed = dumped(session, &[], std::slice::from_ref(segment))?.out;
        expected.extend(listed.lines().filter_map(last_batch));
        // The state after a segment is written down under the name of the next one, or of the log's end.
        let next =
            segments.get(at + 1).or_else(|| snapshots.last()).context("there is no snapshot")?;
        let snapshot = next.with_extension("snapshot");
        ensure!(snapshots.contains(&snapshot), "{} is missing", snapshot.display());
        let listed = dumped(session, &[], std::slice::from_ref(&snapshot))?.out;
        let found: BTreeMap<String, LastBatch> = listed.lines().filter_map(last_batch).collect();
        ensure!(found == expected, "{}: {found:?}, not {expected:?}", snapshot.display());
    }
    ensure!(expected.len() == 6, "{} producers wrote to {topic}", expected.len());
    Ok(())
}

/// A producer's id, and the batch that a line tells of; a producer's later lines replace its earlier ones.
fn last_batch(line: &str) -> Option<(String, LastBatch)> {
    let word = |name: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != name).skip(1);
        words.next().map(str::to_owned)
    };
    let producer_id = word("producerId:").filter(|id| id != "-1")?;
    let (last_sequence, last_offset) = (word("lastSequence:")?, word("lastOffset:")?);
    Some((producer_id, LastBatch { last_sequence, last_offset }))
}

fn dump_indexes(session: &mut Session) -> Result<()> {
    stopped(session)?;
    let indexes = files(&session.broker.data_directory()?, &["index", "timeindex"], is_partition)?;
    dumped(session, &["--index-sanity-check"], &indexes).context("--index-sanity-check")?;
    dumped(session, &["--verify-index-only"], &indexes).context("--verify-index-only")?;
    let listed = dumped(session, &[], &indexes)?.out;
    let entries = |prefix| listed.lines().filter(|line| line.starts_with(prefix)).count();
    ensure!(entries("offset: ") > 20, "{} offset index entries", entries("offset: "));
    ensure!(entries("timestamp: ") > 20, "{} time index entries", entries("timestamp: "));
    Ok(())
}

fn dump_metadata(session: &mut Session) -> Result<()> {
    let topic = stopped(session)?.configured;
    let logs = files(&session.broker.data_directory()?, &["log"], is_metadata)?;
    let output = dumped(session, &["--cluster-metadata-decoder"], &logs)?;
    let expected = [
        "FEATURE_LEVEL_RECORD".to_owned(),
        "REGISTER_BROKER_RECORD".to_owned(),
        "PARTITION_RECORD".to_owned(),
        "\"value\":\"123456\"".to_owned(),
        format!("\"name\":\"{topic}\""),
        "LeaderChange".to_owned(),
    ];
    for word in expected {
        ensure!(output.out.contains(&word), "the metadata log shows no {word}");
    }
    Ok(())
}

/// The tool's output for all files; asked a part at a time, as what it prints must fit its heap.
fn dumped(session: &mut Session, options: &[&str], files: &[PathBuf]) -> Result<ToolOutput> {
    ensure!(!files.is_empty(), "there are no such files");
    let mut all = ToolOutput { status: 0, out: String::new(), err: String::new() };
    for part in files.chunks(40) {
        let output = dumped_part(session, options, part)?;
        all.out += &output.out;
        all.err += &output.err;
    }
    Ok(all)
}

fn dumped_part(session: &mut Session, options: &[&str], files: &[PathBuf]) -> Result<ToolOutput> {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let files = files.join(",");
    let mut arguments = options.to_vec();
    arguments.extend(["--files", &files]);
    let output = session.adapter(Library::Java).tool("tools.DumpLogSegments", &arguments, b"")?;
    ensure!(output.status == 0, "exit {}: {}", output.status, output.err);
    if let Some(complaint) = output.err.lines().find(|line| is_complaint(line)) {
        bail!("{complaint:?} is among its complaints: {:.2000}", output.err);
    }
    let complaint = output
        .out
        .lines()
        .filter(|line| !line.starts_with("| offset"))
        .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
    ensure!(complaint.is_none(), "it prints: {:.500}", complaint.unwrap_or_default());
    Ok(output)
}

/// The tool counts from -1 in every file, and so finds a gap before a later segment's first offset.
fn is_complaint(line: &str) -> bool {
    let harmless = ["Non-consecutive offsets in ", "  -1 is followed by "];
    !line.trim().is_empty() && !harmless.iter().any(|start| line.starts_with(start))
}

fn is_metadata(directory: &str) -> bool {
    directory == "__cluster_metadata-0"
}

fn is_partition(directory: &str) -> bool {
    !is_metadata(directory) && !directory.ends_with("-delete")
}

/// Files with one of the extensions in the partition directories that `wanted` names.
fn files(
    data_directory: &Path,
    extensions: &[&str],
    wanted: fn(&str) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in sorted(data_directory)? {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        if !directory.is_dir() || !wanted(&name) {
            continue;
        }
        let has_extension = |file: &PathBuf| {
            let extension = file.extension().unwrap_or_default();
            extensions.iter().any(|wanted| extension == *wanted)
        };
        found.extend(sorted(&directory)?.into_iter().filter(has_extension));
    }
    Ok(found)
}

pub(super) fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
