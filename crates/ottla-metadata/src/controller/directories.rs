//! Which log directory a replica is in, and what becomes of those in a directory that failed. Pure.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, ErrorCode, PartitionIndex, TopicId, Uuid};
use ottla_protocol::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, assign_replicas_to_dirs_request,
    assign_replicas_to_dirs_response,
};
use ottla_protocol::records::BrokerRegistrationChangeRecord;

use super::brokers::check_epoch;
use super::draft::Draft;
use super::fencing::{change_all, change_of, doubt};
use super::partition_change::{Election, Elections, PartitionChange, has_heir};
use super::{Outcome, Policy, Rejection};
use crate::MetadataRecord;
use crate::image::{Image, Partition};

/// Notes in which of its directories a broker has put replicas. One that is not among the registered ones has failed
/// while the request was under way: whoever else is in the replica's ISR takes over.
///
/// # Errors
/// STALE_BROKER_EPOCH
pub fn assign_replicas_to_dirs(
    image: &Image,
    policy: &Policy,
    request: &AssignReplicasToDirsRequest,
) -> Result<Outcome<AssignReplicasToDirsResponse>, Rejection> {
    let broker = BrokerId(request.broker_id);
    check_epoch(image, broker, request.broker_epoch)?;
    let elections = Elections::of(image, policy);
    let mut records = Vec::new();
    let mut assign = |id: Uuid, topic_id: TopicId, index: i32| {
        let index = PartitionIndex(index);
        let changed = change_directory(image, &elections, broker, topic_id, index, id);
        changed.map_or_else(
            |code| code,
            |record| {
                records.extend(record);
                ErrorCode::NONE
            },
        )
    };
    let directories = request.directories.iter().map(|directory| {
        let topics = directory.topics.iter().map(|topic| {
            let assign = |it: &assign_replicas_to_dirs_request::PartitionData| {
                assign_replicas_to_dirs_response::PartitionData {
                    partition_index: it.partition_index,
                    error_code: assign(directory.id, topic.topic_id, it.partition_index),
                }
            };
            let partitions = topic.partitions.iter().map(assign).collect();
            assign_replicas_to_dirs_response::TopicData { topic_id: topic.topic_id, partitions }
        });
        let topics = topics.collect();
        assign_replicas_to_dirs_response::DirectoryData { id: directory.id, topics }
    });
    let directories = directories.collect();
    let reply = AssignReplicasToDirsResponse { directories, ..Default::default() };
    Ok(Outcome { records, reply })
}

/// Nothing if the replica is known to be there. A log that turns up lets its broker lead what has no leader.
fn change_directory(
    image: &Image,
    elections: &Elections,
    broker: BrokerId,
    topic_id: TopicId,
    index: PartitionIndex,
    directory: Uuid,
) -> Result<Option<MetadataRecord>, ErrorCode> {
    let topic = image.topic(topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
    let partition = topic.partition(index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let mut change =
        PartitionChange::new(elections, image, topic, index, partition, Election::Online);
    let at = partition.replicas.iter().position(|replica| *replica == broker);
    let assigned = at.and_then(|at| change.target.directories.get_mut(at));
    let assigned = assigned.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
    if std::mem::replace(assigned, directory) == directory {
        return Ok(None);
    }
    let is_online = image.broker(broker).is_some_and(|it| it.has_online(directory));
    if !is_online && has_heir(image, partition, broker) {
        change.doubt(broker);
    }
    Ok(change.record())
}

/// Notes that directories of a broker have failed. Whoever else is in a replica's ISR takes over from it; where nobody
/// is, somebody outside it does if the topic accepts what that loses.
///
/// Else the broker stays the leader: it still reads from the directory, and refuses what would have to be written. Apache
/// Kafka leaves such partitions without a leader.
pub(super) fn take_offline(draft: &mut Draft, policy: &Policy, id: BrokerId, offline: &[Uuid]) {
    let Some(broker) = draft.image.broker(id) else { return };
    let (failed, remaining): (Vec<Uuid>, Vec<Uuid>) =
        broker.directories.iter().partition(|directory| offline.contains(directory));
    if failed.is_empty() || remaining.is_empty() {
        // A record can't say that there are no directories, and a broker without any stops.
        return;
    }
    let change = BrokerRegistrationChangeRecord { log_dirs: remaining, ..change_of(broker) };
    draft.push(change);
    let image = draft.image.clone();
    let has_failed = |partition: &Partition| {
        partition.directory_of(id).is_some_and(|directory| failed.contains(&directory))
    };
    doubt(draft, policy, id, |partition| {
        has_failed(partition) && (!partition.is_in_isr(id) || has_heir(&image, partition, id))
    });
    change_all(draft, policy, |it| it.leader == id && has_failed(it), |_| ());
}

/// Notes which of its directories a broker wants no new replicas in. It does not say before it knows its own
/// configuration.
pub(super) fn cordon(draft: &mut Draft, id: BrokerId, cordoned: Option<&[Uuid]>) {
    let (Some(broker), Some(cordoned)) = (draft.image.broker(id), cordoned) else { return };
    let set = |directories: &[Uuid]| directories.iter().copied().collect::<BTreeSet<_>>();
    if broker.cordoned_directories.as_deref().map(set) != Some(set(cordoned)) {
        let cordoned_log_dirs = Some(cordoned.to_vec());
        let change = BrokerRegistrationChangeRecord { cordoned_log_dirs, ..change_of(broker) };
        draft.push(change);
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::LeaderEpoch;
    use ottla_protocol::records::{ConfigRecord, PartitionChangeRecord, TopicRecord};

    use super::*;
    use crate::controller::brokers::tests::{directory_of, image_with_brokers, partition_record};
    use crate::delta::ConfigResource;

    const TOPIC: Uuid = Uuid::from_u128(500);
    const SECOND: Uuid = Uuid::from_u128(2001);

    /// Broker 1 has a second directory; `t-0` is its own, and `t-1` is also broker 2's.
    fn image() -> Image {
        let mut image = image_with_brokers(&[1, 2]);
        let change = BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch: 1,
            log_dirs: vec![directory_of(1), SECOND],
            ..Default::default()
        };
        apply(&mut image, &[change.into()]);
        apply(&mut image, &[TopicRecord { name: "t".into(), topic_id: TOPIC }.into()]);
        apply(&mut image, &[partition_record(TOPIC, 0, &[1], &[1])]);
        apply(&mut image, &[partition_record(TOPIC, 1, &[1, 2], &[1, 2])]);
        image
    }

    fn apply(image: &mut Image, records: &[MetadataRecord]) {
        records.iter().for_each(|record| image.apply(record).unwrap());
    }

    fn request(directory: Uuid, topic_id: Uuid, index: i32) -> AssignReplicasToDirsRequest {
        use assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
        let partitions = vec![PartitionData { partition_index: index }];
        let topics = vec![TopicData { topic_id, partitions }];
        let directories = vec![DirectoryData { id: directory, topics }];
        AssignReplicasToDirsRequest { broker_id: 1, broker_epoch: 1, directories }
    }

    #[test]
    fn a_replica_is_assigned_once_and_its_leader_epoch_stays() {
        let mut image = image();
        let outcome =
            assign_replicas_to_dirs(&image, &Policy::default(), &request(SECOND, TOPIC, 1))
                .unwrap();
        let change = PartitionChangeRecord {
            partition_id: 1,
            topic_id: TOPIC,
            directories: Some(vec![SECOND, directory_of(2)]),
            ..Default::default()
        };
        assert_eq!(outcome.records, [change.into()]);
        apply(&mut image, &outcome.records);
        let partition = image.partition(TOPIC, PartitionIndex(1)).unwrap();
        assert_eq!(partition.directory_of(BrokerId(1)), Some(SECOND));
        assert_eq!((partition.leader_epoch, partition.partition_epoch), (LeaderEpoch(0), 1));
        let again = assign_replicas_to_dirs(&image, &Policy::default(), &request(SECOND, TOPIC, 1))
            .unwrap();
        assert_eq!((again.records, again.reply), (vec![], outcome.reply));
    }

    #[test]
    fn a_replica_in_a_directory_that_has_failed_meanwhile_gives_way_to_others() {
        let mut image = image();
        for index in [0, 1] {
            let request = request(Uuid::from_u128(3000), TOPIC, index);
            let outcome = assign_replicas_to_dirs(&image, &Policy::default(), &request).unwrap();
            apply(&mut image, &outcome.records);
        }
        let state = |index| {
            let partition = image.partition(TOPIC, PartitionIndex(index)).unwrap();
            (partition.leader, &*partition.isr)
        };
        assert_eq!(state(0), (BrokerId(1), &[BrokerId(1)][..]));
        assert_eq!(state(1), (BrokerId(2), &[BrokerId(2)][..]));
    }

    #[test]
    fn what_the_broker_does_not_hold_is_not_assigned() {
        let mut image = image();
        apply(&mut image, &[partition_record(TOPIC, 2, &[2], &[2])]);
        for (topic, index, code) in [
            (Uuid::from_u128(501), 0, ErrorCode::UNKNOWN_TOPIC_ID),
            (TOPIC, 3, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            (TOPIC, 2, ErrorCode::NOT_LEADER_OR_FOLLOWER),
        ] {
            let outcome =
                assign_replicas_to_dirs(&image, &Policy::default(), &request(SECOND, topic, index))
                    .unwrap();
            assert_eq!(outcome.records, []);
            let partition = &outcome.reply.directories[0].topics[0].partitions[0];
            assert_eq!(partition.error_code, code);
        }
        let stale = AssignReplicasToDirsRequest { broker_epoch: 0, ..request(SECOND, TOPIC, 0) };
        let refused = assign_replicas_to_dirs(&image, &Policy::default(), &stale).unwrap_err();
        assert_eq!(refused.code, ErrorCode::STALE_BROKER_EPOCH);
    }

    fn records_of_failure(image: &Image, failed: &[Uuid]) -> Vec<MetadataRecord> {
        let mut draft = Draft::on(image);
        take_offline(&mut draft, &Policy::default(), BrokerId(1), failed);
        draft.records
    }

    #[test]
    fn a_failed_directory_costs_leaderships_only_where_somebody_else_can_lead() {
        let mut image = image();
        let failed = [directory_of(1)];
        let records = records_of_failure(&image, &failed);
        apply(&mut image, &records);
        let partition = |index| image.partition(TOPIC, PartitionIndex(index)).unwrap();
        assert_eq!(partition(0).leader, BrokerId(1));
        assert_eq!((partition(1).leader, &*partition(1).isr), (BrokerId(2), &[BrokerId(2)][..]));
        assert_eq!(image.broker(BrokerId(1)).unwrap().directories, [SECOND]);
        assert_eq!(records_of_failure(&image, &failed), []);
    }

    #[test]
    fn a_failed_directory_costs_its_data_where_the_topic_accepts_that_and_another_can_lead() {
        let mut image = image();
        apply(&mut image, &[partition_record(TOPIC, 2, &[1, 2], &[1])]);
        let accepts_loss = ConfigRecord {
            resource_type: ConfigResource::TOPIC,
            resource_name: "t".into(),
            name: "unclean.leader.election.enable".into(),
            value: Some("true".into()),
        };
        apply(&mut image, &[accepts_loss.into()]);
        let records = records_of_failure(&image, &[directory_of(1)]);
        apply(&mut image, &records);
        let partition = |index| image.partition(TOPIC, PartitionIndex(index)).unwrap();
        assert_eq!(partition(0).leader, BrokerId(1));
        assert_eq!((partition(2).leader, &*partition(2).isr), (BrokerId(2), &[BrokerId(2)][..]));
        assert!(partition(2).leader_is_recovering && !partition(1).leader_is_recovering);
    }
}
