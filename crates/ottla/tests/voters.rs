//! Clusters whose voters are in the metadata log: how they begin, go on without one, what a wiped disk costs, and how voters
//! come and go.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nodes::{Nodes, ask, ids, meta, quorum, wait_for};
use ottla_base::{ErrorCode, Uuid};
use ottla_protocol::messages::add_raft_voter_request::Listener;
use ottla_protocol::messages::update_raft_voter_request::{self, KRaftVersionFeature};
use ottla_protocol::messages::{
    AddRaftVoterRequest, ApiVersionsRequest, DescribeQuorumRequest, RemoveRaftVoterRequest,
    UpdateRaftVoterRequest, describe_quorum_request,
};

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
    let nodes = Nodes::new(3);
    let (controllers, servers) = (initial_controllers(&nodes), nodes.servers(3));
    started(nodes, &[&*servers, SAFE[0], SAFE[1]], &["--initial-controllers", &controllers])
}

/// Three nodes that know each other from their properties, and ready.
fn three_by_ids_alone() -> Nodes {
    let nodes = Nodes::new(3);
    let voters = nodes.voters(3);
    started(nodes, &[&voters], &[])
}

fn started(mut nodes: Nodes, properties: &[&str], options: &[&str]) -> Nodes {
    for id in 1..=3 {
        prepare(&mut nodes, id, "broker,controller", properties, options);
        nodes.start(id);
    }
    nodes.ready(&[1, 2, 3]);
    nodes
}

/// Writes its properties, and formats it.
fn prepare(nodes: &mut Nodes, id: usize, roles: &str, properties: &[&str], options: &[&str]) {
    nodes.write(id, roles, properties);
    let ended = nodes.format(id, &[&["-t", CLUSTER], options].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
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
fn clients_are_told_of_the_quorums_feature_and_of_its_level_where_the_log_has_one() {
    // What this release knows, and what the cluster has.
    let told = |address: &str| {
        let named = |name: &str| name == "kraft.version";
        let (client_software_name, client_software_version) = ("test".into(), "1".into());
        let request = ApiVersionsRequest { client_software_name, client_software_version };
        let response = ask(address, &request);
        let mut known = response.supported_features.iter().filter(|it| named(&it.name));
        let mut held = response.finalized_features.iter().filter(|it| named(&it.name));
        let known = known.next().map(|it| (it.min_version, it.max_version));
        (known, held.next().map(|it| (it.min_version_level, it.max_version_level)))
    };
    let recorded = three();
    for address in recorded.clients.iter().chain(&recorded.controllers) {
        assert_eq!(told(address), (Some((0, 1)), Some((1, 1))), "{address}");
    }
    drop(recorded);
    let fixed = three_by_ids_alone();
    assert_eq!(told(&fixed.clients[0]), (Some((0, 1)), None));
}

#[test]
fn a_node_that_can_no_longer_write_its_metadata_ends_without_waiting_for_others_to_take_over() {
    let mut nodes = three();
    let leader = usize::try_from(quorum(&nodes.clients[0]).leader_id).unwrap();
    let lame = leader % 3 + 1;
    std::fs::rename(nodes.data(lame), nodes.root.path().join("gone")).unwrap();
    std::fs::write(nodes.data(lame), "no directory").unwrap();
    // Whom it votes for next it can't write down.
    nodes.kill(leader);
    let node = nodes.running.get_mut(&lame).unwrap();
    node.says("stopping");
    let begin = Instant::now();
    let (code, log) = node.ended();
    assert_ne!(code, 0, "{log}");
    // Others would have half a minute to take over.
    assert!(begin.elapsed() < Duration::from_secs(15), "{log}");
}

#[test]
fn a_node_that_can_not_vote_while_it_waits_for_the_others_ends() {
    for roles in ["controller", "broker,controller"] {
        let mut nodes = Nodes::new(3);
        let (controllers, servers) = (initial_controllers(&nodes), nodes.servers(3));
        for id in [1, 2] {
            let options = ["--initial-controllers", &*controllers];
            prepare(&mut nodes, id, roles, &[&*servers], &options);
        }
        nodes.start(1);
        assert!(wait_for(|| TcpStream::connect(&nodes.controllers[0]).is_ok()));
        // Whatever it says: it does so once it serves other controllers.
        ask(&nodes.controllers[0], &DescribeQuorumRequest::default());
        std::fs::rename(nodes.data(1), nodes.root.path().join("gone")).unwrap();
        std::fs::write(nodes.data(1), "no directory").unwrap();
        let begin = Instant::now();
        // Which asks for a vote that can't be written down.
        nodes.start(2);
        let (code, log) = nodes.running.get_mut(&1).unwrap().ended();
        assert_ne!(code, 0, "{log}");
        // A broker gives up by itself after a minute without a controller.
        assert!(begin.elapsed() < Duration::from_secs(30), "{log}");
    }
}

#[test]
fn a_voter_whose_disk_was_wiped_and_formatted_anew_is_another_directory_and_does_not_vote() {
    let mut nodes = three();
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let ended = nodes.format(3, &["-t", CLUSTER, "--no-initial-controllers"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_ne!(meta(&nodes.data(3), "directory.id"), DIRECTORIES[2]);
    nodes.start(3);
    nodes.ready(&[3]);
    let quorum = quorum(&nodes.clients[2]);
    assert_eq!(ids(&quorum.current_voters), [1, 2, 3]);
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

#[test]
fn a_voter_whose_metadata_log_was_deleted_does_not_start_until_it_is_formatted_anew() {
    let mut nodes = three();
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3).join("__cluster_metadata-0")).unwrap();
    nodes.start(3);
    let (code, log) = nodes.running.get_mut(&3).unwrap().ended();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("is gone") && log.contains("formatted anew"), "{log}");
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    nodes.start(3);
    nodes.ready(&[3]);
    assert_ne!(meta(&nodes.data(3), "directory.id"), DIRECTORIES[2]);
}

/// One node that was formatted with `--standalone`, and two more with empty directories that follow it.
fn one_and_two_observers(properties: &[&str]) -> Nodes {
    let mut nodes = one_of_three(properties);
    for id in [2, 3] {
        nodes.start(id);
        nodes.ready(&[id]);
    }
    nodes
}

/// The first of them alone.
fn one_of_three(properties: &[&str]) -> Nodes {
    let mut nodes = Nodes::new(3);
    let servers = nodes.servers(3);
    let properties = [&[&*servers, SAFE[0], SAFE[1]], properties].concat();
    for id in 1..=3 {
        nodes.write(id, "broker,controller", &properties);
    }
    let ended = nodes.format(1, &["-t", CLUSTER, "--standalone"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    nodes.start(1);
    nodes.ready(&[1]);
    nodes
}

fn directory(nodes: &Nodes, id: usize) -> Uuid {
    meta(&nodes.data(id), "directory.id").parse().unwrap()
}

/// Asks through a broker that does not lead, or at a controller.
fn add(nodes: &Nodes, at: &str, id: usize) -> (ErrorCode, Option<String>) {
    let (host, port) = nodes.controllers[id - 1].rsplit_once(':').unwrap();
    let name = "CONTROLLER".into();
    let request = AddRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        timeout_ms: 10_000,
        voter_id: i32::try_from(id).unwrap(),
        voter_directory_id: directory(nodes, id),
        listeners: vec![Listener { name, host: host.into(), port: port.parse().unwrap() }],
        ack_when_committed: true,
    };
    let answer = ask(at, &request);
    (answer.error_code, answer.error_message.map(|it| it.to_string()))
}

fn remove(at: &str, id: usize, directory: Uuid) -> (ErrorCode, Option<String>) {
    let request = RemoveRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        voter_id: i32::try_from(id).unwrap(),
        voter_directory_id: directory,
    };
    let answer = ask(at, &request);
    (answer.error_code, answer.error_message.map(|it| it.to_string()))
}

/// The voters and the observers, as whoever leads says through this broker.
fn members(at: &str) -> (Vec<i32>, Vec<i32>) {
    let quorum = quorum(at);
    (ids(&quorum.current_voters), ids(&quorum.observers))
}

fn become_members(at: &str, voters: &[i32], observers: &[i32]) {
    let is_so = || members(at) == (voters.to_vec(), observers.to_vec());
    assert!(wait_for(is_so), "{:?}", quorum(at));
}

#[test]
fn controllers_are_added_and_removed_while_clients_write() {
    let mut nodes = one_and_two_observers(&[]);
    let [one, two, three] = [0, 1, 2].map(|at| nodes.clients[at].clone());
    become_members(&one, &[1], &[2, 3]);
    assert_eq!(add(&nodes, &two, 2), (ErrorCode::NONE, None), "through another broker");
    assert_eq!(add(&nodes, &nodes.controllers[0], 3), (ErrorCode::NONE, None), "at the controller");
    become_members(&one, &[1, 2, 3], &[]);
    assert_eq!(add(&nodes, &one, 3).0, ErrorCode::DUPLICATE_VOTER);
    let follower = add(&nodes, &nodes.controllers[1], 3);
    assert_eq!(follower, (ErrorCode::NOT_LEADER_OR_FOLLOWER, Some(String::new())));
    nodes.produce("orders", "of three\n");

    // The one that leads goes, and another one takes over.
    let first = directory(&nodes, 1);
    assert_eq!(remove(&three, 1, first), (ErrorCode::NONE, None));
    become_members(&three, &[2, 3], &[1]);
    assert_eq!(remove(&three, 1, first).0, ErrorCode::VOTER_NOT_FOUND);
    nodes.produce("orders", "of two\n");
    nodes.kill(1);
    nodes.produce("orders", "without the first\n");
    nodes.start(1);
    nodes.ready(&[1]);
    become_members(&one, &[2, 3], &[1]);
    assert_eq!(nodes.consume("orders"), ["of three", "of two", "without the first"]);
}

#[test]
fn controllers_join_by_themselves_and_with_a_new_disk_again() {
    let mut nodes = one_of_three(&["controller.quorum.auto.join.enable=true"]);
    let one = nodes.clients[0].clone();
    nodes.start(2);
    nodes.ready(&[2]);
    // Of two voters, neither could be lost.
    for id in [1, 2] {
        nodes.running[&id].says("waits for a third node");
    }
    become_members(&one, &[1], &[2]);
    nodes.start(3);
    nodes.ready(&[3]);
    become_members(&one, &[1, 2, 3], &[]);
    for id in 1..=3 {
        nodes.running[&id].says("the voters are now 1, 2, 3");
    }
    nodes.produce("orders", "before\n");
    nodes.kill(3);
    let lost = directory(&nodes, 3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    nodes.start(3);
    nodes.running[&3].says("the data directories were empty");
    nodes.ready(&[3]);
    assert_ne!(directory(&nodes, 3), lost);
    let has_new_disk = || {
        let voters = quorum(&one).current_voters;
        let third = voters.iter().find(|it| it.replica_id == 3);
        third.is_some_and(|it| it.replica_directory_id == directory(&nodes, 3))
    };
    assert!(wait_for(has_new_disk), "{:?}", quorum(&one));
    // Its vote counts.
    nodes.kill(2);
    nodes.produce("orders", "after\n");
    assert_eq!(nodes.consume("orders"), ["after", "before"]);
}

/// Where the voters are reached as controllers, as whoever leads says through this broker.
fn places(at: &str) -> Vec<String> {
    let partition = describe_quorum_request::PartitionData { partition_index: 0 };
    let topic_name = "__cluster_metadata".into();
    let topic = describe_quorum_request::TopicData { topic_name, partitions: vec![partition] };
    let nodes = ask(at, &DescribeQuorumRequest { topics: vec![topic] }).nodes;
    let place = |it: &ottla_protocol::messages::describe_quorum_response::Listener| {
        format!("{}:{}", it.host, it.port)
    };
    // A voter is named before it has registered where it is.
    nodes.iter().flat_map(|node| node.listeners.first()).map(place).collect()
}

/// A free address, for a node that moves.
fn another() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

#[test]
fn controllers_that_move_say_where_they_are_whether_they_follow_lead_or_are_alone() {
    let properties = ["controller.quorum.auto.join.enable=true"];
    let mut nodes = one_of_three(&properties);
    let servers = nodes.servers(3);
    let properties = [&*servers, SAFE[0], SAFE[1], properties[0]];
    // Alone; no file of the others knows of it, they ask its broker.
    nodes.kill(1);
    nodes.controllers[0] = another();
    let servers_now = nodes.servers(3);
    nodes.write(1, "broker,controller", &[&*servers_now, SAFE[0], SAFE[1]]);
    nodes.start(1);
    nodes.ready(&[1]);
    let one = nodes.clients[0].clone();
    assert!(wait_for(|| places(&one) == nodes.controllers[..1]), "{:?}", places(&one));
    for id in [2, 3] {
        let properties = [&*servers_now, properties[1], properties[2], properties[3]];
        nodes.write(id, "broker,controller", &properties);
        nodes.start(id);
    }
    nodes.ready(&[2, 3]);
    become_members(&one, &[1, 2, 3], &[]);
    // One after the other, whoever leads; nobody else is told.
    for id in [2, 1] {
        nodes.kill(id);
        nodes.controllers[id - 1] = another();
        nodes.write(id, "broker,controller", &properties);
        nodes.start(id);
        nodes.ready(&[id]);
        let three = nodes.clients[2].clone();
        assert!(wait_for(|| places(&three) == nodes.controllers), "{:?}", places(&three));
    }
    nodes.kill(3);
    nodes.produce("orders", "by two that have moved\n");
    assert_eq!(nodes.consume("orders"), ["by two that have moved"]);
}

/// What an UpdateRaftVoter is answered, as Apache Kafka 4.3.1 answers it.
#[test]
fn an_update_of_a_voter_is_answered_as_apache_kafka_answers_it() {
    let nodes = three();
    let leader = usize::try_from(quorum(&nodes.clients[0]).leader_id).unwrap();
    let other = if leader == 3 { 2 } else { 3 };
    let at = nodes.controllers[leader - 1].clone();
    update_raft_voter(&at, CLUSTER, (other, directory(&nodes, other)));
    // It knows better where it is itself, and says so.
    assert!(wait_for(|| places(&nodes.clients[0]) == nodes.controllers));
}

/// Asks the controller that leads about a voter that follows.
fn update_raft_voter(at: &str, cluster_id: &str, (id, directory): (usize, Uuid)) {
    let quorum = quorum(at);
    let (leader, epoch) = (quorum.leader_id, quorum.leader_epoch);
    let listener = |name: &str| update_raft_voter_request::Listener {
        name: name.into(),
        host: "elsewhere.example".into(),
        port: 9999,
    };
    let levels = |min: i16, max: i16| KRaftVersionFeature {
        min_supported_version: min,
        max_supported_version: max,
    };
    let good = UpdateRaftVoterRequest {
        cluster_id: Some(cluster_id.into()),
        current_leader_epoch: epoch,
        voter_id: i32::try_from(id).unwrap(),
        voter_directory_id: directory,
        listeners: vec![listener("CONTROLLER")],
        k_raft_version_feature: levels(0, 1),
    };
    let with = |change: &dyn Fn(&mut UpdateRaftVoterRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let invalid = ErrorCode::INVALID_REQUEST;
    for (request, expected) in [
        (with(&|it| it.cluster_id = Some("another".into())), ErrorCode::INCONSISTENT_CLUSTER_ID),
        (with(&|it| it.current_leader_epoch -= 1), ErrorCode::FENCED_LEADER_EPOCH),
        (with(&|it| it.current_leader_epoch = -1), ErrorCode::FENCED_LEADER_EPOCH),
        (with(&|it| it.current_leader_epoch += 1), ErrorCode::UNKNOWN_LEADER_EPOCH),
        (with(&|it| it.voter_id = -1), invalid),
        (with(&|it| it.voter_directory_id = Uuid::ZERO), invalid),
        (with(&|it| it.listeners.clear()), invalid),
        (with(&|it| it.listeners = vec![listener("OTHER")]), invalid),
        (with(&|it| it.k_raft_version_feature = levels(-1, 1)), invalid),
        (with(&|it| it.k_raft_version_feature = levels(1, 0)), invalid),
        (with(&|it| it.k_raft_version_feature = levels(0, 0)), invalid),
        (with(&|it| it.k_raft_version_feature = levels(2, 3)), invalid),
        (with(&|it| it.voter_id = 4), ErrorCode::VOTER_NOT_FOUND),
        (with(&|it| it.voter_directory_id = Uuid([9; 16])), ErrorCode::VOTER_NOT_FOUND),
        (with(&|it| it.cluster_id = None), ErrorCode::NONE),
        // Apache Kafka has not committed the one before, and says REQUEST_TIMED_OUT.
        (good.clone(), ErrorCode::NONE),
    ] {
        let answer = ask(at, &request);
        assert_eq!(answer.error_code, expected, "{request:?}");
        let told = answer.current_leader;
        assert_eq!((told.leader_id, told.leader_epoch), (leader, epoch), "{request:?}");
        assert_eq!(format!("{}:{}", told.host, told.port), at, "{request:?}");
    }
}
