//! When records are flushed without anybody's waiting for it, as `strace` sees it (shell).
//!
//! Of Apache Kafka nobody could tell these flushes from others, such as those of a new segment's names.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::super::operator::{Running, serve_in, traced};
use super::topic::Topic;
use super::{Bench, all_show};
use crate::broker::Target;

pub(super) const PROPERTIES: [&str; 2] = ["flush.messages", "flush.ms"];

/// On a broker that, like Apache Kafka, does not flush for an acknowledgement.
pub(super) fn run(directory: &Path) -> Result<()> {
    let trace = directory.join("trace");
    let mut command = serve_in(directory)?;
    command.args(["--set", "log.flush.on.commit=false", "--set", "log.retention.ms=-1"]);
    let command = traced(&command, &trace, &["-y", "-e", "trace=fdatasync,fsync,syncfs"]);
    let running = Running::start(command, directory)?;
    let bench = Bench {
        target: Target::Ottla,
        address: running.address().to_owned(),
        data: running.ready.data.clone(),
    };
    let flushes = |topic: &Topic<'_>| -> Result<usize> {
        let text = fs::read_to_string(&trace)?;
        let file = format!("/{}-0/", topic.name());
        let is_flush = |line: &&str| line.contains(&file) || line.contains("syncfs(");
        Ok(text.lines().filter(is_flush).count())
    };
    let shows = |property, value| -> Result<()> {
        let topic = Topic::create(&bench, property, &[])?;
        for _ in 0..10 {
            topic.write(b"v")?;
        }
        ensure!(flushes(&topic)? == 0, "before the change ten records are flushed");
        topic.set(property, value)?;
        topic.write(b"v")?;
        topic.write(b"v")?;
        topic.until("is not flushed", || Ok(flushes(&topic)? > 0))
    };
    let values = PROPERTIES.into_iter().zip(["2", "1"]);
    all_show(values.map(|(property, value)| (property, shows(property, value))))
}
