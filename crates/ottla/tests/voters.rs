//! Clusters whose voters are in the metadata log: how they begin, go on without one, and what a wiped disk costs.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod nodes;

use nodes::Nodes;

const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
const DIRECTORIES: [&str; 3] =
    ["JEXY6aqzQY-32P5TStzaFg", "MvDxzVmcRsaTz33bUuRU6A", "07R5amHmR32VDA6jHkGbTA"];
/// What a topic needs to live on without one of three nodes.
const SAFE: [&str; 2] = ["default.replication.factor=3", "min.insync.replicas=2"];

fn initial_controllers(nodes: &Nodes) -> String {
    let controllers = nodes.controllers.iter().zip(DIRECTORIES).enumerate();
    let controllers = controllers.map(|(at, (address, id))| format!("{}@{address}:{id}", at + 1));
    controllers.collect::<Vec<_>>().join(",")
}

/// Three nodes, formatted with `--initial-controllers`, and ready.
fn three() -> Nodes {
    let mut nodes = Nodes::new(3);
    let (controllers, servers) = (initial_controllers(&nodes), nodes.servers(3));
    for id in 1..=3 {
        nodes.write(id, "broker,controller", &[&*servers, SAFE[0], SAFE[1]]);
        let ended = nodes.format(id, &["-t", CLUSTER, "--initial-controllers", &controllers]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        nodes.start(id);
    }
    nodes.ready(&[1, 2, 3]);
    nodes
}

#[test]
fn three_nodes_that_were_formatted_with_their_controllers_replicate_and_go_on_without_one() {
    let mut nodes = three();
    nodes.succeed(&["topic", "create", "orders", "--partitions", "3"]);
    nodes.produce("orders", "before\n");
    nodes.kill(2);
    nodes.produce("orders", "after\n");
    assert_eq!(nodes.consume("orders"), ["after", "before"]);
    nodes.start(2);
    nodes.ready(&[2]);
    nodes.kill(1);
    nodes.produce("orders", "last\n");
    assert_eq!(nodes.consume("orders"), ["after", "before", "last"]);
}

#[test]
fn a_voter_whose_disk_was_wiped_and_formatted_anew_is_another_directory_and_does_not_vote() {
    let mut nodes = three();
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let ended = nodes.format(3, &["-t", CLUSTER, "--no-initial-controllers"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_ne!(nodes::meta(&nodes.data(3), "directory.id"), DIRECTORIES[2]);
    nodes.start(3);
    nodes.ready(&[3]);
    let quorum = nodes::quorum(&nodes.clients[2]);
    assert_eq!(nodes::ids(&quorum.current_voters), [1, 2, 3]);
    let lost = quorum.current_voters.iter().find(|it| it.replica_id == 3).unwrap();
    assert_eq!(lost.replica_directory_id.to_string(), DIRECTORIES[2]);
    let [observer] = &*quorum.observers else { panic!("{quorum:?}") };
    assert_eq!(observer.replica_id, 3);
    assert_ne!(observer.replica_directory_id, lost.replica_directory_id);
    // With one more voter gone nothing is decided: the new disk does not vote in the lost one's name.
    nodes.kill(2);
    let refused = nodes.client(&["topic", "create", "late", "--timeout", "3s"]).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
}
