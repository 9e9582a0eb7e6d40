//! By day: topics that Kafka wrote once, with what its consumer printed of them (`crates/ottla-log/tests/kafka`), and all
//! that speaks against adopting one (shell).

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context, Result, bail, ensure};

use super::{
    COMMITTED, UNCOMMITTED, adopt, adopt_command, client, copy, described, refused, start_one,
    start_two, stopped, topic_id,
};
use crate::broker::{Broker, two_data_directories};
use crate::interop::Test;
use crate::interop::adapter::part;
use crate::interop::session::Session;
use crate::process::run_ok;
use crate::workspace;

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("adopt: {sentence}"), &[], run).without_broker()
    };
    vec![
        test("recorded topics are served under their ids, as Kafka delivered them", recorded),
        test("what is incomplete, damaged or in use is refused and left as it is", not_adopted),
        test("a name or an id that is taken is reported, and the logs are set aside", taken),
        test("partitions in several log.dirs are adopted when each of these is named", several),
    ]
}

/// Name, partitions, and the file with what readers of committed data were given.
const RECORDED: [(&str, i32, &str); 3] =
    [("codecs", 1, "codecs"), ("compacted", 1, "compacted"), ("transactional", 2, "committed")];

/// They were written long ago.
const KEPT: &[(&str, &str)] = &[("retention.ms", "-1")];

fn kafkas(name: &str) -> PathBuf {
    workspace::root().join("crates/ottla-log/tests/kafka").join(name)
}

/// Puts a recorded directory there.
fn put(name: &str, data: &Path) -> Result<PathBuf> {
    let to = data.join(name);
    copy(&kafkas(name), &to)?;
    Ok(to)
}

fn recorded_id(name: &str) -> Result<String> {
    let text = fs::read_to_string(kafkas(name).join("partition.metadata"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "));
    Ok(id.context("it names no id")?.to_owned())
}

/// `PARTITION OFFSET KEY VALUE`, partition after partition.
fn consumed(broker: &Broker, topic: &str, partitions: i32, isolation: &str) -> Result<String> {
    let mut all = String::new();
    for partition in 0..partitions {
        let partition = partition.to_string();
        let mut arguments = vec!["consume", topic, "--until-end", "--partition", &partition];
        arguments.extend(["--isolation", isolation, "--format", "%p %o %k %v", "--null", "null"]);
        all += &client(broker, &arguments, "")?.stdout_text();
    }
    Ok(all)
}

fn check_served(broker: &Broker) -> Result<()> {
    for (topic, partitions, committed) in RECORDED {
        check_topic(broker, topic, partitions, committed).with_context(|| topic.to_owned())?;
    }
    Ok(())
}

fn check_topic(broker: &Broker, topic: &str, partitions: i32, committed: &str) -> Result<()> {
    let (found, expected) = (topic_id(broker, topic)?, recorded_id(&format!("{topic}-0"))?);
    ensure!(found == expected, "its id is {found}, and not {expected}");
    for (isolation, file) in [(UNCOMMITTED, topic), (COMMITTED, committed)] {
        let found = consumed(broker, topic, partitions, isolation)?;
        let expected = fs::read_to_string(kafkas(file))?;
        ensure!(found == expected, "{isolation}: {found}\n… and not\n{expected}");
    }
    Ok(())
}

fn recorded(session: &mut Session) -> Result<()> {
    let mut broker = stopped(session, start_one)?;
    let data = broker.data_directory();
    for (topic, partitions, _) in RECORDED {
        for partition in 0..partitions {
            put(&format!("{topic}-{partition}"), &data)?;
        }
        adopt(&[data.join(format!("{topic}-0"))], KEPT)?;
    }
    broker.restart()?;
    check_served(&broker)?;
    broker.stop()?;
    broker.restart()?;
    check_served(&broker).context("after another start")?;
    client(&broker, &["produce", "transactional", "--partition", "1"], "new\n")?;
    let end = fs::read_to_string(kafkas("transactional"))?;
    ensure!(
        consumed(&broker, "transactional", 2, UNCOMMITTED)? == format!("{end}1 24 null new\n"),
        "writing does not go on where Kafka ended"
    );
    Ok(())
}

/// Names in a data directory that begin so.
fn names(data: &Path, start: &str) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(data)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<Result<Vec<String>>>()?;
    names.retain(|name| name.starts_with(start));
    names.sort();
    Ok(names)
}

fn flip(file: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(file)?;
    *bytes.get_mut(at).context("it is shorter")? ^= 1;
    Ok(fs::write(file, bytes)?)
}

fn not_adopted(session: &mut Session) -> Result<()> {
    let mut broker = stopped(session, start_one)?;
    let data = broker.data_directory();
    let second = put("transactional-1", &data)?;
    let said = refused(slice::from_ref(&second), 4)?;
    ensure!(said.contains("partition 0 of transactional is missing"), "it says {said}");
    let damaged = put("codecs-0", &data)?;
    let segment = damaged.join("00000000000000000000.log");
    flip(&segment, 100)?;
    let said = refused(slice::from_ref(&damaged), 1)?;
    let file = segment.display().to_string();
    for words in [&*file, "is not as it was written", "--despite-damage"] {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    ensure!(!damaged.join("ottla.adopt").exists(), "what was refused is wished for");

    // Kafka, too, sets aside what nobody owns.
    broker.restart()?;
    for name in ["transactional-1", "codecs-0"] {
        let aside = names(&data, name)?;
        ensure!(
            matches!(&aside[..], [only] if only.ends_with("-stray")),
            "{name} was not set aside: {aside:?}"
        );
    }
    let said = refused(&[put("compacted-0", &data)?], 1)?;
    ensure!(said.contains("Stop the broker"), "it says {said}");
    broker.stop()?;

    let damaged = put("codecs-0", &data)?;
    flip(&damaged.join("00000000000000000000.log"), 100)?;
    let mut command = adopt_command(&[damaged], KEPT)?;
    command.arg("--despite-damage");
    run_ok(command, b"", super::LIMIT)?;
    broker.restart()?;
    ensure!(topic_id(&broker, "codecs")? == recorded_id("codecs-0")?, "it has another id");
    Ok(())
}

fn log_of(broker: &Broker) -> Result<String> {
    fs::read_to_string(broker.log()).context("no log")
}

fn check_reported(broker: &Broker, data: &Path, log: &str, reason: &str) -> Result<()> {
    let said = log_of(broker)?;
    let line = said.lines().find(|line| line.contains("a topic cannot be adopted"));
    let line = line.with_context(|| format!("it is not reported: {said}"))?;
    ensure!(line.contains(reason), "{reason:?} is not in {line}");
    let aside = names(data, &format!("{log}."))?;
    let [aside] = &aside[..] else { bail!("{log} was not set aside once: {aside:?}") };
    let segment = "00000000000000000000.log";
    let kept = fs::read(data.join(aside).join(segment))?;
    ensure!(aside.ends_with("-stray"), "{log} is {aside} now");
    ensure!(kept == fs::read(kafkas("codecs-0").join(segment))?, "{aside} has other records");
    Ok(())
}

fn taken(session: &mut Session) -> Result<()> {
    let mut broker = stopped(session, start_one)?;
    let data = broker.data_directory();
    broker.restart()?;
    client(&broker, &["topic", "create", "codecs"], "")?;
    client(&broker, &["produce", "codecs"], "mine\n")?;
    let mine = topic_id(&broker, "codecs")?;
    broker.stop()?;

    // Somebody has made room for the directory of this name.
    let elsewhere = data.with_file_name("codecs-0");
    fs::rename(data.join("codecs-0"), &elsewhere)?;
    adopt(&[put("codecs-0", &data)?], KEPT)?;
    broker.restart()?;
    check_reported(&broker, &data, "codecs-0", &mine)?;
    ensure!(topic_id(&broker, "codecs")? == mine, "the topic that was there is another one");
    broker.stop()?;
    fs::remove_dir_all(data.join("codecs-0"))?;
    fs::rename(elsewhere, data.join("codecs-0"))?;
    broker.restart()?;
    let found = consumed(&broker, "codecs", 1, UNCOMMITTED)?;
    ensure!(found == "0 0 null mine\n", "the records that were there are {found:?}");
    client(&broker, &["topic", "delete", "codecs"], "")?;
    broker.stop()?;

    adopt(&[put("codecs-0", &data)?], KEPT)?;
    broker.restart()?;
    check_topic(&broker, "codecs", 1, "codecs").context("with the name free again")?;
    broker.stop()?;
    let copied = data.join("copied-0");
    copy(&kafkas("codecs-0"), &copied)?;
    adopt(&[copied], KEPT)?;
    broker.restart()?;
    check_reported(&broker, &data, "copied-0", "has the id")?;
    check_topic(&broker, "codecs", 1, "codecs").context("beside a copy of it")
}

fn several(session: &mut Session) -> Result<()> {
    let mut broker = stopped(session, start_two)?;
    let [first, second] = two_data_directories(broker.directory());
    let logs = [put("transactional-0", &second)?, put("transactional-1", &first)?];
    let [zero, one] = logs.clone();
    let said = refused(slice::from_ref(&one), 4)?;
    ensure!(said.contains("name one in each"), "it says {said}");

    // Nobody sees that there is a second partition until the broker does.
    adopt(slice::from_ref(&zero), KEPT)?;
    broker.restart()?;
    let said = log_of(&broker)?;
    ensure!(said.contains("belongs to it, and was not announced"), "it says {said}");
    broker.stop()?;
    for (data, name, log) in
        [(&second, "transactional-0", &zero), (&first, "transactional-1", &one)]
    {
        let aside = names(data, name)?;
        let [aside] = &aside[..] else { bail!("{name} is {aside:?}") };
        ensure!(aside.ends_with("-stray"), "{name} is {aside} now");
        fs::rename(data.join(aside), log)?;
    }
    adopt(&logs, KEPT)?;
    for start in ["the first start", "another start"] {
        broker.restart()?;
        check_topic(&broker, "transactional", 2, "committed").with_context(|| start.to_owned())?;
        let described = described(&broker, "transactional")?;
        let partitions = part(&described, "/partitions").as_array().map(Vec::len);
        ensure!(partitions == Some(2), "it has {partitions:?} partitions");
        broker.stop()?;
    }
    ensure!(zero.is_dir() && one.is_dir(), "the partitions are not where they were put");
    Ok(())
}
