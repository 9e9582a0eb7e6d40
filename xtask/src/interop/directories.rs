//! Several log directories: where partitions go, and what a disk that is missing, fails or is full costs (shell).
//!
//! A failing disk is made by `strace`, which lets the flush of one file fail; a small disk is a file system in memory,
//! mounted where only the broker sees it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::frame::encode_request;
use ottla_protocol::header::ResponseHeader;
use ottla_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use ottla_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::{
    AlterReplicaLogDirsRequest, DeleteRecordsRequest, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest,
};
use ottla_protocol::{Decoder, Message as _, Request};
use rustix::process::Signal;

use super::operator::{LIMIT, Running, client, get, new_directory, produce_request, serve, traced};
use super::session::{Session, eventually};
use super::{MOUNT, TRACE, Test};
use crate::cluster::volume::take_all;
use crate::side_by_side::connection::{Connection, Reply};

const RESERVE: &str = "log.dir.reserved.bytes";
const THROTTLE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, needs, run: fn(&Path) -> Result<()>| {
        let run = move |session: &mut Session| run(&new_directory(session)?);
        Test::new(format!("directories: {sentence}"), needs, run).without_broker()
    };
    vec![
        test(
            "a disk that is missing at the start takes only its own partitions with it",
            &[],
            missing,
        ),
        test("a disk whose flush fails takes only its own partitions with it", STRACE, failing)
            .where_allowed(&[TRACE]),
        test("a disk that fails under the metadata stops the node, and it says why", STRACE, fatal)
            .where_allowed(&[TRACE]),
        test(
            "a partition moves to another one while it is written to, also after kill -9",
            &[],
            moved,
        ),
        test("a topic that is deleted while it moves leaves nothing", &[], deleted),
        test(
            "what would touch the reserve is refused, and accepted with a smaller one",
            &[],
            reserve,
        ),
        test("a full disk refuses records, serves all else, and recovers by itself", UNSHARE, full)
            .where_allowed(&[MOUNT]),
        test("DeleteRecords makes room on a full disk", UNSHARE, trimmed).where_allowed(&[MOUNT]),
        test(
            "a disk that others fill to the last byte stops nothing that does not need room",
            UNSHARE,
            filled,
        )
        .where_allowed(&[MOUNT]),
    ]
}

const STRACE: &[&str] = &["strace", "setpriv"];
const UNSHARE: &[&str] = &["unshare", "mount"];

/// The directories `a`, with the metadata, and `b`.
fn two(directory: &Path) -> [PathBuf; 2] {
    ["a", "b"].map(|name| directory.join(name))
}

fn serve_two(directory: &Path) -> Result<Command> {
    let [a, b] = two(directory);
    let log_dirs = format!("log.dirs={},{}", a.display(), b.display());
    serve(&["--listen", "127.0.0.1:0", "--set", &log_dirs])
}

/// `orders` with four partitions, of which the odd ones are in `b`.
fn create_orders(running: &Running, [a, b]: &[PathBuf; 2]) -> Result<()> {
    client(running.address(), &["topic", "create", "orders", "--partitions", "4"], "")?;
    for partition in 0..4 {
        let home = if partition % 2 == 0 { a } else { b };
        ensure!(
            home.join(format!("orders-{partition}")).is_dir(),
            "partition {partition} is elsewhere"
        );
    }
    Ok(())
}

pub(super) fn ask<R: Request>(address: &str, request: &R, version: i16) -> Result<R::Response> {
    let mut connection = Connection::open(address)?;
    connection.send(&encode_request(version, 1, None, request)?.bytes);
    let Reply::Frame(frame) = connection.receive()? else {
        anyhow::bail!("no answer from {address}");
    };
    let mut input = Decoder::new(frame);
    ResponseHeader::decode(&mut input, R::KEY.response_header_version(version))?;
    Ok(R::Response::decode(&mut input, version)?)
}

/// One record, written with acks=all.
fn write(running: &Running, topic: &str, partition: i32, value: &[u8]) -> Result<ErrorCode> {
    let request = produce_request(topic, partition, Timestamp(1_500_000_000_000), value);
    let response = ask(running.address(), &request, 12)?;
    let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    answers.map(|it| it.error_code).next().context("no answer for the partition")
}

fn write_ok(running: &Running, topic: &str, partition: i32, value: &str) -> Result<()> {
    let code = write(running, topic, partition, value.as_bytes())?;
    ensure!(code == ErrorCode::NONE, "{topic}-{partition}: {code}");
    Ok(())
}

fn write_refused(running: &Running, topic: &str, partition: i32) -> Result<()> {
    let code = write(running, topic, partition, b"refused")?;
    ensure!(code == ErrorCode::KAFKA_STORAGE_ERROR, "{topic}-{partition}: {code}");
    Ok(())
}

/// All values of a partition, a line each.
fn read(running: &Running, topic: &str, partition: i32) -> Result<String> {
    let partition = partition.to_string();
    let arguments = ["consume", topic, "--until-end", "--partition", &partition];
    client(running.address(), &arguments, "").map(|finished| finished.stdout_text())
}

/// The error of each directory, in order.
fn described(running: &Running) -> Result<Vec<(String, ErrorCode)>> {
    let request = DescribeLogDirsRequest { topics: None };
    let results = ask(running.address(), &request, 4)?.results;
    Ok(results.into_iter().map(|it| (it.log_dir.to_string(), it.error_code)).collect())
}

fn check_described(running: &Running, [a, b]: &[PathBuf; 2]) -> Result<()> {
    let found = described(running)?;
    let expected = [(a, ErrorCode::NONE), (b, ErrorCode::KAFKA_STORAGE_ERROR)];
    let expected = expected.map(|(path, code)| (path.display().to_string(), code));
    ensure!(found == expected, "the directories are {found:?}");
    Ok(())
}

/// Somebody who looks at the broker, and not at its log, sees that `b` is gone.
fn check_watched(running: &Running, [a, b]: &[PathBuf; 2]) -> Result<()> {
    let (status, ready) = get(&running.ready.http, "/readyz")?;
    ensure!(status == 200 && ready.contains(&b.display().to_string()), "{status}: {ready}");
    let metrics = get(&running.ready.http, "/metrics")?.1;
    for (path, value) in [(a, 0), (b, 1)] {
        let path = path.display();
        let sample = format!("ottla_log_directory_offline{{directory=\"{path}\"}} {value}\n");
        ensure!(metrics.contains(&sample), "{sample} is not in {metrics}");
    }
    Ok(())
}

fn check_leaders(running: &Running, leaderless: &[i32]) -> Result<()> {
    let metadata =
        ask(running.address(), &MetadataRequest { topics: None, ..Default::default() }, 8)?;
    let topic = metadata.topics.iter().find(|topic| topic.name.as_deref() == Some("orders"));
    let partitions = &topic.context("orders is unknown")?.partitions;
    let (led, left): (Vec<_>, Vec<_>) = partitions.iter().partition(|it| it.leader_id >= 0);
    let mut left: Vec<i32> = left.iter().map(|it| it.partition_index).collect();
    left.sort_unstable();
    let are_available = led.iter().all(|it| it.error_code == ErrorCode::NONE);
    ensure!(partitions.len() == 4 && are_available && left == leaderless, "{partitions:?}");
    Ok(())
}

fn check_later_topic(running: &Running, [a, _]: &[PathBuf; 2]) -> Result<()> {
    client(running.address(), &["topic", "create", "later", "--partitions", "2"], "")?;
    for partition in 0..2 {
        ensure!(a.join(format!("later-{partition}")).is_dir(), "later-{partition} is elsewhere");
        write_ok(running, "later", partition, "written")?;
    }
    Ok(())
}

fn missing(directory: &Path) -> Result<()> {
    let directories @ [_, b] = &two(directory);
    let running = Running::start(serve_two(directory)?, directory)?;
    create_orders(&running, directories)?;
    write_ok(&running, "orders", 0, "a")?;
    write_ok(&running, "orders", 1, "b")?;
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop cleanly");
    let away = directory.join("b.away");
    fs::rename(b, &away)?;
    fs::write(b, "no directory")?;

    let running = Running::start(serve_two(directory)?, directory)?;
    running.wait_for("a log directory is offline")?;
    write_ok(&running, "orders", 0, "c")?;
    write_refused(&running, "orders", 1)?;
    check_described(&running, directories)?;
    check_watched(&running, directories)?;
    check_leaders(&running, &[1, 3])?;
    check_later_topic(&running, directories)?;
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop cleanly");
    fs::remove_file(b)?;

    // Where its disk is not mounted there is a directory, and nothing in it.
    fs::create_dir(b)?;
    let running = Running::start(serve_two(directory)?, directory)?;
    write_refused(&running, "orders", 1)?;
    write_ok(&running, "orders", 2, "e")?;
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop cleanly");
    ensure!(!b.join("orders-1").exists(), "an empty log stands in for the one that is away");
    fs::remove_dir_all(b)?;
    fs::rename(&away, b)?;

    let running = Running::start(serve_two(directory)?, directory)?;
    ensure!(read(&running, "orders", 0)? == "a\nc\n", "partition 0 has other records");
    ensure!(read(&running, "orders", 1)? == "b\n", "partition 1 has other records");
    write_ok(&running, "orders", 1, "d")
}

/// `ottla serve` on a disk that fails when this file is flushed; it dies with `strace`.
fn serve_failing(directory: &Path, file: &Path) -> Result<Command> {
    let file = file.display().to_string();
    let calls = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"];
    let options = [&["-P", &file], &calls[..]].concat();
    Ok(traced(&serve_two(directory)?, &directory.join("strace.log"), &options))
}

fn first_segment(directory: &Path, partition: i32) -> PathBuf {
    directory.join(format!("orders-{partition}")).join("00000000000000000000.log")
}

fn failing(directory: &Path) -> Result<()> {
    let directories @ [_, b] = &two(directory);
    let command = serve_failing(directory, &first_segment(b, 1))?;
    let running = Running::start(command, directory)?;
    create_orders(&running, directories)?;
    write_ok(&running, "orders", 0, "a")?;
    write_ok(&running, "orders", 3, "b")?;
    write_refused(&running, "orders", 1)?;
    running.wait_for("a write to disk failed; the log directory is offline")?;
    write_refused(&running, "orders", 3)?;
    ensure!(read(&running, "orders", 3)? == "b\n", "what was visible is not read any more");
    ensure!(read(&running, "orders", 1)?.is_empty(), "what was not acknowledged is visible");
    write_ok(&running, "orders", 0, "c")?;
    check_described(&running, directories)?;
    check_watched(&running, directories)?;
    check_leaders(&running, &[])?;
    check_later_topic(&running, directories)?;
    drop(running);

    let running = restarted(directory)?;
    ensure!(read(&running, "orders", 0)? == "a\nc\n", "partition 0 has other records");
    ensure!(read(&running, "orders", 3)? == "b\n", "partition 3 has other records");
    write_ok(&running, "orders", 1, "d")
}

/// Whoever was killed needs a moment to let go of the locks.
fn restarted(directory: &Path) -> Result<Running> {
    let mut last = None;
    eventually(LIMIT, || {
        last = Running::start(serve_two(directory)?, directory).ok();
        Ok(last.is_some().then_some(()))
    })?;
    last.context("it does not start again")
}

fn fatal(directory: &Path) -> Result<()> {
    let directories @ [a, _] = &two(directory);
    let command = serve_failing(directory, &first_segment(a, 0))?;
    let mut running = Running::start(command, directory)?;
    create_orders(&running, directories)?;
    write_refused(&running, "orders", 0)?;
    eventually(LIMIT, || Ok((!running.process.is_running()).then_some(())))
        .context("it goes on without its metadata")?;
    let log = running.log()?;
    let reason = format!("the log directory with the metadata, {}, has failed", a.display());
    ensure!(log.contains(&reason), "it does not say why it stops: {log}");
    let status = running.process.wait(LIMIT)?;
    ensure!(status.code() == Some(1), "it ended with {}", crate::process::describe(status));
    Ok(())
}

fn set_reserve(running: &Running, bytes: u64) -> Result<()> {
    let change = format!("{RESERVE}={bytes}");
    client(running.address(), &["config", "set", "broker/1", &change], "").map(drop)
}

fn count(running: &Running, words: &str) -> Result<usize> {
    Ok(running.log()?.matches(words).count())
}

const IS_FULL: &str = "the disk is full: clients' records are refused";
const IS_ROOMY: &str = "the disk has room again";

fn reserve(directory: &Path) -> Result<()> {
    let directories = two(directory);
    let running = Running::start(serve_two(directory)?, directory)?;
    create_orders(&running, &directories)?;
    write_ok(&running, "orders", 0, "a")?;
    // More than any disk has.
    set_reserve(&running, 1 << 60)?;
    for partition in [0, 1, 0] {
        write_refused(&running, "orders", partition)?;
    }
    ensure!(
        count(&running, IS_FULL)? == 2,
        "it is said once of each directory:\n{}",
        running.log()?
    );
    let metrics = get(&running.ready.http, "/metrics")?.1;
    let full =
        format!("ottla_log_directory_full{{directory=\"{}\"}} 1\n", directories[0].display());
    ensure!(metrics.contains(&full), "{full} is not in {metrics}");
    ensure!(read(&running, "orders", 0)? == "a\n", "what was written is not read");
    client(running.address(), &["topic", "create", "small"], "")?;
    client(running.address(), &["topic", "delete", "small"], "")?;
    set_reserve(&running, 1)?;
    write_ok(&running, "orders", 0, "b")?;
    write_ok(&running, "orders", 1, "c")?;
    ensure!(count(&running, IS_ROOMY)? == 2, "it is said once of each directory");
    ensure!(read(&running, "orders", 0)? == "a\nb\n", "partition 0 has other records");
    Ok(())
}

/// `ottla serve` with its data on a disk of 24 MiB, a third of which is reserved.
fn serve_small(directory: &Path, more: &[&str]) -> Result<Command> {
    let disk = directory.join("disk");
    fs::create_dir_all(&disk)?;
    let log_dirs = format!("log.dirs={}", disk.join("data").display());
    let mut broker = serve(&["--listen", "127.0.0.1:0", "--set", &log_dirs])?;
    broker.args(["--set", &format!("{RESERVE}=8388608")]);
    broker.args(["--set", "log.segment.delete.delay.ms=0"]);
    broker.args(["--set", "offsets.topic.num.partitions=1"]);
    broker.args(more.iter().flat_map(|setting| ["--set", setting]));
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o size=24m tmpfs "$1" && shift && exec "$@""#;
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(broker.get_program());
    command.args(broker.get_args().map(OsString::from));
    Ok(command)
}

/// A record that takes most of a segment of a mebibyte.
const MEGABYTE: &[u8] = &[b'x'; 900_000];

/// Writes records until there is no room for one more; says how many.
fn fill_up(running: &Running) -> Result<u32> {
    let mut written = 0;
    while write(running, "ballast", 0, MEGABYTE)? == ErrorCode::NONE {
        written += 1;
        ensure!(written < 24, "24 MiB hold more than {written} MB");
    }
    ensure!(written >= 12, "only {written} MB fit beside the reserve");
    write_refused(running, "kept", 0)?;
    ensure!(count(running, IS_FULL)? == 1, "it is not said once:\n{}", running.log()?);
    Ok(written)
}

/// Once there is room again, without anybody's doing more for it.
fn write_with_room(running: &Running, topic: &str, value: &[u8]) -> Result<()> {
    eventually(Duration::from_secs(10), || {
        Ok((write(running, topic, 0, value)? == ErrorCode::NONE).then_some(()))
    })
    .context("there is room, and records are still refused")
}

fn full(directory: &Path) -> Result<()> {
    let running = Running::start(serve_small(directory, &[])?, directory)?;
    for topic in ["kept", "ballast"] {
        client(running.address(), &["topic", "create", topic], "")?;
    }
    write_ok(&running, "kept", 0, "first")?;
    fill_up(&running)?;

    // Everything else goes on: groups commit, topics come and go, records are read.
    let grouped = ["consume", "kept", "--group", "g", "--until-end"];
    ensure!(client(running.address(), &grouped, "")?.stdout_text() == "first\n", "nothing is read");
    let again = client(running.address(), &grouped, "")?.stdout_text();
    ensure!(again.is_empty(), "what the group has committed is forgotten: {again}");
    client(running.address(), &["topic", "delete", "ballast"], "")?;
    write_with_room(&running, "kept", b"second")?;
    ensure!(count(&running, IS_ROOMY)? == 1, "it is not said once:\n{}", running.log()?);
    ensure!(read(&running, "kept", 0)? == "first\nsecond\n", "the records are others");
    ensure!(get(&running.ready.http, "/readyz")? == (200, "ready\n".to_owned()));
    Ok(())
}

/// The next retention run takes away what was deleted.
fn trimmed(directory: &Path) -> Result<()> {
    let soon = [
        "log.initial.task.delay.ms=0",
        "log.retention.check.interval.ms=200",
        "log.retention.ms=-1",
    ];
    let running = Running::start(serve_small(directory, &soon)?, directory)?;
    client(running.address(), &["topic", "create", "kept"], "")?;
    let small_segments = ["--config", "segment.bytes=1048576"];
    let create = [&["topic", "create", "ballast"][..], &small_segments].concat();
    client(running.address(), &create, "")?;
    write_ok(&running, "kept", 0, "first")?;
    let written = fill_up(&running)?;
    let all = DeleteRecordsTopic {
        name: "ballast".into(),
        partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }],
    };
    let request = DeleteRecordsRequest { topics: vec![all], timeout_ms: 10_000 };
    let answer = ask(running.address(), &request, 2)?;
    let mut answers = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let code = answers.next().context("no answer for the partition")?.error_code;
    ensure!(code == ErrorCode::NONE, "records can't be deleted: {code}");
    // More than any smaller thing that goes could make room for.
    for _ in 0..5 {
        write_with_room(&running, "ballast", MEGABYTE)?;
    }
    write_ok(&running, "kept", 0, "second")?;
    ensure!(count(&running, IS_ROOMY)? > 0, "it is not said:\n{}", running.log()?);
    ensure!(read(&running, "kept", 0)? == "first\nsecond\n", "the records are others");
    let offsets = ["consume", "ballast", "--until-end", "--format", "%o"];
    let offsets = client(running.address(), &offsets, "")?.stdout_text();
    let expected: String = (written..written + 5).map(|offset| format!("{offset}\n")).collect();
    ensure!(offsets == expected, "{written} records were deleted, and these are read: {offsets}");
    Ok(())
}

/// Metadata is written from its reserve, and waits when that is gone, too.
fn filled(directory: &Path) -> Result<()> {
    const GIVEN_UP: &str = "the reserve is given up to the metadata";
    const WAITING: &str = "decides and learns nothing about the cluster until there is room";
    let mut running = Running::start(serve_small(directory, &[])?, directory)?;
    client(running.address(), &["topic", "create", "kept"], "")?;
    write_ok(&running, "kept", 0, "first")?;
    let filler = filler(&running, directory)?;
    // More than the rest of a block that the log has already.
    let large = vec![b'x'; 64 << 10];
    let code = write(&running, "kept", 0, &large)?;
    ensure!(code == ErrorCode::KAFKA_STORAGE_ERROR, "a record without room: {code}");
    // It is decided, and its log is made later.
    client(running.address(), &["topic", "create", "late"], "")?;
    write_refused(&running, "late", 0)?;
    let mut decided = 0;
    while count(&running, GIVEN_UP)? == 0 {
        ensure!(decided < 200, "the metadata has never lacked room");
        let code = set_retention(&running, decided)?;
        ensure!(code == ErrorCode::NONE, "a decision without room: {code}");
        decided += 1;
    }
    ensure!(count(&running, WAITING)? == 0, "it waits in spite of the reserve");

    take_all(&filler)?;
    let mut waiting = Vec::new();
    eventually(LIMIT, || {
        let (address, next) = (running.address().to_owned(), decided);
        decided += 1;
        waiting.push(thread::spawn(move || ask(&address, &retention(next), 1)));
        Ok((count(&running, WAITING)? > 0).then_some(()))
    })
    .context("the metadata has room without the reserve")?;
    ensure!(read(&running, "kept", 0)? == "first\n", "what was written is not read");
    ensure!(running.process.is_running(), "it has ended");
    fs::remove_file(&filler)?;
    for asked in waiting {
        // Whoever has waited too long asks again.
        asked.join().map_err(|_| anyhow!("a client panicked"))?.ok();
    }
    let code = set_retention(&running, 1)?;
    ensure!(code == ErrorCode::NONE, "a decision with room again: {code}");
    running.wait_for("the disk has room for the metadata again")?;
    write_with_room(&running, "kept", b"second")?;
    ensure!(read(&running, "kept", 0)? == "first\nsecond\n", "the records are others");
    eventually(Duration::from_secs(10), || {
        Ok((write(&running, "late", 0, b"third")? == ErrorCode::NONE).then_some(()))
    })
    .context("the log of a topic that was created meanwhile is still missing")?;
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop cleanly");
    Ok(())
}

/// A file on the broker's own disk, which takes all of it.
fn filler(running: &Running, directory: &Path) -> Result<PathBuf> {
    let disk = fs::canonicalize(directory.join("disk"))?;
    let seen = PathBuf::from(format!("/proc/{}/root", running.process.pid()));
    let filler = seen.join(disk.strip_prefix("/")?).join("filler");
    take_all(&filler)?;
    Ok(filler)
}

fn set_retention(running: &Running, days: i64) -> Result<ErrorCode> {
    let response = ask(running.address(), &retention(days), 1)?;
    response.responses.first().map(|it| it.error_code).context("no answer for the topic")
}

/// Of a resource that is configured.
const TOPIC: i8 = 2;

/// Something small to decide, another one each time.
fn retention(days: i64) -> IncrementalAlterConfigsRequest {
    let value = Some((days * 86_400_000 + 1).to_string().into());
    let config = AlterableConfig { name: "retention.ms".into(), config_operation: 0, value };
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "kept".into(),
        configs: vec![config],
    };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

fn alter(running: &Running, path: &Path, topic: &str, partition: i32) -> Result<ErrorCode> {
    let topics = vec![AlterReplicaLogDirTopic { name: topic.into(), partitions: vec![partition] }];
    let dirs = vec![AlterReplicaLogDir { path: path.display().to_string().into(), topics }];
    let response = ask(running.address(), &AlterReplicaLogDirsRequest { dirs }, 2)?;
    let answers = response.results.iter().flat_map(|topic| &topic.partitions);
    answers.map(|it| it.error_code).next().context("no answer for the partition")
}

/// Where a partition of `orders` is, and how far a copy of it is behind.
fn whereabouts(running: &Running, partition: i32) -> Result<(Vec<PathBuf>, Option<i64>)> {
    let request = DescribeLogDirsRequest { topics: None };
    let (mut found, mut lag) = (Vec::new(), None);
    for directory in ask(running.address(), &request, 4)?.results {
        let topics = directory.topics.iter().filter(|topic| &*topic.name == "orders");
        for it in topics.flat_map(|topic| &topic.partitions) {
            if it.partition_index == partition && it.is_future_key {
                lag = Some(it.offset_lag);
            } else if it.partition_index == partition {
                found.push(PathBuf::from(&*directory.log_dir));
            }
        }
    }
    Ok((found, lag))
}

fn has_moved(running: &Running, partition: i32, to: &Path) -> Result<bool> {
    Ok(whereabouts(running, partition)? == (vec![to.to_owned()], None))
}

fn moved(directory: &Path) -> Result<()> {
    let directories @ [a, b] = &two(directory);
    let running = Running::start(serve_two(directory)?, directory)?;
    create_orders(&running, directories)?;
    let mut expected = String::new();
    let mut write_next = |running: &Running| {
        let value = format!("{:0>60000}", expected.len());
        expected.push_str(&value);
        expected.push('\n');
        write_ok(running, "orders", 0, &value).map(|()| expected.clone())
    };
    for _ in 0..30 {
        write_next(&running)?;
    }
    for (path, topic, code) in [
        (Path::new("/nowhere"), "orders", ErrorCode::LOG_DIR_NOT_FOUND),
        (b, "nobody-made-this", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (a, "orders", ErrorCode::NONE),
    ] {
        let found = alter(&running, path, topic, 0)?;
        ensure!(found == code, "{topic} to {}: {found}", path.display());
    }
    ensure!(has_moved(&running, 0, a)?, "it was to stay");

    // Written to on its way.
    ensure!(alter(&running, b, "orders", 0)? == ErrorCode::NONE, "it does not begin to move");
    eventually(LIMIT, || {
        write_next(&running)?;
        Ok(has_moved(&running, 0, b)?.then_some(()))
    })
    .context("it does not arrive")?;
    let written = write_next(&running)?;
    ensure!(read(&running, "orders", 0)? == written, "what is read is not what was written");
    ensure!(!a.join("orders-0").exists() && b.join("orders-0").is_dir(), "it is elsewhere");

    // Killed on its way.
    let throttle = format!("{THROTTLE}=1000000");
    client(running.address(), &["config", "set", "broker/1", &throttle], "")?;
    ensure!(alter(&running, a, "orders", 0)? == ErrorCode::NONE, "it does not begin to move");
    eventually(LIMIT, || {
        let (found, lag) = whereabouts(&running, 0)?;
        Ok((found == [b.clone()] && lag.is_some_and(|lag| lag > 0)).then_some(()))
    })
    .context("it is not on its way")?;
    running.process.kill()?;
    let running = restarted(directory)?;
    write_next(&running)?;
    client(running.address(), &["config", "delete", "broker/1", THROTTLE], "")?;
    eventually(LIMIT, || Ok(has_moved(&running, 0, a)?.then_some(())))
        .context("the move does not begin again")?;
    let written = write_next(&running)?;
    ensure!(read(&running, "orders", 0)? == written, "what is read is not what was written");
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop cleanly");
    let running = Running::start(serve_two(directory)?, directory)?;
    ensure!(read(&running, "orders", 0)? == written, "what is read is not what was written");
    Ok(())
}

fn deleted(directory: &Path) -> Result<()> {
    let directories @ [a, b] = &two(directory);
    let mut command = serve_two(directory)?;
    command.args(["--set", &format!("{THROTTLE}=1000")]);
    command.args(["--set", "log.segment.delete.delay.ms=0"]);
    let running = Running::start(command, directory)?;
    create_orders(&running, directories)?;
    for _ in 0..3 {
        write_ok(&running, "orders", 0, &"x".repeat(800_000))?;
    }
    ensure!(alter(&running, b, "orders", 0)? == ErrorCode::NONE, "it does not begin to move");
    let names = || -> Result<Vec<String>> {
        let mut names = Vec::new();
        for directory in [a, b] {
            let entries = fs::read_dir(directory)?.filter_map(Result::ok);
            names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        names.retain(|name| name.starts_with("orders"));
        Ok(names)
    };
    ensure!(names()?.iter().any(|name| name.ends_with("-future")), "{:?}", names()?);
    // From one place to another, which is where it is.
    ensure!(alter(&running, a, "orders", 0)? == ErrorCode::NONE, "it does not stay");
    ensure!(!names()?.iter().any(|name| name.ends_with("-future")), "{:?}", names()?);
    ensure!(alter(&running, b, "orders", 0)? == ErrorCode::NONE, "it does not begin to move");
    client(running.address(), &["topic", "delete", "orders"], "")?;
    eventually(LIMIT, || Ok(names()?.is_empty().then_some(())))
        .with_context(|| format!("{:?} are left", names().unwrap_or_default()))?;
    client(running.address(), &["topic", "create", "orders"], "")?;
    write_ok(&running, "orders", 0, "anew")?;
    ensure!(read(&running, "orders", 0)? == "anew\n", "it holds other records");
    Ok(())
}
