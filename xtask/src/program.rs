//! What runs as a node that a properties file configures, Apache Kafka or Ottla: the commands that format it and start it,
//! and how it says that it is ready (pure, but for fetching jars and building what is run).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::broker::Target;
use crate::{interop, kafka, ottla};

/// The heap of Apache Kafka's tool that formats.
const FORMAT_HEAP: &str = "128m";

#[derive(Debug)]
pub(crate) enum Program {
    Kafka {
        jars: PathBuf,
        /// As `-Xmx` takes it.
        heap: String,
        /// More options of Java for the node.
        options: Vec<String>,
    },
    /// A build of it.
    Ottla(PathBuf),
}

impl Program {
    /// Apache Kafka with so much heap, or the build of Ottla under test.
    pub(crate) fn of(target: Target, heap: &str) -> Result<Self> {
        Ok(match target {
            Target::Kafka => Self::Kafka {
                jars: interop::fetch::kafka_jars()?,
                heap: heap.to_owned(),
                options: Vec::new(),
            },
            Target::Ottla => Self::Ottla(ottla::binary()?),
        })
    }

    /// What formats the log directories that a properties file names; `options` are those of Kafka's storage tool.
    pub(crate) fn format<O: AsRef<str>>(&self, properties: &Path, options: &[O]) -> Command {
        let mut command = match self {
            Self::Kafka { jars, .. } => {
                let mut command = kafka::java(jars, FORMAT_HEAP);
                command.args(["kafka.tools.StorageTool", "format"]);
                command
            }
            Self::Ottla(binary) => {
                let mut command = Command::new(binary);
                command.arg("format");
                command
            }
        };
        command.args(options.iter().map(AsRef::as_ref)).arg("--config").arg(properties);
        command
    }

    /// What starts the node.
    pub(crate) fn serve(&self, properties: &Path) -> Command {
        let mut command = match self {
            Self::Kafka { jars, heap, options } => {
                let mut command = kafka::java(jars, heap);
                command.args(options).arg("kafka.Kafka");
                command
            }
            Self::Ottla(binary) => {
                let mut command = Command::new(binary);
                command.args(["serve", "--config"]);
                command
            }
        };
        command.arg(properties);
        command
    }

    /// Whether a line of the node's output says that it is ready.
    pub(crate) fn is_ready(&self, line: &str) -> Option<()> {
        let is_ready = match self {
            Self::Kafka { .. } => {
                line.contains("KafkaRaftServer") && line.contains("Kafka Server started")
            }
            Self::Ottla(_) => line.contains(" ready in "),
        };
        is_ready.then_some(())
    }
}
