//! The same scripted requests to Apache Kafka and to Ottla, and their answers compared field by field (shell).
//!
//! Every API that Ottla serves, in every version, with every way in which a request can be refused. What must
//! differ between any two brokers — ids, ports, clocks — is replaced by a name of what it is; everything else is
//! equal, or stands in `interop/side-by-side/known-differences.txt` with the reason.

mod both;
mod codes;
pub(crate) mod connection;
mod known;
mod records;
mod script;
mod shape;
pub(crate) mod subject;
mod value;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::broker::{Broker, Target};
use crate::tally::{Tally, with_reason};
use crate::{interop, workspace};
use both::Both;
use known::KnownDifferences;
use subject::Subject;

const KNOWN_DIFFERENCES: &str = "interop/side-by-side/known-differences.txt";

/// What both brokers are started with, beside what the launchers say.
const SETTINGS: &[(&str, &str)] = &[
    ("node.id", "1"),
    // Scripts write records of long ago, which must stay.
    ("log.retention.ms", "-1"),
    // And so do their producers, who would be forgotten as soon as somebody looks for the idle.
    ("producer.id.expiration.check.interval.ms", "2147483647"),
    // Enough for groups to be in different ones.
    ("offsets.topic.num.partitions", "3"),
];

/// Apache Kafka's launcher gives it a listener for controllers in any case.
const OTTLA_SETTINGS: &[(&str, &str)] = &[
    ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
    ("controller.listener.names", "CONTROLLER"),
];

/// Runs all scripts, or those whose name contains `only`; prints what differs.
pub(crate) fn run(only: Option<&str>) -> Result<Tally> {
    if let Some(missing) = interop::missing_program(&["java", "mvn"]) {
        let mut tally = Tally::default();
        interop::miss("side by side", missing, &mut tally);
        return Ok(tally);
    }
    let directory = workspace::run_directory("side-by-side")?;
    // Kafka needs seconds to start: meanwhile Ottla is built, if it must be.
    let start = |target: Target, name: &str, settings: &[(&str, &str)]| {
        target.start_with_two_directories(&directory.join(name), settings)
    };
    let mut brokers = [
        start(Target::Kafka, "kafka", SETTINGS)?,
        start(Target::Ottla, "ottla", &[SETTINGS, OTTLA_SETTINGS].concat())?,
    ];
    let outcome = compare(&brokers, only);
    for broker in &mut brokers {
        if !broker.is_running() {
            println!("{} is gone; its output is in {}", broker.target(), broker.log().display());
        }
    }
    let tally = outcome?;
    drop(brokers);
    workspace::leave_run_directory(&directory, tally.is_success());
    Ok(tally)
}

fn compare([kafka, ottla]: &[Broker; 2], only: Option<&str>) -> Result<Tally> {
    let known = std::fs::read_to_string(workspace::root().join(KNOWN_DIFFERENCES))
        .with_context(|| format!("cannot read {KNOWN_DIFFERENCES}"))?;
    let known = KnownDifferences::parse(&known).context(KNOWN_DIFFERENCES)?;
    let both_doors = |broker: &Broker| {
        let mut subject = Subject::connect(broker)?;
        subject.learn_quorum()?;
        Ok::<_, anyhow::Error>(subject)
    };
    let kafka = both_doors(kafka).context("Apache Kafka")?;
    let ottla = both_doors(ottla).context("Ottla")?;
    let mut both = Both::new(kafka, ottla, known);
    let mut tally = Tally::default();
    for script in
        script::ALL.iter().filter(|script| only.is_none_or(|only| script.name.contains(only)))
    {
        tally.add(run_script(script, &mut both));
    }
    if only.is_none() {
        for entry in both.unused_known_differences() {
            println!("UNUSED {KNOWN_DIFFERENCES}: {entry}");
            tally.add(Tally::failed(format!("side by side: unused known difference: {entry}")));
        }
    }
    let report = &both.report;
    println!(
        "{} steps, {} fields compared: {} steps differ, {} known differences met",
        report.steps,
        report.fields,
        report.failed.len(),
        report.known
    );
    Ok(tally)
}

fn run_script(script: &script::Script, both: &mut Both) -> Tally {
    let started = Instant::now();
    let (steps, failed) = (both.report.steps, both.report.failed.len());
    let outcome = (script.run)(both);
    let mut tally = Tally::default();
    let differing = both.report.failed.get(failed..).unwrap_or_default();
    tally.failed.extend(differing.iter().map(|step| format!("side by side: {step}")));
    let steps = both.report.steps - steps;
    tally.passed = steps - differing.len();
    let seconds = started.elapsed().as_secs_f64();
    let word = if outcome.is_ok() && differing.is_empty() { "ok    " } else { "FAILED" };
    println!("{word} {seconds:6.1} s {} ({steps} steps)", script.name);
    if let Err(error) = outcome {
        println!("       {error:#}");
        tally.failed.push(with_reason(&format!("side by side: {}", script.name), &error));
    }
    tally
}
