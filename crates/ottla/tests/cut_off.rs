//! A leader that does not reach the active controller, and is reached by everybody else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use nodes::Nodes;
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_records::{BatchBuilder, Compression};

/// Where one node finds another as a controller: a way that can be closed, for good.
struct Way {
    address: String,
    /// The sockets that are under way, or nothing once it is closed.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Way {
    fn to(address: &str) -> Self {
        let (listener, to) = (TcpListener::bind("127.0.0.1:0").unwrap(), address.to_owned());
        let way = Self {
            address: listener.local_addr().unwrap().to_string(),
            open: Arc::new(Mutex::new(Some(Vec::new()))),
        };
        let open = Arc::clone(&way.open);
        std::thread::spawn(move || {
            for accepted in listener.incoming() {
                // Whoever does not listen yet is asked again by whoever asks.
                let Ok(onward) = TcpStream::connect(&to) else { continue };
                let Ok(accepted) = accepted else { continue };
                let Some(sockets) = &mut *open.lock().unwrap() else { return };
                for (mut from, mut into) in [(&accepted, &onward), (&onward, &accepted)]
                    .map(|(from, into)| (from.try_clone().unwrap(), into.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        drop(io::copy(&mut from, &mut into));
                        drop(into.shutdown(Shutdown::Both));
                    });
                }
                sockets.extend([accepted, onward]);
            }
        });
        way
    }

    fn close(&self) {
        for socket in self.open.lock().unwrap().take().unwrap() {
            drop(socket.shutdown(Shutdown::Both));
        }
        // The one that it waits for: it ends, and with it the listener.
        drop(TcpStream::connect(&self.address));
    }
}

/// Three nodes that are both, each of which finds the others as controllers by a way of its own.
fn three_nodes() -> (Nodes, HashMap<(usize, usize), Way>) {
    let mut nodes = Nodes::new(3);
    let mut ways = HashMap::new();
    for from in 1..=3 {
        let voter = |to: usize| {
            let address = nodes.controllers[to - 1].clone();
            let way = (to != from).then(|| Way::to(&address));
            let at = way.as_ref().map_or(address, |way| way.address.clone());
            ways.extend(way.map(|way| ((from, to), way)));
            format!("{to}@{at}")
        };
        let voters = (1..=3).map(voter).collect::<Vec<_>>().join(",");
        let voters = format!("controller.quorum.voters={voters}");
        nodes.write(from, "broker,controller", &[&*voters, "min.insync.replicas=2"]);
    }
    (1..=3).for_each(|id| nodes.start(id));
    nodes.ready(&[1, 2, 3]);
    (nodes, ways)
}

/// Who leads each partition, with the leader epoch.
fn leaders(address: &str) -> Vec<(i32, i32)> {
    let mut partitions = nodes::topic(address, TOPIC).partitions;
    partitions.sort_by_key(|it| it.partition_index);
    partitions.iter().map(|it| (it.leader_id, it.leader_epoch)).collect()
}

/// What the node here answers to a record with acks=1, and whom it names as leader.
fn produce(address: &str, partition: i32) -> (ErrorCode, i32) {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
    let data = PartitionProduceData {
        index: partition,
        records: Some(Records::Bytes(builder.build_bytes())),
    };
    let topic_id = nodes::topic(address, TOPIC).topic_id;
    let topic = TopicProduceData { topic_id, partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest {
        acks: 1,
        timeout_ms: 5_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    let answer = nodes::ask(address, &request).responses.remove(0).partition_responses.remove(0);
    (answer.error_code, answer.current_leader.leader_id)
}

const TOPIC: &str = "orders";

/// The controller fences it as soon as its connection breaks, and cannot tell it.
#[test]
fn a_leader_that_the_controller_cannot_reach_hears_from_another_broker_who_leads_meanwhile() {
    let (nodes, ways) = three_nodes();
    nodes.succeed(&["topic", "create", TOPIC, "--partitions", "6", "--replication-factor", "3"]);
    let controller = usize::try_from(nodes::quorum(&nodes.clients[0]).leader_id).unwrap();
    let mut others = (1..=3).filter(|id| *id != controller);
    let (node, third) = (others.next().unwrap(), others.next().unwrap());
    let (here, there) = (&nodes.clients[node - 1], &nodes.clients[third - 1]);
    let id = i32::try_from(node).unwrap();
    let before = leaders(here);
    let led = before.iter().position(|(leader, _)| *leader == id).unwrap();
    let partition = i32::try_from(led).unwrap();
    assert_eq!(produce(here, partition).0, ErrorCode::NONE);

    ways[&(node, controller)].close();
    ways[&(controller, node)].close();
    let is_replaced = || leaders(there)[led].1 > before[led].1;
    assert!(nodes::wait_for(is_replaced), "{:?}", leaders(there));
    let has_heard = || leaders(here)[led] == leaders(there)[led];
    assert!(nodes::wait_for(has_heard), "{:?}\n{}", leaders(here), nodes.running[&node].log());
    let (leader, _) = leaders(there)[led];
    assert_ne!(leader, id);
    assert_eq!(produce(here, partition), (ErrorCode::NOT_LEADER_OR_FOLLOWER, leader));
    // What it never led is none of its business, and what it did not hear of is as it was.
    let still: Vec<_> = (0..6).filter(|at| before[*at].0 != id).collect();
    assert!(still.iter().all(|at| leaders(here)[*at] == before[*at]));
    nodes.running[&node].says("others lead meanwhile what it has led");
}
