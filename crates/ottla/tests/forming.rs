//! Static voters with empty directories form one cluster by themselves, and whoever does not belong to it is told so.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use nodes::{Nodes, ask, wait_for};
use ottla_protocol::messages::DescribeClusterRequest;

const SAFE: [&str; 2] = ["default.replication.factor=3", "min.insync.replicas=2"];

/// Three nodes of which none was formatted, and that are ready.
fn three() -> Nodes {
    let mut nodes = Nodes::new(3);
    let voters = nodes.voters(3);
    for id in 1..=3 {
        nodes.write(id, "broker,controller", &[&*voters, SAFE[0], SAFE[1]]);
    }
    nodes.start(2);
    nodes.running[&2].says("waiting for the other controllers");
    nodes.start(1);
    nodes.start(3);
    nodes.ready(&[1, 2, 3]);
    nodes
}

#[test]
fn three_empty_nodes_agree_on_one_cluster_and_outlive_restarts() {
    let mut nodes = three();
    let cluster = nodes::meta(&nodes.data(1), "cluster.id");
    for id in [2, 3] {
        assert_eq!(nodes::meta(&nodes.data(id), "cluster.id"), cluster);
    }
    nodes.succeed(&["topic", "create", "orders"]);
    nodes.produce("orders", "before\n");
    for id in 1..=3 {
        nodes.kill(id);
        nodes.produce("orders", "without one\n");
        nodes.start(id);
        nodes.ready(&[id]);
    }
    assert_eq!(nodes.consume("orders").len(), 4);
}

#[test]
fn a_voter_that_comes_back_empty_is_refused_and_so_is_another_clusters_data_or_a_second_node() {
    let mut nodes = three();
    let cluster = nodes::meta(&nodes.data(1), "cluster.id");
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    nodes.start(3);
    let (code, said) = nodes.running.get_mut(&3).unwrap().ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("already belongs to cluster {cluster}")), "{said}");
    assert!(said.contains("is the disk mounted?"), "{said}");
    let command = said.split("ottla format ").nth(1).unwrap_or_default();
    assert!(command.starts_with("--config "), "{said}");
    assert!(command.contains(&format!(" --cluster-id {cluster}")), "{said}");
    assert!(!nodes.data(3).join("meta.properties").exists());

    let ended = nodes.format(3, &["-t", "another"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    nodes.start(3);
    let (code, said) = nodes.running.get_mut(&3).unwrap().ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the data belongs to cluster another, but controller"), "{said}");

    // Somebody copies node 2's configuration to another machine: other addresses, the same id.
    let (clients, controllers) = (nodes.clients.clone(), nodes.controllers.clone());
    let mut twin = Nodes { clients, controllers, ..Nodes::new(3) };
    let elsewhere = "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    let voters = twin.voters(3);
    twin.write(2, "broker,controller", &[&voters, elsewhere]);
    twin.start(2);
    let (code, said) = twin.running.get_mut(&2).unwrap().ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another process is node 2"), "{said}");
    assert!(!twin.data(2).exists());
}

/// It would be given the metadata, and a vote that the voter before it has used.
#[test]
fn a_static_voter_that_comes_back_empty_is_not_taken_in_as_a_node_that_joins_either() {
    let mut nodes = three();
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let somebody = nodes.clients[0].clone();
    let brokers = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
    // Until then it is taken for alive.
    assert!(wait_for(|| ask(&somebody, &brokers).brokers.len() == 2));
    nodes.serve(3, &["--join", &somebody, "--set", "node.id=3"]);
    nodes.running[&3].says("a voter that the others know by its id alone");
    assert!(!nodes.data(3).join("meta.properties").exists());
}

/// Its file has changed meanwhile, and the others' have not: it does not know that it is a voter.
#[test]
fn a_static_voter_that_comes_back_empty_and_is_told_only_where_the_others_are_says_why_it_gets_nothing()
 {
    let mut nodes = three();
    nodes.kill(3);
    std::fs::remove_dir_all(nodes.data(3)).unwrap();
    let servers = nodes.servers(2);
    nodes.write(3, "broker,controller", &[&servers]);
    nodes.start(3);
    nodes.running[&3].says("this node has no vote and gets no metadata");
}
