//! ElectLeaders: gives partitions the leader that they should have. Pure.

use ottla_base::{ErrorCode, PartitionIndex};
use ottla_protocol::messages::elect_leaders_request::TopicPartitions;
use ottla_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ottla_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::partition_change::{Election, Elections, PartitionChange};
use super::{Outcome, Policy, RECORDS_MAX, Rejection};
use crate::MetadataRecord;
use crate::image::{Image, Partition, Topic};

/// Holds the elections that are needed and possible; null topics mean all partitions.
#[must_use]
pub fn elect_leaders(
    image: &Image,
    policy: &Policy,
    request: &ElectLeadersRequest,
) -> Outcome<ElectLeadersResponse> {
    match decide(image, policy, request) {
        Ok((records, replica_election_results)) => Outcome {
            records,
            reply: ElectLeadersResponse { replica_election_results, ..Default::default() },
        },
        Err(rejection) => Outcome::unchanged(refused(request, &rejection)),
    }
}

/// The answer to a request that is refused as a whole.
fn refused(request: &ElectLeadersRequest, rejection: &Rejection) -> ElectLeadersResponse {
    let topics = request.topic_partitions.as_deref().unwrap_or_default();
    let result = |partition_id: &i32| partition_result(*partition_id, Some(rejection.clone()));
    let topic = |topic: &TopicPartitions| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(result).collect(),
    };
    ElectLeadersResponse {
        error_code: rejection.code,
        replica_election_results: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

type Decided = (Vec<MetadataRecord>, Vec<ReplicaElectionResult>);

fn decide(
    image: &Image,
    policy: &Policy,
    request: &ElectLeadersRequest,
) -> Result<Decided, Rejection> {
    // Without partitions there is nothing to say about the kind of election either.
    if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return Ok((Vec::new(), Vec::new()));
    }
    let election = match request.election_type {
        0 => Election::Preferred,
        // Whoever asks accepts the loss, whatever `unclean.leader.election.enable` says.
        1 => Election::Unclean,
        other => {
            let message = format!("Unknown election type {other}");
            return Err(Rejection::new(ErrorCode::INVALID_REQUEST, message));
        }
    };
    let holder = Holder { image, elections: Elections::of(image, policy), election };
    let mut records = Vec::new();
    let results = match &request.topic_partitions {
        Some(topics) => topics
            .iter()
            .map(|asked| {
                let topic = image.topic_by_name(&asked.topic);
                let elect = |partition: &i32| {
                    let elected = holder.elect_in(topic, &asked.topic, *partition);
                    partition_result(*partition, elected.map(|record| records.push(record)).err())
                };
                let partition_result = asked.partitions.iter().map(elect).collect();
                ReplicaElectionResult { topic: asked.topic.clone(), partition_result }
            })
            .collect(),
        None => image.topics().map(|topic| holder.elect_all(topic, &mut records)).collect(),
    };
    if records.len() > RECORDS_MAX {
        return Err(Rejection::too_many_records());
    }
    Ok((records, results))
}

fn partition_result(partition_id: i32, rejection: Option<Rejection>) -> PartitionResult {
    let (error_code, error_message) = Rejection::fields(rejection);
    PartitionResult { partition_id, error_code, error_message }
}

/// Elections of one kind.
struct Holder<'a> {
    image: &'a Image,
    elections: Elections,
    election: Election,
}

impl Holder<'_> {
    /// Where all partitions are meant, those that need nothing are not mentioned.
    fn elect_all(&self, topic: &Topic, records: &mut Vec<MetadataRecord>) -> ReplicaElectionResult {
        let elect = |(index, partition): (PartitionIndex, &Partition)| {
            let rejection = match self.elect(topic, index, partition) {
                Ok(record) => {
                    records.push(record);
                    None
                }
                Err(Rejection { code: ErrorCode::ELECTION_NOT_NEEDED, .. }) => return None,
                Err(rejection) => Some(rejection),
            };
            Some(partition_result(index.0, rejection))
        };
        let partition_result = topic.partitions().filter_map(elect).collect();
        ReplicaElectionResult { topic: (&*topic.name).into(), partition_result }
    }

    fn elect_in(
        &self,
        topic: Option<&Topic>,
        name: &str,
        partition: i32,
    ) -> Result<MetadataRecord, Rejection> {
        let unknown = |what| Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, what);
        let topic = topic.ok_or_else(|| unknown(format!("No such topic as {name}")))?;
        let index = PartitionIndex(partition);
        let partition = topic
            .partition(index)
            .ok_or_else(|| unknown(format!("No such partition as {name}-{partition}")))?;
        self.elect(topic, index, partition)
    }

    fn elect(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) -> Result<MetadataRecord, Rejection> {
        let Self { image, elections, election } = self;
        let is_as_wanted = match election {
            Election::Preferred => partition.replicas.first() == Some(&partition.leader),
            // Who leads without its directory only reads.
            Election::Online | Election::Unclean => {
                image.has_usable_replica(partition, partition.leader)
            }
        };
        if is_as_wanted {
            let message = "Leader election not needed for topic partition.";
            return Err(Rejection::new(ErrorCode::ELECTION_NOT_NEEDED, message));
        }
        let change = PartitionChange::new(elections, image, topic, index, partition, *election);
        change.record().ok_or_else(|| none_available(*election))
    }
}

fn none_available(election: Election) -> Rejection {
    match election {
        Election::Preferred => Rejection::new(
            ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            "The preferred leader was not available.",
        ),
        Election::Online | Election::Unclean => Rejection::new(
            ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
            "Eligible topic partition leaders are not available.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::{directory_of, fence, image_with_brokers};
    use ottla_base::{TopicId, Uuid};
    use ottla_protocol::records::{PartitionChangeRecord, PartitionRecord, TopicRecord};

    const TOPIC_ID: TopicId = TopicId::from_u128(9);

    /// Brokers 1 and 2, and a topic of one partition that prefers broker 1.
    fn image(leader: i32, isr: &[i32]) -> Image {
        let mut image = image_with_brokers(&[1, 2]);
        image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC_ID }.into()).unwrap();
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id: TOPIC_ID,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            leader,
            ..Default::default()
        };
        image.apply(&partition.into()).unwrap();
        image
    }

    fn request(election_type: i8, topics: Option<&[(&str, &[i32])]>) -> ElectLeadersRequest {
        let topic = |(name, partitions): &(&str, &[i32])| TopicPartitions {
            topic: (*name).into(),
            partitions: partitions.to_vec(),
        };
        ElectLeadersRequest {
            election_type,
            topic_partitions: topics.map(|topics| topics.iter().map(topic).collect()),
            ..Default::default()
        }
    }

    fn elect_one(image: &Image, election_type: i8) -> (Vec<MetadataRecord>, ErrorCode) {
        let outcome =
            elect_leaders(image, &Policy::default(), &request(election_type, Some(&[("t", &[0])])));
        let code = outcome.reply.replica_election_results[0].partition_result[0].error_code;
        (outcome.records, code)
    }

    fn led_by(leader: i32) -> Vec<MetadataRecord> {
        let record = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC_ID,
            leader,
            ..Default::default()
        };
        vec![record.into()]
    }

    #[test]
    fn the_preferred_leader_takes_over_when_it_is_in_sync() {
        assert_eq!(elect_one(&image(2, &[1, 2]), 0), (led_by(1), ErrorCode::NONE));
        let not_available = (vec![], ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
        assert_eq!(elect_one(&image(2, &[2]), 0), not_available);
        let mut fenced = image(2, &[1, 2]);
        fence(&mut fenced, 1);
        assert_eq!(elect_one(&fenced, 0), not_available);
    }

    #[test]
    fn where_the_leader_is_the_right_one_nothing_is_needed() {
        let not_needed = (vec![], ErrorCode::ELECTION_NOT_NEEDED);
        assert_eq!(elect_one(&image(1, &[1, 2]), 0), not_needed);
        assert_eq!(elect_one(&image(2, &[1, 2]), 1), not_needed);
    }

    #[test]
    fn a_partition_without_a_leader_gets_one_that_lacks_data_only_if_it_must() {
        assert_eq!(elect_one(&image(-1, &[2]), 0), (led_by(2), ErrorCode::NONE));
        assert_eq!(elect_one(&image(-1, &[2]), 1), (led_by(2), ErrorCode::NONE));
        let mut fenced = image(-1, &[2]);
        fence(&mut fenced, 2);
        let none = (vec![], ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
        assert_eq!(elect_one(&fenced, 0), none);
        let lossy = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC_ID,
            leader: 1,
            isr: Some(vec![1]),
            leader_recovery_state: 1,
            ..Default::default()
        };
        assert_eq!(elect_one(&fenced, 1), (vec![lossy.into()], ErrorCode::NONE));
        fence(&mut fenced, 1);
        let none = (vec![], ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE);
        assert_eq!(elect_one(&fenced, 1), none);
    }

    /// It reads from the directory that has failed, and cannot write: whoever asks for another leader gets one.
    #[test]
    fn a_leader_without_its_directory_can_be_replaced_at_the_price_of_its_data() {
        let mut image = image(1, &[1]);
        let directories = Some(vec![Uuid::from_u128(7000), directory_of(2)]);
        let placed = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC_ID,
            directories,
            ..Default::default()
        };
        image.apply(&placed.into()).unwrap();
        let lossy = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC_ID,
            leader: 2,
            isr: Some(vec![2]),
            leader_recovery_state: 1,
            ..Default::default()
        };
        assert_eq!(elect_one(&image, 1), (vec![lossy.into()], ErrorCode::NONE));
        fence(&mut image, 2);
        let none = (vec![], ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE);
        assert_eq!(elect_one(&image, 1), none);
    }

    #[test]
    fn all_partitions_are_meant_by_null_and_none_by_an_empty_list() {
        let image = image(2, &[1, 2]);
        let outcome = elect_leaders(&image, &Policy::default(), &request(0, None));
        assert_eq!(outcome.records, led_by(1));
        assert_eq!(outcome.reply.replica_election_results[0].partition_result.len(), 1);
        let outcome = elect_leaders(&image, &Policy::default(), &request(1, None));
        assert_eq!(outcome.reply.replica_election_results[0].partition_result, []);
        let outcome = elect_leaders(&image, &Policy::default(), &request(7, Some(&[])));
        assert_eq!(outcome, Outcome::unchanged(ElectLeadersResponse::default()));
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        let asked: &[(&str, &[i32])] = &[("t", &[5]), ("x", &[0])];
        let outcome = elect_leaders(&image(1, &[1]), &Policy::default(), &request(0, Some(asked)));
        let messages: Vec<_> = outcome
            .reply
            .replica_election_results
            .iter()
            .map(|topic| topic.partition_result[0].error_message.as_deref().unwrap())
            .collect();
        assert_eq!(messages, ["No such partition as t-5", "No such topic as x"]);
        let outcome =
            elect_leaders(&image(1, &[1]), &Policy::default(), &request(7, Some(&[("t", &[0])])));
        assert_eq!(outcome.reply.error_code, ErrorCode::INVALID_REQUEST);
    }
}
