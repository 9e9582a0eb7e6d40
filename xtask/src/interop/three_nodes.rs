//! Other people's software against three nodes, some of which are away (shell).
//!
//! Each test has a cluster of its own, the same for Apache Kafka and for Ottla.

mod rolling;
pub(crate) mod tools;
mod transcript;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::adapter::{Adapter, Library};
use super::session::Session;
use super::{Length, Test};
use crate::broker::Target;
use crate::cluster::nodes::Cluster;

/// Members that are gone are missed soon.
const SETTINGS: &[(&str, &str)] = &[("group.min.session.timeout.ms", "1000")];

pub(super) fn tests(length: Length) -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        let name = format!("three nodes: {sentence}");
        Test::new(name, Library::Java.needs(), run).without_broker()
    };
    let mut tests =
        vec![test("a word count of Streams loses nothing to a rolling restart", rolling::streams)];
    if length == Length::Long {
        // Three minutes, nearly all of them in Kafka's tools.
        tests.push(test("Kafka's tools print what they print on Apache Kafka", tools::compare));
        tests.push(test(
            "Connect, distributed, loses nothing to a rolling restart",
            rolling::connect,
        ));
    }
    tests
}

/// Levels of features other than those of a new cluster, as `NAME=LEVEL`.
type Levels = &'static [&'static str];

/// A new cluster in a directory of the test's own, and Kafka's Java clients that talk to it.
struct Place {
    cluster: Cluster,
    java: Adapter,
    directory: std::path::PathBuf,
}

impl Place {
    fn start(target: Target, directory: &std::path::Path, levels: Levels) -> Result<Self> {
        std::fs::create_dir_all(directory).context("no directory for the cluster")?;
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings = |_| SETTINGS.iter().map(owned).collect();
        let cluster = Cluster::start_at(levels, target, directory, settings)?;
        let java = Adapter::new(Library::Java, &cluster.bootstrap(), directory);
        Ok(Self { cluster, java, directory: directory.to_path_buf() })
    }

    fn of(session: &Session, name: &str, levels: Levels) -> Result<Self> {
        Self::start(session.target(), &session.directory().join(name), levels)
    }

    /// What a test fails with, and what the nodes wrote last.
    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        self.cluster.failure(&format!("{error:#}"))
    }

    /// What transcripts call ports and directories.
    fn names(&self) -> BTreeMap<String, String> {
        let addresses = self.cluster.addresses();
        let mut names = BTreeMap::new();
        for (id, address) in self.cluster.ids().into_iter().zip(addresses) {
            let port = address.rsplit(':').next().unwrap_or_default().to_owned();
            names.insert(port, format!("PORT-{id}"));
        }
        for (id, port) in self.cluster.controller_ports() {
            names.insert(port.to_string(), format!("CONTROLLER-PORT-{id}"));
        }
        for (id, data) in self.cluster.data_directories() {
            let data = data.iter().map(|path| path.display().to_string());
            names.extend(data.map(|path| (path, format!("DATA-{id}"))));
        }
        names
    }
}
