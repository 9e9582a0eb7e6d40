//! Drives a broker with clients that are not this project's (shell).
//!
//! The tests share one broker, one after another: starting Apache Kafka costs more than most of
//! them. Every record that a broker acknowledged goes into the session's ledger, and the tests
//! that kill or stop the broker then look for all of it.

pub(crate) mod adapter;
mod administration;
mod adopt;
mod cli_groups;
mod command_line;
mod connect;
#[cfg(feature = "side-by-side")]
mod creation;
mod dashboard;
#[cfg(feature = "side-by-side")]
mod directories;
mod disk;
mod durability;
pub(crate) mod fetch;
#[cfg(feature = "side-by-side")]
mod flush_order;
mod groups;
mod kcat;
mod library;
mod members;
mod metadata_shell;
#[cfg(feature = "side-by-side")]
mod no_copy;
#[cfg(feature = "side-by-side")]
pub(crate) mod operator;
#[cfg(feature = "side-by-side")]
mod properties;
mod record;
mod round_trip;
#[cfg(feature = "side-by-side")]
mod scale;
#[cfg(feature = "side-by-side")]
mod scrubbing;
mod served;
mod session;
mod streams;
#[cfg(feature = "cluster")]
pub(crate) mod three_nodes;
mod tools;
mod voters;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::broker::Target;
use crate::tally::{Tally, with_reason};
use crate::test::outcome;
use crate::{process, workspace};
use library::Library;
use session::Session;

/// The test that a build without its syncs must fail.
pub(crate) const FLUSH_ORDER: &str =
    "durability: every answer follows the flush that it promises, and every name is synced";

type Run = dyn Fn(&mut Session) -> Result<()>;

/// How much time the tests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// What fits into the budget of every change.
    Short,
    /// What a night has time for.
    Long,
}

impl Length {
    /// The client libraries that there is time for.
    fn libraries(self) -> Vec<Library> {
        let old = if self == Self::Long { &Library::OLD[..] } else { &[] };
        Library::CURRENT.iter().chain(old).copied().collect()
    }
}

/// One test: a sentence about what a client can rely on.
struct Test {
    /// `client: sentence`.
    name: String,
    /// Programs without which it is skipped.
    needs: &'static [&'static str],
    /// APIs without which it is skipped, each as `Name(key)`.
    apis: Vec<&'static str>,
    /// What the system must allow, as commands that succeed where it does; one that it forbids skips the test.
    allowed: &'static [&'static [&'static str]],
    /// Whether the broker must run when the test begins.
    with_broker: bool,
    /// Whether it is about a cluster of one, which it says of numbers of nodes, or by looking at the broker's files.
    of_one: bool,
    run: Box<Run>,
}

impl Test {
    fn new(
        name: impl Into<String>,
        needs: &'static [&'static str],
        run: impl Fn(&mut Session) -> Result<()> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            needs,
            apis: Vec::new(),
            allowed: &[],
            with_broker: true,
            of_one: false,
            run: Box::new(run),
        }
    }

    /// For a test that looks at a stopped broker's files, or starts a broker of its own.
    fn without_broker(self) -> Self {
        Self { with_broker: false, ..self }
    }

    /// For a test that three nodes have another answer to.
    fn of_one(self) -> Self {
        Self { of_one: true, ..self }
    }

    /// For a test that does what a sandbox may forbid, such as to trace a process.
    fn where_allowed(self, allowed: &'static [&'static [&'static str]]) -> Self {
        Self { allowed, ..self }
    }

    /// For a test of what the broker may not serve yet: it runs as soon as the API is advertised.
    fn once_served(mut self, api: &'static str) -> Self {
        self.apis.push(api);
        self
    }
}

/// The first of these programs that is not installed.
pub(crate) fn missing_program(needs: &[&'static str]) -> Option<&'static str> {
    needs.iter().copied().find(|program| workspace::find_program(program).is_none())
}

/// Every test in the order in which they run: those that kill come after those that write.
fn all_tests(target: Target, length: Length) -> Vec<Test> {
    let mut tests = kcat::tests();
    tests.extend(round_trip::tests(length));
    tests.extend(members::tests(length));
    tests.extend(tools::tests());
    tests.extend(administration::tests());
    tests.extend(voters::tests());
    tests.extend(groups::tests());
    tests.extend(dashboard::tests());
    tests.extend(connect::tests());
    tests.extend(streams::tests());
    tests.extend(disk::tests());
    tests.extend(metadata_shell::tests());
    tests.extend(durability::tests());
    tests.extend(command_line::tests());
    tests.extend(cli_groups::tests());
    if target == Target::Ottla {
        tests.extend(adopt::tests(length));
    }
    #[cfg(feature = "cluster")]
    tests.extend(three_nodes::tests(length));
    #[cfg(feature = "side-by-side")]
    {
        tests.extend(creation::tests());
        tests.extend(properties::tests(target));
        tests.extend(scale::tests());
        if target == Target::Ottla {
            tests.extend(operator::tests());
            tests.extend(directories::tests());
            tests.extend(scrubbing::tests());
            tests.extend(flush_order::tests());
            tests.extend(no_copy::tests());
        }
    }
    tests
}

/// Fetches and builds the clients ahead of the tests; one whose programs are missing is named by its tests.
pub(crate) fn build_clients(length: Length) -> Tally {
    let mut tally = Tally::default();
    for library in length.libraries() {
        if missing_program(library.needs()).is_none() {
            let name = format!("the adapter of {} builds", library.name());
            tally.add(outcome(&name, library.command().map(drop)));
        }
    }
    if missing_program(dashboard::NEEDS).is_none() {
        tally.add(outcome("the dashboard is installed", dashboard::install().map(drop)));
    }
    tally
}

/// Runs the tests whose name contains one of `names` (all without names); prints as it goes.
///
/// With three nodes those tests run that talk to the session's cluster, whatever it is made of.
pub(crate) fn run(target: Target, names: &[String], length: Length, nodes: u32) -> Result<Tally> {
    let chosen = |test: &Test| {
        let is_named = names.is_empty() || names.iter().any(|name| test.name.contains(name));
        is_named && (nodes == 1 || test.with_broker && !test.of_one)
    };
    let tests: Vec<Test> = all_tests(target, length).into_iter().filter(chosen).collect();
    let mut tally = Tally::default();
    let mut runnable = Vec::new();
    for test in tests {
        match missing_program(test.needs) {
            Some(program) => miss(&test.name, program, &mut tally),
            None => runnable.push(test),
        }
    }
    if runnable.is_empty() {
        return Ok(tally);
    }
    let directory = workspace::run_directory(&format!("interop-{target}"))?;
    let mut session =
        Session::start(target, &directory, length, nodes).context("the broker does not start")?;
    let nodes = if session.broker.is_one() { "" } else { ", two more nodes" };
    println!("{target} at {}{nodes}, {}", session.broker.address(), directory.display());
    for test in &runnable {
        tally.add(run_one(test, &mut session));
    }
    drop(session);
    workspace::leave_run_directory(&directory, tally.is_success());
    Ok(tally)
}

/// A test that this machine can't run: named as skipped, or failed where nothing may be missing.
pub(crate) fn miss(test: &str, program: &str, tally: &mut Tally) {
    if workspace::is_continuous_integration() {
        println!("FAILED          {test}: {program} is not installed, and CI must have it");
        tally.failed.push(test.to_owned());
    } else {
        println!("skipped: {program} (not installed): {test}");
        tally.skipped.push(format!("{program} (not installed): {test}"));
    }
}

/// To trace a process of one's own.
const TRACE: &[&str] = &["strace", "-qq", "-o", "/dev/null", "true"];
/// To mount what nobody else sees.
const MOUNT: &[&str] =
    &["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];

/// Whether flushes can be made to fail here.
#[cfg(feature = "cluster")]
pub(crate) fn can_trace() -> bool {
    missing_program(&["strace", "setpriv"]).is_none() && is_allowed(TRACE)
}

fn is_allowed(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return true };
    let mut command = Command::new(program);
    command.args(arguments);
    process::run(command, b"", Duration::from_secs(10))
        .is_ok_and(|finished| finished.status.success())
}

fn run_one(test: &Test, session: &mut Session) -> Tally {
    let started = Instant::now();
    let ready = if test.with_broker { session.revive() } else { Ok(()) };
    let missing = |api: &&&str| session.advertises(api).is_ok_and(|served| !served);
    if ready.is_ok()
        && let Some(api) = test.apis.iter().find(missing)
    {
        let reason = format!("{}: {api} is not served yet", test.name);
        println!("skipped: {reason}");
        return Tally { skipped: vec![reason], ..Tally::default() };
    }
    if let Some(forbidden) = test.allowed.iter().find(|command| !is_allowed(command)) {
        let reason = format!("{}: this system does not allow {forbidden:?}", test.name);
        println!("skipped: {reason}");
        return Tally { skipped: vec![reason], ..Tally::default() };
    }
    let outcome = ready.and_then(|()| (test.run)(session));
    let seconds = started.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("ok     {seconds:6.1} s {}", test.name);
            Tally::passed(1)
        }
        Err(error) => {
            println!("FAILED {seconds:6.1} s {}: {error:#}", test.name);
            if let Some(last_words) = session.last_words().filter(|_| test.with_broker) {
                println!("the broker is gone; its output ends:\n{last_words}");
            }
            Tally::failed(with_reason(&test.name, &error))
        }
    }
}
