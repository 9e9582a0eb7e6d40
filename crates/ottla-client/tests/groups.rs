//! Groups against a broker that answers from a script: what a member does when its coordinator moves, forgets or
//! refuses, and what administrators are told.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as it was set up"
)]

mod support;

use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, TopicPartition};
use ottla_client::{
    Client, ClientError, ClientOptions, GroupConsumer, GroupFilter, GroupOptions, GroupPolled,
    Position, Receipt,
};
use ottla_protocol::ApiKey;
use support::{Broker, GroupScript, Script};

const LIMIT: Duration = Duration::from_secs(5);

async fn start(group: GroupScript) -> (Broker, Client) {
    let broker = Broker::start(Script { log: vec![2, 3], group, ..Script::default() }).await;
    let options = ClientOptions { timeout: LIMIT, ..ClientOptions::default() };
    let client = Client::connect(&[broker.address()], options).await.unwrap();
    (broker, client)
}

fn join(client: &Client, begin: Position) -> GroupConsumer {
    let session_timeout = Duration::from_millis(300);
    let options = GroupOptions { begin, session_timeout, ..GroupOptions::default() };
    GroupConsumer::join(client.clone(), "g", &["orders"], options)
}

async fn poll(member: &mut GroupConsumer) -> Result<GroupPolled, ClientError> {
    tokio::time::timeout(LIMIT, member.poll()).await.unwrap()
}

async fn is_assigned(member: &mut GroupConsumer) {
    match poll(member).await.unwrap() {
        GroupPolled::Assigned(partitions) => {
            assert_eq!(partitions, [TopicPartition::new("orders", 0)]);
        }
        other => panic!("{other:?}"),
    }
}

/// The offsets of the next batch; it is not done yet.
async fn reads(member: &mut GroupConsumer) -> (Vec<i64>, Receipt) {
    match poll(member).await.unwrap() {
        GroupPolled::Batch(batch) => {
            (batch.records.iter().map(|record| record.offset).collect(), batch.receipt())
        }
        other => panic!("{other:?}"),
    }
}

async fn logged(broker: &Broker, line: &str) {
    let logged = async {
        while !broker.group_log().iter().any(|it| it == line) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, logged).await;
    waited.unwrap_or_else(|_| panic!("no {line:?} in {:?}", broker.group_log()));
}

#[tokio::test]
async fn a_member_goes_on_where_the_group_left_off_commits_what_is_done_and_leaves() {
    let (broker, client) = start(GroupScript { committed: Some(3), ..GroupScript::served() }).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let (offsets, receipt) = reads(&mut member).await;
    assert_eq!(offsets, [3, 4]);
    assert!(member.has_reached_end());
    member.done(receipt);
    member.leave("it was enough").await;
    let expected = [
        "join \"\", reason none",
        "join \"m\", reason none",
        "commit 5 by \"m\" in 1",
        "left: it was enough",
    ];
    assert_eq!(broker.group_log(), expected);
}

#[tokio::test]
async fn where_nothing_is_committed_it_begins_where_it_is_told() {
    let (_broker, client) = start(GroupScript::served()).await;
    let mut member = join(&client, Position::BeforeEnd(1));
    is_assigned(&mut member).await;
    assert_eq!(reads(&mut member).await.0, [4]);
}

#[tokio::test]
async fn nothing_is_committed_that_is_not_done() {
    let (broker, client) = start(GroupScript::served()).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    reads(&mut member).await;
    member.leave("").await;
    assert!(!broker.group_log().iter().any(|line| line.starts_with("commit")));
}

#[tokio::test]
async fn a_batch_that_is_cut_is_committed_as_far_as_it_was_kept() {
    let (broker, client) = start(GroupScript::served()).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let GroupPolled::Batch(mut batch) = poll(&mut member).await.unwrap() else {
        panic!("no batch")
    };
    assert_eq!(batch.records.len(), 5);
    batch.truncate(9);
    batch.truncate(2);
    member.done(batch.receipt());
    logged(&broker, "commit 2 by \"m\" in 1").await;
}

#[tokio::test]
async fn before_a_rebalance_it_commits_and_then_goes_on_from_there() {
    let heartbeat_refusals = vec![ErrorCode::REBALANCE_IN_PROGRESS];
    let (broker, client) = start(GroupScript { heartbeat_refusals, ..GroupScript::served() }).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let (_, receipt) = reads(&mut member).await;
    assert!(matches!(poll(&mut member).await.unwrap(), GroupPolled::Revoked));
    member.done(receipt);
    member.let_go();
    is_assigned(&mut member).await;
    assert!(member.has_reached_end(), "it goes on after what was done");
    let log = broker.group_log();
    assert_eq!(log[2..], ["commit 5 by \"m\" in 1", "join \"m\", reason the group rebalances"]);
}

#[tokio::test]
async fn a_member_that_was_forgotten_joins_as_a_new_one_and_reads_again_what_was_not_committed() {
    let heartbeat_refusals = vec![ErrorCode::UNKNOWN_MEMBER_ID];
    let (broker, client) = start(GroupScript { heartbeat_refusals, ..GroupScript::served() }).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let (_, receipt) = reads(&mut member).await;
    assert!(matches!(poll(&mut member).await.unwrap(), GroupPolled::Lost(_)));
    member.done(receipt);
    is_assigned(&mut member).await;
    assert_eq!(reads(&mut member).await.0, [0, 1, 2, 3, 4]);
    assert!(broker.group_log()[2].starts_with("join \"\", reason "), "{:?}", broker.group_log());
}

#[tokio::test]
async fn no_more_is_handed_out_than_may_be_ahead_while_the_member_lives_on() {
    let (broker, client) = start(GroupScript::served()).await;
    let session_timeout = Duration::from_millis(300);
    let options = GroupOptions { ahead_max: 0, session_timeout, ..GroupOptions::default() };
    let mut member = GroupConsumer::join(client, "g", &["orders"], options);
    is_assigned(&mut member).await;
    let lives = async {
        while broker.asked(ApiKey::Heartbeat).len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        more = member.poll() => panic!("{more:?}"),
        () = lives => {}
    }
}

#[tokio::test]
async fn a_coordinator_that_is_not_there_yet_or_moves_is_found() {
    let group = GroupScript {
        find_refusals: vec![ErrorCode::COORDINATOR_NOT_AVAILABLE],
        join_refusals: vec![ErrorCode::NOT_COORDINATOR, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS],
        commit_refusals: vec![ErrorCode::NOT_COORDINATOR],
        heartbeat_refusals: vec![ErrorCode::NOT_COORDINATOR],
        ..GroupScript::served()
    };
    let (broker, client) = start(group).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let (_, receipt) = reads(&mut member).await;
    member.done(receipt);
    logged(&broker, "refused commit 5").await;
    logged(&broker, "commit 5 by \"m\" in 1").await;
    assert!(broker.asked(ApiKey::FindCoordinator).len() >= 5);
}

#[tokio::test]
async fn broken_connections_do_not_end_a_membership() {
    let (broker, client) = start(GroupScript::served()).await;
    let mut member = join(&client, Position::Earliest);
    is_assigned(&mut member).await;
    let (_, receipt) = reads(&mut member).await;
    broker.drop_connections();
    member.done(receipt);
    logged(&broker, "commit 5 by \"m\" in 1").await;
    assert_eq!(broker.asked(ApiKey::JoinGroup).len(), 2, "the second to use its id");
}

#[tokio::test]
async fn a_refusal_that_cannot_pass_is_told() {
    let join_refusals = vec![ErrorCode::INCONSISTENT_GROUP_PROTOCOL];
    let (_broker, client) = start(GroupScript { join_refusals, ..GroupScript::served() }).await;
    let error = poll(&mut join(&client, Position::Earliest)).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "joining group \"g\": INCONSISTENT_GROUP_PROTOCOL");
}

#[tokio::test]
async fn a_broker_that_knows_no_groups_is_no_endless_wait() {
    let (_broker, client) = start(GroupScript::default()).await;
    let error = poll(&mut join(&client, Position::Earliest)).await.unwrap_err();
    assert!(error.is_unsupported(), "{error}");
}

#[tokio::test]
async fn an_old_broker_that_cannot_filter_lists_all() {
    let mut group = GroupScript::served();
    group.served.retain(|(api, _)| *api != ApiKey::ListGroups);
    group.served.push((ApiKey::ListGroups, 3));
    let (broker, client) = start(group).await;
    let filter = GroupFilter { states: vec!["Empty".into()], types: vec!["classic".into()] };
    let listed = client.list_groups(&filter).await.unwrap();
    let group = listed.get("old").unwrap();
    assert_eq!((&group.state, &group.kind, group.coordinator), (&None, &None, BrokerId(1)));
    assert_eq!(broker.group_log(), ["list [[], []]"]);
}

#[tokio::test]
async fn a_filter_goes_to_a_broker_that_knows_it() {
    let (broker, client) = start(GroupScript::served()).await;
    let filter = GroupFilter { states: vec!["Empty".into()], types: vec!["classic".into()] };
    client.list_groups(&filter).await.unwrap();
    assert_eq!(broker.group_log(), ["list [[\"Empty\"], [\"classic\"]]"]);
}

#[tokio::test]
async fn a_description_asks_for_the_last_rebalance_and_takes_what_it_gets() {
    let (_broker, client) = start(GroupScript::served()).await;
    let described = client.describe_group("old").await.unwrap();
    assert_eq!((described.kind, &*described.assignor), ("classic", "range"));
    assert_eq!(described.last_rebalance.unwrap().reason, "member m left");
}

#[tokio::test]
async fn groups_of_both_types_are_described_where_both_are_known() {
    let mut group = GroupScript::served();
    group.served.push((ApiKey::ConsumerGroupDescribe, 1));
    let (_broker, client) = start(group).await;
    let ids = ["new".to_owned(), "old".to_owned()];
    let described = client.describe_groups_at(BrokerId(1), &ids).await.unwrap();
    let kind = |id: &str| described[id].as_ref().unwrap().kind;
    assert_eq!((kind("new"), kind("old")), ("consumer", "classic"));
}

#[tokio::test]
async fn a_group_that_is_dead_is_not_there() {
    let (_broker, client) = start(GroupScript::served()).await;
    let error = client.describe_group("gone").await.unwrap_err();
    let code = ErrorCode::GROUP_ID_NOT_FOUND;
    assert!(matches!(error, ClientError::Refused { code: it, .. } if it == code), "{error}");
}
