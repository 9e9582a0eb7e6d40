//! The cluster that a test asks for, started fresh with the test's own properties (shell).
//!
//! Ottla and Apache Kafka get the same properties. What says something about the test cluster and
//! nothing about a broker (listener, protocol, features) is turned into properties here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::fetch;
use super::several::Nodes;
use crate::broker::{Broker, Target, free_port};
use crate::process::{Process, run_ok};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const CLUSTER_ID: &str = "Suite-Cluster-Id-00000";

/// What a cluster of one needs so that its internal topics can exist, and little memory.
/// A test's own properties come after these.
const DEFAULTS: &[(&str, &str)] = &[
    ("node.id", "0"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("log.cleaner.dedupe.buffer.size", "2097152"),
];

/// The first version of the metadata in which eligible leader replicas can be switched on. A cluster that begins with it
/// begins without them.
const BEFORE_ELR: &str = "4.0-IV1";

/// What a test wants.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Wanted {
    /// Their ids.
    pub(super) brokers: Vec<u32>,
    /// Whether it is one node as it comes, without a listener for controllers where there can be none.
    pub(super) alone: bool,
    /// How many controllers there are that are no brokers; with none, every broker is one.
    pub(super) controllers: u32,
    /// Log directories of each node that does not name its own in its properties.
    pub(super) disks: u32,
    pub(super) protocol: String,
    pub(super) listener: String,
    /// The metadata version, if it is not the released one.
    pub(super) version: Option<String>,
    pub(super) features: BTreeMap<String, i32>,
    pub(super) properties: Properties,
    /// What single nodes have beside that.
    pub(super) servers: BTreeMap<u32, Properties>,
}

pub(super) type Properties = BTreeMap<String, String>;

impl Wanted {
    /// Why Ottla has no such cluster.
    fn impossible(&self) -> Option<String> {
        let Self { protocol, version, features, .. } = self;
        if protocol != "PLAINTEXT" {
            return Some(format!("there is no {protocol} yet"));
        }
        let is_played = |version: &&String| !self.alone && *version == BEFORE_ELR;
        if let Some(version) = version.as_ref().filter(|version| !is_played(version)) {
            return Some(format!("a directory cannot begin with {version}"));
        }
        (!features.is_empty()).then(|| format!("it wants {features:?}"))
    }

    /// The same as Ottla can have it: of that version of the metadata all that a test sees is that eligible leader replicas can
    /// be switched on.
    fn for_ottla(&self) -> Self {
        let mut wanted = self.clone();
        if wanted.version.take().is_some() {
            wanted.features.insert("eligible.leader.replicas.version".to_owned(), 0);
        }
        wanted
    }

    /// What its nodes are formatted with.
    pub(super) fn format_options(&self) -> Vec<String> {
        let mut options = vec!["--cluster-id".to_owned(), CLUSTER_ID.to_owned()];
        if let Some(version) = &self.version {
            options.extend(["--release-version".to_owned(), version.clone()]);
        }
        for (feature, level) in &self.features {
            options.extend(["--feature".to_owned(), format!("{feature}={level}")]);
        }
        options
    }

    /// Lines of a node's properties file, beside those that say what the node is and where: what says something about the test
    /// cluster as properties, `defaults`, and the test's own properties.
    pub(super) fn lines_of(&self, id: u32, defaults: &[(&str, &str)]) -> Vec<String> {
        let Self { listener, protocol, .. } = self;
        let mut lines = vec![
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("listener.security.protocol.map={listener}:{protocol},CONTROLLER:PLAINTEXT"),
            format!("inter.broker.listener.name={listener}"),
        ];
        if protocol.starts_with("SASL") {
            lines.extend(sasl(listener));
        }
        if self.version.is_some() || !self.features.is_empty() {
            lines.push("unstable.feature.versions.enable=true".to_owned());
        }
        lines.extend(defaults.iter().map(|(name, value)| format!("{name}={value}")));
        let own = self.properties_of(id);
        lines.extend(own.map(|(name, value)| format!("{name}={}", escaped(value))));
        lines
    }

    /// The test's own properties of a node; one that is there twice is what it is last.
    fn properties_of(&self, id: u32) -> impl Iterator<Item = (&String, &String)> {
        self.properties.iter().chain(self.servers.get(&id).into_iter().flatten())
    }

    /// The log directories that the node's own properties name.
    pub(super) fn log_dirs(&self, id: u32) -> Option<Vec<PathBuf>> {
        let dirs = self.servers.get(&id)?.get("log.dirs")?;
        Some(dirs.split(',').map(PathBuf::from).collect())
    }
}

/// Where a test finds its cluster.
#[derive(Debug)]
pub(super) enum Started {
    At {
        bootstrap: String,
        controllers: String,
    },
    /// There is no such cluster here, and why.
    Impossible(String),
}

/// The place for one broker after another; dropped, the last one is gone.
#[derive(Debug)]
pub(super) struct Cluster {
    target: Target,
    directory: PathBuf,
    /// Apache Kafka's voters stand in its formatted directory: the port stays, the copies are many.
    controller: String,
    running: Option<Running>,
    starts: u32,
}

#[derive(Debug)]
enum Running {
    Ottla(Broker),
    Kafka { address: String, process: Option<Process> },
    Several(Nodes),
}

impl Cluster {
    pub(super) fn new(target: Target, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self {
            target,
            directory: directory.to_path_buf(),
            controller: format!("127.0.0.1:{}", free_port()?),
            running: None,
            starts: 0,
        })
    }

    pub(super) fn start(&mut self, wanted: &Wanted) -> Result<Started> {
        self.stop();
        let impossible = wanted.impossible().filter(|_| self.target == Target::Ottla);
        if let Some(reason) = impossible {
            return Ok(Started::Impossible(reason));
        }
        match self.target {
            _ if !wanted.alone => self.start_several(wanted),
            Target::Ottla => self.start_ottla(wanted),
            Target::Kafka => self.start_kafka(wanted),
        }
    }

    fn start_several(&mut self, wanted: &Wanted) -> Result<Started> {
        let wanted = match self.target {
            Target::Ottla => &wanted.for_ottla(),
            Target::Kafka => wanted,
        };
        let nodes = Nodes::start(self.target, wanted, &self.directory)?;
        let (bootstrap, controllers) = (nodes.bootstrap(), nodes.controllers());
        self.running = Some(Running::Several(nodes));
        Ok(Started::At { bootstrap, controllers })
    }

    fn start_ottla(&mut self, wanted: &Wanted) -> Result<Started> {
        let mut settings: Vec<(&str, &str)> = DEFAULTS.to_vec();
        settings.extend(wanted.properties_of(0).map(|(name, value)| (&**name, &**value)));
        let broker = Target::Ottla.start(&self.directory.join("broker"), &settings)?;
        let bootstrap = broker.address().to_owned();
        self.running = Some(Running::Ottla(broker));
        Ok(Started::At { bootstrap, controllers: String::new() })
    }

    fn start_kafka(&mut self, wanted: &Wanted) -> Result<Started> {
        let directory = self.directory.join("broker");
        fs::create_dir_all(&directory).context("no directory for the broker")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let properties = directory.join("server.properties");
        let text = self.kafka_properties(wanted, &address, &directory.join("data"));
        fs::write(&properties, text).context("cannot write server.properties")?;
        self.format(wanted, &directory)?;
        let process = self.kafka_process()?;
        self.running = Some(Running::Kafka { address: address.clone(), process: Some(process) });
        Ok(Started::At { bootstrap: address, controllers: self.controller.clone() })
    }

    fn kafka_properties(&self, wanted: &Wanted, address: &str, data: &Path) -> String {
        let Wanted { listener, .. } = wanted;
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            format!("listeners={listener}://{address},CONTROLLER://{}", self.controller),
            format!("controller.quorum.bootstrap.servers={}", self.controller),
            format!("log.dirs={}", data.display()),
        ];
        lines.extend(wanted.lines_of(0, DEFAULTS));
        lines.join("\n") + "\n"
    }

    /// Formatting takes a JVM; what it writes is the same for the same version and features.
    fn format(&self, wanted: &Wanted, directory: &Path) -> Result<()> {
        let mut options = wanted.format_options();
        options.push("--standalone".to_owned());
        let template = self.directory.join(format!("formatted{}", options.concat()));
        let data = directory.join("data");
        if !template.exists() {
            let properties = directory.join("server.properties");
            let command = fetch::program(Target::Kafka)?.format(&properties, &options);
            run_ok(command, b"", START_LIMIT).context("Apache Kafka's format failed")?;
            copy(&data, &template)?;
            fs::remove_dir_all(&data).context("cannot clear what was formatted")?;
        }
        copy(&template, &data)
    }

    fn kafka_process(&mut self) -> Result<Process> {
        self.starts += 1;
        let directory = self.directory.join("broker");
        let log = directory.join(format!("output-{}.log", self.starts));
        let program = fetch::program(Target::Kafka)?;
        let command = program.serve(&directory.join("server.properties"));
        let mut process = Process::spawn("Apache Kafka", command, &log)?;
        process.wait_for_line(START_LIMIT, |line| program.is_ready(line))?;
        Ok(process)
    }

    /// SIGTERM, as a test expects it that stops a broker in its course.
    pub(super) fn stop_broker(&mut self, id: u32) -> Result<()> {
        match self.running.as_mut().context("no cluster is running")? {
            Running::Ottla(broker) => broker.stop(),
            Running::Kafka { process, .. } => {
                process.take().context("it is stopped already")?.stop(STOP_LIMIT).map(drop)
            }
            Running::Several(nodes) => nodes.stop(id),
        }
    }

    /// SIGKILL.
    pub(super) fn kill_broker(&mut self, id: u32) -> Result<()> {
        match self.running.as_mut().context("no cluster is running")? {
            Running::Ottla(broker) => broker.kill9(),
            Running::Kafka { process, .. } => {
                process.take().context("it is stopped already")?.kill()
            }
            Running::Several(nodes) => nodes.kill(id),
        }
    }

    /// Gives where clients find it. With `own` properties, these are what it has beside the cluster's.
    pub(super) fn start_broker(&mut self, id: u32, own: Option<Properties>) -> Result<String> {
        match self.running.take().context("no cluster is running")? {
            Running::Ottla(mut broker) => {
                let restarted = broker.restart();
                let address = broker.address().to_owned();
                self.running = Some(Running::Ottla(broker));
                restarted.map(|()| address)
            }
            Running::Kafka { address, process } => {
                ensure!(process.is_none(), "it is running already");
                let process = Some(self.kafka_process()?);
                self.running = Some(Running::Kafka { address: address.clone(), process });
                Ok(address)
            }
            Running::Several(mut nodes) => {
                let started = nodes.start_again(id, own);
                self.running = Some(Running::Several(nodes));
                started
            }
        }
    }

    /// The end of a test: nobody needs what is there.
    pub(super) fn stop(&mut self) {
        self.running = None;
        fs::remove_dir_all(self.directory.join("broker")).ok();
    }
}

/// The users that the suite's clients know, as its own cluster would set them up.
fn sasl(listener: &str) -> Vec<String> {
    let prefix = format!("listener.name.{}.", listener.to_lowercase());
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    vec![
        "sasl.enabled.mechanisms=PLAIN".to_owned(),
        "sasl.mechanism.inter.broker.protocol=PLAIN".to_owned(),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        "allow.everyone.if.no.acl.found=false".to_owned(),
        "super.users=User:plain-admin;User:ANONYMOUS".to_owned(),
        format!(
            "{prefix}plain.sasl.jaas.config={module} required username=plain-admin \
             password=plain-admin-secret user_plain-admin=plain-admin-secret \
             user_plain-user1=plain-user1-secret;"
        ),
    ]
}

/// A value as a properties file holds it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Starts Apache Kafka once, if it never was: see [`fetch::program`].
pub(super) fn learn(directory: &Path) -> Result<()> {
    let mut cluster = Cluster::new(Target::Kafka, &directory.join("learn"))?;
    let wanted = Wanted {
        brokers: vec![0],
        alone: true,
        controllers: 0,
        disks: 1,
        protocol: "PLAINTEXT".to_owned(),
        listener: "EXTERNAL".to_owned(),
        version: None,
        features: BTreeMap::new(),
        properties: BTreeMap::new(),
        servers: BTreeMap::new(),
    };
    if !fetch::has_learnt() {
        cluster.start(&wanted)?;
        cluster.stop_broker(0)?;
    }
    Ok(())
}
