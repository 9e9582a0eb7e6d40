//! `ottla format` as a script sees it: what it writes, what it says, how it ends; beside what Kafka's `kafka-storage
//! format` does with the same arguments (`kafka/`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
const CONTROLLERS: &str = "0@one.example:8082:JEXY6aqzQY-32P5TStzaFg,1@10.0.0.1:8083:MvDxzVmcRsaTz33bUuRU6A,\
                           2@three.example:8084:07R5amHmR32VDA6jHkGbTA";
const CHECKPOINT: &str = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";

/// A node with two directories, the second of which has the metadata.
struct Node {
    root: tempfile::TempDir,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Node {
    fn new(properties: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).display().to_string();
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            "node.id=1".to_owned(),
            "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:8083".to_owned(),
            "controller.listener.names=CONTROLLER".to_owned(),
            "ottla.http.listener=none".to_owned(),
            format!("log.dirs={},{}", path("a"), path("b")),
            format!("metadata.log.dir={}", path("b")),
        ];
        lines.extend(properties.iter().map(|&line| line.to_owned()));
        fs::write(root.path().join("node.properties"), lines.join("\n")).unwrap();
        Self { root }
    }

    fn of_three() -> Self {
        Self::new(&["controller.quorum.voters=1@localhost:8083,2@localhost:8084,3@localhost:8085"])
    }

    fn of_recorded() -> Self {
        Self::new(&["controller.quorum.bootstrap.servers=localhost:8083,localhost:8084"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn ottla(&self, command: &str, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args([command, "--config"])
            .arg(self.path("node.properties"))
            .args(arguments)
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn format(&self, arguments: &[&str]) -> Ended {
        self.ottla("format", &[&["--cluster-id", CLUSTER], arguments].concat())
    }
}

fn properties(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

fn meta(directory: &Path) -> BTreeMap<String, String> {
    properties(&fs::read_to_string(directory.join("meta.properties")).unwrap())
}

#[test]
fn what_is_written_is_what_kafkas_tool_writes() {
    let node = Node::of_recorded();
    let ended = node.format(&["--initial-controllers", CONTROLLERS]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    let (a, b) = (node.path("a"), node.path("b"));
    assert_eq!(
        ended.out,
        format!(
            "Formatting dynamic metadata voter directory {} with metadata.version 4.3-IV0.\n\
             Formatting data directory {} with metadata.version 4.3-IV0.\n",
            b.display(),
            a.display()
        )
    );
    let kafkas = properties(include_str!("kafka/meta.properties"));
    assert_eq!(meta(&b), kafkas, "the directory's id, too, comes from --initial-controllers");
    let mut other = meta(&a);
    assert_ne!(
        other.insert("directory.id".into(), kafkas["directory.id"].clone()).unwrap(),
        kafkas["directory.id"]
    );
    assert_eq!(other, kafkas);
    assert!(!a.join(CHECKPOINT).exists());
    let kafkas = include_bytes!("kafka/initial-controllers.checkpoint");
    assert_eq!(fs::read(b.join(CHECKPOINT)).unwrap().len(), kafkas.len());
}

#[test]
fn static_voters_need_an_id_and_nothing_else() {
    let node = Node::of_three();
    let ended = node.format(&[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(ended.out.starts_with("Formatting metadata directory"), "{}", ended.out);
    assert_eq!(meta(&node.path("a"))["cluster.id"], CLUSTER);
    assert!(!node.path("b").join("__cluster_metadata-0").exists());
    assert_eq!(node.ottla("format", &["--standalone"]).code, 2, "an id is required");
}

#[test]
fn what_a_crash_has_left_of_formatting_is_formatted_again() {
    let node = Node::new(&[]);
    assert_eq!(node.format(&[]).code, 0);
    for directory in ["a", "b"] {
        fs::remove_file(node.path(directory).join("meta.properties")).unwrap();
    }
    assert!(node.path("b").join("bootstrap.checkpoint").exists());
    fs::write(node.path("b").join("bootstrap.checkpoint.tmp"), "cut off").unwrap();
    let again = node.format(&[]);
    assert_eq!(again.code, 0, "{}", again.err);
}

#[test]
fn whoever_names_no_other_controller_is_not_told_to_wait_for_one() {
    let node = Node::new(&["controller.quorum.bootstrap.servers=127.0.0.1:8083"]);
    let refused = node.format(&["--no-initial-controllers"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("names no other controller"), "{}", refused.err);
    let other = Node::new(&["controller.quorum.bootstrap.servers=127.0.0.2:8083"]);
    assert_eq!(other.format(&["--no-initial-controllers"]).code, 0);
}

#[test]
fn what_is_formatted_is_left_alone() {
    let node = Node::of_three();
    node.format(&[]);
    let before = [meta(&node.path("a")), meta(&node.path("b"))];
    let again = node.format(&[]);
    assert_eq!(again.code, 5, "{}", again.err);
    assert!(again.err.contains("--ignore-formatted"), "{}", again.err);
    let ignored = node.format(&["--ignore-formatted"]);
    assert_eq!(
        (ignored.code, &*ignored.out),
        (0, "All of the directories are formatted already.\n")
    );
    let other = node.ottla("format", &["-t", "another", "-g"]);
    assert_eq!(other.code, 1);
    assert!(other.err.contains(&format!("belongs to cluster {CLUSTER}")), "{}", other.err);
    fs::remove_dir_all(node.path("a")).unwrap();
    assert_eq!(node.format(&["-g"]).code, 0);
    assert_eq!(meta(&node.path("b")), before[1]);
    assert_ne!(meta(&node.path("a")), before[0], "it is a new directory");
}

/// Nobody starts without the metadata that there was, and a new disk for it is prepared by hand.
#[test]
fn a_lost_disk_of_the_metadata_is_prepared_by_the_command_that_the_refusal_names() {
    for (node, arguments) in [
        (Node::of_three(), &[][..]),
        (Node::of_recorded(), &["--initial-controllers", CONTROLLERS]),
        (
            Node::new(&[
                "process.roles=broker",
                "listeners=PLAINTEXT://127.0.0.1:0",
                "controller.quorum.bootstrap.servers=localhost:8084",
            ]),
            &[],
        ),
    ] {
        assert_eq!(node.format(arguments).code, 0);
        let before = [meta(&node.path("a")), meta(&node.path("b"))];
        fs::remove_dir_all(node.path("b")).unwrap();
        let refused = node.ottla("serve", &["--set", "num.partitions=3"]);
        assert!(!node.path("b").exists());
        let (_, command) = refused.err.split_once("while the other nodes run, by ottla ").unwrap();
        let (command, _) = command.split_once(" (operations.md").unwrap();
        assert!(command.contains("--set num.partitions=3"), "{command}");
        let mut format = Command::new(env!("CARGO_BIN_EXE_ottla"));
        let output = format.args(command.split(' ')).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        assert_eq!(meta(&node.path("a")), before[0]);
        assert_ne!(meta(&node.path("b")), before[1], "it is a new directory");
        let cluster = |name: &str| meta(&node.path(name))["cluster.id"].clone();
        assert_eq!(cluster("b"), cluster("a"));
    }
}

#[test]
fn metadata_that_nobody_else_has_is_not_begun_anew_beside_data() {
    let node = Node::new(&[]);
    assert_eq!(node.format(&["--standalone"]).code, 0);
    fs::remove_dir_all(node.path("b")).unwrap();
    let refused = node.ottla("serve", &[]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("--join HOST:PORT of another one"), "{}", refused.err);
    assert!(refused.err.contains("--set node.id=1: "), "{}", refused.err);
    assert!(!refused.err.contains("ottla format"), "{}", refused.err);
}

#[test]
fn contradictions_are_wrong_usage_and_change_nothing() {
    let (fixed, recorded) = (Node::of_three(), Node::of_recorded());
    for (node, arguments, reason) in [
        (&fixed, &["--standalone"][..], "contradict controller.quorum.voters"),
        (&fixed, &["--initial-controllers", CONTROLLERS], "contradict"),
        (&fixed, &["--feature", "kraft.version=1"], "it must be 0"),
        (&recorded, &["-s", "--feature", "kraft.version=0"], "it must be 1"),
        (&recorded, &[], "it must be said who the controllers are"),
        (&recorded, &["-s", "-N"], "cannot be used with"),
        (&recorded, &["-s", "-I", CONTROLLERS], "cannot be used with"),
        (&recorded, &["-I", "0@h:1"], "ID@HOST:PORT:DIRECTORY-ID"),
        (&recorded, &["-N", "--feature", "nonsense"], "NAME=LEVEL"),
        (&recorded, &["-N", "--feature", "wings=1"], "there is no such feature"),
        (&recorded, &["-N", "--feature", "transaction.version=2"], "not there yet"),
        (&recorded, &["-N", "--feature", "metadata.version=29"], "begins with 30 (4.3-IV0)"),
        (&recorded, &["-N", "-r", "4.2"], "begins with 4.3-IV0"),
        (&recorded, &["-N", "-r", "4.3", "-f", "metadata.version=30"], "leave --feature"),
        (&recorded, &["-N", "--add-scram", "SCRAM-SHA-256=[name=a,password=b]"], "not there yet"),
        (&recorded, &["-N", "--set", "num.partitions=0"], "num.partitions=0 is not allowed"),
    ] {
        let ended = node.format(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(reason), "{arguments:?}: {}", ended.err);
        assert!(!node.path("a").exists() && !node.path("b").exists(), "{arguments:?}");
    }
    assert_eq!(recorded.ottla("format", &["-N", "-t", "a b"]).code, 2);
}

#[test]
fn levels_that_are_the_only_ones_may_be_named() {
    let node = Node::of_recorded();
    let features = ["-f", "kraft.version=1", "-f", "metadata.version=30", "-f", "share.version=0"];
    let ended = node.format(&[&["--standalone"], &features[..]].concat());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(node.path("b").join(CHECKPOINT).exists());
    assert_eq!(Node::of_three().format(&["-r", "4.3.1", "-f", "kraft.version=0"]).code, 0);
}

#[test]
fn a_drawn_cluster_id_is_printed() {
    let node = Node::of_three();
    let ended = node.ottla("format", &["--random-cluster-id"]);
    let id = ended.out.lines().next().unwrap().strip_prefix("Cluster id ").unwrap().to_owned();
    assert_eq!(meta(&node.path("a"))["cluster.id"], id);
    let output = Command::new(env!("CARGO_BIN_EXE_ottla")).arg("random-uuid").output().unwrap();
    let drawn = String::from_utf8(output.stdout).unwrap();
    assert_eq!((drawn.len(), id.len()), (23, 22));
    assert_ne!(drawn.trim_end(), id);
}

#[test]
fn a_node_of_several_begins_no_cluster_of_its_own() {
    let node = Node::of_recorded();
    let ended = node.ottla("serve", &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("ottla format"), "{}", ended.err);
    assert!(!node.path("a").exists());
}
