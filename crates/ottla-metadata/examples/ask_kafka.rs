//! Asks Apache Kafka's controller what `tests/kafka_agrees.rs` compares with, and prints it.
//!
//! Arguments: the controller's address, the directory of its metadata log, whose records are read as they are
//! appended, and `plain` or `eligible`. The controller must be new, with `process.roles=controller`, `broker.session.timeout.ms=4000`,
//! `auto.leader.rebalance.enable=false` and `metadata.max.idle.interval.ms=0`, and formatted as `--standalone` with the
//! cluster id of the tests and `--feature eligible.leader.replicas.version=0`, or `=1` for `eligible`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool for tests"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_metadata::MetadataRecord;
use ottla_protocol::Request;
use ottla_protocol::frame::{decode_response, encode_request};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    CreateTopicsRequest, CreateTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
    UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use ottla_records::Batches;
use support::{Decider, Kind, tell};

const SESSION: Duration = Duration::from_millis(4000);

struct Kafka {
    connection: TcpStream,
    log: PathBuf,
    /// How much of the log was read.
    position: usize,
    sent: i32,
}

impl Kafka {
    fn ask<R: Request>(&mut self, request: &R) -> R::Response {
        self.ask_in(request, *R::KEY.stable_versions().end())
    }

    fn ask_in<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.sent += 1;
        let frame = encode_request(version, self.sent, Some("ask-kafka".into()), request).unwrap();
        self.connection.write_all(&frame.bytes).unwrap();
        let mut length = [0; 4];
        self.connection.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.connection.read_exact(&mut answer).unwrap();
        decode_response::<R>(Bytes::from(answer), version).unwrap().1
    }
}

impl Decider for Kafka {
    fn register(&mut self, request: &BrokerRegistrationRequest) -> Result<i64, ErrorCode> {
        let answer = self.ask(request);
        if answer.error_code == ErrorCode::NONE {
            return Ok(answer.broker_epoch);
        }
        Err(answer.error_code)
    }

    fn heartbeat(&mut self, request: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
        self.ask(request)
    }

    fn create_topics(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        self.ask(request)
    }

    fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
        version: i16,
    ) -> AlterPartitionResponse {
        self.ask_in(request, version)
    }

    fn elect_leaders(&mut self, request: &ElectLeadersRequest) -> ElectLeadersResponse {
        self.ask(request)
    }

    fn reassign(
        &mut self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        self.ask(request)
    }

    fn list_reassignments(
        &mut self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        self.ask(request)
    }

    fn assign(&mut self, request: &AssignReplicasToDirsRequest) -> AssignReplicasToDirsResponse {
        self.ask(request)
    }

    fn unregister(&mut self, request: &UnregisterBrokerRequest) -> UnregisterBrokerResponse {
        self.ask(request)
    }

    fn alter_configs(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
    ) -> Vec<(ErrorCode, Option<String>)> {
        let answer = self.ask(request);
        let told = |message: ByteString| message.to_string();
        let answers = answer.responses.into_iter();
        answers.map(|it| (it.error_code, it.error_message.map(told))).collect()
    }

    fn update_features(&mut self, request: &UpdateFeaturesRequest) -> UpdateFeaturesResponse {
        self.ask(request)
    }

    #[allow(clippy::disallowed_methods, reason = "Kafka's time is the world's")]
    /// Kafka looks for silent brokers eight times in a session.
    fn pass_a_session(&mut self, living: &[BrokerHeartbeatRequest]) {
        for _ in 0..26 {
            for request in living {
                self.ask(request);
            }
            std::thread::sleep(SESSION / 20);
        }
    }

    fn records(&mut self) -> Vec<MetadataRecord> {
        let log = std::fs::read(self.log.join("00000000000000000000.log")).unwrap();
        let mut batches = Batches::new(Bytes::from(log).slice(self.position..));
        let mut records = Vec::new();
        for batch in &mut batches {
            let batch = batch.unwrap();
            self.position += batch.header().size_in_bytes();
            if batch.header().attributes.is_control() {
                continue;
            }
            for record in batch.records().unwrap() {
                let (_, record) = MetadataRecord::decode(record.unwrap().value.unwrap()).unwrap();
                records.push(record);
            }
        }
        records
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("the controller's address");
    let log = PathBuf::from(arguments.next().expect("the directory of the metadata log"));
    let connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    let mut kafka = Kafka { connection, log, position: 0, sent: 0 };
    let kind = match arguments.next().as_deref() {
        Some("plain") => Kind::Plain,
        Some("eligible") => Kind::Eligible,
        other => panic!("plain or eligible, not {other:?}"),
    };
    print!("{}", tell(&mut kafka, kind));
}
