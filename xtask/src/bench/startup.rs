//! Start-up time and memory: restarts each broker in turn on its own, formatted directory (shell).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::subject::Contestant;
use super::table::{Row, Section};
use super::{Bench, Stage, driver, milliseconds, procfs};

/// How long a started broker is left alone before its memory counts as idle.
const SETTLE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_micros(200);
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Starts every broker on an empty directory.
pub(super) fn first_start(bench: &mut Bench) -> Result<Row> {
    let mut row = Row::least("first start on an empty directory, formatting included", "ms");
    for subject in bench.brokers() {
        bench.say(&format!("first start of {}", subject.name()));
        let started = Instant::now();
        let contestant = Contestant::start(subject, &bench.directory)?;
        row.add(subject, milliseconds(started.elapsed()));
        bench.contestants.push(contestant);
    }
    Ok(row)
}

/// Restarts every broker and looks at its memory when it has settled.
pub(super) fn measure(bench: &mut Bench, first_start: Row) -> Result<Section> {
    let mut start = Row::least("start to first answer", "ms");
    let mut resident = Row::median("memory idle, resident", "MiB");
    let mut proportional = Row::median("memory idle, proportional", "MiB");
    let mut idle = Row::greatest("CPU idle", "ms per s");
    for run in 0..bench.runs {
        bench.say(&format!("restarts, run {}", run + 1));
        for contestant in &mut bench.contestants {
            let took = restart(contestant)?;
            start.add(contestant.subject, milliseconds(took));
        }
        thread::sleep(SETTLE);
        for contestant in &bench.contestants {
            let pid = contestant.pid()?;
            let memory = procfs::memory(pid)?;
            resident.add(contestant.subject, memory.resident);
            proportional.add(contestant.subject, memory.proportional);
        }
        let cpu_before = cpu_times(bench)?;
        thread::sleep(SETTLE);
        for ((contestant, before), after) in
            bench.contestants.iter().zip(cpu_before).zip(cpu_times(bench)?)
        {
            let used = milliseconds(after.saturating_sub(before));
            idle.add(contestant.subject, used / SETTLE.as_secs_f64());
        }
    }
    let rows = vec![start, first_start, resident, proportional, idle];
    Ok(Section::new(Stage::Startup, rows))
}

/// Memory at the end of everything.
pub(super) fn after_load(bench: &Bench, section: &mut Section) -> Result<()> {
    let mut resident = Row::median("memory after load, resident", "MiB");
    let mut proportional = Row::median("memory after load, proportional", "MiB");
    for contestant in &bench.contestants {
        let memory = procfs::memory(contestant.pid()?)?;
        resident.add(contestant.subject, memory.resident);
        proportional.add(contestant.subject, memory.proportional);
    }
    section.rows.extend([resident, proportional]);
    Ok(())
}

fn cpu_times(bench: &Bench) -> Result<Vec<Duration>> {
    bench.contestants.iter().map(|contestant| procfs::cpu_time(contestant.pid()?)).collect()
}

/// From the start of the process to its first answer over TCP.
fn restart(contestant: &mut Contestant) -> Result<Duration> {
    contestant.broker.stop()?;
    let poller = Poller::start(contestant.address().to_owned());
    let started = Instant::now();
    contestant.broker.restart()?;
    let answered = poller.wait()?;
    Ok(answered.saturating_duration_since(started))
}

/// Asks an address again and again until a broker answers.
struct Poller {
    given_up: Arc<AtomicBool>,
    answered: Option<JoinHandle<Option<Instant>>>,
}

impl Poller {
    fn start(address: String) -> Self {
        let given_up = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&given_up);
        let answered = thread::spawn(move || poll(&address, &seen));
        Self { given_up, answered: Some(answered) }
    }

    fn wait(mut self) -> Result<Instant> {
        let answered = self.answered.take().context("a poller is waited for once")?;
        let answered = answered.join().map_err(|_| anyhow!("the poller panicked"))?;
        answered.context("the broker is ready but never answered")
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

fn poll(address: &str, given_up: &AtomicBool) -> Option<Instant> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    while !given_up.load(Ordering::Relaxed) && Instant::now() < deadline {
        if driver::is_answering(address) {
            return Some(Instant::now());
        }
        thread::sleep(POLL_INTERVAL);
    }
    None
}
