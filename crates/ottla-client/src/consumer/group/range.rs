//! Kafka's `range` assignor, and the words in which consumers of a classic group tell what they want and get. Pure.
//!
//! Topic by topic, members in order get runs of partitions in order, of equal length; what is left over goes to the
//! first ones. Like this, partitions of the same number in several topics meet at the same member. What is absent:
//! racks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::TopicPartition;
use ottla_protocol::messages::consumer_protocol_assignment::TopicPartition as TopicPartitions;
use ottla_protocol::messages::join_group_response::JoinGroupResponseMember;
use ottla_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use ottla_protocol::records::encode_versioned;
use ottla_protocol::{Decoder, Message};

/// Kafka's name for it: members of one group agree by this.
pub(super) const NAME: &str = "range";
/// The protocol type of consumers.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) topics: BTreeSet<Arc<str>>,
}

impl Subscriber {
    /// Somebody whose wishes cannot be read gets nothing.
    pub(super) fn new(member: &JoinGroupResponseMember) -> Self {
        let wishes = decode::<ConsumerProtocolSubscription>(member.metadata.clone());
        let topics = wishes.map(|wishes| wishes.topics).unwrap_or_default();
        Self {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            topics: topics.iter().map(|topic| Arc::from(&**topic)).collect(),
        }
    }
}

/// Who gets what, by member id; everybody is named. `counts` has the number of partitions of each topic that exists.
pub(super) fn assign(
    members: &[Subscriber],
    counts: &BTreeMap<Arc<str>, i32>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let mut in_order: Vec<&Subscriber> = members.iter().collect();
    // Static members keep their places when they come back under another id: they go first, as in Kafka.
    in_order.sort_by_key(|it| (it.instance_id.is_none(), &it.instance_id, &it.member_id));
    let mut parts: BTreeMap<String, Vec<TopicPartition>> =
        members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect();
    for (topic, count) in counts {
        let subscribed: Vec<_> =
            in_order.iter().filter(|member| member.topics.contains(topic)).collect();
        let mut next = 0;
        for (member, length) in subscribed.iter().zip(lengths(*count, subscribed.len())) {
            let run =
                (next..next + length).map(|index| TopicPartition::new(Arc::clone(topic), index));
            parts.entry(member.member_id.clone()).or_default().extend(run);
            next += length;
        }
    }
    parts
}

/// How many partitions each of so many members gets.
fn lengths(partitions: i32, members: usize) -> impl Iterator<Item = i32> {
    let members = i32::try_from(members.max(1)).unwrap_or(i32::MAX);
    let (each, left_over) = (partitions / members, partitions % members);
    (0..members).map(move |place| each + i32::from(place < left_over))
}

/// What a member of these topics tells the leader.
pub(super) fn subscription(topics: &[Arc<str>]) -> Bytes {
    let topics = topics.iter().map(|topic| (&**topic).into()).collect();
    encode(&ConsumerProtocolSubscription { topics, ..Default::default() })
}

/// What the leader tells a member.
pub(super) fn assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition.0);
    }
    let topic =
        |(topic, partitions): (&str, _)| TopicPartitions { topic: topic.into(), partitions };
    let assigned_partitions = topics.into_iter().map(topic).collect();
    encode(&ConsumerProtocolAssignment { assigned_partitions, user_data: None })
}

/// What the leader told a member, in order.
///
/// # Errors
/// Why the bytes are no assignment.
pub(crate) fn assignment_in(bytes: Bytes) -> Result<Vec<TopicPartition>, String> {
    let assignment = decode::<ConsumerProtocolAssignment>(bytes)?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = (*topic.topic).into();
        let partition = |index| TopicPartition::new(Arc::clone(&name), index);
        partitions.extend(topic.partitions.into_iter().map(partition));
    }
    partitions.sort();
    Ok(partitions)
}

fn encode<M: Message>(message: &M) -> Bytes {
    let newest = *M::VERSIONS.end();
    encode_versioned(message, newest).expect("the newest version has a place for every field")
}

/// A later version begins like the last that we know.
fn decode<M: Message>(bytes: Bytes) -> Result<M, String> {
    let mut input = Decoder::new(bytes);
    let version = input.i16().map_err(|what| format!("{what:?}"))?.min(*M::VERSIONS.end());
    M::decode(&mut input, version).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: &str, instance: Option<&str>, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: id.to_owned(),
            instance_id: instance.map(str::to_owned),
            topics: topics.iter().map(|topic| (*topic).into()).collect(),
        }
    }

    fn counts(topics: &[(&str, i32)]) -> BTreeMap<Arc<str>, i32> {
        topics.iter().map(|(topic, count)| ((*topic).into(), *count)).collect()
    }

    fn shown(members: &[Subscriber], topics: &[(&str, i32)]) -> Vec<String> {
        let parts = assign(members, &counts(topics));
        let list = |parts: &[TopicPartition]| {
            parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        parts.iter().map(|(id, parts)| format!("{id}: {}", list(parts))).collect()
    }

    #[test]
    fn each_topic_is_cut_into_runs_and_the_first_members_get_what_is_left_over() {
        let members = [member("b", None, &["s", "t"]), member("a", None, &["s", "t"])];
        assert_eq!(shown(&members, &[("s", 3), ("t", 3)]), ["a: s-0 s-1 t-0 t-1", "b: s-2 t-2"]);
    }

    #[test]
    fn a_topic_goes_to_those_who_want_it_if_it_exists() {
        let members = [member("a", None, &["s"]), member("b", None, &["s", "t", "gone"])];
        assert_eq!(shown(&members, &[("s", 1), ("t", 2)]), ["a: s-0", "b: t-0 t-1"]);
        assert_eq!(shown(&members, &[("s", 0)]), ["a: ", "b: "]);
    }

    #[test]
    fn static_members_go_first_by_their_instance() {
        let members = [
            member("a", None, &["t"]),
            member("c", Some("1"), &["t"]),
            member("b", Some("2"), &["t"]),
        ];
        assert_eq!(shown(&members, &[("t", 3)]), ["a: t-2", "b: t-1", "c: t-0"]);
    }

    #[test]
    fn wishes_and_parts_are_read_as_they_were_written_also_in_a_version_to_come() {
        let metadata = subscription(&["s".into(), "t".into()]);
        let mut later = metadata.to_vec();
        later.splice(..2, 99_i16.to_be_bytes());
        for metadata in [metadata, later.into()] {
            let member =
                JoinGroupResponseMember { member_id: "a".into(), metadata, ..Default::default() };
            assert_eq!(Subscriber::new(&member), self::member("a", None, &["s", "t"]));
        }
        let parts = [TopicPartition::new("t", 3), TopicPartition::new("t", 0)];
        let sorted: Vec<_> = parts.iter().rev().cloned().collect();
        assert_eq!(assignment_in(assignment(&parts)), Ok(sorted));
    }

    #[test]
    fn bytes_that_are_no_wish_and_no_part_are_told_from_those_that_are() {
        let member = JoinGroupResponseMember {
            member_id: "a".into(),
            metadata: Bytes::from_static(&[0, 1, 0xff]),
            ..Default::default()
        };
        assert!(Subscriber::new(&member).topics.is_empty());
        assert!(assignment_in(Bytes::from_static(&[0])).is_err());
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_who_wants_it_and_nobody_has_two_more_than_another(
            wishes in prop::collection::vec(prop::collection::btree_set(0..3_usize, 0..4), 1..8),
            sizes in prop::array::uniform3(0..20_i32),
        ) {
            let topics = ["s", "t", "u"];
            let members: Vec<_> = wishes.iter().enumerate().map(|(place, wishes)| {
                let wanted: Vec<_> = wishes.iter().map(|it| topics[*it]).collect();
                member(&place.to_string(), None, &wanted)
            }).collect();
            let counts: BTreeMap<Arc<str>, i32> =
                topics.iter().zip(sizes).map(|(topic, size)| ((*topic).into(), size)).collect();
            let parts = assign(&members, &counts);
            for (topic, size) in &counts {
                let shares: Vec<_> = members.iter().filter(|it| it.topics.contains(topic)).map(|it| {
                    parts[&it.member_id].iter().filter(|part| part.topic == *topic).count()
                }).collect();
                let mut owned: Vec<_> = parts.values().flatten()
                    .filter(|part| part.topic == *topic).map(|part| part.partition.0).collect();
                owned.sort_unstable();
                let expected: Vec<_> = if shares.is_empty() { vec![] } else { (0..*size).collect() };
                prop_assert_eq!(owned, expected);
                let (most, least) = (shares.iter().max(), shares.iter().min());
                prop_assert!(most.unwrap_or(&0) - least.unwrap_or(&0) <= 1);
            }
        }
    }
}
