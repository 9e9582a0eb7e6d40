//! CreatePartitions: topics grow, each on its own, and never shrink. Pure.

use std::collections::BTreeMap;

use ottla_base::{ErrorCode, PartitionIndex};
use ottla_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ottla_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ottla_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::new_partitions::{
    Placed, check_assignment, invalid_assignment, partition_record, place_next,
};
use super::placement::Placer;
use super::{Draw, Outcome, RECORDS_MAX, Rejection};
use crate::MetadataRecord;
use crate::image::{Image, Topic};

/// Adds partitions to the topics that can have more, and says of each other one why not.
#[must_use]
pub fn create_partitions(
    image: &Image,
    request: &CreatePartitionsRequest,
    draw: &mut dyn Draw,
) -> Outcome<CreatePartitionsResponse> {
    let mut times = BTreeMap::<&str, usize>::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let (mut records, mut results) = (Vec::new(), Vec::new());
    for (name, _) in times.iter().filter(|(_, times)| **times > 1) {
        let twice = Rejection::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.");
        results.push(result(name, Some(twice)));
    }
    for topic in request.topics.iter().filter(|topic| times.get(&*topic.name) == Some(&1)) {
        let grown = grow(image, topic, records.len(), draw);
        let rejection = grown.map(|grown| records.extend(grown)).err();
        results.push(result(&topic.name, rejection));
    }
    let records = if request.validate_only { Vec::new() } else { records };
    Outcome { records, reply: CreatePartitionsResponse { results, ..Default::default() } }
}

fn result(name: &str, rejection: Option<Rejection>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = Rejection::fields(rejection);
    CreatePartitionsTopicResult { name: name.into(), error_code, error_message }
}

/// `records` are those of the topics before.
fn grow(
    image: &Image,
    wanted: &CreatePartitionsTopic,
    records: usize,
    draw: &mut dyn Draw,
) -> Result<Vec<MetadataRecord>, Rejection> {
    let unknown = Rejection::wordless(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let topic = image.topic_by_name(&wanted.name).ok_or(unknown)?;
    let additional = additional(topic, wanted)?;
    if records.saturating_add(additional) > RECORDS_MAX {
        return Err(Rejection::too_many_records());
    }
    let first = topic.partition_count();
    let placed = match &wanted.assignments {
        None => place(image, topic, additional, draw)?,
        Some(assignments) if assignments.len() == additional => {
            let factor = Some(topic.replication_factor());
            let indexes = first..first + additional;
            let check =
                |(index, ids): (usize, &[i32])| check_assignment(image, as_i32(index), ids, factor);
            indexes
                .zip(assignments.iter().map(|it| &*it.broker_ids))
                .map(check)
                .collect::<Result<_, _>>()?
        }
        Some(assignments) => {
            return Err(invalid_assignment(format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) \
                 were specified.",
                assignments.len()
            )));
        }
    };
    let record = |(index, (replicas, isr)): (usize, &Placed)| {
        partition_record(image, topic.id, PartitionIndex(as_i32(index)), replicas, isr)
    };
    Ok((first..).zip(&placed).map(record).collect())
}

/// How many partitions there are to be more.
fn additional(topic: &Topic, wanted: &CreatePartitionsTopic) -> Result<usize, Rejection> {
    let (present, count) = (topic.partition_count(), wanted.count);
    let message = match usize::try_from(count) {
        Ok(count) if count > present => return Ok(count - present),
        Ok(count) if count == present => format!("Topic already has {present} partition(s)."),
        Ok(_) | Err(_) => format!(
            "The topic {} currently has {present} partition(s); {count} would not be an increase.",
            topic.name
        ),
    };
    Err(Rejection::new(ErrorCode::INVALID_PARTITIONS, message))
}

fn place(
    image: &Image,
    topic: &Topic,
    additional: usize,
    draw: &mut dyn Draw,
) -> Result<Vec<Placed>, Rejection> {
    let factor = i16::try_from(topic.replication_factor()).unwrap_or(i16::MAX);
    let mut placer = Placer::new(image, draw.placement_seed());
    let unable = |reason| Rejection::new(ErrorCode::INVALID_REPLICATION_FACTOR, reason);
    placer.check(factor).map_err(unable)?;
    (0..additional).map(|_| place_next(image, &mut placer, factor)).collect()
}

fn as_i32(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::{fence, image_with_brokers, partition_record};
    use ottla_base::TopicId;
    use ottla_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
    use ottla_protocol::records::TopicRecord;

    struct SeedZero;

    impl Draw for SeedZero {
        fn topic_id(&mut self) -> TopicId {
            unreachable!("a topic that grows keeps its id")
        }

        fn placement_seed(&mut self) -> u64 {
            0
        }
    }

    fn partition(index: i32, replicas: &[i32], isr: &[i32]) -> MetadataRecord {
        partition_record(TopicId::from_u128(9), index, replicas, isr)
    }

    /// Brokers with a topic `t` of one partition, held by all of them.
    fn image(brokers: &[i32]) -> Image {
        let mut image = image_with_brokers(brokers);
        let topic = TopicRecord { name: "t".into(), topic_id: TopicId::from_u128(9) };
        image.apply(&topic.into()).unwrap();
        image.apply(&partition(0, brokers, brokers)).unwrap();
        image
    }

    fn topic(name: &str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic { name: name.into(), count, assignments: None }
    }

    fn assigned(count: i32, assignments: &[&[i32]]) -> CreatePartitionsTopic {
        let assignment = |ids: &&[i32]| CreatePartitionsAssignment { broker_ids: ids.to_vec() };
        let assignments = Some(assignments.iter().map(assignment).collect());
        CreatePartitionsTopic { assignments, ..topic("t", count) }
    }

    fn create(
        image: &Image,
        topics: Vec<CreatePartitionsTopic>,
    ) -> Outcome<CreatePartitionsResponse> {
        let request = CreatePartitionsRequest { topics, ..Default::default() };
        create_partitions(image, &request, &mut SeedZero)
    }

    fn refusal(image: &Image, topic: CreatePartitionsTopic) -> (ErrorCode, String) {
        let outcome = create(image, vec![topic]);
        assert_eq!(outcome.records, []);
        let [result] = &*outcome.reply.results else { panic!("{outcome:?}") };
        (result.error_code, result.error_message.as_deref().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_topic_grows_by_the_partitions_that_it_lacks() {
        let outcome = create(&image(&[1]), vec![topic("t", 3)]);
        assert_eq!(outcome.records, [partition(1, &[1], &[1]), partition(2, &[1], &[1])]);
        assert_eq!(outcome.reply.results, [result("t", None)]);
    }

    #[test]
    fn new_partitions_go_where_the_request_says() {
        let mut image = image(&[1, 2]);
        fence(&mut image, 2);
        let outcome = create(&image, vec![assigned(3, &[&[2, 1], &[1, 2]])]);
        assert_eq!(outcome.records, [partition(1, &[2, 1], &[1]), partition(2, &[1, 2], &[1])]);
    }

    #[test]
    fn a_check_without_a_change_answers_the_same_and_writes_nothing() {
        let topics = vec![topic("t", 3)];
        let request = CreatePartitionsRequest { topics, validate_only: true, ..Default::default() };
        let outcome = create_partitions(&image(&[1]), &request, &mut SeedZero);
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.results, [result("t", None)]);
    }

    #[test]
    fn a_topic_never_shrinks_nor_stays_as_it_is() {
        for count in [0, -1, i32::MIN] {
            let (code, message) = refusal(&image(&[1]), topic("t", count));
            assert_eq!(code, ErrorCode::INVALID_PARTITIONS);
            assert!(message.ends_with(&format!("{count} would not be an increase.")), "{message}");
        }
        let (code, message) = refusal(&image(&[1]), topic("t", 1));
        assert_eq!(code, ErrorCode::INVALID_PARTITIONS);
        assert_eq!(message, "Topic already has 1 partition(s).");
    }

    #[test]
    fn unknown_topics_and_topics_named_twice_do_not_stop_the_others() {
        let topics = vec![topic("x", 2), topic("y", 2), topic("t", 2), topic("y", 3)];
        let outcome = create(&image(&[1]), topics);
        let codes: Vec<_> =
            outcome.reply.results.iter().map(|it| (&*it.name, it.error_code)).collect();
        let expected = [
            ("y", ErrorCode::INVALID_REQUEST),
            ("x", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            ("t", ErrorCode::NONE),
        ];
        assert_eq!(codes, expected);
        assert_eq!(outcome.records.len(), 1);
    }

    #[test]
    fn assignments_that_make_no_sense_are_refused() {
        let image = image(&[1]);
        let refuse = |assignments: &[&[i32]]| {
            let (code, message) = refusal(&image, assigned(3, assignments));
            assert_eq!(code, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
            message
        };
        assert_eq!(
            refuse(&[&[1]]),
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
        );
        assert!(refuse(&[&[1], &[]]).contains("empty replica list"));
        assert!(refuse(&[&[1], &[7]]).contains("no such broker is registered"));
        assert!(refuse(&[&[1], &[1, 1]]).contains("more than once"));
    }

    #[test]
    fn more_partitions_than_one_batch_holds_are_refused() {
        let image = image(&[1]);
        for count in [10_002, i32::MAX] {
            let (code, _) = refusal(&image, topic("t", count));
            assert_eq!(code, ErrorCode::POLICY_VIOLATION, "{count}");
        }
        assert_eq!(create(&image, vec![topic("t", 10_001)]).records.len(), 10_000);
    }

    #[test]
    fn a_topic_does_not_grow_while_all_brokers_are_fenced() {
        let mut image = image(&[1]);
        fence(&mut image, 1);
        let (code, message) = refusal(&image, topic("t", 2));
        assert_eq!(code, ErrorCode::INVALID_REPLICATION_FACTOR);
        assert!(message.starts_with("All brokers are currently fenced"), "{message}");
    }
}
