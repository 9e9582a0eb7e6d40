//! A rolling upgrade under load from an earlier build to this one, node after node, and back again (shell).
//!
//! Clients may be told of errors that they retry, and of no other: a record that is given up fails the test, and so does
//! an error of another kind that a consumer or a commit is told of ([`super::told`]), and anything else that `check`
//! would find.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Upgrade;
use super::check::{Checked, await_served, await_whole};
use super::kinds::Kind;
use super::load::Load;
use super::nodes::{Cluster, Ground};
use crate::broker::Target;
use crate::process::{run, run_ok};
use crate::{ottla, workspace};

const GIT_LIMIT: Duration = Duration::from_secs(60);
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

pub(super) fn run_upgrade(upgrade: &Upgrade, clients: &[Kind], directory: &Path) -> Result<()> {
    let previous = previous(upgrade.from.as_deref())?;
    let new = ottla::binary()?;
    println!("from {} to {}, and back", version(&previous)?, version(&new)?);
    let read = |path: &Path| fs::read(path).with_context(|| format!("no {}", path.display()));
    ensure!(read(&previous)? != read(&new)?, "both builds are the same, byte by byte");
    let ground = Ground { binary: Some(previous.clone()), ..Ground::default() };
    let mut cluster = Cluster::start_on(Target::Ottla, directory, &ground)?;
    let checked = Checked { clients: clients.to_vec(), rate: upgrade.rate, assignments: None };
    checked.run(&mut cluster, directory, |cluster, load| {
        for (binary, what) in [(&new, "upgraded"), (&previous, "back")] {
            replace_all(cluster, load, binary, what)?;
        }
        Ok(())
    })
}

fn replace_all(cluster: &mut Cluster, load: &Load, binary: &Path, what: &str) -> Result<()> {
    for node in cluster.ids() {
        let begun = Instant::now();
        await_served(cluster, load)?;
        cluster.stop(node)?;
        await_served(cluster, load)?;
        cluster.set_binary(node, binary)?;
        cluster.restart(node)?;
        await_whole(cluster).with_context(|| format!("node {node} {what}"))?;
        println!("node {node} {what}; whole again after {:.1} s", begun.elapsed().as_secs_f64());
    }
    await_served(cluster, load)
}

fn version(binary: &Path) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    Ok(run_ok(command, b"", GIT_LIMIT)?.stdout_text().trim().to_owned())
}

/// The earlier build: `OTTLA_PREVIOUS_BINARY`, else that of a commit, or of the latest tag, or, while there is no tag, of
/// [`a_day_before`]. Built once below `target/previous`.
fn previous(from: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("OTTLA_PREVIOUS_BINARY") {
        return Ok(PathBuf::from(path));
    }
    let commit = match from {
        Some(commit) => git(&["rev-parse", &format!("{commit}^{{commit}}")])?,
        None => latest_tag().map_or_else(a_day_ago, Ok)?,
    };
    let differing = git(&["diff", "--name-only", &commit, "HEAD", "--", SOURCES])?.lines().count();
    println!("from {}", git(&["log", "-1", "--format=%h of %as, %s", &commit])?);
    println!("since then {differing} files below {} have changed", SOURCES_SHOWN);
    ensure!(differing > 0, "the broker of {commit} is the same as this one");
    let place = workspace::root().join("target/previous").join(&commit);
    let binary = place.join("target/release/ottla");
    if !binary.exists() {
        build(&commit, &place)?;
    }
    Ok(binary)
}

/// What the broker is made of, as git matches it.
const SOURCES: &str = ":(glob)crates/*/src/**";
const SOURCES_SHOWN: &str = "crates/*/src";
const DAY_SECONDS: i64 = 24 * 60 * 60;

fn a_day_ago() -> Result<String> {
    let changes = git(&["log", "--format=%H %at", "--", SOURCES])?;
    let found = a_day_before(&changes).map(str::to_owned);
    found.context("the history here is shorter than a day: say --from")
}

/// Of the changes of the broker, as `commit seconds`, the newest first: the newest that was written a day before the newest
/// of all, at least. So a day of work lies between, however many commits that was and whatever else was worked on since.
fn a_day_before(changes: &str) -> Option<&str> {
    let mut changes = changes.lines().filter_map(|line| {
        let (commit, seconds) = line.split_once(' ')?;
        Some((commit, seconds.parse::<i64>().ok()?))
    });
    let (_, newest) = changes.next()?;
    changes.find(|(_, seconds)| seconds + DAY_SECONDS <= newest).map(|(commit, _)| commit)
}

fn latest_tag() -> Option<String> {
    let tag = git(&["describe", "--tags", "--abbrev=0", "HEAD~1"]).ok()?;
    git(&["rev-parse", &format!("{tag}^{{commit}}")]).ok()
}

fn build(commit: &str, place: &Path) -> Result<()> {
    let source = place.join("source");
    fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
    let archive = place.join("source.tar");
    git(&["archive", "--output", &archive.to_string_lossy(), commit])?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&archive).arg("-C").arg(&source);
    run_ok(unpack, b"", GIT_LIMIT)?;
    let mut build = workspace::cargo();
    build.current_dir(&source);
    build.args(["build", "--quiet", "--release", "--locked", "--package", "ottla"]);
    build.arg("--target-dir").arg(place.join("target"));
    run_ok(build, b"", BUILD_LIMIT)
        .with_context(|| format!("the build of {commit} failed"))
        .map(drop)
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.current_dir(workspace::root()).args(arguments);
    let finished = run(command, b"", GIT_LIMIT)?;
    ensure!(finished.status.success(), "git {arguments:?}: {}", finished.stderr_text());
    Ok(finished.stdout_text().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_work_lies_between_the_builds_whatever_the_order_of_its_commits() {
        let newest = 10 * DAY_SECONDS;
        let line = |name: &str, before: i64| format!("{name} {}\n", newest - before);
        let changes = [
            line("newest", 0),
            line("hours-ago", 9_000),
            line("nearly", DAY_SECONDS - 1),
            line("meant", DAY_SECONDS),
            line("older", 2 * DAY_SECONDS),
        ];
        assert_eq!(a_day_before(&changes.concat()), Some("meant"));
        assert_eq!(a_day_before(&changes[..3].concat()), None);
        assert_eq!(a_day_before(""), None);
    }
}
