//! Random messages through the `kafka-protocol` crate: it must read what we write, and write the same.
//!
//! The crate was made from Kafka 4.1's schemas by other people, so that it shares no mistake with us. It lacks the
//! streams group APIs and what 4.2 and 4.3 added; the golden bytes cover those.

mod support;

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use support::random::Writer;

const SEEDS: u64 = 8;

struct Peer {
    name: &'static str,
    versions: std::ops::RangeInclusive<i16>,
    rewrite: fn(Bytes, i16) -> anyhow::Result<Bytes>,
}

fn rewrite<M: Encodable + Decodable>(mut bytes: Bytes, version: i16) -> anyhow::Result<Bytes> {
    let message = M::decode(&mut bytes, version)?;
    anyhow::ensure!(bytes.is_empty(), "{} bytes are left", bytes.len());
    let mut out = BytesMut::new();
    message.encode(&mut out, version)?;
    Ok(out.freeze())
}

macro_rules! peers {
    ($($name:ident)*) => {
        [$(Peer {
            name: stringify!($name),
            versions: {
                let versions = <kafka_protocol::messages::$name as Message>::VERSIONS;
                versions.min..=versions.max
            },
            rewrite: rewrite::<kafka_protocol::messages::$name>,
        },)*]
    };
}

#[test]
fn another_codec_reads_our_bytes_and_writes_the_same() {
    let schemas = support::kafka_schemas();
    let mut compared = 0;
    let mut differing = BTreeSet::new();
    for peer in PEERS {
        let schema = schemas.iter().find(|schema| schema.name == peer.name).unwrap();
        let ours = support::find(peer.name).unwrap();
        for version in ours.versions.clone().filter(|version| peer.versions.contains(version)) {
            compared += 1;
            let agree = |seed| {
                let bytes = Bytes::from(Writer::random(schema, version, seed).message());
                let written = (ours.rewrite)(bytes, version).unwrap();
                (peer.rewrite)(written.clone(), version).is_ok_and(|theirs| theirs == written)
            };
            if !(0..SEEDS).all(agree) {
                differing.insert((peer.name, version));
            }
        }
    }
    assert!(compared > 500, "only {compared} versions were compared");
    let known: BTreeSet<_> = KNOWN_DIFFERENCES.into_iter().collect();
    assert_eq!(differing, known);
}

#[test]
fn another_codec_passes_over_the_fields_that_are_ours() {
    let schemas = support::schemas();
    let mut carried = 0;
    for extension in support::extensions() {
        let schema = schemas.iter().find(|schema| schema.name == extension.name).unwrap();
        let peer = PEERS.iter().find(|peer| peer.name == extension.name).unwrap();
        for version in support::find(&extension.name).unwrap().versions.clone() {
            for seed in 0..SEEDS {
                let bytes = Bytes::from(Writer::random(schema, version, seed).message());
                carried += u64::from(bytes.windows(2).any(|pair| pair == FIRST_OF_OURS));
                (peer.rewrite)(bytes, version).unwrap();
            }
        }
    }
    assert!(carried > SEEDS, "only {carried} messages held a field of ours");
}

/// The tag 9644 as a varint.
const FIRST_OF_OURS: [u8; 2] = [0xac, 0x4b];

const PEERS: [Peer; 185] = peers! {
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest
    AddPartitionsToTxnResponse AddRaftVoterRequest AddRaftVoterResponse AllocateProducerIdsRequest
    AllocateProducerIdsResponse AlterClientQuotasRequest AlterClientQuotasResponse
    AlterConfigsRequest AlterConfigsResponse AlterPartitionReassignmentsRequest
    AlterPartitionReassignmentsResponse AlterPartitionRequest AlterPartitionResponse
    AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse AlterShareGroupOffsetsRequest
    AlterShareGroupOffsetsResponse AlterUserScramCredentialsRequest
    AlterUserScramCredentialsResponse ApiVersionsRequest ApiVersionsResponse
    AssignReplicasToDirsRequest AssignReplicasToDirsResponse BeginQuorumEpochRequest
    BeginQuorumEpochResponse BrokerHeartbeatRequest BrokerHeartbeatResponse
    BrokerRegistrationRequest BrokerRegistrationResponse ConsumerGroupDescribeRequest
    ConsumerGroupDescribeResponse ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
    ConsumerProtocolAssignment ConsumerProtocolSubscription ControllerRegistrationRequest
    ControllerRegistrationResponse CreateAclsRequest CreateAclsResponse CreateDelegationTokenRequest
    CreateDelegationTokenResponse CreatePartitionsRequest CreatePartitionsResponse
    CreateTopicsRequest CreateTopicsResponse DefaultPrincipalData DeleteAclsRequest
    DeleteAclsResponse DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest
    DeleteRecordsResponse DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse
    DeleteShareGroupStateRequest DeleteShareGroupStateResponse DeleteTopicsRequest
    DeleteTopicsResponse DescribeAclsRequest DescribeAclsResponse DescribeClientQuotasRequest
    DescribeClientQuotasResponse DescribeClusterRequest DescribeClusterResponse
    DescribeConfigsRequest DescribeConfigsResponse DescribeDelegationTokenRequest
    DescribeDelegationTokenResponse DescribeGroupsRequest DescribeGroupsResponse
    DescribeLogDirsRequest DescribeLogDirsResponse DescribeProducersRequest
    DescribeProducersResponse DescribeQuorumRequest DescribeQuorumResponse
    DescribeShareGroupOffsetsRequest DescribeShareGroupOffsetsResponse
    DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse DescribeTransactionsRequest
    DescribeTransactionsResponse DescribeUserScramCredentialsRequest
    DescribeUserScramCredentialsResponse ElectLeadersRequest ElectLeadersResponse
    EndQuorumEpochRequest EndQuorumEpochResponse EndTxnMarker EndTxnRequest EndTxnResponse
    EnvelopeRequest EnvelopeResponse ExpireDelegationTokenRequest ExpireDelegationTokenResponse
    FetchRequest FetchResponse FetchSnapshotRequest FetchSnapshotResponse FindCoordinatorRequest
    FindCoordinatorResponse GetTelemetrySubscriptionsRequest GetTelemetrySubscriptionsResponse
    HeartbeatRequest HeartbeatResponse IncrementalAlterConfigsRequest
    IncrementalAlterConfigsResponse InitProducerIdRequest InitProducerIdResponse
    InitializeShareGroupStateRequest InitializeShareGroupStateResponse JoinGroupRequest
    JoinGroupResponse KRaftVersionRecord LeaderChangeMessage LeaveGroupRequest LeaveGroupResponse
    ListConfigResourcesRequest ListConfigResourcesResponse ListGroupsRequest ListGroupsResponse
    ListOffsetsRequest ListOffsetsResponse ListPartitionReassignmentsRequest
    ListPartitionReassignmentsResponse ListTransactionsRequest ListTransactionsResponse
    MetadataRequest MetadataResponse OffsetCommitRequest OffsetCommitResponse OffsetDeleteRequest
    OffsetDeleteResponse OffsetFetchRequest OffsetFetchResponse OffsetForLeaderEpochRequest
    OffsetForLeaderEpochResponse ProduceRequest ProduceResponse PushTelemetryRequest
    PushTelemetryResponse ReadShareGroupStateRequest ReadShareGroupStateResponse
    ReadShareGroupStateSummaryRequest ReadShareGroupStateSummaryResponse RemoveRaftVoterRequest
    RemoveRaftVoterResponse RenewDelegationTokenRequest RenewDelegationTokenResponse RequestHeader
    ResponseHeader SaslAuthenticateRequest SaslAuthenticateResponse SaslHandshakeRequest
    SaslHandshakeResponse ShareAcknowledgeRequest ShareAcknowledgeResponse ShareFetchRequest
    ShareFetchResponse ShareGroupDescribeRequest ShareGroupDescribeResponse
    ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse SnapshotFooterRecord SnapshotHeaderRecord
    SyncGroupRequest SyncGroupResponse TxnOffsetCommitRequest TxnOffsetCommitResponse
    UnregisterBrokerRequest UnregisterBrokerResponse UpdateFeaturesRequest UpdateFeaturesResponse
    UpdateRaftVoterRequest UpdateRaftVoterResponse VoteRequest VoteResponse VotersRecord
    WriteShareGroupStateRequest WriteShareGroupStateResponse WriteTxnMarkersRequest
    WriteTxnMarkersResponse
};

/// These two have a field named `version`, which the crate's decoder then takes for the version of the message.
const KNOWN_DIFFERENCES: [(&str, i16); 3] =
    [("LeaderChangeMessage", 0), ("LeaderChangeMessage", 1), ("VotersRecord", 0)];
