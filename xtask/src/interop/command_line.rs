//! Ottla's own client commands, against Ottla and against Apache Kafka (shell).
//!
//! What `ottla produce` writes is read by somebody else's client, and what that one writes by `ottla consume`.

mod administration;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Test;
use super::adapter::{Library, Writing};
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::ottla;
use crate::process::{Finished, Process, describe, run};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn tests() -> Vec<Test> {
    let with_python = |sentence: &str, run: fn(&mut Session) -> Result<()>| Test {
        needs: Library::Confluent.needs(),
        ..test(sentence, run)
    };
    let mut tests = vec![
        test("topics are created, listed, described and deleted", topics).of_one(),
        test("topics as JSON", topics_as_json).of_one(),
        test("exit codes tell failures apart, and errors name the cure", exit_codes).of_one(),
        with_python("produce writes keys, headers and nulls to the partition it is told", produce),
        with_python("produce compresses, and waits for whom it is told", produce_variously),
        test("produce leaves out what is too large, and says which lines", produce_too_large),
        with_python("consume prints each part of a record, as text and as JSON", consume),
        with_python("consume begins at the beginning, the end, an offset or a time", consume_from),
        test("consume follows the end of a topic until it is interrupted", follow),
        test("consume ends when nobody reads what it prints, alone and in a group", reader_leaves),
        test("cluster info names brokers, controller and features", cluster_info).of_one(),
        test("completions are scripts of the shells", completions),
    ];
    tests.extend(administration::tests());
    tests
}

fn test(sentence: &str, run: fn(&mut Session) -> Result<()>) -> Test {
    Test::new(format!("command line: {sentence}"), &[], run)
}

pub(super) fn ottla(session: &Session, arguments: &[&str], input: &str) -> Result<Finished> {
    let mut command = Command::new(ottla::binary()?);
    command.args(arguments).env("OTTLA_BOOTSTRAP", session.bootstrap());
    run(command, input.as_bytes(), LIMIT)
}

/// What it prints; an exit code but 0 is an error.
pub(super) fn done(session: &Session, arguments: &[&str], input: &str) -> Result<String> {
    let finished = ottla(session, arguments, input)?;
    let (out, err) = (finished.stdout_text(), finished.stderr_text());
    let ended = describe(finished.status);
    ensure!(finished.status.success(), "ottla {arguments:?}: {ended}\n{out}{err}");
    Ok(out)
}

pub(super) fn done_as_json(session: &Session, arguments: &[&str]) -> Result<Value> {
    let out = done(session, &[arguments, &["--output", "json"]].concat(), "")?;
    serde_json::from_str(&out).with_context(|| format!("not JSON: {out}"))
}

/// What it says on standard error when it ends with this code.
pub(super) fn fails(session: &Session, arguments: &[&str], code: i32) -> Result<String> {
    let finished = ottla(session, arguments, "")?;
    let (out, err) = (finished.stdout_text(), finished.stderr_text());
    let ended = describe(finished.status);
    ensure!(finished.status.code() == Some(code), "ottla {arguments:?}: {ended}\n{out}{err}");
    Ok(err)
}

pub(super) fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing: {text}");
    }
    Ok(())
}

/// What stands at a place such as `/brokers/0/host`.
pub(super) fn at<'a>(value: &'a Value, place: &str) -> Result<&'a Value> {
    value.pointer(place).with_context(|| format!("nothing at {place} in {value}"))
}

/// A line of a table, its columns apart by one space.
fn row<'a>(table: &'a str, first: &str) -> Result<Vec<&'a str>> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.first() == Some(&first)).with_context(|| format!("no {first} in:\n{table}"))
}

/// Apache Kafka answers before the broker knows a new topic.
pub(super) fn create(session: &mut Session, stem: &str, partitions: &str) -> Result<String> {
    let topic = session.new_topic(stem);
    let said = done(session, &["topic", "create", &topic, "--partitions", partitions], "")?;
    contains(&said, &[&format!("Created topic {topic}")])?;
    let is_led = |partitions: &Value| {
        let partitions = partitions.as_array().map_or(&[][..], Vec::as_slice);
        let has_end = |it: &Value| it.get("latest").is_some_and(Value::is_number);
        !partitions.is_empty() && partitions.iter().all(has_end)
    };
    eventually(LIMIT, || {
        let finished = ottla(session, &["topic", "describe", &topic, "-o", "json"], "")?;
        let described: Value = serde_json::from_slice(&finished.stdout).unwrap_or_default();
        Ok(described.pointer("/0/partitions").is_some_and(is_led).then_some(()))
    })?;
    Ok(topic)
}

fn topics(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-topics", "3")?;
    ensure!(row(&done(session, &["topic", "list"], "")?, &topic)? == [&*topic, "3", "1"]);
    let described = done(session, &["topic", "describe", &topic], "")?;
    contains(&described, &[&format!("Topic {topic} (id ")])?;
    ensure!(row(&described, "2")? == ["2", "1", "1", "1", "0", "0"], "{described}");
    done(session, &["topic", "create", &topic, "--if-not-exists"], "")?;
    let said = done(session, &["topic", "delete", &topic], "")?;
    ensure!(said == format!("Deleted topic {topic}.\n"), "it says {said}");
    eventually(LIMIT, || {
        let listed = done(session, &["topic", "list"], "")?;
        Ok(row(&listed, &topic).is_err().then_some(()))
    })?;
    done(session, &["topic", "delete", &topic, "--if-exists"], "").map(drop)
}

fn topics_as_json(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-json");
    let config = "retention.ms=123456";
    let created = ["topic", "create", &topic, "-p", "2", "-r", "1", "--config", config];
    let created = done_as_json(session, &created)?;
    let id = at(&created, "/topic_id")?.as_str().context("no id")?.to_owned();
    let expected = json!({
        "name": topic, "created": true, "topic_id": id, "partitions": 2, "replication_factor": 1,
    });
    ensure!(created == expected, "{created}");
    let listed = eventually(LIMIT, || {
        let listed = done_as_json(session, &["topic", "list"])?;
        let mut all = listed.as_array().into_iter().flatten();
        Ok(all.find(|it| it.get("name").is_some_and(|name| name == &*topic)).cloned())
    })?;
    let expected = json!({
        "name": topic, "topic_id": id, "partitions": 2, "replication_factor": 1, "internal": false,
    });
    ensure!(listed == expected, "{listed}");
    let described = done_as_json(session, &["topic", "describe", &topic])?;
    let partitions = at(&described, "/0/partitions")?.as_array().context("no partitions")?;
    ensure!(
        partitions.len() == 2 && partitions.iter().all(|it| it.get("isr") == Some(&json!([1])))
    );
    // Null where the cluster does not tell.
    if let Some(configs) = at(&described, "/0/configs")?.as_array() {
        let own = |it: &&Value| {
            let said = (it.get("name").and_then(Value::as_str), it.get("value"));
            said == (Some("retention.ms"), Some(&json!("123456")))
        };
        ensure!(configs.iter().filter(own).count() == 1, "{config} is missing: {described}");
    }
    let deleted = done_as_json(session, &["topic", "delete", &topic])?;
    ensure!(deleted == json!([topic]), "{deleted}");
    Ok(())
}

fn exit_codes(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-exit", "1")?;
    let missing = session.new_topic("cli-missing");
    contains(&fails(session, &["topic", "create", &topic], 5)?, &["error: ", "--if-not-exists"])?;
    let said = fails(session, &["consume", &missing], 4)?;
    contains(&said, &[&missing, &format!("ottla topic create {missing}"), "ottla topic list"])?;
    contains(&fails(session, &["topic", "delete", &missing], 4)?, &["--if-exists"])?;
    contains(&fails(session, &["topic", "describe", &missing], 4)?, &[&missing])?;
    let said = fails(session, &["consume", &topic, "--partition", "7"], 4)?;
    contains(&said, &[&format!("ottla topic describe {topic}")])?;
    contains(&fails(session, &["topic", "create", "a b"], 1)?, &["error: "])?;
    let said = fails(session, &["topic", "create", &missing, "-r", "3"], 1)?;
    contains(&said, &["ottla cluster info"])?;
    let nobody = ["topic", "list", "--bootstrap", "127.0.0.1:1", "--timeout", "2s"];
    contains(&fails(session, &nobody, 3)?, &["127.0.0.1:1", "ottla serve", "--bootstrap"])?;
    contains(&fails(session, &["produce", &topic, "--acks", "most"], 2)?, &["most", "all"])?;
    contains(&fails(session, &["consume", &topic, "--format", "%x"], 2)?, &["%x", "%k"])?;
    contains(&fails(session, &["consume", &topic, "--from", "soon"], 2)?, &["soon", "beginning"])?;
    Ok(())
}

fn produce(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-produce", "3")?;
    let mut command = vec!["produce", &topic, "--key-separator", ":", "--null", "NULL"];
    command.extend(["--partition", "2", "--header", "source=shop", "--header", "n="]);
    let lines = "7:one, Öttla\nno key\n:empty key\n8:NULL\n\n";
    let before = now_ms();
    done(session, &command, lines)?;
    let read = session.adapter(Library::Confluent).consume(&topic, 2, 0, 5)?;
    let expected: [(Option<&str>, Option<&str>); 5] = [
        (Some("7"), Some("one, Öttla")),
        (None, Some("no key")),
        (Some(""), Some("empty key")),
        (Some("8"), None),
        (None, Some("")),
    ];
    ensure!(read.len() == expected.len(), "{} records are there", read.len());
    for ((_, record), (key, value)) in read.iter().zip(expected) {
        let mut wanted =
            Record::new(2, record.timestamp, key.map(str::as_bytes), value.map(str::as_bytes));
        wanted = wanted.with_header("source", Some(b"shop")).with_header("n", Some(b""));
        if let Some(difference) = wanted.difference(record) {
            anyhow::bail!("{key:?}: {difference}");
        }
        ensure!((before..=now_ms()).contains(&record.timestamp), "at {}", record.timestamp);
    }
    Ok(())
}

/// Keys go where Kafka's Java client puts them, whatever else is chosen.
fn produce_variously(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-codecs", "3")?;
    let lines: String =
        (0..60).map(|i| format!("key {i}:value {i} {}\n", "x".repeat(200))).collect();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (codec, acks) in codecs.into_iter().zip(["all", "1", "0", "all", "1"]) {
        let command = ["produce", &topic, "-k", ":", "--compression", codec, "--acks", acks];
        done(session, &command, &lines)?;
    }
    let mut counts = Vec::new();
    for partition in 0..3 {
        // With acks=0 the command may end before the broker has stored anything.
        let found = eventually(LIMIT, || {
            let (_, high) = session.adapter(Library::Confluent).watermarks(&topic, partition)?;
            Ok((high > 0 && high % 5 == 0).then_some(high))
        })?;
        let count = usize::try_from(found)?;
        let read = session.adapter(Library::Confluent).consume(&topic, partition, 0, count)?;
        let key_of = |(_, record): &(i64, Record)| record.key.clone().unwrap_or_default();
        let keys: Vec<Vec<u8>> = read.iter().map(key_of).collect();
        let mut lives = keys.chunks(count / 5);
        let first = lives.next().unwrap_or_default();
        ensure!(lives.all(|life| life == first), "a key changed its partition");
        counts.push(count / 5);
    }
    ensure!(counts.iter().sum::<usize>() == 60, "{counts:?} records of 60 in the partitions");
    let produced = [&["produce", &topic][..], &["--output", "json"]].concat();
    let said: Value = serde_json::from_str(&done(session, &produced, "a\nb\n")?)?;
    ensure!(*at(&said, "/topic")? == *topic && *at(&said, "/records")? == 2, "{said}");
    Ok(())
}

fn produce_too_large(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-large");
    done(session, &["topic", "create", &topic, "--config", "max.message.bytes=2000"], "")?;
    let large = "x".repeat(3_000);
    let finished =
        ottla(session, &["produce", &topic], &format!("a\nb\n{large}\nc\n{large}\nd\n"))?;
    let (ended, said) = (describe(finished.status), finished.stderr_text());
    ensure!(finished.status.code() == Some(1), "{ended}: {said}");
    contains(&said, &["line 3 (3", "line 5 (3", "too large", "4 records stored"])?;
    let read = done(session, &["consume", &topic, "--until-end"], "")?;
    ensure!(read == "a\nb\nc\nd\n", "{read}");
    Ok(())
}

/// Three records whose times are ten seconds apart.
fn write_three(session: &mut Session, topic: &str) -> Result<i64> {
    let start = now_ms() - 60_000;
    let records = [
        Record::new(0, start, Some(b"k"), Some("größer".as_bytes())).with_header("a", Some(b"1")),
        Record::new(0, start + 10_000, None, Some(&[0xff, 0x00])),
        Record::new(0, start + 20_000, Some(b"gone"), None),
    ];
    session.write(Library::Confluent, topic, &records, Writing::default())?;
    Ok(start)
}

fn consume(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-consume", "2")?;
    let start = write_three(session, &topic)?;
    let format = "%t/%p/%o %T [%k] [%v] {%h} 100%%";
    let mut command = vec!["consume", &topic, "--until-end", "--format", format];
    command.extend(["--null", "NULL", "--partition", "0"]);
    let mut finished = ottla(session, &command, "")?;
    let line = |offset: i64, key: &str, value: &[u8], headers: &str| {
        let time = start + offset * 10_000;
        let before = format!("{topic}/0/{offset} {time} [{key}] [");
        let after = format!("] {{{headers}}} 100%\n");
        [before.as_bytes(), value, after.as_bytes()].concat()
    };
    let expected = [
        line(0, "k", "größer".as_bytes(), "a=1"),
        line(1, "NULL", &[0xff, 0x00], ""),
        line(2, "gone", b"NULL", ""),
    ];
    let printed = std::mem::take(&mut finished.stdout);
    ensure!(printed == expected.concat(), "{}", String::from_utf8_lossy(&printed));

    let printed = done(session, &["consume", &topic, "--json", "--count", "3"], "")?;
    let printed: Vec<Value> =
        printed.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("not JSON")?;
    let mut record = json!({
        "topic": topic, "partition": 0, "offset": 0, "timestamp": start,
        "timestamp_type": "CreateTime", "headers": [{"name": "a", "value": "1"}],
        "key": "k", "value": "größer",
    });
    ensure!(printed.first() == Some(&record), "{printed:?}");
    record = printed.get(1).cloned().unwrap_or_default();
    ensure!(
        *at(&record, "/value")? == "/wA=" && *at(&record, "/value_encoding")? == "base64",
        "{record}"
    );
    ensure!(at(&record, "/key")?.is_null() && record.get("key_encoding").is_none(), "{record}");
    let last = printed.get(2).context("three records were written")?;
    ensure!(at(last, "/value")?.is_null(), "{last}");
    Ok(())
}

fn consume_from(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-from", "2")?;
    let start = write_three(session, &topic)?;
    let time = |milliseconds: i64| format!("@{}", start + milliseconds);
    let (between, late) = (time(10_001), time(20_001));
    let cases: [(&str, &[i64]); 9] = [
        ("beginning", &[0, 1, 2]),
        ("end", &[]),
        ("1", &[1, 2]),
        ("3", &[]),
        ("-1", &[2]),
        ("-10", &[0, 1, 2]),
        (&between, &[2]),
        (&late, &[]),
        ("-55s", &[1, 2]),
    ];
    for (from, expected) in cases {
        let mut command = vec!["consume", &topic, "--partition", "0", "--from", from];
        command.extend(["--format", "%o", "--until-end"]);
        let printed = done(session, &command, "")?;
        let offsets: Vec<i64> = printed.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(offsets == expected, "--from {from}: {offsets:?}, not {expected:?}");
    }
    let none = ["consume", &topic, "--partition", "1", "--until-end"];
    ensure!(done(session, &none, "")?.is_empty(), "the other partition holds something");
    Ok(())
}

fn follow(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-follow", "1")?;
    done(session, &["produce", &topic], "old\n")?;
    let mut command = Command::new(ottla::binary()?);
    command.args(["consume", &topic, "--from", "end"]).env("OTTLA_BOOTSTRAP", session.bootstrap());
    let log = session.directory().join(format!("{topic}.log"));
    let mut consumer = Process::spawn("ottla consume", command, &log)?;
    // Whatever is written before the consumer knows where the end is, it will not see.
    eventually(LIMIT, || {
        done(session, &["produce", &topic], "first\n")?;
        Ok((lines_in(&log)? > 0).then_some(()))
    })?;
    done(session, &["produce", &topic], "last\n")?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let (_, line) = consumer.next_line(deadline)?;
        ensure!(line == "first" || line == "last", "it prints {line:?}");
        if line == "last" {
            break;
        }
    }
    consumer.send(Signal::INT);
    let status = consumer.wait(LIMIT)?;
    ensure!(status.success(), "an interrupt is no failure: {}", describe(status));
    Ok(())
}

/// As in `ottla consume orders | head -n 1`: no record comes whose writing would fail.
fn reader_leaves(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-head", "1")?;
    done(session, &["produce", &topic], "first\nsecond\n")?;
    for group in [None, Some(format!("{topic}-group"))] {
        let mut command = Command::new(ottla::binary()?);
        command.args(["consume", &topic]).env("OTTLA_BOOTSTRAP", session.bootstrap());
        command.args(group.iter().flat_map(|group| ["--group", group]));
        let mut consumer = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let read =
            BufReader::new(consumer.stdout.take().context("no output")?).read_line(&mut line);
        let ended = read.map_err(anyhow::Error::from).and_then(|_| {
            eventually(LIMIT, || Ok(consumer.try_wait()?)).context("it waits for records still")
        });
        if ended.is_err() {
            consumer.kill()?;
            consumer.wait()?;
        }
        let ended = ended?;
        ensure!(line == "first\n" && ended.success(), "{line:?}, {}", describe(ended));
    }
    Ok(())
}

fn lines_in(log: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(log).context("the log can't be read")?;
    Ok(text.lines().count())
}

fn cluster_info(session: &mut Session) -> Result<()> {
    let address = session.bootstrap();
    let told = done_as_json(session, &["cluster", "info"])?;
    let id = at(&told, "/cluster_id")?.as_str().context("no cluster id")?.to_owned();
    ensure!(*at(&told, "/controller")? == 1, "{told}");
    ensure!(at(&told, "/brokers")?.as_array().map(Vec::len) == Some(1), "{told}");
    let host = at(&told, "/brokers/0/host")?.as_str().unwrap_or_default();
    let port = at(&told, "/brokers/0/port")?;
    ensure!(format!("{host}:{port}") == address, "{told}");
    ensure!(
        *at(&told, "/brokers/0/id")? == 1 && *at(&told, "/brokers/0/fenced")? == false,
        "{told}"
    );
    let level = at(&told, "/features/metadata.version")?.as_i64();
    ensure!(level.is_some_and(|level| level > 0), "{told}");
    let shown = done(session, &["cluster", "info"], "")?;
    contains(&shown, &[&id, "metadata.version"])?;
    ensure!(row(&shown, "1")? == ["1", &*address, "-", "active", "controller"], "{shown}");
    Ok(())
}

fn completions(session: &mut Session) -> Result<()> {
    for (shell, words) in
        [("bash", "complete -F"), ("zsh", "#compdef ottla"), ("fish", "complete -c ottla")]
    {
        let script = done(session, &["completions", shell], "")?;
        contains(&script, &[words, "produce", "key-separator", "if-not-exists"])
            .with_context(|| shell.to_owned())?;
    }
    let script = done(session, &["completions", "bash"], "")?;
    // A shell that can't read the script complains.
    let mut bash = Command::new("bash");
    bash.args(["-n"]);
    let checked = run(bash, script.as_bytes(), LIMIT)?;
    ensure!(checked.status.success(), "bash: {}", checked.stderr_text());
    Ok(())
}
