//! The processes whose CPU time is measured: brokers, which stay up, and floors, which end
//! with their connections (shell).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::driver;
use super::procfs;
use super::table::Subject;
use super::wire::TopicId;
use crate::broker::{Broker, Target};
use crate::process::Process;

const FLOOR_START_LIMIT: Duration = Duration::from_secs(10);
const DELETE_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a broker still does after its last answer (flushes, bookkeeping) counts too.
const AFTERMATH: Duration = Duration::from_millis(300);

const SETTINGS: &[(&str, &str)] = &[
    // The data of a deleted topic must not lie in the page cache for a minute.
    ("log.segment.delete.delay.ms", "100"),
    // A group forms when all its members are there, even if thousands of others join at the same time.
    ("group.initial.rebalance.delay.ms", "10000"),
];
/// Apache Kafka begins to look for deleted topics 30 s after its start; this is its own switch.
const KAFKA_SETTINGS: &[(&str, &str)] = &[("log.initial.task.delay.ms", "500")];
const UNFLUSHED_SETTINGS: &[(&str, &str)] = &[("log.flush.on.commit", "false")];

/// A broker that takes part.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) subject: Subject,
    pub(super) broker: Broker,
}

impl Contestant {
    /// Starts on an empty directory below `directory`.
    pub(super) fn start(subject: Subject, directory: &Path) -> Result<Self> {
        let (target, own) = match subject {
            Subject::Kafka => (Target::Kafka, KAFKA_SETTINGS),
            Subject::Unflushed => (Target::Ottla, UNFLUSHED_SETTINGS),
            Subject::Ottla => (Target::Ottla, &[][..]),
            Subject::Floor | Subject::FlushingFloor => bail!("a floor is no broker"),
        };
        let settings = [SETTINGS, own].concat();
        let broker = target.start(&directory.join(subject.name()), &settings)?;
        Ok(Self { subject, broker })
    }

    pub(super) fn address(&self) -> &str {
        self.broker.address()
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.broker.pid().with_context(|| format!("{} is not running", self.subject.name()))
    }

    pub(super) fn create_topic(&self, name: &str) -> Result<TopicId> {
        let created = driver::create_topic(self.address(), name, 1);
        created.with_context(|| format!("{}: cannot create {name}", self.subject.name()))
    }

    /// Deletes a topic and waits until its files are gone, so that the next one starts alike.
    pub(super) fn delete_topic(&self, name: &str) -> Result<()> {
        driver::delete_topic(self.address(), name)
            .with_context(|| format!("{}: cannot delete {name}", self.subject.name()))?;
        let deadline = Instant::now() + DELETE_LIMIT;
        while holds_topic(&self.broker.data_directory(), name) {
            if Instant::now() > deadline {
                bail!("{} keeps the files of the deleted {name}", self.subject.name());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// CPU time that `work` cost the broker.
    pub(super) fn cpu<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let measured = cpu(self.pid()?, work);
        measured.with_context(|| format!("{} failed", self.subject.name()))
    }
}

fn holds_topic(data_directory: &Path, name: &str) -> bool {
    let prefix = format!("{name}-");
    let entries = fs::read_dir(data_directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
}

/// One of the tiny programs of [`super::floor`], running.
#[derive(Debug)]
pub(super) struct FloorProcess {
    process: Process,
    pub(super) address: String,
}

impl FloorProcess {
    /// Receives into `file`.
    pub(super) fn receive(file: &Path, flush: bool) -> Result<Self> {
        let flush = flush.then(|| "--flush".to_owned());
        Self::start("receive", file, flush)
    }

    /// Sends from `file` to so many connections.
    pub(super) fn send(file: &Path, connections: usize) -> Result<Self> {
        Self::start("send", file, Some(format!("--connections={connections}")))
    }

    fn start(kind: &str, file: &Path, flag: Option<String>) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find our own program")?;
        let mut command = Command::new(own);
        command.arg("bench-floor").arg(kind).arg(file).args(flag);
        let log = file.with_extension("floor.log");
        let mut process = Process::spawn("the floor", command, &log)?;
        let (address, _) = process.wait_for_line(FLOOR_START_LIMIT, |line| {
            line.strip_prefix("listening on ").map(str::to_owned)
        })?;
        Ok(Self { process, address })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// CPU time that `work` cost; it can still be read when the floor has ended with its last
    /// connection, because nobody has waited for it yet.
    pub(super) fn cpu<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        cpu(self.pid(), work).context("the floor failed")
    }
}

fn cpu<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let before = procfs::cpu_time(pid)?;
    let done = work()?;
    thread::sleep(AFTERMATH);
    Ok((done, procfs::cpu_time(pid)?.saturating_sub(before)))
}

/// Makes sure that the next `bytes` of page cache come from memory that this machine has: where a
/// host takes free pages back, the first write into a fresh page can cost seven times the next.
pub(super) fn warm_page_cache(directory: &Path, bytes: u64) -> Result<()> {
    rustix::fs::sync();
    let path = directory.join("warm-up");
    write_zeroes(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn write_zeroes(path: &PathBuf, bytes: u64) -> Result<()> {
    let chunk = vec![0; 1 << 20];
    let mut file = File::create(path)?;
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&chunk)?;
    }
    Ok(())
}
