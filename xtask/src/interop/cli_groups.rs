//! Ottla's own client commands as members and administrators of groups, against Ottla and against Apache Kafka (shell).
//!
//! Every record that a test writes says where it belongs, `r-PARTITION-NUMBER`, so that it can be told who printed it,
//! and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::Test;
use super::adapter::{Library, Writing};
use super::command_line::{at, contains, create, done, done_as_json, fails, ottla};
use super::fetch;
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::broker::Target;
use crate::process::{Process, describe, run};
use crate::{kafka, ottla};

/// A killed member is missed after 6 s, and Apache Kafka takes several to come back.
const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// The shortest session that brokers allow.
const SESSION: &str = "2s";

pub(super) fn tests() -> Vec<Test> {
    let test =
        |sentence: &str, needs: &'static [&'static str], run: fn(&mut Session) -> Result<()>| {
            Test::new(format!("command line: {sentence}"), needs, run).once_served("JoinGroup(11)")
        };
    let java = Library::Java.needs();
    vec![
        test(
            "a group goes on where it left off, and begins where it is told only once",
            &[],
            go_on,
        ),
        test("what cannot be written is not committed", &[], full_disk),
        test(
            "two members share the partitions, and one that leaves gives its part away",
            &[],
            share,
        ),
        test("a member that is killed is replaced, and nothing is lost", &[], killed_member),
        test("a member whose output nobody takes does not hold up the others", &[], stalled_output),
        test("what a group has committed survives kill -9 of the broker", &[], killed_broker),
        test("a member shares a group with kcat", &["kcat"], with_kcat),
        test("a member shares a group with Kafka's console consumer", java, with_console),
        test("a member shares a group of the newer protocol", java, with_newer)
            .once_served("ConsumerGroupHeartbeat(68)"),
        test("groups are listed, described and deleted", &[], administer).of_one(),
        test("groups refuse with a cure what cannot be done to them", &[], mistakes),
        test("offsets are reset as Kafka's own tool resets them", java, reset),
        test("offsets are exported, and read from files that Kafka's tool wrote", java, files),
    ]
}

/// A consumer that prints the records' values, and all that it has said so far.
struct Member {
    process: Process,
    log: PathBuf,
}

impl Member {
    fn spawn(session: &mut Session, command: Command) -> Result<Self> {
        let log = session.new_topic("member");
        let log = session.directory().join(format!("{log}.log"));
        Ok(Self { process: Process::spawn("a member", command, &log)?, log })
    }

    fn ottla(session: &mut Session, topic: &str, group: &str) -> Result<Self> {
        let mut command = Command::new(ottla::binary()?);
        command.args(["consume", topic, "--group", group, "--session-timeout", SESSION]);
        command.args(["--timeout", "90s"]).env("OTTLA_BOOTSTRAP", session.bootstrap());
        Self::spawn(session, command)
    }

    /// The records that it has printed, in order.
    fn printed(&self) -> Result<Vec<String>> {
        printed_in(&self.log)
    }

    fn interrupt(self) -> Result<()> {
        self.process.send(Signal::INT);
        let status = self.process.wait(LIMIT)?;
        ensure!(status.success(), "an interrupt is no failure: {}", describe(status));
        Ok(())
    }
}

fn printed_in(log: &Path) -> Result<Vec<String>> {
    let said = std::fs::read(log).with_context(|| format!("no {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    // The last line may be half written.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let records = whole.lines().filter(|line| line.starts_with("r-"));
    Ok(records.map(str::to_owned).collect())
}

/// These numbers in each partition.
fn records(numbers: Range<u32>) -> Vec<String> {
    let of_partition =
        |partition| numbers.clone().map(move |number| format!("r-{partition}-{number}"));
    (0..PARTITIONS).flat_map(of_partition).collect()
}

fn write(session: &Session, topic: &str, numbers: Range<u32>) -> Result<()> {
    for partition in 0..PARTITIONS {
        let mine = format!("r-{partition}-");
        let lines: Vec<_> =
            records(numbers.clone()).into_iter().filter(|it| it.starts_with(&mine)).collect();
        let partition = partition.to_string();
        done(session, &["produce", topic, "--partition", &partition], &(lines.join("\n") + "\n"))?;
    }
    Ok(())
}

/// Waits until the members have printed these records, and sees that each was printed once.
fn all_printed(members: &[&Member], expected: &[String]) -> Result<()> {
    let expected: BTreeSet<&String> = expected.iter().collect();
    let printed = eventually(LIMIT, || {
        let mut all = Vec::new();
        for member in members {
            all.extend(member.printed()?);
        }
        let complete = expected.iter().all(|record| all.contains(record));
        Ok(complete.then_some(all))
    })
    .context("not all records are printed")?;
    let once: BTreeSet<_> = printed.iter().collect();
    ensure!(once.len() == printed.len(), "some of {} records are printed twice", printed.len());
    Ok(())
}

fn described(session: &Session, group: &str) -> Result<Value> {
    let groups = done_as_json(session, &["group", "describe", group])?;
    Ok(at(&groups, "/0")?.clone())
}

/// How many partitions each member has, fewest first; nothing while the group is not stable.
fn shares(group: &Value) -> Option<Vec<usize>> {
    if group.get("state")? != "Stable" {
        return None;
    }
    let count = |member: &Value| {
        let topics = member.get("assignment")?.as_object()?;
        topics.values().map(|partitions| partitions.as_array().map(Vec::len)).sum()
    };
    let mut shares: Vec<usize> =
        group.get("members")?.as_array()?.iter().map(count).collect::<Option<_>>()?;
    shares.sort_unstable();
    Some(shares)
}

fn is_shared(session: &Session, group: &str, expected: &[usize]) -> Result<Value> {
    let mut last = Value::Null;
    eventually(LIMIT, || {
        // Until its first member has joined, there is no group.
        let described = ottla(session, &["group", "describe", group, "-o", "json"], "")?;
        let described: Value = serde_json::from_slice(&described.stdout).unwrap_or_default();
        last = described.pointer("/0").cloned().unwrap_or_default();
        Ok((shares(&last).as_deref() == Some(expected)).then(|| last.clone()))
    })
    .with_context(|| format!("not shared as {expected:?}: {last}"))
}

/// Everything that was printed is committed.
fn is_committed(session: &Session, group: &str) -> Result<()> {
    eventually(LIMIT, || {
        let group = described(session, group)?;
        let partitions = at(&group, "/partitions")?.as_array().context("no partitions")?;
        let done = |partition: &Value| partition.get("lag").is_some_and(|lag| lag == 0);
        Ok((partitions.len() == 4 && partitions.iter().all(done)).then_some(()))
    })
    .context("it is not committed")
}

/// Only Ottla tells; Apache Kafka passes over the question.
fn last_rebalance(session: &Session, group: &Value, expected: &str) -> Result<()> {
    let told = at(group, "/last_rebalance")?;
    match session.target() {
        Target::Kafka => ensure!(told.is_null(), "Apache Kafka tells {told}"),
        Target::Ottla => {
            let reason = told.get("reason").and_then(Value::as_str).unwrap_or_default();
            ensure!(reason.contains(expected), "it is not {expected:?}: {told}");
        }
    }
    Ok(())
}

fn go_on(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-go-on", "4")?;
    write(session, &topic, 0..5)?;
    let read = |session: &Session, more: &[&str]| {
        let command = [&["consume", &topic, "--group", &topic][..], more].concat();
        Ok::<_, anyhow::Error>(done(session, &command, "")?.lines().count())
    };
    ensure!(read(session, &["--count", "3"])? == 3);
    let rest = read(session, &["--until-end"])?;
    ensure!(rest == 17, "3 of 20 were printed, then {rest}");
    ensure!(read(session, &["--until-end"])? == 0, "it was all read");
    write(session, &topic, 5..7)?;
    let again = read(session, &["--until-end", "--from", "end"])?;
    ensure!(again == 8, "--from is for the first time, but {again} of 8 are read");
    write(session, &topic, 7..8)?;
    ensure!(read(session, &["--until-end", "--json"])? == 4);
    let other = ["consume", &topic, "--group", &format!("{topic}-other"), "--until-end"];
    ensure!(done(session, &[&other[..], &["--from", "-1"]].concat(), "")?.lines().count() == 4);
    let group = described(session, &topic)?;
    ensure!(*at(&group, "/state")? == "Empty" && *at(&group, "/lag")? == 0, "{group}");
    Ok(())
}

fn full_disk(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-full", "4")?;
    write(session, &topic, 0..5)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" consume \"$1\" --group \"$1\" --until-end > /dev/full"]);
    shell.arg(ottla::binary()?).arg(&topic).env("OTTLA_BOOTSTRAP", session.bootstrap());
    let finished = run(shell, b"", LIMIT)?;
    ensure!(finished.status.code() == Some(1), "{}", describe(finished.status));
    contains(&finished.stderr_text(), &["error: No space left on device"])?;
    let group = described(session, &topic)?;
    ensure!(*at(&group, "/partitions")? == Value::Array(Vec::new()), "{group}");
    let read = done(session, &["consume", &topic, "--group", &topic, "--until-end"], "")?;
    ensure!(read.lines().count() == 20, "of 20 records it prints {read}");
    Ok(())
}

fn share(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-share", "4")?;
    let first = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[4])?;
    let second = Member::ottla(session, &topic, &topic)?;
    let group = is_shared(session, &topic, &[2, 2])?;
    last_rebalance(session, &group, " joined")?;
    write(session, &topic, 0..10)?;
    all_printed(&[&first, &second], &records(0..10))?;
    ensure!(first.printed()?.len() == 20 && second.printed()?.len() == 20, "unfairly");
    let (log, kept) = (first.log.clone(), first.printed()?);
    first.interrupt()?;
    let group = is_shared(session, &topic, &[4])?;
    last_rebalance(session, &group, " left: interrupted")?;
    write(session, &topic, 10..20)?;
    let mut expected = records(0..20);
    expected.retain(|record| !kept.contains(record));
    all_printed(&[&second], &expected)?;
    ensure!(printed_in(&log)? == kept, "the one that left has printed more");
    is_committed(session, &topic)?;
    second.interrupt()?;
    let group = described(session, &topic)?;
    ensure!(*at(&group, "/state")? == "Empty", "{group}");
    Ok(())
}

fn killed_member(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-killed", "4")?;
    let first = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[4])?;
    let second = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[2, 2])?;
    write(session, &topic, 0..10)?;
    all_printed(&[&first, &second], &records(0..10))?;
    is_committed(session, &topic)?;
    let kept = first.printed()?;
    first.process.kill()?;
    write(session, &topic, 10..20)?;
    let mut expected = records(0..20);
    expected.retain(|record| !kept.contains(record));
    all_printed(&[&second], &expected)?;
    let group = is_shared(session, &topic, &[4])?;
    last_rebalance(session, &group, "was not heard from for 2000 ms")?;
    second.interrupt()
}

/// More than a pipe takes is waiting to be printed when the other member comes.
fn stalled_output(session: &mut Session) -> Result<()> {
    const EACH: usize = 2_000;
    let topic = create(session, "cli-stalled", "4")?;
    for partition in ["0", "1", "2", "3"] {
        let line = |number| format!("r-{partition}-{number} {}\n", "x".repeat(200));
        let lines: String = (0..EACH).map(line).collect();
        done(session, &["produce", &topic, "--partition", partition], &lines)?;
    }
    let mut shell = Command::new("sh");
    let pipe = "\"$0\" consume \"$1\" --group \"$1\" --session-timeout \"$2\" | sleep 600";
    shell.args(["-c", pipe]).arg(ottla::binary()?).args([&topic, SESSION]);
    shell.env("OTTLA_BOOTSTRAP", session.bootstrap());
    let stalled = Member::spawn(session, shell)?;
    is_shared(session, &topic, &[4])?;
    let other = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[2, 2])?;
    eventually(LIMIT, || Ok((other.printed()?.len() == 2 * EACH).then_some(())))
        .context("the other member does not print its part")?;
    other.interrupt()?;
    drop(stalled);
    Ok(())
}

/// The member lives on, and so does what it has committed; then both die.
fn killed_broker(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-survives", "4")?;
    let member = Member::ottla(session, &topic, &topic)?;
    write(session, &topic, 0..10)?;
    all_printed(&[&member], &records(0..10))?;
    is_committed(session, &topic)?;
    session.broker.kill9()?;
    session.broker.restart()?;
    write(session, &topic, 10..20)?;
    all_printed(&[&member], &records(0..20))?;
    is_committed(session, &topic)?;
    member.process.kill()?;
    session.broker.kill9()?;
    session.broker.restart()?;
    write(session, &topic, 20..21)?;
    let heir = Member::ottla(session, &topic, &topic)?;
    all_printed(&[&heir], &records(20..21))?;
    ensure!(heir.printed()?.len() == 4, "it read again what was committed");
    heir.interrupt()
}

/// Ours joins first, then the other, then ours goes and comes back: each side leads the group for a while.
fn shares_with(
    session: &mut Session,
    stem: &str,
    other: fn(&Session, &str) -> Result<Command>,
) -> Result<()> {
    let topic = create(session, stem, "4")?;
    let ours = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[4])?;
    let command = other(session, &topic)?;
    let theirs = Member::spawn(session, command)?;
    is_shared(session, &topic, &[2, 2])?;
    write(session, &topic, 0..10)?;
    all_printed(&[&ours, &theirs], &records(0..10))?;
    let kept = ours.printed()?;
    ensure!(kept.len() == 20, "ours has printed {} of 40", kept.len());
    ours.interrupt()?;
    is_shared(session, &topic, &[4])?;
    let ours = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[2, 2])?;
    write(session, &topic, 10..20)?;
    let mut expected = records(0..20);
    expected.retain(|record| !kept.contains(record));
    all_printed(&[&ours, &theirs], &expected)?;
    ensure!(ours.printed()?.len() == 20, "ours has printed {} of 40", ours.printed()?.len());
    ours.interrupt()
}

fn with_kcat(session: &mut Session) -> Result<()> {
    shares_with(session, "cli-kcat", |session, topic| {
        let mut command = Command::new("kcat");
        command.args(["-b", &session.bootstrap(), "-q", "-u", "-f", "%s\n"]);
        command.args(["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"]);
        command.args(["-X", "heartbeat.interval.ms=500", "-G", topic, topic]);
        Ok(command)
    })
}

fn console(session: &Session, topic: &str, properties: &[&str]) -> Result<Command> {
    let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
    command.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
    command.args(["--bootstrap-server", &session.bootstrap(), "--topic", topic]);
    command.args(["--group", topic, "--from-beginning"]);
    for property in properties {
        command.args(["--command-property", property]);
    }
    Ok(command)
}

fn with_console(session: &mut Session) -> Result<()> {
    shares_with(session, "cli-console", |session, topic| {
        console(session, topic, &["session.timeout.ms=6000", "heartbeat.interval.ms=500"])
    })
}

fn with_newer(session: &mut Session) -> Result<()> {
    shares_with(session, "cli-newer", |session, topic| {
        console(session, topic, &["group.protocol=consumer"])
    })
}

fn administer(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-admin", "4")?;
    write(session, &topic, 0..3)?;
    let group = format!("{topic} group");
    done(session, &["consume", &topic, "--group", &group, "--count", "2"], "")?;
    let member = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[4])?;

    let listed = |more: &[&str]| -> Result<BTreeMap<String, Value>> {
        let groups = done_as_json(session, &[&["group", "list"], more].concat())?;
        let groups = groups.as_array().context("no list")?.iter();
        let id = |group: &Value| group.get("group").and_then(Value::as_str).map(str::to_owned);
        Ok(groups.filter_map(|group| Some((id(group)?, group.clone()))).collect())
    };
    let all = listed(&[])?;
    let (stable, empty) =
        (all.get(&topic).context("missing")?, all.get(&group).context("missing")?);
    let told = |group: &Value| {
        let text = |name: &str| group.get(name).map(ToString::to_string).unwrap_or_default();
        format!("{} {} {} {}", text("state"), text("type"), text("protocol_type"), text("members"))
    };
    ensure!(told(stable) == r#""Stable" "classic" "consumer" 1"#, "{stable}");
    ensure!(told(empty) == r#""Empty" "classic" "consumer" 0"#, "{empty}");
    let only_empty = listed(&["--state", "empty,dead"])?;
    ensure!(only_empty.contains_key(&group) && !only_empty.contains_key(&topic), "{only_empty:?}");
    ensure!(listed(&["--type", "Classic"])?.contains_key(&topic));
    ensure!(!listed(&["--type", "share,streams"])?.contains_key(&topic));
    contains(&done(session, &["group", "list"], "")?, &["GROUP", "MEMBERS", &topic])?;

    is_committed(session, &topic)?;
    let shown = done(session, &["group", "describe", &topic, &group], "")?;
    let coordinator = format!("1 ({})", session.bootstrap());
    contains(
        &shown,
        &[&group, "Stable", "Empty", "range", &coordinator, "ottla-cli", "127.0.0.1"],
    )?;
    contains(&shown, &[&format!("{topic}:0,1,2,3")])?;
    let shown = done(session, &["group", "describe", &topic, "--members"], "")?;
    ensure!(shown.contains("ASSIGNMENT") && !shown.contains("LOG-END"), "{shown}");
    let shown = done(session, &["group", "describe", &topic, "--offsets"], "")?;
    ensure!(!shown.contains("ASSIGNMENT") && shown.contains("LOG-END"), "{shown}");
    let every = done_as_json(session, &["group", "describe", "--all-groups"])?;
    ensure!(every.as_array().map(Vec::len) == Some(all.len()), "{every}");

    let said = done(session, &["group", "delete", &group], "")?;
    ensure!(said == format!("Deleted group {group}.\n"), "it says {said}");
    ensure!(!listed(&[])?.contains_key(&group));
    member.interrupt()?;
    let deleted = done_as_json(session, &["group", "delete", &topic, &group, "--if-exists"])?;
    ensure!(deleted == serde_json::json!([topic]), "{deleted}");
    Ok(())
}

fn mistakes(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-mistakes", "4")?;
    let missing = session.new_topic("cli-no-group");
    for command in [["group", "describe", &missing], ["group", "delete", &missing]] {
        contains(&fails(session, &command, 4)?, &[&missing, "does not exist", "ottla group list"])?;
    }
    let reset = ["group", "reset-offsets", &missing, "--all-topics", "--to-earliest"];
    contains(&fails(session, &reset, 4)?, &["has committed nothing", "--topic"])?;
    let reset = ["group", "reset-offsets", &missing, "--topic", &topic, "--shift-by", "1"];
    contains(&fails(session, &reset, 1)?, &["cannot be shifted", "--to-offset"])?;
    let beyond = format!("{topic}:7");
    let reset = ["group", "reset-offsets", &missing, "--topic", &beyond, "--to-latest"];
    contains(&fails(session, &reset, 4)?, &["has no partition 7"])?;
    let nobody = ["consume", &missing, "--group", &missing];
    contains(&fails(session, &nobody, 4)?, &["ottla topic create"])?;
    let short = ["consume", &topic, "--group", &missing, "--session-timeout", "1ms"];
    contains(&fails(session, &short, 1)?, &["group.min.session.timeout.ms", "--session-timeout"])?;

    write(session, &topic, 0..1)?;
    let member = Member::ottla(session, &topic, &topic)?;
    is_shared(session, &topic, &[4])?;
    is_committed(session, &topic)?;
    contains(&fails(session, &["group", "delete", &topic], 1)?, &["NON_EMPTY_GROUP", "Stop its"])?;
    let reset = ["group", "reset-offsets", &topic, "--all-topics", "--to-earliest", "--execute"];
    contains(&fails(session, &reset, 1)?, &["1 member", "Stable", "group describe"])?;
    let forget = ["group", "delete-offsets", &topic, "--topic", &topic];
    contains(&fails(session, &forget, 1)?, &["GROUP_SUBSCRIBED_TO_TOPIC", "still reads"])?;
    is_committed(session, &topic)?;
    member.interrupt()?;
    let forgotten = done(session, &forget, "")?;
    contains(&forgotten, &["Forgotten", &topic])?;
    let group = ottla(session, &["group", "describe", &topic, "-o", "json"], "")?;
    let partitions: Value = serde_json::from_slice(&group.stdout).unwrap_or_default();
    let left = partitions.pointer("/0/partitions").and_then(Value::as_array).map(Vec::len);
    ensure!(left.is_none_or(|left| left == 0), "{partitions}");
    Ok(())
}

const GROUP_COMMAND: &str = "tools.consumer.group.ConsumerGroupCommand";

/// What Kafka's tool would set the offsets to, in order.
fn kafkas_plan(session: &mut Session, group: &str, how: &[&str]) -> Result<Vec<String>> {
    let bootstrap = session.bootstrap();
    let mut arguments = vec!["--bootstrap-server", &bootstrap, "--group", group];
    arguments.extend(["--reset-offsets", "--dry-run", "--export"]);
    arguments.extend(how);
    let output = session.adapter(Library::Java).tool(GROUP_COMMAND, &arguments, b"")?;
    ensure!(output.status == 0 && !output.out.contains("Error:"), "{how:?}: {output:?}");
    Ok(plan_in(&output.out))
}

/// The tool warns among the lines of its file.
fn plan_in(text: &str) -> Vec<String> {
    let is_plan = |line: &&str| line.split(',').count() == 3 && !line.contains(' ');
    let mut lines: Vec<String> = text.lines().filter(is_plan).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn our_plan(session: &Session, group: &str, how: &[&str]) -> Result<Vec<String>> {
    let command = [&["group", "reset-offsets", group, "--export"], how].concat();
    Ok(plan_in(&done(session, &command, "")?))
}

fn reset(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-reset", "4")?;
    let start = now_ms() - 20 * APART_MS;
    write_apart(session, &topic, start)?;
    done(session, &["consume", &topic, "--group", &topic, "--count", "55"], "")?;
    let between = utc(start + 9 * APART_MS + 1)?;
    let some = format!("{topic}:1,3");
    let ways: [&[&str]; 11] = [
        &["--to-earliest", "--all-topics"],
        &["--to-latest", "--all-topics"],
        &["--to-current", "--all-topics"],
        &["--to-current", "--topic", &topic],
        &["--to-offset", "12", "--topic", &some],
        &["--to-offset", "99", "--topic", &topic],
        &["--shift-by", "-3", "--all-topics"],
        &["--shift-by", "1000", "--all-topics"],
        &["--to-datetime", &between, "--topic", &topic],
        &["--by-duration", "PT1H35M", "--topic", &topic],
        &["--by-duration", "PT0S", "--topic", &topic],
    ];
    for how in ways {
        let (ours, theirs) = (our_plan(session, &topic, how)?, kafkas_plan(session, &topic, how)?);
        ensure!(!ours.is_empty() && ours == theirs, "{how:?}: {ours:?}, Kafka's tool {theirs:?}");
    }
    let before = described(session, &topic)?;
    let way = ["--topic", &topic, "--to-datetime", &between];
    let expected = our_plan(session, &topic, &way)?;
    ensure!(described(session, &topic)? == before, "a plan changes something");
    let execute = [&["group", "reset-offsets", &topic, "--execute"][..], &way].concat();
    let told = done_as_json(session, &execute)?;
    ensure!(*at(&told, "/executed")? == true, "{told}");
    ensure!(our_plan(session, &topic, &["--all-topics", "--to-current"])? == expected);
    let read = done(session, &["consume", &topic, "--group", &topic, "--until-end"], "")?;
    let read: BTreeSet<String> = read.lines().map(str::to_owned).collect();
    ensure!(read == records(10..20).into_iter().collect(), "it reads {read:?}");
    Ok(())
}

/// Far enough apart for two tools to mean the same record by a time ago.
const APART_MS: i64 = 10 * 60_000;

/// The records 0 to 19 in each partition.
fn write_apart(session: &mut Session, topic: &str, start: i64) -> Result<()> {
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        for number in 0..20 {
            let (time, value) =
                (start + i64::from(number) * APART_MS, format!("r-{partition}-{number}"));
            all.push(Record::new(partition, time, None, Some(value.as_bytes())));
        }
    }
    session.write(Library::Java, topic, &all, Writing::default()).map(drop)
}

/// As Kafka's tool takes it.
fn utc(ms: i64) -> Result<String> {
    let mut date = Command::new("date");
    let seconds = ms / 1000;
    date.args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"]);
    let written = run(date, b"", LIMIT)?.stdout_text();
    Ok(format!("{}.{:03}", written.trim(), ms % 1000))
}

fn files(session: &mut Session) -> Result<()> {
    let topic = create(session, "cli-files", "4")?;
    write(session, &topic, 0..10)?;
    done(session, &["consume", &topic, "--group", &topic, "--count", "37"], "")?;
    let file = session.directory().join("plan.csv");
    let file = file.to_str().context("a path that is no text")?.to_owned();
    let everything = ["--all-topics", "--to-current"];
    let kept = our_plan(session, &topic, &everything)?;
    ensure!(kept.len() == 4, "{kept:?}");

    // Theirs is read by ours, ours by theirs.
    std::fs::write(&file, kafkas_plan(session, &topic, &everything)?.join("\n"))?;
    let rewind = ["group", "reset-offsets", &topic, "--all-topics", "--to-earliest", "--execute"];
    done(session, &rewind, "")?;
    let from_file = ["group", "reset-offsets", &topic, "--from-file", &file, "--execute"];
    done(session, &from_file, "")?;
    ensure!(our_plan(session, &topic, &everything)? == kept, "theirs is read otherwise");
    let ours = [&["group", "reset-offsets", &topic, "--export"], &everything[..]].concat();
    std::fs::write(&file, done(session, &ours, "")?)?;
    let theirs = kafkas_plan(session, &topic, &["--from-file", &file])?;
    ensure!(theirs == kept, "ours is read otherwise: {theirs:?}");

    std::fs::write(&file, format!("{topic},0,1\n{topic},zero,1\n"))?;
    contains(&fails(session, &from_file, 2)?, &["line 2", "topic,partition,offset"])?;
    std::fs::write(&file, format!("other,{topic},0,1\n"))?;
    contains(&fails(session, &from_file, 2)?, &["has no line for group"])?;
    ensure!(our_plan(session, &topic, &everything)? == kept, "a bad file changed something");
    Ok(())
}
