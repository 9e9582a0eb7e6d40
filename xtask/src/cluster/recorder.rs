//! Clients in Java and Go that write, read and commit: programs of `interop/`, that tell of it line by line (shell).

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::SETTLE_LIMIT;
use super::kinds::Kind;
use super::ledger::{Acknowledged, Read, Record, Writer};
use super::load::{Load, Written};
use super::members::Membership;
use super::told::{Complaint, Role};
use crate::interop::fetch;
use crate::kafka;
use crate::process::Process;

/// How long a line is waited for before the load is asked whether all is over.
const TICK: Duration = Duration::from_millis(20);
const ONE_LIMIT: Duration = Duration::from_secs(120);

fn program(kind: Kind) -> Result<Command> {
    Ok(match kind {
        Kind::Java => {
            let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_recorder()?);
            command.arg("Recorder");
            command
        }
        Kind::FranzGo => Command::new(fetch::go_recorder()?),
        Kind::Librdkafka => bail!("librdkafka is part of this program"),
    })
}

/// Builds what is built of it, so that no time is lost on that under load.
pub(super) fn prepare(kind: Kind) -> Result<()> {
    if kind != Kind::Librdkafka {
        program(kind).with_context(|| format!("the {} recorder", kind.name()))?;
    }
    Ok(())
}

/// One such program at work.
#[derive(Debug)]
struct Recorder<'a> {
    load: &'a Load,
    process: Process,
    /// What it was told to end with, and until when it must have ended.
    ending: Option<(String, Instant)>,
}

impl<'a> Recorder<'a> {
    fn start(load: &'a Load, kind: Kind, mode: &str, name: &str) -> Result<Self> {
        let mut command = program(kind)?;
        command.args([mode, &load.bootstrap, load.topic, &load.partitions.to_string(), name]);
        command.arg(load.rate.to_string());
        let log = load.directory.join(format!("{}-{mode}.log", kind.name()));
        let process = Process::spawn(&format!("{} {mode}", kind.name()), command, &log)?;
        Ok(Self { load, process, ending: None })
    }

    /// Hands its lines to `see` until that says that all is said; tells it to end when `end` says with which line.
    /// False if the load was abandoned.
    fn run(
        &mut self,
        end: impl Fn(&Load) -> Option<String>,
        mut see: impl FnMut(&str, &mut std::str::SplitN<'_, char>) -> Result<bool>,
    ) -> Result<bool> {
        while !self.load.is_abandoned() {
            if self.ending.is_none()
                && let Some(line) = end(self.load)
            {
                self.process.write_line(&line)?;
                self.ending = Some((line, Instant::now() + SETTLE_LIMIT));
            }
            let Some(line) = self.process.line_within(TICK)? else {
                if let Some((line, deadline)) = &self.ending {
                    ensure!(
                        Instant::now() < *deadline,
                        "{:?} has not come to {line}",
                        self.process
                    );
                }
                continue;
            };
            let mut words = line.splitn(4, ' ');
            let first = words.next().unwrap_or_default();
            if see(first, &mut words).with_context(|| format!("its line {line:?}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn next<T: std::str::FromStr>(words: &mut std::str::SplitN<'_, char>) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    words.next().context("a word is missing")?.parse().context("a word is no number")
}

/// `CODE WORDS`
fn complaint(words: &mut std::str::SplitN<'_, char>) -> Result<Complaint> {
    let code = next(words)?;
    Ok(Complaint::numbered(code, &words.collect::<Vec<_>>().join(" ")))
}

fn end_of_reading(load: &Load) -> Option<String> {
    let ends = load.ends()?;
    Some(ends.values().fold("end".to_owned(), |line, end| format!("{line} {end}")))
}

/// Writes until the load says that all is written.
pub(super) fn write(load: &Load, kind: Kind, writer: Writer) -> Result<Written> {
    let mut recorder = Recorder::start(load, kind, "write", writer.name())?;
    let mut written = Written::default();
    let mut given_up = None;
    let end = |load: &Load| load.is_written().then(|| "end".to_owned());
    let is_told = recorder.run(end, |what, words| {
        match what {
            "a" => {
                let record = Record { writer, number: next(words)? };
                let (partition, offset) = (next(words)?, Some(next(words)?).filter(|it| *it >= 0));
                written.acknowledged.push(Acknowledged { partition, offset, record });
                load.count(writer);
            }
            "e" => {
                let (number, error): (u64, String) = (next(words)?, words.collect());
                given_up.get_or_insert_with(|| format!("{} {number}: {error}", writer.name()));
            }
            "sent" => {
                written.sent = next(words)?;
                return Ok(true);
            }
            _ => bail!("not understood"),
        }
        Ok(false)
    })?;
    // With one node away at most, and two minutes of time, nothing may be given up.
    ensure!(given_up.is_none() || !is_told, "records were given up, the first {given_up:?}");
    Ok(written)
}

/// Reads all partitions from their beginning to where the load says that they end.
pub(super) fn read(load: &Load, kind: Kind) -> Result<Vec<Read>> {
    let mut recorder = Recorder::start(load, kind, "read", "reader")?;
    let mut reads = Vec::new();
    recorder.run(end_of_reading, |what, words| {
        match what {
            "r" => {
                let (partition, offset) = (next(words)?, next(words)?);
                let value = words.next().unwrap_or_default();
                reads.push(Read {
                    partition,
                    offset,
                    record: Record::from_value(value.as_bytes()),
                });
            }
            "x" => load.note(kind, Role::Reader, complaint(words)?),
            "done" => return Ok(true),
            _ => bail!("not understood"),
        }
        Ok(false)
    })?;
    Ok(reads)
}

/// Takes part in a group of one, and commits again and again.
pub(super) fn take_part(load: &Load, kind: Kind) -> Result<Membership> {
    let mut recorder = Recorder::start(load, kind, "group", kind.group())?;
    let mut membership = Membership::default();
    recorder.run(end_of_reading, |what, words| {
        match what {
            "c" => {
                let (partition, offset): (i32, i64) = (next(words)?, next(words)?);
                membership.committed.insert(partition, offset);
                membership.commits += 1;
            }
            "back" => membership.went_back.push((next(words)?, next(words)?, next(words)?)),
            "x" => load.note(kind, Role::Member, complaint(words)?),
            "done" => return Ok(true),
            _ => bail!("not understood"),
        }
        Ok(false)
    })?;
    Ok(membership)
}

/// Writes one record whenever it is told to.
#[derive(Debug)]
pub(super) struct One {
    kind: Kind,
    process: Process,
}

impl One {
    pub(super) fn start(
        kind: Kind,
        bootstrap: &str,
        topic: &str,
        directory: &Path,
    ) -> Result<Self> {
        let mut command = program(kind)?;
        command.args(["one", bootstrap, topic, "0", "one"]);
        let log = directory.join(format!("{}-one.log", kind.name()));
        Ok(Self { kind, process: Process::spawn(kind.name(), command, &log)? })
    }
}

impl super::client::Client for One {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn renew(&mut self) -> Result<()> {
        self.process.write_line("new")
    }

    fn write(&mut self, partition: i32, limit: Duration) -> Result<()> {
        self.process.write_line(&format!("w {partition}"))?;
        let (_, answer) = self.process.next_line(Instant::now() + limit.max(ONE_LIMIT))?;
        ensure!(answer == "ok", "given up: {answer}");
        Ok(())
    }
}
