//! Connect and Streams, unmodified, while one node after the other is restarted (shell).

use std::path::Path;

use anyhow::{Context, Result};

use super::super::adapter::Adapter;
use super::super::session::Session;
use super::super::{connect, streams};
use super::Place;
use crate::cluster::nodes::Cluster;

pub(super) fn streams(session: &mut Session) -> Result<()> {
    through(session, "three-nodes-streams", |cluster, java, bootstrap, directory| {
        streams::through(java, bootstrap, directory, |java, work| restart_all(cluster, java, work))
    })
}

pub(super) fn connect(session: &mut Session) -> Result<()> {
    through(session, "three-nodes-connect", |cluster, java, bootstrap, directory| {
        connect::through(java, bootstrap, directory, |java, work| restart_all(cluster, java, work))
    })
}

fn through(
    session: &Session,
    name: &str,
    run: impl FnOnce(&mut Cluster, &mut Adapter, &str, &Path) -> Result<()>,
) -> Result<()> {
    let mut place = Place::of(session, name, &[])?;
    let bootstrap = place.cluster.bootstrap();
    let Place { cluster, java, directory } = &mut place;
    let outcome = run(cluster, java, &bootstrap, directory);
    outcome.map_err(|error| place.explain(&error))
}

/// One node after the other, as an operator does it: the next one when every topic has all its replicas again. There is
/// `work` to do before, while and after a node is away.
fn restart_all(
    cluster: &mut Cluster,
    java: &mut Adapter,
    work: &mut dyn FnMut(&mut Adapter) -> Result<()>,
) -> Result<()> {
    for id in cluster.ids() {
        work(java)?;
        cluster.stop(id)?;
        cluster.await_fenced(id)?;
        work(java)?;
        cluster.restart(id)?;
        work(java)?;
        let internal = ["__consumer_offsets".to_owned()];
        for topic in java.topics()?.into_iter().chain(internal) {
            let settled = cluster.await_whole(Some(&topic));
            settled.with_context(|| format!("{topic}, when node {id} is back"))?;
        }
    }
    Ok(())
}
