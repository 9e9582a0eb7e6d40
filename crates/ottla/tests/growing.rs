//! A node without a file that was used alone, and two more that join it: what groups have committed gets its copies by itself, and
//! outlives the first node.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use nodes::{Nodes, ask, ids, quorum, wait_for};
use ottla_protocol::messages::OffsetFetchRequest;
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;

const OFFSETS: &str = "__consumer_offsets";

/// How many partitions have so many replicas, so many of them in sync.
fn copies(at: &str, topic: &'static str) -> BTreeMap<(usize, usize), usize> {
    let mut counts = BTreeMap::new();
    for partition in nodes::topic(at, topic).partitions {
        let key = (partition.replica_nodes.len(), partition.isr_nodes.len());
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// What a member of a group that comes and goes has read.
fn read(nodes: &Nodes, count: &str) -> Vec<String> {
    let text = nodes.succeed(&["consume", "orders", "--group", "readers", "--count", count]);
    text.lines().map(str::to_owned).collect()
}

/// What the group has committed, as a node that knows says.
fn committed(at: &str) -> Option<i64> {
    let group =
        OffsetFetchRequestGroup { group_id: "readers".into(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let answer = ask(at, &request).groups.remove(0);
    Some(answer.topics.first()?.partitions.first()?.committed_offset)
}

/// Alone, with a group that has read the first of two records.
fn first(options: &[&str]) -> Nodes {
    let mut nodes = Nodes::new(3);
    nodes.serve(1, options);
    nodes.ready(&[1]);
    nodes.succeed(&["topic", "create", "orders", "--partitions", "1"]);
    nodes.produce("orders", "one\ntwo\n");
    assert_eq!(read(&nodes, "1"), ["one"]);
    nodes
}

fn join(nodes: &mut Nodes, id: usize, options: &[&str]) {
    let join = nodes.clients.first().unwrap().clone();
    nodes.serve(id, &[&["--join", &join], options].concat());
    nodes.ready(&[id]);
}

#[test]
fn what_groups_have_committed_gets_its_copies_with_the_third_node_and_outlives_the_first() {
    let mut nodes = first(&[]);
    let [one, two] = [1, 2].map(|id| nodes.clients.get(id - 1).unwrap().clone());
    assert_eq!(copies(&one, OFFSETS), [((1, 1), 50)].into());
    join(&mut nodes, 2, &[]);
    assert_eq!(copies(&one, OFFSETS), [((1, 1), 50)].into(), "of three copies two are no start");
    join(&mut nodes, 3, &[]);
    nodes.running.values().for_each(|node| node.says("the voters are now 1, 2, 3"));
    let has_grown = || copies(&one, OFFSETS) == [((3, 3), 50)].into();
    assert!(wait_for(has_grown), "{:?}", copies(&one, OFFSETS));
    let said =
        |node: &nodes::Running| node.log().contains("of which there was one copy, gets more");
    assert!(nodes.running.values().any(said));
    // Not all of them are to be led by the first for ever.
    let preferred = nodes::topic(&one, OFFSETS)
        .partitions
        .into_iter()
        .map(|it| *it.replica_nodes.first().unwrap());
    assert_eq!(preferred.collect::<BTreeSet<_>>().len(), 3);
    // A topic of a user's is as it was made.
    assert_eq!(copies(&one, "orders"), [((1, 1), 1)].into());
    nodes.succeed(&["topic", "create", "more", "--replication-factor", "3"]);
    assert_eq!(ids(&quorum(&one).current_voters), [1, 2, 3]);

    nodes.kill(1);
    let others = nodes.clients.split_off(1);
    assert!(wait_for(|| others.iter().any(|at| committed(at) == Some(1))), "it is forgotten");
    nodes.clients.extend(others);
    assert!(nodes::topic(&two, OFFSETS).partitions.iter().all(|it| it.leader_id != 1));
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    assert_eq!(read(&nodes, "1"), ["two"]);
}

#[test]
fn a_number_of_copies_that_somebody_has_set_is_kept() {
    let set = ["--set", "offsets.topic.replication.factor=1"];
    let mut nodes = first(&set);
    join(&mut nodes, 2, &set);
    join(&mut nodes, 3, &set);
    let one = nodes.clients.first().unwrap().clone();
    nodes.running.values().for_each(|node| node.says("the voters are now 1, 2, 3"));
    nodes.succeed(&["topic", "create", "more", "--replication-factor", "3"]);
    assert_eq!(copies(&one, OFFSETS), [((1, 1), 50)].into());
}
