//! A rolling upgrade under load from an earlier build to this one, node after node, and back again (shell).
//!
//! Clients may be told of errors that they retry, and of no other: a record that is given up fails the test, and so does
//! an error of another kind that a consumer or a commit is told of ([`super::told`]), and anything else that `check`
//! would find.

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

/// The earlier build: `OTTLA_PREVIOUS_BINARY`, else that of a commit, or of the latest tag, or, while there is no tag, of the
/// commit before the newest ten. Built once below `target/previous`.
fn previous(from: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("OTTLA_PREVIOUS_BINARY") {
        return Ok(PathBuf::from(path));
    }
    let commit = match from {
        Some(commit) => git(&["rev-parse", &format!("{commit}^{{commit}}")])?,
        None => latest_tag().map_or_else(|| git(&["rev-parse", "HEAD~10"]), Ok)?,
    };
    let place = workspace::root().join("target/previous").join(&commit);
    let binary = place.join("target/release/ottla");
    if !binary.exists() {
        build(&commit, &place)?;
    }
    Ok(binary)
}

fn latest_tag() -> Option<String> {
    let tag = git(&["describe", "--tags", "--abbrev=0", "HEAD~1"]).ok()?;
    git(&["rev-parse", &format!("{tag}^{{commit}}")]).ok()
}

fn build(commit: &str, place: &Path) -> Result<()> {
    let source = place.join("source");
    std::fs::create_dir_all(&source)
        .with_context(|| format!("cannot create {}", source.display()))?;
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
