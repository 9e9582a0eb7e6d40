//! The broker, the clients and the ledger that the tests of one run share (shell).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::Length;
use super::adapter::{Adapter, Library, Writing};
use super::adopt::Written;
use super::disk::Stopped;
use super::record::Record;
use super::served::Served;
use crate::broker::Target;

/// Apache Kafka refuses a killed broker's return until its session has run out.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("broker.session.timeout.ms", "1500"),
    ("broker.heartbeat.interval.ms", "300"),
    ("num.partitions", "1"),
    // A member that was killed is missed soon.
    ("group.min.session.timeout.ms", "1000"),
];

/// A record that a broker acknowledged, and where.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged {
    pub(super) topic: String,
    pub(super) offset: i64,
    pub(super) record: Record,
    writer: Library,
    codec: String,
}

pub(super) struct Session {
    pub(super) broker: Served,
    pub(super) length: Length,
    directory: PathBuf,
    adapters: Vec<(Library, Adapter)>,
    ledger: Vec<Acknowledged>,
    topics: u32,
    /// What the broker serves, as Kafka's own tool shows it; empty until somebody asks.
    apis: String,
    /// Set once the tests of the disk have prepared and stopped the broker.
    pub(super) stopped: Option<Stopped>,
    /// Set once a test of adoption has let Apache Kafka write what is adopted.
    pub(super) written_by_kafka: Option<Rc<Written>>,
}

impl Session {
    /// With one broker, or with three nodes.
    pub(super) fn start(
        target: Target,
        directory: &Path,
        length: Length,
        nodes: u32,
    ) -> Result<Self> {
        let broker = match nodes {
            1 => Served::One(target.start(&directory.join("broker"), SETTINGS)?),
            3 => three_nodes(target, &directory.join("nodes"))?,
            other => {
                bail!("there is a session with one node and one with three, none with {other}")
            }
        };
        Ok(Self {
            broker,
            length,
            directory: directory.to_path_buf(),
            adapters: Vec::new(),
            ledger: Vec::new(),
            topics: 0,
            apis: String::new(),
            stopped: None,
            written_by_kafka: None,
        })
    }

    pub(super) fn target(&self) -> Target {
        self.broker.target()
    }

    pub(super) fn bootstrap(&self) -> String {
        self.broker.address()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A topic name that no other test uses.
    pub(super) fn new_topic(&mut self, stem: &str) -> String {
        self.topics += 1;
        format!("{stem}-{}", self.topics)
    }

    pub(super) fn adapter(&mut self, library: Library) -> &mut Adapter {
        let known = self.adapters.iter().position(|(other, _)| *other == library);
        let index = known.unwrap_or_else(|| {
            let adapter = Adapter::new(library, &self.broker.address(), &self.directory)
                .of_nodes(self.broker.nodes());
            self.adapters.push((library, adapter));
            self.adapters.len() - 1
        });
        let (_, adapter) = self.adapters.get_mut(index).expect("found or pushed just now");
        adapter
    }

    /// Writes records, and enters into the ledger what acks=all promised to keep.
    pub(super) fn write(
        &mut self,
        library: Library,
        topic: &str,
        records: &[Record],
        writing: Writing<'_>,
    ) -> Result<Vec<i64>> {
        let offsets = self.adapter(library).produce(topic, records, writing)?;
        ensure!(offsets.len() == records.len(), "{} offsets came back", offsets.len());
        if writing.acks == "all" {
            for (record, &offset) in records.iter().zip(&offsets) {
                let (topic, record) = (topic.to_owned(), record.clone());
                let codec = writing.codec.to_owned();
                self.ledger.push(Acknowledged { topic, offset, record, writer: library, codec });
            }
        }
        Ok(offsets)
    }

    /// A topic that was deleted owes nobody its records.
    pub(super) fn forget(&mut self, topic: &str) {
        self.ledger.retain(|entry| entry.topic != topic);
    }

    /// Reads every partition that the ledger knows and compares it, byte for byte.
    pub(super) fn check_ledger(&mut self, library: Library) -> Result<()> {
        self.check_topics(library, |_| true)
    }

    /// The same for one topic.
    pub(super) fn check_topic(&mut self, library: Library, topic: &str) -> Result<()> {
        self.check_topics(library, |other| other == topic)
    }

    /// The same for the topics whose name is wanted.
    pub(super) fn check_topics(
        &mut self,
        library: Library,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let (mut partitions, mut unread) = (Vec::new(), BTreeSet::new());
        for entry in self.ledger.iter().filter(|entry| wanted(&entry.topic)) {
            let Acknowledged { topic, record, writer, codec, .. } = entry;
            if library.can_read(*writer, codec) {
                partitions.push((topic.clone(), record.partition));
            } else {
                unread.insert(format!("{topic}: {codec} by {}", writer.name()));
            }
        }
        for topic in unread {
            println!("{} cannot read {topic}", library.name());
        }
        partitions.sort();
        partitions.dedup();
        ensure!(!partitions.is_empty(), "nothing was written that could be looked for");
        for (topic, partition) in partitions {
            let of_partition =
                |entry: &&Acknowledged| entry.topic == topic && entry.record.partition == partition;
            let mut entries: Vec<Acknowledged> =
                self.ledger.iter().filter(of_partition).cloned().collect();
            entries.sort_by_key(|entry| entry.offset);
            self.check_partition(library, &topic, partition, &entries)
                .with_context(|| format!("{topic}-{partition}"))?;
        }
        Ok(())
    }

    fn check_partition(
        &mut self,
        library: Library,
        topic: &str,
        partition: i32,
        entries: &[Acknowledged],
    ) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let count = usize::try_from(last.offset - first.offset + 1)?;
        let read = self.adapter(library).consume(topic, partition, first.offset, count)?;
        for entry in entries {
            let Ok(found) = read.binary_search_by_key(&entry.offset, |(offset, _)| *offset) else {
                bail!("offset {} was acknowledged and is gone", entry.offset);
            };
            let same = read.get(found).map(|(_, record)| entry.record.difference(record));
            if let Some(Some(difference)) = same {
                bail!("offset {}: {difference}", entry.offset);
            }
        }
        Ok(())
    }

    /// Whether the broker lists an API, given as `Name(key)`; asks with Kafka's own tool.
    pub(super) fn advertises(&mut self, api: &str) -> Result<bool> {
        if self.apis.is_empty() {
            let bootstrap = self.bootstrap();
            let arguments = ["--bootstrap-server", &bootstrap];
            let java = self.adapter(Library::Java);
            self.apis = java.tool("tools.BrokerApiVersionsCommand", &arguments, b"")?.out;
        }
        let mut lines = self.apis.lines().filter(|line| !line.contains("UNSUPPORTED"));
        Ok(lines.any(|line| line.contains(api)))
    }

    /// Starts a broker that an earlier test left dead.
    pub(super) fn revive(&mut self) -> Result<()> {
        if !self.broker.is_running() {
            self.broker.restart().context("the broker does not start again")?;
        }
        Ok(())
    }

    /// The end of the broker's output, if it is not running though nobody ended it.
    pub(super) fn last_words(&mut self) -> Option<String> {
        (!self.broker.is_running()).then(|| self.broker.last_lines())
    }
}

#[cfg(feature = "cluster")]
fn three_nodes(target: Target, directory: &Path) -> Result<Served> {
    use crate::cluster::nodes::Cluster;

    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let settings = |_| SETTINGS.iter().map(owned).collect();
    Ok(Served::Three(Cluster::start_with(target, directory, settings)?))
}

#[cfg(not(feature = "cluster"))]
fn three_nodes(_: Target, _: &Path) -> Result<Served> {
    bail!("this build of xtask is only for `protocol`")
}

/// Asks again until the answer satisfies, or the time is up.
pub(super) fn eventually<T>(
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "still not so after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
