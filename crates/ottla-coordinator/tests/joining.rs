//! Members join, lead, get their parts, fall silent and leave.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use ottla_base::ErrorCode;
use ottla_coordinator::group::Settings;
use ottla_protocol::records::GroupRecord;
use support::{Commit, Context, GROUP, Join, REBALANCE_MS, SESSION_MS, settings};

#[test]
fn a_first_member_leads_and_gets_what_it_assigns_itself() {
    let mut context = Context::new();
    let id = context.member_id();
    let joining = context.join(&Join::new().member(&id));
    assert_eq!(context.take(joining), None, "others may come");
    context.sleep(2);
    let joined = context.joined(joining);
    assert_eq!((joined.generation_id, &joined.leader), (1, &id));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(context.state(), "CompletingRebalance");
    let syncing = context.sync(&id, 1, &[(&id, "all")]);
    assert_eq!(context.synced(syncing).assignment, "all");
    assert_eq!(context.state(), "Stable");
    assert_eq!(context.heartbeat(&id, 1), ErrorCode::NONE);
}

#[test]
fn the_first_members_wait_for_others_for_the_initial_delay_and_again_when_one_comes() {
    let mut context =
        Context::with(Settings { initial_rebalance_delay_ms: 3_000, ..Settings::default() });
    let (a, b) = (context.member_id(), context.member_id());
    let first = context.join(&Join::new().member(&a));
    context.sleep(2_999);
    let second = context.join(&Join::new().member(&b));
    context.sleep(1);
    assert_eq!(context.take(first), None, "somebody joined: wait once more");
    context.sleep(2_999);
    assert_eq!(context.take(first), None);
    context.sleep(1);
    let (first, second) = (context.joined(first), context.joined(second));
    assert_eq!(first.members.len() + second.members.len(), 2, "the leader learns of both");
    assert_eq!(first.leader, second.leader);
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout_however_many_join() {
    let delay_ms = 3_000;
    let mut context =
        Context::with(Settings { initial_rebalance_delay_ms: delay_ms, ..Settings::default() });
    let ids: Vec<_> = (0..10).map(|_| context.member_id()).collect();
    let mut joins = Vec::new();
    for id in &ids {
        let join = Join { rebalance_ms: 10_000, ..Join::new().member(id) };
        joins.push(context.join(&join));
        context.sleep(1_100);
    }
    assert!(joins.iter().any(|to| context.take(*to).is_some()));
}

#[test]
fn everybody_gets_its_part_when_the_leader_has_handed_them_in_and_they_are_stored() {
    let mut context = Context::new();
    let ids = context.stable(3);
    let newcomer = context.member_id();
    let mut joins = vec![context.join(&Join::new().member(&newcomer))];
    joins.extend(ids.iter().map(|id| context.join(&Join::new().member(id))));
    let answers: Vec<_> = joins.into_iter().map(|to| context.joined(to)).collect();
    let leader = answers[0].leader.clone();
    let follower = answers.iter().find(|it| it.member_id != leader).unwrap().member_id.clone();
    context.commits_at_once = false;
    let waiting = context.sync(&follower, 2, &[]);
    assert_eq!(context.take(waiting), None, "the leader has not assigned");
    let leading = context.sync(&leader, 2, &[(&follower, "left"), (&leader, "right")]);
    assert_eq!(context.take(waiting), None, "it is not stored");
    context.commit();
    assert_eq!(context.synced(waiting).assignment, "left");
    assert_eq!(context.synced(leading).assignment, "right");
    let GroupRecord::GroupMetadata(_, Some(stored)) = context.last_record() else { panic!() };
    assert_eq!((stored.generation, stored.members.len()), (2, 4));
}

#[test]
fn a_member_that_comes_makes_the_others_join_again() {
    let mut context = Context::new();
    let ids = context.stable(2);
    let newcomer = context.member_id();
    let joining = context.join(&Join::new().member(&newcomer));
    for id in &ids {
        assert_eq!(context.heartbeat(id, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    }
    let again: Vec<_> = ids.iter().map(|id| context.join(&Join::new().member(id))).collect();
    assert_eq!(context.joined(joining).generation_id, 2);
    for to in again {
        assert_eq!(context.joined(to).generation_id, 2);
    }
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut context = Context::new();
    let ids = context.stable(2);
    let rejoining = context.join(&Join::new().member(&ids[0]));
    for _ in 0..12 {
        assert_eq!(context.heartbeat(&ids[1], 1), ErrorCode::REBALANCE_IN_PROGRESS);
        context.sleep(i64::from(REBALANCE_MS) / 12);
    }
    assert_eq!(context.joined(rejoining).members.len(), 1);
    assert_eq!(context.heartbeat(&ids[1], 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let mut context = Context::new();
    let ids = context.stable(2);
    context.sleep(i64::from(SESSION_MS) - 1);
    assert_eq!(context.heartbeat(&ids[0], 1), ErrorCode::NONE);
    context.sleep(1);
    assert_eq!(context.state(), "PreparingRebalance");
    let rejoining = context.join(&Join::new().member(&ids[0]));
    assert_eq!(context.joined(rejoining).members.len(), 1);
    assert_eq!(context.heartbeat(&ids[1], 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_silent_leader_of_a_rebalance_is_replaced_by_who_has_joined() {
    let mut context = Context::new();
    let ids = context.stable(2);
    let (leader, follower) = (&ids[0], &ids[1]);
    let newcomer = context.member_id();
    let joining = context.join(&Join::new().member(&newcomer));
    let rejoining = context.join(&Join::new().member(follower));
    context.sleep(i64::from(SESSION_MS));
    let joined = context.joined(rejoining);
    assert_ne!(joined.leader, *leader);
    assert_eq!(context.joined(joining).leader, joined.leader);
}

#[test]
fn an_id_is_given_out_though_nothing_is_stored_so_that_nobody_waits_for_who_never_got_it() {
    let mut context = Context::new();
    context.commits_at_once = false;
    for round in ["first", "second"] {
        let asking = context.join(&Join::new());
        assert_eq!(context.joined(asking).error_code, ErrorCode::MEMBER_ID_REQUIRED, "{round}");
    }
    let late = context.commit_offset(&Commit::default());
    assert_eq!(context.take(late), None, "all else waits");
}

#[test]
fn an_id_of_a_group_that_cannot_be_stored_is_not_given_out() {
    let mut context = Context::new();
    context.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let asking = context.join(&Join::new());
    assert_eq!(context.take(asking), Some(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)));
}

#[test]
fn a_given_out_id_that_nobody_joins_with_is_not_waited_for_longer_than_a_session() {
    let mut context = Context::new();
    let ids = context.stable(1);
    context.member_id();
    let rejoining = context.join(&Join::new().member(&ids[0]));
    assert_eq!(context.take(rejoining), None, "the pending member may come");
    context.sleep(i64::from(SESSION_MS));
    assert_eq!(context.joined(rejoining).generation_id, 2);
}

#[test]
fn a_new_member_may_hold_its_join_open_for_five_minutes_and_no_longer() {
    let mut context = Context::with(Settings {
        initial_rebalance_delay_ms: 1_000_000,
        session_timeout_max_ms: i32::MAX,
        ..settings()
    });
    let id = context.member_id();
    let joining = context.join(&Join::new().member(&id));
    context.sleep(299_999);
    assert_eq!(context.take(joining), None);
    context.sleep(1);
    let joined = context.joined(joining);
    assert_eq!((joined.error_code, &*joined.member_id), (ErrorCode::UNKNOWN_MEMBER_ID, ""));
}

#[test]
fn who_never_asks_for_its_part_is_out_after_the_rebalance_timeout() {
    let mut context = Context::new();
    let ids: Vec<_> = (0..2).map(|_| context.member_id()).collect();
    let joins: Vec<_> = ids.iter().map(|id| context.join(&Join::new().member(id))).collect();
    context.sleep(2);
    let leader = context.joined(joins[0]).leader;
    let syncing = context.sync(&leader, 1, &[]);
    assert_eq!(context.synced(syncing).error_code, ErrorCode::NONE);
    let other = ids.iter().find(|id| **id != leader).unwrap();
    for _ in 0..12 {
        assert_eq!(context.heartbeat(&leader, 1), ErrorCode::NONE);
        assert_eq!(context.heartbeat(other, 1), ErrorCode::NONE);
        context.sleep(i64::from(REBALANCE_MS) / 12);
    }
    assert_eq!(context.heartbeat(&leader, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(context.heartbeat(other, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_join_during_the_leaders_assignment_sends_everybody_back() {
    let mut context = Context::new();
    let ids: Vec<_> = (0..2).map(|_| context.member_id()).collect();
    let joins: Vec<_> = ids.iter().map(|id| context.join(&Join::new().member(id))).collect();
    context.sleep(2);
    let leader = context.joined(joins[0]).leader;
    let follower = ids.iter().find(|id| **id != leader).unwrap();
    let waiting = context.sync(follower, 1, &[]);
    let newcomer = context.member_id();
    context.join(&Join::new().member(&newcomer));
    assert_eq!(context.synced(waiting).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    let late = context.sync(&leader, 1, &[]);
    assert_eq!(context.synced(late).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn an_assignment_that_is_stored_too_late_is_not_given_out() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    let joining = context.join(&Join::new().member(&id));
    assert_eq!(context.joined(joining).generation_id, 2);
    context.commits_at_once = false;
    let syncing = context.sync(&id, 2, &[(&id, "stale")]);
    let newcomer = Join::new().version(3);
    context.join(&newcomer);
    context.commit();
    assert_eq!(context.synced(syncing).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn an_assignment_that_cannot_be_stored_makes_everybody_join_again() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    let joining = context.join(&Join::new().member(&id));
    context.joined(joining);
    context.log.refuses = Some(ErrorCode::MESSAGE_TOO_LARGE);
    let syncing = context.sync(&id, 2, &[(&id, "too much")]);
    assert_eq!(context.synced(syncing).error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(context.state(), "PreparingRebalance");
}

#[test]
fn an_assignment_that_is_not_stored_in_time_makes_everybody_join_again() {
    let mut context = Context::new();
    let id = context.stable(1).remove(0);
    let joining = context.join(&Join::new().member(&id));
    context.joined(joining);
    context.commits_at_once = false;
    let syncing = context.sync(&id, 2, &[(&id, "late")]);
    context.sleep(5_000);
    assert_eq!(context.synced(syncing).error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(context.heartbeat_later(&id, 2), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_member_that_is_sent_away_while_it_waits_for_its_part_is_told_so() {
    let mut context = Context::new();
    let ids: Vec<_> = (0..2).map(|_| context.member_id()).collect();
    let joins: Vec<_> = ids.iter().map(|id| context.join(&Join::new().member(id))).collect();
    context.sleep(2);
    let leader = context.joined(joins[0]).leader;
    let follower = ids.iter().find(|id| **id != leader).unwrap();
    let waiting = context.sync(follower, 1, &[]);
    context.leave(&[(follower, None)]);
    assert_eq!(context.synced(waiting).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_group_that_cannot_be_stored_does_not_exist() {
    let mut context = Context::new();
    context.log.refuses = Some(ErrorCode::KAFKA_STORAGE_ERROR);
    let joining = context.join(&Join::new().version(3));
    let answer = context.joined(joining);
    assert_eq!(answer.error_code, ErrorCode::NOT_COORDINATOR);
    assert!(context.runtime.shard().group(GROUP).is_none());
    let next = context.runtime.next_deadline().map(|at| (at - context.now.monotonic).as_millis());
    assert_eq!(next, Some(600_000), "nobody's session is watched");
}

#[test]
fn a_group_is_not_seen_before_it_is_stored() {
    let mut context = Context::new();
    context.commits_at_once = false;
    context.member_id();
    assert_eq!(context.describe().error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    context.commit();
    assert_eq!(context.describe().error_code, ErrorCode::NONE);
}

#[test]
fn the_last_one_to_leave_leaves_an_empty_group() {
    let mut context = Context::new();
    let ids = context.stable(1);
    assert_eq!(context.leave(&[(&ids[0], None)]), [ErrorCode::NONE]);
    assert_eq!(context.state(), "Empty");
    let GroupRecord::GroupMetadata(_, Some(stored)) = context.last_record() else { panic!() };
    assert_eq!((stored.generation, stored.members.len()), (2, 0));
    assert_eq!(context.leave(&[(&ids[0], None)]), [ErrorCode::UNKNOWN_MEMBER_ID]);
}

#[test]
fn the_protocol_is_the_one_that_most_prefer_among_those_that_all_know() {
    let mut context = Context::new();
    let protocols: [&[&str]; 3] =
        [&["sticky", "range"], &["range", "sticky"], &["cooperative", "sticky", "range"]];
    let ids: Vec<_> = protocols
        .iter()
        .map(|names| {
            let asking = context.join(&Join::new().protocols(names));
            context.joined(asking).member_id
        })
        .collect();
    let joins: Vec<_> = ids
        .iter()
        .zip(protocols)
        .map(|(id, names)| context.join(&Join::new().member(id).protocols(names)))
        .collect();
    context.sleep(2);
    assert_eq!(context.joined(joins[0]).protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn a_member_knows_a_thousand_protocols_at_most() {
    let mut context = Context::new();
    let names: Vec<&'static str> =
        (0..=1_000).map(|number| &*Box::leak(format!("p{number}").into_boxed_str())).collect();
    for (names, expected) in
        [(&names[..], ErrorCode::INVALID_REQUEST), (&names[..1_000], ErrorCode::MEMBER_ID_REQUIRED)]
    {
        let joining = context.join(&Join::new().protocols(names));
        assert_eq!(context.joined(joining).error_code, expected);
    }
}

#[test]
fn a_member_that_shares_no_protocol_with_the_others_is_refused() {
    let mut context = Context::new();
    context.stable(1);
    for join in [
        Join::new().protocols(&["other"]),
        Join { protocol_type: "connect", ..Join::new() },
        Join { protocol_type: "", ..Join::new() },
        Join::new().protocols(&[]),
    ] {
        let joining = context.join(&join);
        assert_eq!(context.joined(joining).error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
}

#[test]
fn a_follower_that_asks_again_gets_the_same_generation_and_a_leader_begins_another() {
    let mut context = Context::new();
    let ids = context.stable(2);
    let again = context.join(&Join::new().member(&ids[1]));
    let answer = context.joined(again);
    assert_eq!((answer.generation_id, answer.members.len()), (1, 0));
    assert_eq!(context.state(), "Stable");
    context.join(&Join::new().member(&ids[0]));
    assert_eq!(context.state(), "PreparingRebalance");
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut context = Context::with(Settings { members_max: 2, ..settings() });
    let ids = context.stable(2);
    let joining = context.join(&Join::new());
    assert_eq!(context.joined(joining).error_code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    let again = context.join(&Join::new().member(&ids[0]));
    assert_eq!(context.take(again), None, "members are let in");
}

#[test]
fn wrong_ids_generations_and_timeouts_are_told_apart() {
    let mut context = Context::new();
    let mut code = |join: Join| {
        let to = context.join(&join);
        context.joined(to).error_code
    };
    assert_eq!(code(Join::new().member("nobody")), ErrorCode::UNKNOWN_MEMBER_ID, "no such group");
    assert_eq!(code(Join { session_ms: 5_999, ..Join::new() }), ErrorCode::INVALID_SESSION_TIMEOUT);
    assert_eq!(
        code(Join { session_ms: 1_800_001, ..Join::new() }),
        ErrorCode::INVALID_SESSION_TIMEOUT
    );
    let id = context.stable(1).remove(0);
    let nobody = context.join(&Join::new().member("nobody"));
    assert_eq!(context.joined(nobody).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(context.heartbeat("nobody", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(context.heartbeat(&id, 0), ErrorCode::ILLEGAL_GENERATION);
    let stale = context.sync(&id, 0, &[]);
    assert_eq!(context.synced(stale).error_code, ErrorCode::ILLEGAL_GENERATION);
}

#[test]
fn old_versions_join_without_asking_for_an_id_first() {
    let mut context = Context::new();
    let joining = context.join(&Join::new().version(3));
    context.sleep(2);
    let joined = context.joined(joining);
    assert!(joined.member_id.starts_with("client-"), "{}", joined.member_id);
    assert_eq!(joined.generation_id, 1);
}

#[test]
fn another_coordinator_goes_on_with_the_generation_and_lets_members_show_that_they_live() {
    let mut context = Context::new();
    let ids = context.stable(2);
    let mut context = context.restart();
    assert_eq!(context.state(), "Stable");
    assert_eq!(context.heartbeat(&ids[0], 1), ErrorCode::NONE);
    context.sleep(i64::from(SESSION_MS) - 1);
    assert_eq!(context.heartbeat(&ids[0], 1), ErrorCode::NONE);
    context.sleep(1);
    assert_eq!(context.state(), "PreparingRebalance", "the other one is gone");
}

#[test]
fn why_a_group_last_rebalanced_is_told_to_those_who_ask() {
    let mut context = Context::new();
    let ids = context.stable(2);
    context.leave(&[(&ids[1], None)]);
    let told = context.describe_as_asked(true);
    assert_eq!(told.ottla_last_rebalance_time_ms, context.now.time.0);
    let reason = told.ottla_last_rebalance_reason.unwrap();
    assert_eq!(&*reason, format!("member {} left", ids[1]));
    let usual = context.describe();
    assert_eq!(usual.ottla_last_rebalance_time_ms, -1, "nobody else hears of it");
    assert_eq!(usual.ottla_last_rebalance_reason, None);
}

#[test]
fn a_member_that_falls_silent_is_named_as_the_reason() {
    let mut context = Context::new();
    let ids = context.stable(1);
    context.sleep(i64::from(SESSION_MS));
    let reason = context.describe_as_asked(true).ottla_last_rebalance_reason.unwrap();
    assert_eq!(&*reason, format!("member {} was not heard from for {SESSION_MS} ms", ids[0]));
}

#[test]
fn what_a_client_says_of_its_reason_is_told_but_not_at_any_length() {
    let mut context = Context::new();
    let leader = context.stable(1).remove(0);
    let rejoin = |said: &str| Join { reason: Some(said.into()), ..Join::new().member(&leader) };
    context.join(&rejoin("two partitions more"));
    let told = |context: &Context| context.describe_as_asked(true).ottla_last_rebalance_reason;
    let expected = format!("member {leader} leads the group and joined again: two partitions more");
    assert_eq!(told(&context).as_deref(), Some(&*expected));

    let mut context = Context::new();
    let leader = context.stable(1).remove(0);
    let endless = Join { reason: Some("ä".repeat(1000).into()), ..Join::new().member(&leader) };
    context.join(&endless);
    let told = told(&context).unwrap();
    assert!(told.ends_with(&format!(": {}", "ä".repeat(255))), "{told}");
}
