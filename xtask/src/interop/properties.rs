//! What each topic property changes in a broker that runs: a topic with records, the change, and what comes of it (shell).
//!
//! Every property that the broker describes for a topic stands in one of the tables here, with what shows its effect, or
//! in [`ELSEWHERE`]. The same is played against Apache Kafka: what shows must show there, too.
//!
//! Where a property keeps something from happening, a second topic shows that it would have happened by then.

mod cleaning;
mod flushing;
mod records;
mod segments;
mod topic;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use ottla_protocol::messages::DescribeConfigsRequest;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;

use super::directories::ask;
use super::operator::new_directory;
use super::session::{SETTINGS, Session};
use super::{TRACE, Test};
use crate::broker::Target;
use topic::Topic;

/// Of a resource that is configured.
const TOPIC: i8 = 2;

/// What is due is done soon, and what a topic does not want otherwise is kept.
const SOON: &[(&str, &str)] = &[
    ("log.initial.task.delay.ms", "0"),
    ("log.retention.check.interval.ms", "100"),
    ("log.cleaner.backoff.ms", "50"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.retention.ms", "-1"),
];

type Run = dyn Fn(&Bench) -> Result<()>;

/// A property, and how a change of it shows.
struct Case {
    property: &'static str,
    shows: fn(&Bench) -> Result<()>,
}

/// What needs several nodes, and where it is shown.
const ELSEWHERE: &[(&str, &str)] = &[
    ("follower.replication.throttled.replicas", "cargo xtask cluster throttle"),
    ("leader.replication.throttled.replicas", "cargo xtask cluster throttle"),
    ("min.insync.replicas", "crates/ottla-metadata/tests/kafka_agrees.rs"),
    ("unclean.leader.election.enable", "crates/ottla-metadata/tests/random.rs"),
];

/// Every test of a table, with the sentence that it proves.
const TABLES: &[(&str, &[Case])] = &[
    ("what is taken, and as what it is stored, changes while the broker runs", records::CASES),
    ("where segments end, and what their files look like, changes while it runs", segments::CASES),
    ("what is kept, deleted and compacted changes while the broker runs", cleaning::CASES),
];

pub(super) fn tests(target: Target) -> Vec<Test> {
    let test = |sentence: &str, run: Box<Run>| {
        let run = move |session: &mut Session| on_a_bench(session, &run);
        Test::new(format!("properties: {sentence}"), &[], run).without_broker()
    };
    let table = |&(sentence, cases): &(&str, &'static [Case])| {
        test(sentence, Box::new(move |bench| play(bench, cases)))
    };
    let mut tests: Vec<Test> = TABLES.iter().map(table).collect();
    tests.push(test("every one that a topic has is shown to change something", Box::new(complete)));
    if target == Target::Ottla {
        let run = |session: &mut Session| flushing::run(&new_directory(session)?);
        let sentence = "properties: when records are flushed changes while the broker runs";
        let flushing = Test::new(sentence, &["strace", "setpriv"], run);
        tests.push(flushing.without_broker().where_allowed(&[TRACE]));
    }
    tests
}

/// A broker that only looks after these topics.
struct Bench {
    target: Target,
    address: String,
    data: PathBuf,
}

fn on_a_bench(session: &mut Session, run: &Run) -> Result<()> {
    let directory = new_directory(session)?;
    let mut broker = session.target().start(&directory, &[SETTINGS, SOON].concat())?;
    let bench = Bench {
        target: broker.target(),
        address: broker.address().to_owned(),
        data: broker.data_directory(),
    };
    run(&bench)?;
    broker.stop()
}

fn play(bench: &Bench, cases: &[Case]) -> Result<()> {
    all_show(cases.iter().map(|case| (case.property, (case.shows)(bench))))
}

/// Names those that do not.
fn all_show<'a>(outcomes: impl Iterator<Item = (&'a str, Result<()>)>) -> Result<()> {
    let failed = outcomes.filter_map(|(property, outcome)| Some((property, outcome.err()?)));
    let named = failed.map(|(property, error)| format!("{property}: {error:#}"));
    let named = named.collect::<Vec<_>>().join("\n");
    ensure!(named.is_empty(), "{named}");
    Ok(())
}

/// A property that is new, or that no table names any more, must not be forgotten.
fn complete(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "described", &[])?;
    let resource = DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: topic.name().into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let described = ask(&bench.address, &request, 4)?;
    let described = described.results.iter().flat_map(|result| &result.configs);
    let described: BTreeSet<String> = described.map(|it| it.name.to_string()).collect();
    ensure!(described.len() > 30, "a topic has only {described:?}");
    let cases = TABLES.iter().flat_map(|(_, cases)| *cases).map(|case| case.property);
    let elsewhere = ELSEWHERE.iter().map(|(property, _)| *property);
    let shown = cases.chain(elsewhere).chain(flushing::PROPERTIES).map(str::to_owned);
    // No broker tells of it.
    let shown: BTreeSet<String> = shown.filter(|name| !name.starts_with("internal.")).collect();
    let differing: Vec<&String> = described.symmetric_difference(&shown).collect();
    ensure!(
        differing.is_empty(),
        "either not there, or not shown to change anything: {differing:?}"
    );
    Ok(())
}
