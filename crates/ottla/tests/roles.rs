//! Nodes that are a broker only, or a controller only.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use nodes::Nodes;

/// One controller, known by its directory, and two brokers without a file in their directories.
#[test]
fn brokers_follow_a_controller_of_another_process_and_go_on_when_it_is_back() {
    let mut nodes = Nodes::new(3);
    let servers = nodes.servers(1);
    nodes.write(1, "controller", &[&servers]);
    let ended = nodes.format(1, &["-t", "4L6g3nShT-eMCtK--X86sw", "--standalone"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for id in [2, 3] {
        let copies = "offsets.topic.replication.factor=2";
        nodes.write(id, "broker", &[&*servers, copies]);
        nodes.start(id);
    }
    nodes.running[&2].says("waiting for a controller");
    nodes.start(1);
    nodes.ready(&[1, 2, 3]);

    let quorum = nodes::quorum(&nodes.clients[1]);
    assert_eq!(nodes::ids(&quorum.current_voters), [1]);
    assert_eq!(nodes::ids(&quorum.observers), [2, 3]);
    let quorum = nodes::quorum(&nodes.controllers[0]);
    assert_eq!((quorum.leader_id, nodes::ids(&quorum.observers)), (1, vec![2, 3]));

    nodes.succeed(&["topic", "create", "orders", "--replication-factor", "2"]);
    nodes.produce("orders", "before\n");
    nodes.kill(1);
    nodes.produce("orders", "without a controller\n");
    nodes.start(1);
    nodes.ready(&[1]);
    nodes.succeed(&["topic", "create", "later"]);
    nodes.produce("later", "after\n");
    nodes.kill(3);
    nodes.produce("orders", "without a broker\n");
    assert_eq!(nodes.consume("orders"), ["before", "without a broker", "without a controller"]);
}

/// What it alone knows stands at the beginning of its log: brokers must not begin one of their own.
#[test]
fn brokers_follow_a_lone_static_voter_formatted_or_not() {
    let mut nodes = Nodes::new(3);
    let voters = nodes.voters(1);
    nodes.write(1, "controller", &[&voters]);
    for id in [2, 3] {
        nodes.write(id, "broker", &[&*voters, "offsets.topic.replication.factor=2"]);
    }
    for id in [1, 2] {
        let ended = nodes.format(id, &["-t", "4L6g3nShT-eMCtK--X86sw"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
    for id in 1..=3 {
        nodes.start(id);
    }
    nodes.ready(&[1, 2, 3]);
    let quorum = nodes::quorum(&nodes.clients[1]);
    assert_eq!(nodes::ids(&quorum.current_voters), [1]);
    assert_eq!(nodes::ids(&quorum.observers), [2, 3]);
    nodes.succeed(&["topic", "create", "orders", "--replication-factor", "2"]);
    nodes.kill(2);
    nodes.start(2);
    nodes.ready(&[2]);
    nodes.produce("orders", "record\n");
    assert_eq!(nodes.consume("orders"), ["record"]);
}

#[test]
fn static_voters_that_are_controllers_only_form_and_a_broker_follows_whoever_leads() {
    let mut nodes = Nodes::new(4);
    let voters = nodes.voters(3);
    for id in 1..=3 {
        nodes.write(id, "controller", &[&voters]);
        nodes.start(id);
    }
    nodes.write(4, "broker", &[&*voters, "offsets.topic.replication.factor=1"]);
    nodes.start(4);
    nodes.ready(&[1, 2, 3, 4]);
    let clients = nodes.clients[3].clone();
    let leader = nodes::quorum(&clients).leader_id;
    nodes.kill(usize::try_from(leader).unwrap());
    // The broker finds the next one by itself.
    let found = nodes::wait_for(|| {
        let quorum = nodes::quorum(&clients);
        !quorum.error_code.is_error()
            && quorum.leader_id != leader
            && nodes::ids(&quorum.observers) == [4]
    });
    assert!(found, "{:?}", nodes::quorum(&clients));
}
