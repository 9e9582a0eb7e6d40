//! What thousands of idle connections cost (shell).

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::driver::Connection;
use super::subject::Contestant;
use super::table::{Row, Section};
use super::{Bench, Stage, procfs, wire};

const CONNECTIONS: usize = 5_000;
const SETTLE: Duration = Duration::from_secs(2);

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let title = "5,000 idle connections, memory, resident";
    let mut row = Row::median(title, "MiB");
    for subject in bench.solo_brokers() {
        bench.say_run(title, 1, subject);
        let grown = once(bench, subject).with_context(|| format!("{} failed", subject.name()))?;
        row.add(subject, grown);
    }
    Ok(Section::new(Stage::Connections, vec![row]))
}

/// By how many MiB a fresh broker has grown when all are connected, have asked something, and wait.
fn once(bench: &Bench, subject: super::table::Subject) -> Result<f64> {
    let directory = bench.empty_directory("connections")?;
    let contestant = Contestant::start(subject, &directory.0)?;
    let topic = contestant.create_topic("connections")?;
    let (question, read) = (wire::api_versions(), wire::fetch(&topic, 0, 0));
    let ask = |connection: &mut Connection| -> Result<()> {
        wire::versions_told(connection.call(&question)?)?;
        wire::fetched(connection.call(&read)?).map(drop)
    };
    ask(&mut Connection::open(contestant.address())?)?;
    thread::sleep(SETTLE);
    let before = procfs::memory(contestant.pid()?)?.resident;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(contestant.address())?;
        ask(&mut connection)?;
        connections.push(connection);
    }
    thread::sleep(SETTLE);
    Ok(procfs::memory(contestant.pid()?)?.resident - before)
}
