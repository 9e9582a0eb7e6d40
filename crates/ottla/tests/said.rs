//! What nodes say in their logs, and on standard output once they are ready.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use nodes::{Nodes, quorum};
use rustix::process::Signal;

fn three() -> Nodes {
    let mut nodes = Nodes::new(3);
    let voters = nodes.voters(3);
    for id in 1..=3 {
        nodes.write(id, "broker,controller", &[&voters]);
        nodes.start(id);
    }
    nodes.ready(&[1, 2, 3]);
    nodes
}

fn alarms(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
}

/// All that alarms the controller is that a second node has this id, and it says where that is.
fn assert_twin_is_named(nodes: &Nodes, id: &str, address: &str) {
    let log = nodes.running[&1].log();
    let alarms = alarms(&log);
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
    assert!(alarms[0].contains(id) && alarms[0].contains(address), "{alarms:#?}");
}

#[test]
fn an_active_controller_that_stops_in_order_alarms_nobody_and_the_others_say_who_is_next() {
    let mut nodes = three();
    nodes.succeed(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "30",
        "--replication-factor",
        "3",
    ]);
    let active = usize::try_from(quorum(&nodes.clients[0]).leader_id).unwrap();
    let others: Vec<usize> = (1..=3).filter(|id| *id != active).collect();
    let lines = |nodes: &Nodes, id: usize| nodes.running[&id].log().lines().count();
    let before: Vec<usize> = others.iter().map(|id| lines(&nodes, *id)).collect();

    let mut stopping = nodes.running.remove(&active).unwrap();
    assert!(stopping.end(Signal::TERM).success());
    let said = stopping.log();
    assert_eq!(alarms(&said), Vec::<&str>::new(), "{said}");
    for untrue in ["fell silent", "no other voter has taken"] {
        assert!(!said.contains(untrue), "{said}");
    }
    let (_, said) = said.split_once("others have taken over").unwrap();
    assert!(said.contains("another node is the active controller"), "{said}");

    // Whatever they have to say about it is said once they have decided something together.
    nodes.succeed(&["topic", "create", "later", "--replication-factor", "2"]);
    for (id, before) in others.into_iter().zip(before) {
        let log = nodes.running[&id].log();
        let said: Vec<&str> = log.lines().skip(before).collect();
        assert_eq!(alarms(&log), Vec::<&str>::new());
        let count = |what: &str| said.iter().filter(|line| line.contains(what)).count();
        assert_eq!(count("is the active controller"), 1, "{said:#?}");
        assert_eq!(count("lets this broker serve"), 0, "it always did: {said:#?}");
    }
}

#[test]
fn a_second_node_of_an_id_is_told_so_and_the_controller_says_once_where_it_is() {
    let mut nodes = Nodes::new(4);
    let servers = nodes.servers(1);
    nodes.write(1, "broker,controller", &[&servers]);
    assert_eq!(nodes.format(1, &["-t", "4L6g3nShT-eMCtK--X86sw", "--standalone"]).code, 0);
    nodes.start(1);
    let timeout = "initial.broker.registration.timeout.ms=8000";
    for id in [2, 3] {
        nodes.write(id, "broker", &[&*servers, timeout, "node.id=2"]);
    }
    nodes.start(2);
    nodes.ready(&[1, 2]);
    nodes.start(3);
    let (code, said) = nodes.running.get_mut(&3).unwrap().ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("DUPLICATE_BROKER_REGISTRATION"), "{said}");
    assert!(said.contains("another process is registered as node 2, and is alive"), "{said}");
    assert_twin_is_named(&nodes, "node=2", &nodes.clients[2]);
}

#[test]
fn a_second_node_of_the_active_controllers_own_id_is_told_so_and_the_controller_says_where_it_is() {
    let mut nodes = Nodes::new(2);
    let servers = nodes.servers(1);
    nodes.write(1, "broker,controller", &[&servers]);
    assert_eq!(nodes.format(1, &["-t", "4L6g3nShT-eMCtK--X86sw", "--standalone"]).code, 0);
    nodes.start(1);
    nodes.ready(&[1]);
    let timeout = "initial.broker.registration.timeout.ms=8000";
    nodes.write(2, "broker", &[&*servers, timeout, "node.id=1"]);
    nodes.start(2);
    let (code, said) = nodes.running.get_mut(&2).unwrap().ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another node with its id, and other directories"), "{said}");
    assert!(said.contains("DUPLICATE_BROKER_REGISTRATION"), "{said}");
    assert_twin_is_named(&nodes, "node=1", &nodes.clients[1]);
}

#[test]
fn a_node_that_joins_with_an_empty_directory_says_how_it_would_be_the_one_that_it_was() {
    let mut nodes = Nodes::new(2);
    nodes.serve(1, &[]);
    let join = nodes.clients[0].clone();
    let cluster = nodes.running[&1].ready();
    assert!(cluster.contains(&join), "{cluster}");
    nodes.serve(2, &["--join", &join]);
    nodes.ready(&[2]);
    let id = nodes::meta(&nodes.data(1), "cluster.id");
    let log = nodes.running[&2].log();
    let line = log.lines().find(|line| line.contains("formatted as a new node, 2,")).unwrap();
    assert!(line.contains(&id) && line.contains("--set node.id="), "{line}");
    assert!(line.contains(" INFO "), "a new node is no reason for alarm: {line}");
}

#[test]
fn a_listener_on_every_interface_is_shown_where_clients_find_it() {
    let mut nodes = Nodes::new(1);
    let advertised = "advertised.listeners=PLAINTEXT://broker.example:9192";
    let everywhere = "listeners=PLAINTEXT://0.0.0.0:0";
    let listener = ["--set", everywhere, "--set", advertised];
    nodes.serve_with(1, &listener);
    let line = nodes.running[&1].ready();
    let expected = "listening on PLAINTEXT://broker.example:9192, http://127.0.0.1:";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn a_property_without_effect_is_noted_beside_json_too() {
    let mut nodes = Nodes::new(1);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes.succeed(&["topic", "create", "orders"]);
    for form in ["table", "json"] {
        let set = ["config", "set", "topic/orders", "local.retention.ms=1000", "-o", form];
        let ended: nodes::Ended = nodes.client(&set).output().unwrap().into();
        let note = "note: Ottla accepts local.retention.ms; it has no effect there";
        assert!(ended.err.contains(note), "{form}: {}{}", ended.out, ended.err);
        assert!(ended.out.contains("local.retention.ms"), "{form}: {}", ended.out);
    }
}

#[test]
fn a_port_that_there_is_not_is_called_that_on_the_command_line() {
    let refused = |arguments: &[&str]| {
        let ended: nodes::Ended = nodes::ottla().args(arguments).output().unwrap().into();
        assert_ne!(ended.code, 0);
        ended.err
    };
    let clients = refused(&["topic", "list", "--bootstrap-server", "localhost:99999"]);
    assert!(clients.contains("its port is not between 1 and 65535"), "{clients}");
    let joining = refused(&["serve", "--join", "localhost:99999"]);
    assert!(joining.contains("is not between 1 and 65535"), "{joining}");
    let listening = refused(&["serve", "--listen", "localhost:99999"]);
    assert!(listening.contains("is not between 0 and 65535"), "{listening}");
}
