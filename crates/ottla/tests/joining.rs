//! Nodes without a file that join a cluster of one: how it grows, goes on without any of its nodes, and who is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use std::io::Write as _;
use std::process::Stdio;

use nodes::{Nodes, ask, ids, meta, quorum, wait_for};
use ottla_base::ErrorCode;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use rustix::process::Signal;

/// A topic that lives on without one of three nodes.
const SAFE: [&str; 4] = ["--replication-factor", "3", "--config", "min.insync.replicas=2"];
/// A node that has no wish to vote.
const NO_VOTE: [&str; 2] = ["--set", "controller.quorum.auto.join.enable=false"];

/// A node that began alone, and is ready; the addresses of two more.
fn first() -> Nodes {
    let mut nodes = Nodes::new(3);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes
}

fn create(nodes: &Nodes, topic: &str) {
    nodes.succeed(&[&["topic", "create", topic], &SAFE[..]].concat());
}

fn brokers(address: &str) -> DescribeClusterResponse {
    ask(address, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() })
}

/// As with `--bootstrap-controller`.
fn controllers(address: &str) -> DescribeClusterResponse {
    ask(address, &DescribeClusterRequest { endpoint_type: 2, ..Default::default() })
}

/// Where each of them is, in the order of their ids.
fn addresses(response: &DescribeClusterResponse) -> Vec<(i32, String)> {
    let address = |host: &str, port: i32| format!("{host}:{port}");
    let nodes = response.brokers.iter();
    let mut all: Vec<_> = nodes.map(|it| (it.broker_id, address(&it.host, it.port))).collect();
    all.sort();
    all
}

const BROKER: i8 = 4;
/// A property that each broker may have for itself.
const OWN: &str = "log.cleaner.backoff.ms";

fn set_for(address: &str, broker: i32, value: &str) -> ErrorCode {
    let config = AlterableConfig {
        name: OWN.into(),
        config_operation: 0,
        value: Some(value.to_owned().into()),
    };
    let resource = AlterConfigsResource {
        resource_type: BROKER,
        resource_name: broker.to_string().into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    ask(address, &request).responses[0].error_code
}

fn own_value(address: &str, broker: i32) -> String {
    let resource = DescribeConfigsResource {
        resource_type: BROKER,
        resource_name: broker.to_string().into(),
        configuration_keys: Some(vec![OWN.into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let described = ask(address, &request).results.remove(0);
    described.configs[0].value.as_deref().unwrap().to_owned()
}

fn broker_ids(address: &str) -> Vec<i32> {
    let mut ids: Vec<_> = brokers(address).brokers.iter().map(|it| it.broker_id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_cluster_grows_from_one_to_three_and_goes_on_without_any_of_them() {
    let mut nodes = first();
    nodes.succeed(&["topic", "create", "early"]);
    let mut producer = nodes.client(&["produce", "early"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = producer.stdin.take().unwrap();
    let mut written = 0;
    let mut write = || {
        written += 1;
        writeln!(lines, "{written:05}").unwrap();
    };
    write();
    let join = nodes.clients[0].clone();
    // At the same moment: neither gets the other's id.
    nodes.serve(2, &["--join", &join]);
    nodes.serve(3, &["--join", &join]);
    nodes.ready(&[2, 3]);
    let mut given = [2, 3].map(|it| meta(&nodes.data(it), "node.id"));
    given.sort_unstable();
    assert_eq!(given, ["2", "3"]);
    let votes = || ids(&quorum(&join).current_voters) == [1, 2, 3];
    let grown = wait_for(|| {
        write();
        votes()
    });
    assert!(grown, "{:?}", quorum(&join));
    write();
    drop(lines);
    assert!(producer.wait().unwrap().success());
    create(&nodes, "orders");
    nodes.produce("orders", "of three\n");

    nodes.kill(1);
    create(&nodes, "later");
    nodes.produce("orders", "without the first\n");
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    assert_eq!(meta(&nodes.data(1), "node.id"), "1");
    assert!(wait_for(votes), "{:?}", quorum(&join));
    for id in [2, 3] {
        nodes.kill(id);
        nodes.produce("orders", &format!("without {id}\n"));
        nodes.serve(id, &[]);
        nodes.ready(&[id]);
        assert!(wait_for(|| broker_ids(&join) == [1, 2, 3]), "{:?}", brokers(&join));
    }
    // All at once, as after a power cut: they find each other where clients come in.
    [1, 2, 3].into_iter().for_each(|id| nodes.kill(id));
    [1, 2, 3].into_iter().for_each(|id| nodes.serve(id, &[]));
    nodes.ready(&[1, 2, 3]);
    let all = ["of three", "without 2", "without 3", "without the first"];
    assert_eq!(nodes.consume("orders"), all);
    let early: Vec<String> = (1..=written).map(|number| format!("{number:05}")).collect();
    assert_eq!(nodes.consume("early"), early, "what was written while the cluster grew");
}

#[test]
fn a_node_waits_for_the_cluster_that_it_joins_and_has_changed_nothing_until_then() {
    let mut nodes = Nodes::new(2);
    let join = nodes.clients[0].clone();
    nodes.serve(2, &["--join", &join]);
    nodes.running[&2].says(&format!("waiting for the cluster at {join}"));
    assert!(!nodes.data(2).exists());
    assert!(nodes.running.get_mut(&2).unwrap().end(Signal::TERM).success());
    nodes.serve(2, &["--join", &join]);
    nodes.serve(1, &[]);
    nodes.ready(&[1, 2]);
    assert_eq!(broker_ids(&join), [1, 2]);
    // Of two voters neither could be lost.
    nodes.running[&1].says("waits for a third node");
    nodes.running[&2].says("this node has no vote");
    let quorum = quorum(&join);
    assert_eq!((ids(&quorum.current_voters), ids(&quorum.observers)), (vec![1], vec![2]));
}

#[test]
fn what_belongs_to_another_cluster_does_not_join_and_neither_does_a_node_at_itself() {
    let mut nodes = first();
    nodes.serve(2, &[]);
    nodes.ready(&[2]);
    let other = meta(&nodes.data(2), "cluster.id");
    nodes.kill(2);
    nodes.serve(2, &["--join", &nodes.clients[0].clone()]);
    let (code, log) = nodes.running.get_mut(&2).unwrap().ended();
    assert_eq!(code, 1);
    assert!(
        log.contains(&format!("the data belongs to cluster {other}, but the node at")),
        "{log}"
    );
    nodes.serve(3, &["--join", &nodes.clients[2].clone()]);
    let (code, log) = nodes.running.get_mut(&3).unwrap().ended();
    assert_eq!(code, 1);
    assert!(log.contains("--join names this node itself"), "{log}");
}

#[test]
fn a_temporary_node_on_a_free_port_joins_and_others_reach_it_there() {
    let mut nodes = Nodes::new(2);
    nodes.clients[0] = "127.0.0.1:0".to_owned();
    nodes.serve(1, &[]);
    let port_of = |line: &str| {
        let address = line.split("PLAINTEXT://").nth(1).unwrap();
        address.split(',').next().unwrap().to_owned()
    };
    nodes.clients[0] = port_of(&nodes.running[&1].ready());
    let mut command = nodes::ottla();
    let options = ["serve", "--ephemeral", "--listen", "127.0.0.1:0", "--set", "node.id=9"];
    command.args(options).args(["--join", &nodes.clients[0]]).args(NO_VOTE);
    command.args(["--set", "ottla.http.listener=127.0.0.1:0"]);
    let second = nodes::Running::start(&mut command, nodes.root.path().join("second.log"));
    nodes.clients[1] = port_of(&second.ready());
    let known = brokers(&nodes.clients[0]);
    let known = known.brokers.iter().find(|it| it.broker_id == 9).unwrap();
    assert_eq!(format!("{}:{}", &*known.host, known.port), nodes.clients[1]);
    nodes.succeed(&["topic", "create", "orders", "--replication-factor", "2"]);
    nodes.produce("orders", "of two\n");
    assert_eq!(nodes.consume("orders"), ["of two"]);
}

#[test]
fn a_node_that_the_others_do_not_reach_says_where_they_look_for_it() {
    let mut nodes = first();
    let join = nodes.clients[0].clone();
    let wrong = ["--set", "advertised.listeners=PLAINTEXT://127.0.0.1:1"];
    nodes.serve(2, &[&["--join", &join], &wrong[..]].concat());
    nodes.running[&2].says("do they reach this node at 127.0.0.1:1?");
    nodes.kill(2);
    // With the right one it goes on where it was.
    nodes.serve(2, &["--join", &join]);
    nodes.ready(&[2]);
    assert_eq!(broker_ids(&join), [1, 2]);
}

/// What Kafka's tools ask with `--bootstrap-controller`.
#[test]
fn the_one_port_of_a_node_answers_for_the_controllers_too() {
    let mut nodes = first();
    let join = nodes.clients[0].clone();
    nodes.serve(2, &["--join", &join]);
    nodes.ready(&[2]);
    nodes.serve(3, &["--join", &join]);
    nodes.ready(&[3]);
    assert!(wait_for(|| ids(&quorum(&join).current_voters) == [1, 2, 3]), "{:?}", quorum(&join));
    let all: Vec<_> = (1..).zip(nodes.clients.clone()).collect();
    let active = quorum(&join).leader_id;
    for (_, address) in &all {
        let known = || (addresses(&controllers(address)), controllers(address).controller_id);
        let is_so = wait_for(|| known() == (all.clone(), active));
        assert!(is_so, "{:?}", controllers(address));
        assert_eq!(controllers(address).endpoint_type, 2);
        assert_eq!(
            (brokers(address).endpoint_type, addresses(&brokers(address))),
            (1, all.clone())
        );
    }
    // A controller is asked to change any broker, and whoever does not decide carries it there.
    for (id, _) in &all {
        for (asked, address) in &all {
            let value = (10 * id + asked).to_string();
            assert_eq!(set_for(address, *id, &value), ErrorCode::NONE);
            let own = &nodes.clients[usize::try_from(*id).unwrap() - 1];
            assert!(wait_for(|| own_value(own, *id) == value), "{}", own_value(own, *id));
        }
        assert_eq!(set_for(&join, 9, "2"), ErrorCode::BROKER_ID_NOT_REGISTERED);
    }
    nodes.kill(usize::try_from(active).unwrap());
    let (_, other) = all.iter().find(|(id, _)| *id != active).unwrap();
    let next = wait_for(|| ![active, -1].contains(&controllers(other).controller_id));
    assert!(next, "{:?}", controllers(other));
}

/// The first node has a listener for controllers alone, and is asked where clients come in.
#[test]
fn a_node_joins_a_cluster_whose_controllers_have_a_listener_of_their_own() {
    let mut nodes = Nodes::new(2);
    nodes.write(1, "broker,controller", &[]);
    nodes.start(1);
    nodes.ready(&[1]);
    nodes.serve(2, &[&["--join", &nodes.clients[0].clone()], &NO_VOTE[..]].concat());
    nodes.ready(&[2]);
    let quorum = quorum(&nodes.clients[1]);
    assert_eq!((ids(&quorum.current_voters), ids(&quorum.observers)), (vec![1], vec![2]));
    // There everything is as with Kafka: each listener answers for its own.
    let refused = controllers(&nodes.clients[0]).error_code;
    assert_eq!(refused, ErrorCode::MISMATCHED_ENDPOINT_TYPE);
    assert_eq!(brokers(&nodes.controllers[0]).error_code, ErrorCode::MISMATCHED_ENDPOINT_TYPE);
    assert_eq!(set_for(&nodes.clients[0], 2, "2"), ErrorCode::INVALID_REQUEST);
    // The new one names both by the listeners that they have.
    let all = [(1, nodes.controllers[0].clone()), (2, nodes.clients[1].clone())];
    let known = || controllers(&nodes.clients[1]);
    assert!(wait_for(|| addresses(&known()) == all), "{:?}", known());
    assert_eq!(known().controller_id, 1);
    nodes.succeed(&["topic", "create", "orders", "--replication-factor", "2"]);
    nodes.produce("orders", "of two\n");
    assert_eq!(nodes.consume("orders"), ["of two"]);
}

/// As one that was killed right after it was formatted, and whose log is still empty.
#[test]
fn a_node_that_has_joined_begins_no_cluster_of_its_own_when_it_finds_nobody() {
    let mut nodes = first();
    let join = nodes.clients[0].clone();
    nodes.serve(2, &[&["--join", &join], &NO_VOTE[..]].concat());
    nodes.ready(&[2]);
    nodes.kill(1);
    nodes.kill(2);
    std::fs::remove_dir_all(nodes.data(2).join("__cluster_metadata-0")).unwrap();
    std::fs::remove_file(nodes.data(2).join("ottla.begun")).unwrap();
    let timeout = "initial.broker.registration.timeout.ms=1000";
    nodes.serve(2, &[&["--set", timeout], &NO_VOTE[..]].concat());
    let (code, log) = nodes.running.get_mut(&2).unwrap().ended();
    assert_eq!(code, 1);
    assert!(log.contains("not taken within 1 s: no controller has taken this broker"), "{log}");
    nodes.serve(2, &NO_VOTE);
    nodes.serve(1, &[]);
    nodes.ready(&[1, 2]);
    assert_eq!(broker_ids(&join), [1, 2]);
}

#[test]
fn the_first_node_takes_its_place_again_with_a_new_disk() {
    let mut nodes = first();
    let join = nodes.clients[0].clone();
    nodes.serve(2, &["--join", &join]);
    nodes.serve(3, &["--join", &join]);
    nodes.ready(&[2, 3]);
    assert!(wait_for(|| ids(&quorum(&join).current_voters) == [1, 2, 3]), "{:?}", quorum(&join));
    create(&nodes, "orders");
    nodes.produce("orders", "before\n");
    nodes.kill(1);
    std::fs::remove_dir_all(nodes.data(1)).unwrap();
    let other = nodes.clients[1].clone();
    nodes.serve(1, &["--join", &other, "--set", "node.id=1"]);
    nodes.ready(&[1]);
    let cluster = |id| meta(&nodes.data(id), "cluster.id");
    assert_eq!(cluster(1), cluster(2));
    let directory = meta(&nodes.data(1), "directory.id");
    let votes = || {
        let voters = quorum(&other).current_voters;
        let first = voters.iter().find(|it| it.replica_id == 1);
        first.is_some_and(|it| it.replica_directory_id.to_string() == directory)
    };
    assert!(wait_for(votes), "{:?}", quorum(&other));
    // Its copy counts, too.
    nodes.kill(2);
    nodes.produce("orders", "after\n");
    assert_eq!(nodes.consume("orders"), ["after", "before"]);
}

#[test]
fn a_first_node_that_has_moved_before_it_is_joined_is_found_where_it_is_now() {
    let mut nodes = first();
    nodes.kill(1);
    nodes.clients.swap(0, 2);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    let join = nodes.clients[0].clone();
    nodes.serve(2, &["--join", &join]);
    nodes.ready(&[2]);
    // What joining has written down is gone: the log says it.
    let note = nodes.data(2).join("ottla.joined");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), format!("{join}\n"));
    std::fs::write(&note, "").unwrap();
    nodes.kill(2);
    nodes.serve(2, &[]);
    nodes.ready(&[2]);
    nodes.produce("orders", "of two\n");
    assert_eq!(nodes.consume("orders"), ["of two"]);
}

#[test]
fn a_node_that_has_joined_stays_with_its_cluster_when_another_one_is_at_the_address_of_the_first() {
    let mut nodes = first();
    let join = nodes.clients[0].clone();
    nodes.serve(2, &[&["--join", &join], &NO_VOTE[..]].concat());
    nodes.ready(&[2]);
    nodes.kill(1);
    nodes.kill(2);
    // Its disk was not mounted.
    let (data, elsewhere) = (nodes.data(1), nodes.data(3));
    std::fs::rename(&data, &elsewhere).unwrap();
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes.serve(2, &NO_VOTE);
    nodes.running[&2].says("but the node at");
    nodes.kill(1);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&elsewhere, &data).unwrap();
    nodes.serve(1, &[]);
    nodes.ready(&[1, 2]);
    assert_eq!(broker_ids(&join), [1, 2]);
}
