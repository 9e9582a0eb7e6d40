//! kcat, the command line client that people try a broker with first (shell).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::session::{Session, eventually, now_ms};
use crate::process::{Finished, run_ok};

const LIMIT: Duration = Duration::from_secs(30);
const NEEDS: &[&str] = &["kcat"];

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let name = format!("kcat: keys, headers and values come back, codec {codec}");
        tests.push(Test::new(name, NEEDS, move |session| round_trip(session, codec)));
    }
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("kcat: {sentence}"), NEEDS, run)
    };
    tests.extend([
        test("-Z writes empty keys and values as null", nulls),
        test("-L shows the broker, the topic and its leader", metadata).of_one(),
        test("-Q finds offsets by timestamp, from the beginning and at the end", query),
        test("-o reads from an offset, from the end and between two times", from_offsets),
        test("following the end of a topic, a record arrives as soon as it is written", follow),
        test("what was written before kill -9 is read after it", kill),
    ]);
    tests
}

fn kcat(session: &Session, arguments: &[&str], input: &[u8]) -> Result<Finished> {
    let mut command = Command::new("kcat");
    command.args(["-b", &session.bootstrap(), "-m", "20"]).args(arguments);
    run_ok(command, input, LIMIT)
}

fn read(session: &Session, topic: &str, format: &str, more: &[&str]) -> Result<String> {
    let mut arguments = vec!["-C", "-t", topic, "-e", "-q", "-f", format];
    arguments.extend(more);
    Ok(kcat(session, &arguments, b"")?.stdout_text())
}

/// Writes through automatic topic creation: the topic's first mention is this.
fn write(session: &Session, topic: &str, lines: &str, more: &[&str]) -> Result<()> {
    let mut arguments = vec!["-P", "-t", topic];
    arguments.extend(more);
    kcat(session, &arguments, lines.as_bytes()).map(drop)
}

fn round_trip(session: &mut Session, codec: &str) -> Result<()> {
    let topic = session.new_topic(&format!("kcat-{codec}"));
    let lines: String = (0..300).map(|i| format!("key {i}:value {i} of many alike\n")).collect();
    let options = ["-K:", "-z", codec, "-H", "first=1", "-H", "second=two", "-p", "0"];
    write(session, &topic, &lines, &options)?;
    let read = read(session, &topic, "%p %o %h %k:%s\n", &["-o", "beginning"])?;
    let expected: String = (0..300)
        .map(|i| format!("0 {i} first=1,second=two key {i}:value {i} of many alike\n"))
        .collect();
    ensure!(read == expected, "read {:.300}…, written {:.300}…", read, expected);
    Ok(())
}

fn nulls(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-nulls");
    write(session, &topic, "key:\n:value\nkey:value\n", &["-K:", "-Z", "-p", "0"])?;
    let read = read(session, &topic, "%K %S\n", &["-o", "beginning"])?;
    ensure!(read == "3 -1\n-1 5\n3 5\n", "lengths are {read:?}");
    Ok(())
}

fn metadata(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-metadata");
    write(session, &topic, "one\n", &[])?;
    let shown = kcat(session, &["-L"], b"")?.stdout_text();
    let address = session.bootstrap();
    let expected = [
        "1 brokers:".to_owned(),
        format!("broker 1 at {address}"),
        format!("topic \"{topic}\" with 1 partitions:"),
        "partition 0, leader 1, replicas: 1, isrs: 1".to_owned(),
    ];
    for line in expected {
        ensure!(shown.contains(&line), "kcat -L shows no {line:?}:\n{shown}");
    }
    Ok(())
}

fn query(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-query");
    let before = now_ms();
    write(session, &topic, "a\nb\nc\n", &["-p", "0"])?;
    let after = now_ms() + 60_000;
    let expectations = [(before, "0"), (after, "-1"), (-1, "3"), (-2, "0")];
    for (time, expected) in expectations {
        let asked = format!("{topic}:0:{time}");
        let shown = kcat(session, &["-Q", "-t", &asked], b"")?.stdout_text();
        let wanted = format!("{topic} [0] offset {expected}");
        ensure!(shown.trim() == wanted, "for {time}: {:?}, not {wanted:?}", shown.trim());
    }
    Ok(())
}

fn from_offsets(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-from");
    let lines: String = (0..10).map(|i| format!("{i}\n")).collect();
    write(session, &topic, &lines, &["-p", "0"])?;
    let (start, end) = (format!("s@{}", now_ms() - 60_000), format!("e@{}", now_ms() + 60_000));
    let expectations: [(&[&str], &str); 4] = [
        (&["-o", "7"], "7 8 9 "),
        (&["-o", "-2"], "8 9 "),
        (&["-o", "beginning", "-c", "3"], "0 1 2 "),
        (&["-o", &start, "-o", &end], "0 1 2 3 4 5 6 7 8 9 "),
    ];
    for (options, expected) in expectations {
        let mut all = vec!["-p", "0"];
        all.extend(options);
        let read = read(session, &topic, "%s ", &all)?;
        ensure!(read == expected, "{options:?} reads {read:?}, not {expected:?}");
    }
    Ok(())
}

/// The reader ends after one record; what it waits for is written only once it waits.
fn follow(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-follow");
    write(session, &topic, "old\n", &["-p", "0"])?;
    let mut command = Command::new("kcat");
    command.args(["-b", &session.bootstrap(), "-C", "-t", &topic, "-o", "end", "-c", "1", "-u"]);
    let log = session.directory().join("kcat-follow.log");
    let mut reader = crate::process::Process::spawn("kcat", command, &log)?;
    // kcat says so on standard error once it stands at the end.
    eventually(LIMIT, || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said.contains("Reached end of topic").then_some(()))
    })?;
    write(session, &topic, "new\n", &["-p", "0"])?;
    reader
        .wait_for_line(LIMIT, |line| (line == "new").then_some(()))
        .context("the record did not arrive")?;
    Ok(())
}

fn kill(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("kcat-kill");
    let lines: String = (0..1000).map(|i| format!("key {i}:value {i}\n")).collect();
    write(session, &topic, &lines, &["-K:", "-z", "lz4", "-p", "0", "-X", "acks=all"])?;
    session.broker.kill9()?;
    session.broker.restart()?;
    // One of three that leads anew shows nothing until the others have told what they have (KIP-207).
    let whole = eventually(LIMIT, || {
        let read = read(session, &topic, "%k:%s\n", &["-o", "beginning"])?;
        ensure!(lines.starts_with(&read), "what came back begins with {read:.300}");
        Ok((read == lines).then_some(()))
    });
    whole.context("not all lines came back")
}
