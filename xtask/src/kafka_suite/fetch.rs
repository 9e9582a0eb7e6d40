//! The suite's jars and the part of it that is ours, below `target/interop/kafka-suite` (shell).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::broker::Target;
use crate::interop::fetch::{copy_jars, once_per};
use crate::process::run_ok;
use crate::program::Program;
use crate::{ottla, workspace};

const LIMIT: Duration = Duration::from_secs(300);
const HEAP: &str = "512m";
/// The jar all of whose tests are run.
const TESTS: &str = "kafka-clients-integration-tests-4.3.1-test.jar";

/// The tests of other jars that ask for several brokers of the same kind of cluster, or stop one.
const OF_OTHER_JARS: &[&str] = &[
    "org.apache.kafka.tools.ClusterToolTest",
    "org.apache.kafka.tools.FeatureCommandTest",
    "org.apache.kafka.tools.LeaderElectionCommandTest",
    "org.apache.kafka.tools.LogDirsCommandTest",
    "org.apache.kafka.tools.MetadataQuorumCommandTest",
    "org.apache.kafka.tools.TopicCommandTest",
    "org.apache.kafka.tools.reassign.ReassignPartitionsCommandTest",
    "org.apache.kafka.server.BootstrapControllersIntegrationTest",
    "org.apache.kafka.server.EligibleLeaderReplicasIntegrationTest",
    "org.apache.kafka.server.MetadataRequestTest",
    "org.apache.kafka.server.UncleanLeaderElectionTest",
    "kafka.api.PlaintextAdminIntegrationTest",
    "kafka.admin.AddPartitionsTest",
    "kafka.api.PlaintextConsumerAssignorsTest",
    "kafka.api.PlaintextProducerSendTest",
    "kafka.server.AlterReplicaLogDirsRequestTest",
    "kafka.server.ApiVersionsResponseIntegrationTest",
    "kafka.server.CreateTopicsRequestTest",
    "kafka.server.DeleteRecordsRequestTest",
    "kafka.server.DeleteTopicsRequestTest",
    "kafka.server.DeleteTopicsRequestWithDeletionDisabledTest",
    "kafka.server.DescribeClusterRequestTest",
    "kafka.server.EdgeCaseRequestTest",
    "kafka.server.FetchFromFollowerIntegrationTest",
    "kafka.server.FetchRequestMaxBytesTest",
    "kafka.server.FetchRequestTest",
    "kafka.server.ListOffsetsRequestTest",
    "kafka.server.OffsetsForLeaderEpochRequestTest",
    "kafka.server.ProduceRequestTest",
    "kafka.server.ReplicaFetchTest",
];

fn source() -> PathBuf {
    workspace::root().join("interop/kafka-suite")
}

fn target() -> PathBuf {
    workspace::interop_target().join("kafka-suite")
}

/// Kafka's tests, brokers and clients, and JUnit.
pub(super) fn jars() -> Result<PathBuf> {
    let lib = target().join("lib");
    copy_jars(&source().join("pom.xml"), &lib)?;
    Ok(lib)
}

/// Our classes, compiled.
pub(super) fn classes() -> Result<PathBuf> {
    let jars = jars()?;
    let classes = target().join("classes");
    let sources = [
        "src/suite/Harness.java",
        "src/suite/Runner.java",
        "src/suite/ExternalCluster.java",
        "src/suite/Broker.java",
        "src/suite/Controller.java",
        "src/kafka/server/QuorumTestHarness.java",
        "src/org/apache/kafka/common/test/junit/RaftClusterInvocationContext.java",
    ]
    .map(|file| source().join(file));
    once_per(&sources, &classes, || {
        let mut command = Command::new("javac");
        command.args(["-nowarn", "-cp"]).arg(jars.join("*")).arg("-d").arg(&classes).args(&sources);
        run_ok(command, b"", LIMIT).context("cannot compile the suite's runner").map(drop)
    })?;
    Ok(classes)
}

/// The names of all test classes.
pub(super) fn test_classes() -> Result<Vec<String>> {
    let mut command = Command::new("jar");
    command.arg("tf").arg(jars()?.join(TESTS));
    let listed = run_ok(command, b"", LIMIT)?.stdout_text();
    let class = |line: &str| Some(line.strip_suffix("Test.class")?.replace('/', ".") + "Test");
    let others = OF_OTHER_JARS.iter().map(|name| (*name).to_owned());
    Ok(listed.lines().filter_map(class).chain(others).collect())
}

/// Beside the jars, with which it goes: it is of no use for others.
fn archive() -> PathBuf {
    target().join("lib/kafka.jsa")
}

pub(super) fn has_learnt() -> bool {
    archive().exists()
}

/// What runs as a node. Apache Kafka is started again and again: what it learnt about its classes at the first start is kept
/// for the next ones, which take half the time.
pub(super) fn program(target: Target) -> Result<Program> {
    if target == Target::Ottla {
        return Ok(Program::Ottla(ottla::binary()?));
    }
    let option = if has_learnt() { "-XX:SharedArchiveFile" } else { "-XX:ArchiveClassesAtExit" };
    let archive = format!("{option}={}", archive().display());
    let options = vec!["-XX:TieredStopAtLevel=1".to_owned(), archive];
    Ok(Program::Kafka { jars: jars()?, heap: HEAP.to_owned(), options })
}
