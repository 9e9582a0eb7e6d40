//! The scrub of a broker that runs: it finds what the disk has changed, and leaves the page cache as it is (shell).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use super::Test;
use super::directories::ask;
use super::operator::{LIMIT, Running, client, get, new_directory, produce_request, serve_in};
use super::session::{Session, eventually};
use crate::ottla;
use crate::page_cache::{self, resident_bytes};
use crate::process::run;

const TOPIC: &str = "orders";
/// Each is more than half of a segment.
const RECORD_BYTES: usize = 600_000;
const RECORDS: u64 = 6;

pub(super) fn tests() -> Vec<Test> {
    let run = |session: &mut Session| scrubbed(&new_directory(session)?);
    let sentence = "scrub: a turned bit is found and refused, and the page cache stays as it is";
    vec![Test::new(sentence, &["fincore"], run).without_broker()]
}

fn scrubbed(directory: &Path) -> Result<()> {
    let mut command = serve_in(directory)?;
    command.args(["--set", "ottla.scrub.interval.ms=100", "--set", "log.retention.ms=-1"]);
    command.args(["--set", "ottla.scrub.bytes.per.second=50000000"]);
    let running = Running::start(command, directory)?;
    let segments = write_segments(&running)?;
    let [_, turned, dropped, cached, ..] = &segments[..] else {
        anyhow::bail!("{} segments", segments.len())
    };
    leaves_the_cache(&running, dropped, cached)?;
    finds(&running, turned)?;
    is_sound_again(&running, turned)
}

/// One record in each; the last one is written to.
fn write_segments(running: &Running) -> Result<Vec<PathBuf>> {
    let create = ["topic", "create", TOPIC, "--config", "segment.bytes=1048576"];
    client(running.address(), &create, "")?;
    let value = vec![b'x'; RECORD_BYTES];
    for _ in 0..RECORDS {
        let request = produce_request(TOPIC, 0, Timestamp(1_500_000_000_000), &value);
        let answer = ask(running.address(), &request, 12)?;
        let answers = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let code = answers.map(|it| it.error_code).next().context("no answer")?;
        ensure!(code == ErrorCode::NONE, "a record is refused: {code}");
    }
    let directory = running.ready.data.join(format!("{TOPIC}-0"));
    let segment = |offset| directory.join(format!("{offset:020}.log"));
    let segments: Vec<PathBuf> = (0..RECORDS).map(segment).collect();
    ensure!(
        segments.iter().all(|path| path.exists()),
        "the records are not in segments of their own"
    );
    Ok(segments)
}

/// The value of a metric without labels.
fn metric(running: &Running, name: &str) -> Result<u64> {
    let metrics = get(&running.ready.http, "/metrics")?.1;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).with_context(|| format!("{name} is not served"))
}

/// Waits until everything has been read again, whatever is being read now.
fn read_again(running: &Running) -> Result<()> {
    let bytes = RECORDS * RECORD_BYTES as u64;
    let before = metric(running, "ottla_scrubbed_bytes")?;
    eventually(LIMIT, || {
        let read = metric(running, "ottla_scrubbed_bytes")? - before;
        Ok((read > 3 * bytes).then_some(()))
    })
    .context("the scrub does not read")
}

fn drop_from_cache(file: &File) -> Result<()> {
    // What is dirty stays.
    file.sync_data()?;
    page_cache::drop_file(file)
}

fn leaves_the_cache(running: &Running, dropped: &Path, cached: &Path) -> Result<()> {
    drop_from_cache(&File::open(dropped)?)?;
    let before = [resident_bytes(dropped)?, resident_bytes(cached)?];
    ensure!(before[0] == 0 && before[1] >= RECORD_BYTES as u64, "before the scrub: {before:?}");
    read_again(running)?;
    let after = [resident_bytes(dropped)?, resident_bytes(cached)?];
    ensure!(after == before, "the scrub has made {after:?} of {before:?}");
    Ok(())
}

/// Turns a bit on the disk, amid the record.
fn turn(segment: &Path) -> Result<()> {
    const POSITION: u64 = RECORD_BYTES as u64 / 2;
    let file = OpenOptions::new().read(true).write(true).open(segment)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, POSITION)?;
    file.write_all_at(&byte.map(|byte| byte ^ 1), POSITION)?;
    drop_from_cache(&file)
}

/// What a reader is told who asks for this offset.
fn read(running: &Running, fetch_offset: i64) -> Result<ErrorCode> {
    let partition =
        FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let topics =
        vec![FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { topics, max_bytes: 1 << 20, ..Default::default() };
    let answer = ask(running.address(), &request, 12)?;
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|it| it.error_code).next().context("no answer for the partition")
}

fn quarantine(running: &Running) -> PathBuf {
    running.ready.data.join(format!("{TOPIC}-0")).join("ottla.quarantine")
}

/// What `ottla log verify` says beside the running broker.
fn verified(running: &Running) -> Result<String> {
    let mut command = Command::new(ottla::binary()?);
    command.args(["log", "verify"]).arg(running.ready.data.join(format!("{TOPIC}-0")));
    let finished = run(command, b"", LIMIT)?;
    ensure!(!finished.status.success(), "it ends with success");
    Ok(finished.stdout_text())
}

fn finds(running: &Running, turned: &Path) -> Result<()> {
    ensure!(metric(running, "ottla_quarantined_ranges")? == 0, "something is damaged already");
    turn(turned)?;
    running.wait_for("damaged records: reads of these offsets are refused")?;
    let log = running.log()?;
    let reports: Vec<&str> = log.lines().filter(|line| line.contains("damaged records")).collect();
    let named = [format!("{TOPIC}-0"), "first_offset=1".to_owned(), "end_offset=2".to_owned()];
    let is_named = |line: &&str| line.contains("ERROR") && named.iter().all(|it| line.contains(it));
    ensure!(reports.len() == 1 && reports.iter().all(is_named), "it is reported as {reports:?}");
    eventually(LIMIT, || {
        let ranges = metric(running, "ottla_quarantined_ranges")?;
        Ok((ranges == 1 && quarantine(running).exists()).then_some(()))
    })
    .context("it is not quarantined")?;
    let verified = verified(running)?;
    ensure!(verified.contains("damage: ") && verified.contains("offsets 1..2"), "{verified}");
    for offset in 0..RECORDS.cast_signed() {
        let expected = if offset == 1 { ErrorCode::CORRUPT_MESSAGE } else { ErrorCode::NONE };
        let code = read(running, offset)?;
        ensure!(code == expected, "offset {offset}: {code}");
    }
    let behind = ["consume", TOPIC, "--from", "2", "--until-end", "--format", "%o"];
    let behind = client(running.address(), &behind, "")?.stdout_text();
    ensure!(behind == "2\n3\n4\n5\n", "what is behind it is read as {behind}");
    Ok(())
}

/// Once somebody has restored what was there.
fn is_sound_again(running: &Running, turned: &Path) -> Result<()> {
    turn(turned)?;
    running.wait_for("sound again: these offsets are served")?;
    eventually(LIMIT, || {
        let ranges = metric(running, "ottla_quarantined_ranges")?;
        let is_served = read(running, 1)? == ErrorCode::NONE;
        Ok((ranges == 0 && !quarantine(running).exists() && is_served).then_some(()))
    })
    .context("it is still quarantined, or refused")
}
