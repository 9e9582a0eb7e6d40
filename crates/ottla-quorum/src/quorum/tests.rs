//! Leadership lost and regained, decisions of another epoch, and a disk that fails.

use openraft::entry::RaftPayload;
use openraft::raft::VoteRequest;
use ottla_base::{ErrorCode, TopicPartition};
use ottla_metadata::MetadataRecord;
use ottla_protocol::records::TopicRecord;
use ottla_records::Batches;
use tokio::sync::oneshot;

use super::*;
use crate::common::{Node, start_with_broker};
use crate::raft::{
    CommittedLeaderId, Completion, LeaderId, Membership, Payload, Proposal, Verdict, Vote, log_id,
};

/// Makes this node follow another that says it is ahead, which ends its leadership.
async fn depose(node: &Node, term: i32) {
    let vote = Vote { leader_id: LeaderId { term, voted_for: 2 }, committed: false };
    let mut request = VoteRequest::new(vote, Some(log_id(term, 1_000_000)));
    request.leadership_transfer = true;
    node.quorum.raft.vote(request).await.unwrap();
    let mut active = node.quorum.controller.active.clone();
    active.wait_for(Option::is_none).await.unwrap();
}

async fn lead_again(node: &Node) -> LeaderEpoch {
    node.quorum.raft.trigger().elect(false).await.unwrap();
    let mut active = node.quorum.controller.active.clone();
    let epoch = *active.wait_for(Option::is_some).await.unwrap();
    epoch.unwrap()
}

#[tokio::test]
async fn a_controller_that_lost_its_epoch_decides_nothing_and_goes_on_in_the_next_one() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    node.create(&["before"]).await.unwrap();

    depose(&node, 5).await;
    assert_eq!(node.create(&["during"]).await, Err(SubmitError::NotController));

    assert_eq!(lead_again(&node).await, LeaderEpoch(6));
    let codes = node.create(&["before", "during"]).await;
    assert_eq!(codes, Ok(vec![ErrorCode::TOPIC_ALREADY_EXISTS, ErrorCode::NONE]));
    assert_eq!(node.topics(), ["before", "during"]);
    assert_eq!(node.quorum.image().epoch, LeaderEpoch(6));
}

#[tokio::test]
async fn a_vote_is_on_disk_before_it_is_answered() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    for term in 5..25 {
        let vote = Vote { leader_id: LeaderId { term, voted_for: 2 }, committed: false };
        let mut request = VoteRequest::new(vote, Some(log_id(term, 1_000_000)));
        request.leadership_transfer = true;
        let response = node.quorum.raft.vote(request).await.unwrap();
        assert!(response.vote_granted);
        let file = VoteFile::in_directory(
            Arc::clone(node.directory.disk()),
            &crate::common::metadata_log(path.path()),
        );
        assert_eq!(file.read(BrokerId(1)).unwrap(), Some(vote));
    }
}

/// Writes a topic record that was decided on in `epoch`; openraft checks `expected`, if anything is.
async fn write_decision(node: &Node, epoch: i32, expected: Option<i32>) -> Option<Verdict> {
    let topic = TopicRecord { name: "stale".into(), topic_id: Uuid([5; 16]) };
    let records: Arc<[MetadataRecord]> = [topic.into()].into();
    let timestamp = ottla_base::Timestamp(0);
    let verdict = Verdict::Applied;
    let epoch = LeaderEpoch(epoch);
    let proposal = Proposal { epoch, number: None, verdict, timestamp, records };
    let (done, verdict) = oneshot::channel();
    let completion = Completion::new(move |result: openraft::raft::ClientWriteResult<_>| {
        let _ = done.send(result.ok().map(|response| response.data));
    });
    let mut write = node.quorum.raft.write(proposal).responder(completion);
    if let Some(expected) = expected {
        write = write.with_leader(CommittedLeaderId::new(expected));
    }
    write.await.unwrap();
    verdict.await.unwrap()
}

#[tokio::test]
async fn a_decision_of_an_earlier_epoch_is_never_appended() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    depose(&node, 5).await;
    assert_eq!(lead_again(&node).await, LeaderEpoch(6));
    let end = node.quorum.metrics().log_end_offset;
    assert_eq!(write_decision(&node, 1, Some(1)).await, None);
    assert_eq!(node.quorum.metrics().log_end_offset, end);
    assert_eq!(node.topics(), [""; 0]);
}

#[tokio::test]
async fn should_openraft_append_it_nevertheless_a_record_that_does_nothing_takes_its_place() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    depose(&node, 5).await;
    lead_again(&node).await;
    let end = node.quorum.metrics().log_end_offset;
    assert_eq!(write_decision(&node, 1, None).await, Some(Verdict::Superseded));
    assert_eq!(node.topics(), [""; 0]);

    let log = node.directory.log(&TopicPartition::new("__cluster_metadata", 0)).unwrap();
    let slice = log.read(end, 1 << 20, log.log_end_offset(), true).unwrap();
    let batch = Batches::new(slice.source.unwrap().read().unwrap()).next().unwrap().unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    let (_, record) = MetadataRecord::decode(record.value.unwrap()).unwrap();
    assert_eq!(record.name(), "NoOpRecord");
    // The decision is in time when its epoch is the leader's.
    assert_eq!(write_decision(&node, 6, None).await, Some(Verdict::Applied));
    assert_eq!(node.topics(), ["stale"]);
}

#[tokio::test]
async fn when_the_log_cannot_be_written_nothing_is_promised_and_the_quorum_ends() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    node.create(&["before"]).await.unwrap();
    node.directory.close(-1).unwrap();
    let result = node.create(&["after"]).await;
    assert!(result.is_err(), "{result:?}");
    let reason = node.quorum.stopped().await;
    assert!(reason.contains("closed"), "{reason}");
    assert_eq!(node.topics(), ["before"]);
    assert!(node.create(&["after"]).await.is_err());
}

/// What no change here leaves behind, and another program's log may have.
#[tokio::test]
async fn two_sets_of_voters_in_one_entry_that_a_crash_has_left_become_the_second_one() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    // Nobody finishes it here.
    node.quorum._attendance.0.abort();
    let alone = observers::members(&node.quorum.raft);
    let sets = [alone.get_joint_config().clone(), alone.get_joint_config().clone()].concat();
    let nodes: BTreeMap<_, _> = alone.nodes().map(|(id, voter)| (*id, voter.clone())).collect();
    let both = Membership::new(sets, nodes).unwrap();
    node.quorum.raft.append_membership(both, Payload::blank(), []).await.unwrap();
    assert_eq!(observers::members(&node.quorum.raft).get_joint_config().len(), 2);

    let left_behind = crate::common::copy_of(path.path());
    let again = crate::common::start(left_behind.path()).await;
    let mut server = again.quorum.raft.server_metrics();
    while observers::members(&again.quorum.raft).get_joint_config().len() > 1 {
        server.changed().await.unwrap();
    }
    assert_eq!(again.quorum.voters(), node.quorum.voters());
}
