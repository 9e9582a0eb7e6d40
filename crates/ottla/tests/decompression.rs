//! Requests that take long to decompress: small ones, and those that keep a node in its cluster, do not wait for them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use bytes::Bytes;
use futures_util::future::{join, select_all};
use nodes::Nodes;
use ottla_base::{ErrorCode, Timestamp, Uuid};
use ottla_client::{Connection, Limits, Speaker};
use ottla_protocol::Records;
use ottla_protocol::frame::encode_request;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{ProduceRequest, ProduceResponse};
use ottla_records::{BatchBuilder, Compression};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const TOPIC: &str = "t";
const OTHER_TOPIC: &str = "u";
const PARTITIONS: i32 = 40;
const MEBIBYTE: usize = 1 << 20;

/// A lone node with a topic, and that topic's id.
fn node() -> (Nodes, Uuid) {
    let mut nodes = Nodes::new(1);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes.succeed(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string()]);
    let id = nodes::topic(&nodes.clients[0], TOPIC).topic_id;
    (nodes, id)
}

/// So many mebibytes, of which a few kilobytes are sent.
fn batch(mebibytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    let value = vec![0; MEBIBYTE];
    (0..mebibytes).for_each(|_| builder.append(Timestamp(1_000), None, Some(&value), &[]));
    builder.build_bytes()
}

fn produce(topic_id: Uuid, partitions: i32, batch: &Bytes) -> ProduceRequest {
    let data = |index| PartitionProduceData { index, records: Some(Records::Bytes(batch.clone())) };
    let partition_data = (0..partitions).map(data).collect();
    ProduceRequest {
        acks: -1,
        timeout_ms: 60_000,
        topic_data: vec![TopicProduceData { topic_id, partition_data, ..Default::default() }],
        ..Default::default()
    }
}

/// Where the first partition's records are.
fn place(answer: &ProduceResponse) -> i64 {
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::NONE, "{partition:?}");
    partition.base_offset
}

async fn connection(nodes: &Nodes) -> Connection {
    let address = nodes::address(&nodes.clients[0]);
    Connection::open(&address, "test".into(), Speaker::Client, nodes::LIMIT).await.unwrap()
}

async fn send(connection: &Connection, request: &ProduceRequest) -> ProduceResponse {
    connection.send(request, Limits::within(nodes::LIMIT)).await.unwrap()
}

/// Does something while so much is being decompressed that every thread that serves connections could be at it.
async fn while_all_are_busy(nodes: &Nodes, id: Uuid, work: impl Future<Output = ()>) {
    let request = produce(id, PARTITIONS, &batch(256));
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut busy = Vec::new();
    for _ in 0..threads {
        busy.push(connection(nodes).await);
    }
    let slow = select_all(busy.iter().map(|busy| Box::pin(send(busy, &request))));
    tokio::select! {
        biased;
        _ = slow => panic!("there was nothing to wait for"),
        () = work => {}
    }
}

/// So often that the others have long been read, and seconds less than they take.
async fn send_little_often(free: &Connection, id: Uuid) {
    let request = produce(id, 1, &batch(1));
    for _ in 0..20 {
        place(&send(free, &request).await);
    }
}

#[tokio::test]
async fn whoever_sends_little_is_answered_while_others_have_much_to_be_decompressed() {
    let (nodes, id) = tokio::task::spawn_blocking(node).await.unwrap();
    let free = connection(&nodes).await;
    while_all_are_busy(&nodes, id, send_little_often(&free, id)).await;
}

#[tokio::test]
async fn what_waits_for_its_turn_is_appended_though_its_connection_closes() {
    let nodes = tokio::task::spawn_blocking(|| {
        let (nodes, id) = node();
        nodes.succeed(&["topic", "create", OTHER_TOPIC]);
        let other = nodes::topic(&nodes.clients[0], OTHER_TOPIC).topic_id;
        (nodes, id, other)
    });
    let (nodes, id, other) = nodes.await.unwrap();
    let free = connection(&nodes).await;
    let request = produce(other, 1, &batch(64));
    let frame = encode_request(13, 0, None, &request).unwrap().bytes;
    while_all_are_busy(&nodes, id, async {
        send_little_often(&free, id).await;
        let address = nodes::address(&nodes.clients[0]);
        let mut socket = TcpStream::connect((&*address.host, address.port)).await.unwrap();
        socket.write_all(&frame).await.unwrap();
    })
    .await;
    let is_there = tokio::task::spawn_blocking(move || {
        nodes::wait_for(|| nodes::end_offset(&nodes.clients[0], OTHER_TOPIC) == 64)
    });
    assert!(is_there.await.unwrap());
}

#[tokio::test]
async fn what_comes_behind_it_on_the_same_connection_stays_behind_it() {
    let (nodes, id) = tokio::task::spawn_blocking(node).await.unwrap();
    let (much, little) = (produce(id, 1, &batch(64)), produce(id, 1, &batch(1)));
    let connection = connection(&nodes).await;
    let (first, second) = join(send(&connection, &much), send(&connection, &little)).await;
    assert_eq!((place(&first), place(&second)), (0, 64));
}
