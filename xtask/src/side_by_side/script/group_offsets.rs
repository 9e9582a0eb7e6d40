//! Offsets of groups: committing, reading, deleting, in every version, and each way to be refused.

use anyhow::Result;
use ottla_base::Uuid;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest};

use super::super::both::Both;
use super::super::subject::{NOBODYS_ID, Subject};
use super::group_membership::{Ids, Talk};
use super::{invalid_names, versions};

const TOPIC: &str = "group-offsets";
const OTHER: &str = "group-offsets-other";
const GONE: &str = "group-offsets-gone";
const COMMIT_IDS_SINCE: i16 = 10;
const FETCH_IDS_SINCE: i16 = 10;
const SEVERAL_GROUPS_SINCE: i16 = 8;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(super::find_coordinator::wait_for_a_coordinator)?;
    both.create(TOPIC, 3, &[])?;
    both.create(OTHER, 1, &[])?;
    for version in versions::<OffsetCommitRequest>() {
        commit(both, version)?;
        commit_as_member(both, version)?;
    }
    for version in versions::<OffsetFetchRequest>() {
        fetch(both, version)?;
    }
    delete(both)?;
    topic_made_anew(both)
}

fn topic(
    subject: &Subject,
    version: i16,
    name: &str,
    partitions: &[(i32, i64)],
) -> OffsetCommitRequestTopic {
    let partition = |(index, offset): &(i32, i64)| OffsetCommitRequestPartition {
        partition_index: *index,
        committed_offset: *offset,
        committed_leader_epoch: if version >= 6 { 0 } else { -1 },
        committed_metadata: Some(format!("at {offset}").into()),
    };
    let by_id = version >= COMMIT_IDS_SINCE;
    OffsetCommitRequestTopic {
        name: if by_id { "".into() } else { name.into() },
        topic_id: if by_id { subject.id(name) } else { Uuid::ZERO },
        partitions: partitions.iter().map(partition).collect(),
    }
}

fn request(group: &str, topics: Vec<OffsetCommitRequestTopic>) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics,
        ..OffsetCommitRequest::default()
    }
}

fn commit(both: &mut Both, version: i16) -> Result<()> {
    let group = format!("commits-{version}");
    let mut ask = |what: &str, make: &dyn Fn(&Subject) -> OffsetCommitRequest| {
        both.ask(version, what, make).map(drop)
    };
    let simple =
        |subject: &Subject| request(&group, vec![topic(subject, version, TOPIC, &[(0, 7)])]);
    ask("a group of its own", &simple)?;
    ask("several partitions", &|subject| {
        let topics = vec![
            topic(subject, version, TOPIC, &[(0, 1), (1, 0), (2, 99)]),
            topic(subject, version, OTHER, &[(0, i64::MAX)]),
        ];
        request(&group, topics)
    })?;
    ask("partitions that are not there", &|subject| {
        request(&group, vec![topic(subject, version, TOPIC, &[(0, 5), (3, 5), (-1, 5)])])
    })?;
    ask("no partition that is there", &|subject| {
        request(&group, vec![topic(subject, version, TOPIC, &[(17, 5)])])
    })?;
    ask("a negative offset", &|subject| {
        request(&group, vec![topic(subject, version, TOPIC, &[(2, -1), (1, -100)])])
    })?;
    ask("nothing", &|_| request(&group, Vec::new()))?;
    ask("a topic without partitions", &|subject| {
        request(&group, vec![topic(subject, version, TOPIC, &[])])
    })?;
    ask("no group id", &|subject| request("", vec![topic(subject, version, TOPIC, &[(0, 7)])]))?;
    for (what, metadata) in
        [("null", None), ("nothing", Some(0)), ("4096", Some(4096)), ("4097", Some(4097))]
    {
        ask(&format!("metadata: {what}"), &|subject| {
            let mut request = simple(subject);
            let partitions = request.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|partition| {
                partition.committed_metadata = metadata.map(|len| "ü".repeat(len).into());
            });
            request
        })?;
    }
    for (member, generation) in [("", 0), ("stranger", -1), ("stranger", 0)] {
        ask(&format!("as member {member:?} of generation {generation}"), &|subject| {
            OffsetCommitRequest {
                member_id: member.into(),
                generation_id_or_member_epoch: generation,
                ..simple(subject)
            }
        })?;
        ask(&format!("as {member:?} of generation {generation} of no group"), &|subject| {
            OffsetCommitRequest {
                group_id: "no-such-group".into(),
                member_id: member.into(),
                generation_id_or_member_epoch: generation.max(0),
                ..simple(subject)
            }
        })?;
    }
    if version <= 4 {
        ask("with a retention time", &|subject| OffsetCommitRequest {
            retention_time_ms: 3_600_000,
            ..simple(subject)
        })?;
    }
    if version >= COMMIT_IDS_SINCE {
        for topic_id in [NOBODYS_ID, Uuid::ZERO] {
            ask(&format!("the unknown id {topic_id}"), &|subject| {
                let mut request = simple(subject);
                request.topics.iter_mut().for_each(|topic| topic.topic_id = topic_id);
                request
            })?;
        }
        return Ok(());
    }
    for name in invalid_names().into_iter().chain(["not-there".to_owned()]) {
        let short: String = name.chars().take(16).collect();
        ask(&format!("the unknown topic {short:?}"), &|subject| {
            let mut request = simple(subject);
            request.topics.iter_mut().for_each(|topic| topic.name = name.as_str().into());
            request
        })?;
    }
    Ok(())
}

/// Commits of a group that has members.
fn commit_as_member(both: &mut Both, version: i16) -> Result<()> {
    // Static members come with this version, and nothing else changes for members.
    let mut talk = Talk::new(both, 5, &format!("committing-members-{version}"));
    let ids = talk.first("first")?;
    let group = talk.group.clone();
    let mut ask = |what: &str, ids: &Ids, generation: i32| {
        let asked = talk.both.ask_each(version, what, |subject, index| OffsetCommitRequest {
            member_id: ids.get(index).map(String::as_str).unwrap_or_default().into(),
            generation_id_or_member_epoch: generation,
            ..request(&group, vec![topic(subject, version, TOPIC, &[(0, 7)])])
        });
        asked.map(drop)
    };
    ask("before its assignment", &ids, 1)?;
    talk.sync("it gets nothing", &ids, 1, |_| ())?;
    let mut ask = |what: &str, ids: &Ids, generation: i32| {
        let asked = talk.both.ask_each(version, what, |subject, index| OffsetCommitRequest {
            member_id: ids.get(index).map(String::as_str).unwrap_or_default().into(),
            generation_id_or_member_epoch: generation,
            ..request(&group, vec![topic(subject, version, TOPIC, &[(0, 7)])])
        });
        asked.map(drop)
    };
    ask("a member of a stable group", &ids, 1)?;
    ask("an older generation", &ids, 0)?;
    ask("a newer generation", &ids, 2)?;
    ask("no generation", &ids, -1)?;
    ask("nobody", &Default::default(), -1)?;
    ask("nobody in the generation", &Default::default(), 1)?;
    ask("a stranger", &["stranger".to_owned(), "stranger".to_owned()], 1)
}

fn fetch(both: &mut Both, version: i16) -> Result<()> {
    let by_id = version >= FETCH_IDS_SINCE;
    let one = |subject: &Subject, group: &str, topics: Option<&[(&str, &[i32])]>| {
        let topics = topics.map(|topics| {
            let topic = |(name, partitions): &(&str, &[i32])| OffsetFetchRequestTopics {
                name: if by_id { "".into() } else { (*name).into() },
                topic_id: if by_id { subject.id(name) } else { Uuid::ZERO },
                partition_indexes: partitions.to_vec(),
            };
            topics.iter().map(topic).collect::<Vec<_>>()
        });
        OffsetFetchRequestGroup {
            group_id: group.into(),
            topics,
            member_epoch: -1,
            ..OffsetFetchRequestGroup::default()
        }
    };
    let mut ask = |what: &str, groups: &dyn Fn(&Subject) -> Vec<OffsetFetchRequestGroup>| {
        for require_stable in [false, true].into_iter().filter(|stable| !stable || version >= 7) {
            let what = if require_stable { format!("{what}, stable") } else { what.to_owned() };
            both.ask(version, &what, |subject| {
                let groups = groups(subject);
                if version >= SEVERAL_GROUPS_SINCE {
                    return OffsetFetchRequest { groups, require_stable, ..Default::default() };
                }
                only_group(groups, require_stable)
            })?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let all: &[(&str, &[i32])] = &[(TOPIC, &[0, 1, 2, 3, -1]), (OTHER, &[0, 1])];
    ask("a group", &|subject| vec![one(subject, "commits-9", Some(all))])?;
    ask("a group that commits by id", &|subject| vec![one(subject, "commits-10", Some(all))])?;
    ask("an unknown group", &|subject| vec![one(subject, "unknown", Some(all))])?;
    ask("no group id", &|subject| vec![one(subject, "", Some(all))])?;
    ask("nothing", &|subject| vec![one(subject, "commits-9", Some(&[]))])?;
    ask("no partitions", &|subject| vec![one(subject, "commits-9", Some(&[(TOPIC, &[])]))])?;
    if version >= 2 {
        for group in ["commits-9", "commits-10", "unknown", ""] {
            ask(&format!("all of {group:?}"), &|subject| vec![one(subject, group, None)])?;
        }
    }
    if version >= SEVERAL_GROUPS_SINCE {
        ask("several groups", &|subject| {
            let groups = ["commits-9", "unknown", "commits-2", "commits-9"];
            groups.iter().map(|group| one(subject, group, Some(all))).collect()
        })?;
        ask("no groups", &|_| Vec::new())?;
    }
    if by_id {
        for topic_id in [NOBODYS_ID, Uuid::ZERO] {
            ask(&format!("the unknown id {topic_id}"), &|subject| {
                let mut group = one(subject, "commits-9", Some(all));
                let topics = group.topics.iter_mut().flatten();
                topics.take(1).for_each(|topic| topic.topic_id = topic_id);
                vec![group]
            })?;
        }
        return Ok(());
    }
    ask("an unknown topic", &|subject| {
        let mut group = one(subject, "commits-9", Some(all));
        let topics = group.topics.iter_mut().flatten();
        topics.take(1).for_each(|topic| topic.name = "not-there".into());
        vec![group]
    })
}

fn only_group(groups: Vec<OffsetFetchRequestGroup>, require_stable: bool) -> OffsetFetchRequest {
    let group = groups.into_iter().next().unwrap_or_default();
    let topics = group.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopic {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
        });
        topics.collect()
    });
    OffsetFetchRequest { group_id: group.group_id, topics, require_stable, ..Default::default() }
}

fn delete(both: &mut Both) -> Result<()> {
    let request = |group: &str, topics: &[(&str, &[i32])]| OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics
            .iter()
            .map(|(name, partitions)| OffsetDeleteRequestTopic {
                name: (*name).into(),
                partitions: partitions
                    .iter()
                    .map(|index| OffsetDeleteRequestPartition { partition_index: *index })
                    .collect(),
            })
            .collect(),
    };
    let mut ask = |what: &str, group: &str, topics: &[(&str, &[i32])]| {
        both.ask(0, what, |_| request(group, topics)).map(drop)
    };
    ask("an unknown group", "unknown", &[(TOPIC, &[0])])?;
    ask("no group id", "", &[(TOPIC, &[0])])?;
    ask("some of a group", "commits-9", &[(TOPIC, &[0, 2, 3]), ("not-there", &[0])])?;
    ask("the same again", "commits-9", &[(TOPIC, &[0, 2])])?;
    ask("nothing", "commits-9", &[])?;
    ask("what is not there", "commits-9", &[("not-there", &[0, 1])])?;
    ask("what is subscribed to", "committing-members-9-5", &[("groups", &[0]), (TOPIC, &[0])])?;
    fetch(both, 9)
}

/// A topic that is deleted and made anew: the offsets of the old one are gone.
fn topic_made_anew(both: &mut Both) -> Result<()> {
    both.create(GONE, 1, &[])?;
    for (version, group) in [(9, "anew-by-name"), (10, "anew-by-id")] {
        both.ask(version, "a topic that will go", |subject| {
            request(group, vec![topic(subject, version, GONE, &[(0, 3)])])
        })?;
    }
    both.set_up(|subject| {
        let request = ottla_protocol::messages::DeleteTopicsRequest {
            topic_names: vec![GONE.into()],
            timeout_ms: 10_000,
            ..Default::default()
        };
        subject.expect(5, &request)?;
        subject.wait_until_gone(GONE)
    })?;
    both.create(GONE, 1, &[])?;
    for group in ["anew-by-name", "anew-by-id"] {
        // Forgetting takes its time, and is done when it is done.
        both.set_up(|subject| {
            subject.wait_for("offsets to be forgotten", |subject| {
                let all = OffsetFetchRequestGroup {
                    group_id: group.into(),
                    topics: None,
                    ..Default::default()
                };
                let request = OffsetFetchRequest { groups: vec![all], ..Default::default() };
                let answer = subject.expect(9, &request)?;
                Ok(answer.groups.iter().all(|group| group.topics.is_empty()))
            })
        })?;
    }
    Ok(())
}
