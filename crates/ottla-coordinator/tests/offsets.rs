//! Groups commit offsets, read them, and lose them when nobody needs them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use ottla_base::{ErrorCode, Uuid};
use ottla_coordinator::group::{
    CommitOffsets, FetchOffsets, ListGroups, Reply, Request, TopicDeleted,
};
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ottla_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse};
use support::{BYTES_MAX, Commit, Context, GROUP, Join, SESSION_MS};

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;

fn delete_offsets(context: &mut Context, topic: &str) -> Result<ErrorCode, ErrorCode> {
    let partition = OffsetDeleteRequestPartition { partition_index: 0 };
    let topic = OffsetDeleteRequestTopic { name: topic.into(), partitions: vec![partition] };
    let request = OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![topic] };
    let to = context.ask(Request::DeleteOffsets(request));
    let response: OffsetDeleteResponse = context.reply(to);
    match response.topics.first() {
        Some(topic) => Ok(topic.partitions[0].error_code),
        None => Err(response.error_code),
    }
}

/// As many commits as there are, of one partition each, in one request.
fn commit_often(context: &mut Context, times: usize) -> Result<Reply, ErrorCode> {
    let partition = OffsetCommitRequestPartition::default();
    let topic = OffsetCommitRequestTopic {
        name: "topic".into(),
        partitions: vec![partition; times],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let to = context.ask(Request::Commit(CommitOffsets { version: 9, request }));
    context.take(to).unwrap()
}

#[test]
fn what_no_batch_has_room_for_is_refused_before_anybody_writes_it() {
    let mut context = Context::new();
    context.log.refuses = Some(ErrorCode::KAFKA_STORAGE_ERROR);
    let answer = commit_often(&mut context, BYTES_MAX / 32);
    assert_eq!(answer, Err(ErrorCode::UNKNOWN_SERVER_ERROR));
    assert!(context.log.refuses.take().is_some(), "the log was not asked");
    let answer = commit_often(&mut context, 1_000);
    assert!(matches!(answer, Ok(Reply::Commit(Ok(_)))), "{answer:?}");
    assert_eq!(context.log.records.len(), 1_000);
}

#[test]
fn an_offset_that_is_deleted_again_and_again_in_a_request_is_deleted_and_answered_once() {
    let mut context = Context::new();
    let to = context.commit_offset(&Commit::default());
    assert_eq!(context.committed(to), ErrorCode::NONE);
    let before = context.log.records.len();
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topic = OffsetDeleteRequestTopic {
        name: "topic".into(),
        partitions: [0, 0, 1, 0].map(partition).to_vec(),
    };
    let topics = vec![topic.clone(), topic];
    let request = OffsetDeleteRequest { group_id: GROUP.into(), topics };
    let to = context.ask(Request::DeleteOffsets(request));
    let response: OffsetDeleteResponse = context.reply(to);
    assert_eq!(response.topics.len(), 1);
    let answered = response.topics.iter().flat_map(|topic| &topic.partitions);
    let answered: Vec<_> = answered.map(|it| (it.partition_index, it.error_code)).collect();
    assert_eq!(answered, [(0, ErrorCode::NONE), (1, ErrorCode::NONE)]);
    assert_eq!(context.log.records.len(), before + 1);
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
}

fn delete_group(context: &mut Context, group: &str) -> ErrorCode {
    let to = context.ask(Request::DeleteGroups(vec![group.into()]));
    let results: Vec<DeletableGroupResult> = context.reply(to);
    results[0].error_code
}

#[test]
fn an_offset_is_read_when_it_is_committed_and_not_before() {
    let mut context = Context::new();
    context.commits_at_once = false;
    let committing = context.commit_offset(&Commit::default());
    assert_eq!(context.take(committing), None);
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
    let group =
        OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
    let reading = context.ask(Request::FetchStable(FetchOffsets { group }));
    assert_eq!(context.take(reading), None, "a stable read waits for what is under way");
    context.commit();
    assert_eq!(context.committed(committing), ErrorCode::NONE);
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
    let all: OffsetFetchResponseGroup = context.reply(reading);
    assert_eq!(all.topics[0].partitions[0].committed_offset, 42);
}

#[test]
fn a_commit_that_the_log_refuses_leaves_nothing() {
    let mut context = Context::new();
    context.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let committing = context.commit_offset(&Commit::default());
    assert_eq!(context.take(committing), Some(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)));
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
    assert!(context.list(ListGroups::default()).is_empty());
}

#[test]
fn a_consumer_without_members_makes_a_group_that_is_empty() {
    let mut context = Context::new();
    context.commit_offset(&Commit::default());
    assert_eq!(context.list(ListGroups::default()), ["group Empty"]);
    assert_eq!(context.describe().protocol_type, "");
    let context = context.restart();
    assert_eq!(context.list(ListGroups::default()), ["group Empty"]);
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
}

#[test]
fn members_commit_in_their_generation_only() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    let mut code = |commit: Commit<'_>| {
        let to = context.commit_offset(&commit);
        context.committed(to)
    };
    let good = Commit { member: &id, generation: 1, ..Commit::default() };
    assert_eq!(code(good), ErrorCode::NONE);
    assert_eq!(code(Commit { generation: 0, ..good }), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(code(Commit { member: "nobody", ..good }), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(code(Commit::default()), ErrorCode::UNKNOWN_MEMBER_ID, "the group has members");
    let unknown = Commit { group: "unknown", ..good };
    assert_eq!(code(unknown), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(code(Commit { version: 8, ..unknown }), ErrorCode::ILLEGAL_GENERATION);
}

#[test]
fn who_has_joined_and_not_asked_for_its_part_is_told_to_wait_with_its_commit() {
    let mut context = Context::new();
    let id = context.member_id();
    context.join(&Join::new().member(&id));
    context.sleep(1);
    let to = context.commit_offset(&Commit { member: &id, generation: 1, ..Commit::default() });
    assert_eq!(context.committed(to), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_commit_keeps_the_session() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    for _ in 0..3 {
        context.sleep(i64::from(SESSION_MS) - 1);
        context.commit_offset(&Commit { member: &id, generation: 1, ..Commit::default() });
    }
    assert_eq!(context.heartbeat(&id, 1), ErrorCode::NONE);
}

#[test]
fn metadata_is_counted_as_java_counts() {
    let mut context = Context::new();
    let mut code = |metadata: &str| {
        let to = context.commit_offset(&Commit { metadata, ..Commit::default() });
        context.committed(to)
    };
    assert_eq!(code(&"a".repeat(4096)), ErrorCode::NONE);
    assert_eq!(code(&"ü".repeat(4096)), ErrorCode::NONE, "8,192 bytes, 4,096 units");
    assert_eq!(code(&"a".repeat(4097)), ErrorCode::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(code(&"😀".repeat(2049)), ErrorCode::OFFSET_METADATA_TOO_LARGE);
}

#[test]
fn an_offset_of_a_topic_that_was_made_anew_is_not_found_under_the_new_id() {
    let mut context = Context::new();
    let old = Uuid::from_u128(7);
    context.commit_offset(&Commit { topic_id: old, ..Commit::default() });
    let find = |context: &Context, topic_id| {
        let topic = ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics {
            name: "topic".into(),
            topic_id,
            partition_indexes: vec![0],
        };
        let group = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let query = ottla_coordinator::group::Query::Fetch(FetchOffsets { group });
        let found: OffsetFetchResponseGroup = context.query(query);
        found.topics[0].partitions[0].committed_offset
    };
    assert_eq!(find(&context, old), 42);
    assert_eq!(find(&context, Uuid::ZERO), 42);
    assert_eq!(find(&context, Uuid::from_u128(8)), -1);
    context.ask(Request::TopicsDeleted(vec![TopicDeleted {
        id: Uuid::from_u128(8),
        name: "topic".into(),
    }]));
    context.sleep(1);
    assert_eq!(find(&context, old), 42, "another topic of that name was deleted");
    context.ask(Request::TopicsDeleted(vec![TopicDeleted { id: old, name: "topic".into() }]));
    context.sleep(1);
    assert_eq!(find(&context, old), -1);
}

#[test]
fn many_groups_forget_a_topic_a_part_at_a_time_and_others_are_served_meanwhile() {
    let mut context = Context::new();
    let groups: Vec<_> = (0..1_200).map(|number| format!("group-{number:04}")).collect();
    for group in &groups {
        context.commit_offset(&Commit { group, ..Commit::default() });
    }
    context
        .ask(Request::TopicsDeleted(vec![TopicDeleted { id: Uuid::ZERO, name: "topic".into() }]));
    let left = |context: &Context| context.runtime.shard().stored().offset_count();
    let mut seen = vec![left(&context)];
    for _ in 0..4 {
        context.sleep(1);
        seen.push(left(&context));
    }
    assert_eq!(seen, [1_200, 700, 200, 0, 0]);
}

#[test]
fn nothing_is_stored_any_more_once_somebody_else_has_written_to_the_log() {
    let mut context = Context::new();
    context.commit_offset(&Commit { group: "another", ..Commit::default() });
    let (key, _) = context.log.records[0].clone();
    context.log.records.push((key, None));
    let late = context.commit_offset(&Commit::default());
    assert_eq!(context.take(late), Some(Err(ErrorCode::NOT_COORDINATOR)));
    assert!(context.runtime.is_out_of_step());
    let end = context.log.end();
    let later = context.commit_offset(&Commit::default());
    assert_eq!(context.take(later), Some(Err(ErrorCode::NOT_COORDINATOR)));
    assert_eq!(context.log.end(), end);
    let mut context = context.restart();
    assert_eq!(context.offset(GROUP, "topic", 0), 42, "the first of the two is in the log");
    assert_eq!(context.runtime.shard().stored().offset_count(), 1);
    context.commit_offset(&Commit { group: "another", ..Commit::default() });
    assert!(!context.runtime.is_out_of_step());
}

#[test]
fn groups_forget_a_topic_although_that_can_not_be_stored_at_first() {
    // Two records make a batch.
    for (groups, refused_at) in [(3, 0), (1_200, 2)] {
        let mut context = Context::new();
        for group in (0..groups).map(|number| format!("group-{number:04}")) {
            context.commit_offset(&Commit { group: &group, ..Commit::default() });
        }
        let topic = TopicDeleted { id: Uuid::ZERO, name: "topic".into() };
        context.ask(Request::TopicsDeleted(vec![topic]));
        for _ in 0..refused_at {
            context.sleep(1);
        }
        let left = |context: &Context| context.runtime.shard().stored().offset_count();
        let before = left(&context);
        assert!(before > 0);
        for error in [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::KAFKA_STORAGE_ERROR] {
            context.log.refuses = Some(error);
            context.sleep(1);
            assert_eq!((left(&context), context.log.refuses), (before, None), "{error:?}");
            context.sleep(4_999);
            assert_eq!(left(&context), before, "not at once");
        }
        context.sleep(1);
        assert_eq!(left(&context), 0);
    }
}

#[test]
fn a_commit_that_is_not_stored_in_time_is_answered_all_the_same() {
    let mut context = Context::new();
    context.commits_at_once = false;
    let committing = context.commit_offset(&Commit::default());
    context.sleep(4_999);
    assert_eq!(context.take(committing), None);
    context.sleep(1);
    assert_eq!(context.take(committing), Some(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)));
    context.commit();
    assert_eq!(context.offset(GROUP, "topic", 0), 42, "it was stored late");
}

#[test]
fn an_empty_group_loses_its_offsets_a_week_after_it_became_empty_and_then_itself() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    context.commit_offset(&Commit { member: &id, generation: 1, ..Commit::default() });
    for _ in 0..10 {
        context.sleep(i64::from(SESSION_MS) - 1);
        context.heartbeat(&id, 1);
    }
    context.leave(&[(&id, None)]);
    context.sleep(WEEK_MS - 600_000);
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
    context.sleep(2 * 600_000);
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
    assert_eq!(context.describe().error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert!(context.runtime.shard().group(GROUP).is_none());
    assert!(context.restart().list(ListGroups::default()).is_empty());
}

#[test]
fn members_keep_the_offsets_of_what_they_subscribe_to_and_lose_others_a_week_after_the_commit() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    let commit = Commit { member: &id, generation: 1, ..Commit::default() };
    context.commit_offset(&commit);
    context.commit_offset(&Commit { topic: "other", ..commit });
    let mut passed = 0;
    while passed < WEEK_MS + 600_000 {
        context.sleep(9_000);
        passed += 9_000;
        assert_eq!(context.heartbeat(&id, 1), ErrorCode::NONE);
    }
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
    assert_eq!(context.offset(GROUP, "other", 0), -1);
}

#[test]
fn a_client_that_says_how_long_to_keep_an_offset_is_obeyed() {
    let mut context = Context::new();
    context.commit_offset(&Commit { retention_ms: 1_000, version: 4, ..Commit::default() });
    let mut context = context.restart();
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
    context.sleep(600_001);
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
}

#[test]
fn offsets_are_deleted_unless_a_member_subscribes_to_their_topic() {
    let mut context = Context::new();
    assert_eq!(delete_offsets(&mut context, "topic"), Err(ErrorCode::GROUP_ID_NOT_FOUND));
    let id = context.stable(1).remove(0);
    let commit = Commit { member: &id, generation: 1, ..Commit::default() };
    context.commit_offset(&commit);
    context.commit_offset(&Commit { topic: "other", ..commit });
    assert_eq!(delete_offsets(&mut context, "topic"), Ok(ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC));
    assert_eq!(delete_offsets(&mut context, "other"), Ok(ErrorCode::NONE));
    assert_eq!(context.offset(GROUP, "other", 0), -1);
    assert_eq!(context.offset(GROUP, "topic", 0), 42);
}

#[test]
fn only_an_empty_group_is_deleted_and_its_offsets_with_it() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    context.commit_offset(&Commit { member: &id, generation: 1, ..Commit::default() });
    assert_eq!(delete_group(&mut context, GROUP), ErrorCode::NON_EMPTY_GROUP);
    context.leave(&[(&id, None)]);
    assert_eq!(delete_group(&mut context, GROUP), ErrorCode::NONE);
    assert_eq!(delete_group(&mut context, GROUP), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
    let context = context.restart();
    assert_eq!(context.offset(GROUP, "topic", 0), -1);
    assert_eq!(context.runtime.shard().stored().offset_count(), 0);
}

#[test]
fn lists_are_filtered_by_state_and_type_whatever_the_case() {
    let mut context = Context::new();
    context.stable(1);
    context.commit_offset(&Commit { group: "simple", ..Commit::default() });
    let list = |states: &[&str], types: &[&str]| {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
        context.list(ListGroups::new(&texts(states), &texts(types)))
    };
    assert_eq!(list(&[], &[]), ["group Stable", "simple Empty"]);
    assert_eq!(list(&["STABLE"], &[]), ["group Stable"]);
    assert_eq!(list(&["empty", "Stable"], &["Classic"]), ["group Stable", "simple Empty"]);
    assert!(list(&[], &["consumer"]).is_empty());
    assert!(list(&["Dead"], &[]).is_empty());
    // Kafka's ways.
    assert_eq!(list(&[" Stable "], &[]), ["group Stable"]);
    assert!(list(&[], &[" Classic "]).is_empty());
}
