//! Apache Kafka 4.3.1's controller and these decisions do the same with the same requests.
//!
//! `kafka/decisions.txt` holds what Kafka's did, `kafka/eligible.txt` what it did where replicas outside the ISR may lead;
//! `examples/ask_kafka.rs` asks it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, Offset, TopicId};
use ottla_metadata::controller::{
    self, ConfigChange, Draw, Liveness, Operation, Policy, Situation, Via,
};
use ottla_metadata::{Image, MetadataRecord, Outcome, Rejection};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    CreateTopicsRequest, CreateTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
    UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use support::{CLUSTER_ID, Decider, Kind, tell};

struct Ours {
    image: Image,
    policy: Policy,
    liveness: Liveness,
    next_offset: Offset,
    now: Duration,
    records: Vec<MetadataRecord>,
    topics: u128,
}

struct Numbered<'a>(&'a mut u128);

impl Draw for Numbered<'_> {
    fn topic_id(&mut self) -> TopicId {
        *self.0 += 1;
        TopicId::from_u128(1_000_000 + *self.0)
    }

    fn placement_seed(&mut self) -> u64 {
        0
    }
}

impl Ours {
    fn new(kind: Kind) -> Self {
        let policy = Policy { node_id: BrokerId(3000), ..Policy::default() };
        let mut image = Image::new(CLUSTER_ID);
        for record in controller::format(&image, &policy, &kind.levels()).records {
            image.apply(&record).unwrap();
        }
        let liveness = Liveness::new(&image, &policy, Duration::ZERO);
        let next_offset = Offset(10);
        let (now, records) = (Duration::ZERO, Vec::new());
        Self { image, policy, liveness, next_offset, now, records, topics: 0 }
    }

    fn carry_out<R>(&mut self, outcome: Outcome<R>) -> R {
        for record in &outcome.records {
            self.image.apply(record).unwrap();
        }
        let count = i64::try_from(outcome.records.len()).unwrap();
        self.next_offset = self.next_offset + count;
        self.records.extend(outcome.records);
        outcome.reply
    }
}

/// What decisions of a controller with sessions are made with.
macro_rules! situation {
    ($ours:expr) => {
        Situation {
            image: &$ours.image,
            policy: &$ours.policy,
            next_offset: $ours.next_offset,
            now: $ours.now,
        }
    };
}

impl Decider for Ours {
    fn register(&mut self, request: &BrokerRegistrationRequest) -> Result<i64, ErrorCode> {
        let outcome = self.liveness.on_registration(situation!(self), request);
        let outcome = outcome.map_err(|rejection| rejection.code)?;
        Ok(self.carry_out(outcome).0)
    }

    fn heartbeat(&mut self, request: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
        match self.liveness.on_heartbeat(situation!(self), request) {
            Ok(outcome) => self.carry_out(outcome),
            Err(rejection) => {
                let error_code = rejection.code;
                BrokerHeartbeatResponse { error_code, ..Default::default() }
            }
        }
    }

    fn create_topics(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let draw = &mut Numbered(&mut self.topics);
        let outcome = controller::create_topics(&self.image, &self.policy, request, draw);
        self.carry_out(outcome)
    }

    fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
        version: i16,
    ) -> AlterPartitionResponse {
        let outcome = controller::alter_partition(&self.image, &self.policy, request, version);
        self.carry_out(outcome)
    }

    fn elect_leaders(&mut self, request: &ElectLeadersRequest) -> ElectLeadersResponse {
        let outcome = controller::elect_leaders(&self.image, &self.policy, request);
        self.carry_out(outcome)
    }

    fn reassign(
        &mut self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let outcome = controller::alter_partition_reassignments(&self.image, &self.policy, request);
        self.carry_out(outcome)
    }

    fn list_reassignments(
        &mut self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        controller::list_partition_reassignments(&self.image, request)
    }

    fn assign(&mut self, request: &AssignReplicasToDirsRequest) -> AssignReplicasToDirsResponse {
        let outcome = controller::assign_replicas_to_dirs(&self.image, &self.policy, request);
        let outcome = outcome.unwrap();
        self.carry_out(outcome)
    }

    fn unregister(&mut self, request: &UnregisterBrokerRequest) -> UnregisterBrokerResponse {
        let outcome = controller::unregister_broker(&self.image, &self.policy, request);
        self.carry_out(outcome)
    }

    fn alter_configs(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
    ) -> Vec<(ErrorCode, Option<String>)> {
        let operation = |it: &AlterableConfig| Operation {
            key: it.name.clone(),
            code: it.config_operation,
            value: it.value.clone(),
        };
        let change = |it: &AlterConfigsResource| ConfigChange {
            kind: it.resource_type,
            name: it.resource_name.clone(),
            operations: it.configs.iter().map(operation).collect(),
            replaces_all: false,
        };
        let changes: Vec<ConfigChange> = request.resources.iter().map(change).collect();
        let (image, policy) = (&self.image, &self.policy);
        let outcome =
            controller::alter_configs(image, policy, &[], &changes, Via::Controller, false);
        let answers = self.carry_out(outcome).into_iter();
        answers.map(|it| Rejection::fields(it.rejection)).map(told).collect()
    }

    fn update_features(&mut self, request: &UpdateFeaturesRequest) -> UpdateFeaturesResponse {
        let voters = [self.policy.node_id];
        let (image, policy) = (&self.image, &self.policy);
        let outcome = controller::update_features(image, policy, &voters, 0, request, 2);
        self.carry_out(outcome)
    }

    fn pass_a_session(&mut self, living: &[BrokerHeartbeatRequest]) {
        self.now += self.policy.broker_session_timeout - Duration::from_millis(1);
        for request in living {
            self.heartbeat(request);
        }
        self.now += Duration::from_millis(1);
        let outcome = self.liveness.on_deadline(situation!(self));
        self.carry_out(outcome);
    }

    fn records(&mut self) -> Vec<MetadataRecord> {
        std::mem::take(&mut self.records)
    }
}

fn told((code, message): (ErrorCode, Option<ByteString>)) -> (ErrorCode, Option<String>) {
    (code, message.map(|it| it.to_string()))
}

fn compare(kafkas: &str, kind: Kind) {
    let ours = tell(&mut Ours::new(kind), kind);
    let mut differences = Vec::new();
    for (number, (kafkas, ours)) in kafkas.lines().zip(ours.lines()).enumerate() {
        if kafkas != ours {
            differences.push(format!("line {}\nKafka {kafkas}\nOurs  {ours}", number + 1));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(kafkas.lines().count(), ours.lines().count());
}

#[test]
fn the_same_requests_lead_to_the_same_answers_and_records() {
    compare(include_str!("kafka/decisions.txt"), Kind::Plain);
}

#[test]
fn so_they_do_where_replicas_outside_the_isr_may_lead() {
    compare(include_str!("kafka/eligible.txt"), Kind::Eligible);
}
