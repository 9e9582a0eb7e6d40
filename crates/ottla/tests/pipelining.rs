//! What becomes of requests that were read when their connection ends, and of those that stand behind.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use nodes::Nodes;
use ottla_base::{Timestamp, Uuid};
use ottla_protocol::frame::{decode_response, encode_request};
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, MetadataRequest, ProduceRequest,
};
use ottla_protocol::{Records, Request};
use ottla_records::{BatchBuilder, Compression};

const TOPIC: &str = "t";

fn node() -> Nodes {
    let mut nodes = Nodes::new(1);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes
}

fn frame<R: Request>(version: i16, request: &R) -> Bytes {
    encode_request(version, 7, None, request).unwrap().bytes
}

fn connect(nodes: &Nodes) -> TcpStream {
    let socket = TcpStream::connect(&nodes.clients[0]).unwrap();
    socket.set_read_timeout(Some(nodes::LIMIT)).unwrap();
    socket
}

/// All that comes until the broker closes the connection.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_came_before_a_frame_that_is_too_long_is_answered() {
    let nodes = node();
    let mut socket = connect(&nodes);
    let mut both = frame(0, &ApiVersionsRequest::default()).to_vec();
    both.extend(i32::MAX.to_be_bytes());
    socket.write_all(&both).unwrap();
    let answer = rest(socket).split_off(4);
    let (_, response) = decode_response::<ApiVersionsRequest>(answer.into(), 0).unwrap();
    assert!(!response.api_keys.is_empty());
}

fn produce(topic_id: Uuid) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
    let records = Some(Records::Bytes(builder.build_bytes()));
    let partition_data = vec![PartitionProduceData { index: 0, records }];
    ProduceRequest {
        acks: 1,
        timeout_ms: 1_000,
        topic_data: vec![TopicProduceData { topic_id, partition_data, ..Default::default() }],
        ..Default::default()
    }
}

#[test]
fn what_comes_behind_a_request_that_closes_the_connection_is_not_handled() {
    let nodes = node();
    nodes.succeed(&["topic", "create", TOPIC]);
    let id = nodes::topic(&nodes.clients[0], TOPIC).topic_id;
    let valid = frame(13, &produce(id));
    let mut socket = connect(&nodes);
    // Produce in a version that is refused by hanging up.
    let mut both = vec![0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 7, 0xff, 0xff];
    both.extend_from_slice(&valid);
    socket.write_all(&both).unwrap();
    assert!(rest(socket).is_empty());
    let mut socket = connect(&nodes);
    socket.write_all(&valid).unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    let end_offset = || nodes::end_offset(&nodes.clients[0], TOPIC);
    assert!(nodes::wait_for(|| end_offset() > 0));
    assert_eq!(end_offset(), 1);
}

/// Apache Kafka hands over what it has read before it looks at who has hung up. So often that request and reset are sometimes
/// there together.
#[test]
fn a_request_is_handled_though_its_connection_is_reset() {
    const TOPICS: usize = 100;
    let nodes = node();
    let names: Vec<_> = (0..TOPICS).map(|number| format!("t{number}")).collect();
    for name in &names {
        let topic = CreatableTopic {
            name: name.as_str().into(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
        let mut socket = connect(&nodes);
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        socket.write_all(&frame(7, &request)).unwrap();
    }
    let known = || {
        let request = MetadataRequest { topics: None, ..Default::default() };
        nodes::ask(&nodes.clients[0], &request).topics.len()
    };
    assert!(nodes::wait_for(|| known() == TOPICS), "{} of {TOPICS}", known());
}
