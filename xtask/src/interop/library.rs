//! The client libraries that have an adapter, and what each of them can't do (shell).

use std::process::Command;

use anyhow::Result;

use super::fetch;
use super::record::Record;
use crate::{kafka, workspace};

/// A client library, or an old version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// librdkafka in Python.
    Confluent,
    /// librdkafka in Rust.
    Rdkafka,
    /// Apache Kafka's own.
    Java,
    Franz,
    Sarama,
    KafkaJs,
    KafkaPython,
    AioKafka,
    /// librdkafka 1.9.2 in Rust.
    Rdkafka1,
    /// librdkafka 2.0.2 in Python.
    Confluent2,
    /// Apache Kafka's own, 2.8.2.
    Java2,
    /// Apache Kafka's own, 3.9.1.
    Java3,
    /// franz-go and sarama as they were years ago.
    FranzOld,
    SaramaOld,
}

impl Library {
    pub(crate) const CURRENT: [Self; 8] = [
        Self::Confluent,
        Self::Rdkafka,
        Self::Java,
        Self::Franz,
        Self::Sarama,
        Self::KafkaJs,
        Self::KafkaPython,
        Self::AioKafka,
    ];

    /// Versions that are still out there.
    pub(crate) const OLD: [Self; 6] = [
        Self::Rdkafka1,
        Self::Confluent2,
        Self::Java2,
        Self::Java3,
        Self::FranzOld,
        Self::SaramaOld,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Confluent => "confluent-kafka",
            Self::Rdkafka => "rdkafka",
            Self::Java => "java",
            Self::Franz => "franz-go",
            Self::Sarama => "sarama",
            Self::KafkaJs => "kafkajs",
            Self::KafkaPython => "kafka-python",
            Self::AioKafka => "aiokafka",
            Self::Rdkafka1 => "librdkafka-1.9",
            Self::Confluent2 => "librdkafka-2.0",
            Self::Java2 => "java-2.8",
            Self::Java3 => "java-3.9",
            Self::FranzOld => "franz-go-old",
            Self::SaramaOld => "sarama-old",
        }
    }

    /// The programs without which this library cannot be used.
    pub(crate) fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Confluent | Self::KafkaPython | Self::AioKafka | Self::Confluent2 => &["python3"],
            Self::Rdkafka | Self::Rdkafka1 => &["cc", "make"],
            Self::Java | Self::Java2 | Self::Java3 => &["java", "javac", "mvn"],
            Self::Franz | Self::Sarama | Self::FranzOld | Self::SaramaOld => &["go"],
            Self::KafkaJs => &["node", "npm"],
        }
    }

    /// Fetches and builds the adapter; gives the command that runs it.
    pub(crate) fn command(self) -> Result<Command> {
        let python = |venv: &str, script: &str| -> Result<Command> {
            let mut command = Command::new(fetch::python(venv)?);
            command.arg(workspace::root().join("interop/python").join(script));
            Ok(command)
        };
        let go = |module: &str, library: &str| -> Result<Command> {
            let mut command = Command::new(fetch::go_adapter(module)?);
            command.arg(library);
            Ok(command)
        };
        let old_java = |version: &str| -> Result<Command> {
            let (jars, classes) = fetch::old_java(version)?;
            let mut command = kafka::java_tools(&jars, &classes);
            command.arg("Adapter");
            Ok(command)
        };
        Ok(match self {
            Self::Confluent => python("requirements", "with_confluent.py")?,
            Self::KafkaPython => python("requirements", "with_kafka_python.py")?,
            Self::AioKafka => python("requirements", "with_aiokafka.py")?,
            Self::Confluent2 => python("requirements-old", "with_confluent.py")?,
            Self::Rdkafka => Command::new(fetch::rust_adapter("rust")?),
            Self::Rdkafka1 => Command::new(fetch::rust_adapter("rust-old")?),
            Self::Java => {
                let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
                command.arg("Adapter");
                command
            }
            Self::Java2 => old_java("2.8.2")?,
            Self::Java3 => old_java("3.9.1")?,
            Self::Franz => go("go.mod", "franz")?,
            Self::Sarama => go("go.mod", "sarama")?,
            Self::FranzOld => go("old.mod", "franz")?,
            Self::SaramaOld => go("old.mod", "sarama")?,
            Self::KafkaJs => {
                let mut command = Command::new("node");
                command.arg(fetch::node_adapter()?);
                command
            }
        })
    }

    /// The API without which the library reads nothing, as it reads in groups only.
    pub(crate) fn reads_with(self) -> Option<&'static str> {
        (self == Self::KafkaJs).then_some("JoinGroup(11)")
    }

    /// Why a request of the adapters' protocol has no answer.
    pub(crate) fn lacks(self, request: &str) -> bool {
        match self {
            Self::AioKafka => request == "delete-group",
            Self::Rdkafka => request == "delete-records",
            Self::Rdkafka1 => matches!(request, "delete-records" | "delete-group"),
            // Its administrator knows none of these yet.
            Self::Confluent2 => matches!(request, "set-configs" | "partitions" | "delete-records"),
            _ => false,
        }
    }

    /// The codecs that it writes.
    pub(crate) fn codecs(self) -> &'static [&'static str] {
        match self {
            // What is there for LZ4 in JavaScript links its blocks, which Apache Kafka refuses.
            Self::KafkaJs => &["none", "gzip", "snappy", "zstd"],
            _ => &["none", "gzip", "snappy", "lz4", "zstd"],
        }
    }

    /// kafka-python and aiokafka refuse a record with neither key nor value, and some a header
    /// without a value.
    pub(crate) fn can_write(self, record: &Record) -> bool {
        let is_void = record.key.is_none() && record.value.is_none();
        let has_void = record.headers.iter().any(|(_, value)| value.is_none());
        match self {
            Self::KafkaPython => !is_void && !has_void,
            Self::AioKafka => !is_void,
            Self::KafkaJs => !has_void,
            _ => true,
        }
    }

    /// The LZ4 that the old versions in Go come with takes the checksums of blocks, which aiokafka
    /// writes, for wrong; on Apache Kafka, too.
    pub(crate) fn can_read(self, writer: Self, codec: &str) -> bool {
        !(matches!(self, Self::FranzOld | Self::SaramaOld)
            && writer == Self::AioKafka
            && codec == "lz4")
    }

    /// What it says where no record is as late as the time that was asked for.
    pub(crate) fn no_offset(self, end: i64) -> i64 {
        if self == Self::KafkaJs { end } else { -1 }
    }

    /// Whether it says that the broker refused a topic's new configuration: the rdkafka crate
    /// reads the answer and drops the error.
    pub(crate) fn tells_of_refused_configs(self) -> bool {
        !matches!(self, Self::Rdkafka | Self::Rdkafka1)
    }

    /// How it shares partitions out among the members of a group.
    pub(crate) fn assignors(self) -> &'static [&'static str] {
        match self {
            Self::KafkaJs => &["its own"],
            Self::Sarama | Self::SaramaOld | Self::KafkaPython | Self::AioKafka => {
                &["range", "roundrobin"]
            }
            Self::Confluent
            | Self::Rdkafka
            | Self::Java
            | Self::Franz
            | Self::Rdkafka1
            | Self::Confluent2
            | Self::Java2
            | Self::Java3
            | Self::FranzOld => &["range", "roundrobin", "cooperative-sticky"],
        }
    }

    /// Whether a member may have a name that outlives it.
    pub(crate) fn has_static_members(self) -> bool {
        self != Self::KafkaJs
    }
}
