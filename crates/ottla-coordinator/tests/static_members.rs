//! Static members (KIP-345): who comes back under its instance id takes its old place.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_coordinator::ReplyTo;
use ottla_protocol::records::GroupRecord;
use support::{Context, Join, REBALANCE_MS, SESSION_MS, STORE_TIMEOUT_MS};

/// Static members `a`, `b` and so on in a stable group. Returns their ids.
fn stable(context: &mut Context, instances: &[&str]) -> Vec<ByteString> {
    let joins: Vec<_> =
        instances.iter().map(|name| context.join(&Join::new().instance(name))).collect();
    context.sleep(2);
    let answers: Vec<_> = joins.into_iter().map(|to| context.joined(to)).collect();
    let ids: Vec<_> = answers.iter().map(|answer| answer.member_id.clone()).collect();
    let leader = &answers[0].leader;
    let parts: Vec<(&str, &'static str)> = ids.iter().map(|id| (&**id, "part")).collect();
    let leading = context.sync(leader, answers[0].generation_id, &parts);
    assert_eq!(context.synced(leading).error_code, ErrorCode::NONE);
    for id in ids.iter().filter(|id| *id != leader) {
        let syncing = context.sync(id, answers[0].generation_id, &[]);
        assert_eq!(context.synced(syncing).assignment, "part");
    }
    ids
}

fn leader(context: &Context) -> ByteString {
    let GroupRecord::GroupMetadata(_, Some(stored)) = context.last_record() else { panic!() };
    stored.leader.unwrap()
}

#[test]
fn a_static_member_joins_at_once_under_its_instance_id() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    assert!(ids[0].starts_with("a-"), "{}", ids[0]);
    assert_eq!(context.state(), "Stable");
}

#[test]
fn who_comes_back_goes_on_with_its_part_without_a_rebalance_once_its_new_id_is_stored() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a", "b"]);
    let follower = usize::from(leader(&context) == ids[0]);
    let name = ["a", "b"][follower];
    context.commits_at_once = false;
    let returning = context.join(&Join::new().instance(name));
    assert_eq!(context.take(returning), None, "the new id is not stored yet");
    context.commit();
    let joined = context.joined(returning);
    assert_eq!((joined.generation_id, joined.skip_assignment), (1, false));
    assert_ne!(joined.member_id, ids[follower]);
    assert_eq!(context.state(), "Stable");
    let syncing = context.sync(&joined.member_id, 1, &[]);
    assert_eq!(context.synced(syncing).assignment, "part");
    assert_eq!(context.heartbeat(&ids[follower], 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_comes_back_is_told_not_to_assign_again_or_who_led_before_if_it_is_old() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    let returning = context.join(&Join::new().instance("a"));
    let joined = context.joined(returning);
    assert!(joined.skip_assignment);
    assert_eq!((joined.members.len(), &joined.leader), (1, &joined.member_id));
    let returning = context.join(&Join::new().instance("a").version(8));
    let old = context.joined(returning);
    assert!(!old.skip_assignment);
    assert_eq!((old.members.len(), &old.leader), (0, &joined.member_id));
    assert_ne!(old.member_id, ids[0]);
}

#[test]
fn a_new_id_that_cannot_be_stored_leaves_everything_as_it_was() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    context.log.refuses = Some(ErrorCode::NOT_ENOUGH_REPLICAS);
    let returning = context.join(&Join::new().instance("a"));
    let answer = context.joined(returning);
    assert_eq!(answer.error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(context.heartbeat(&ids[0], 1), ErrorCode::NONE);
    let again = context.join(&Join::new().instance("a"));
    assert_eq!(context.joined(again).error_code, ErrorCode::NONE);
}

const SHORT_REBALANCE_MS: i32 = 6_000;

/// Has less time to join than its session lasts.
fn hasty(name: &str, protocols: &[&'static str]) -> Join {
    Join { rebalance_ms: SHORT_REBALANCE_MS, ..Join::new().instance(name).protocols(protocols) }
}

/// Static members `a`, which knows `range` only, and `b`, which knows another protocol, too, in a stable group; then `a` comes
/// back with what `b` knows, and its new id is not committed. Returns who waits for the answer to that.
fn returning_with_more_protocols(context: &mut Context) -> ReplyTo {
    let known = [("a", &["range"][..]), ("b", &["range", "sticky"])];
    let joins = known.map(|(name, known)| hasty(name, known));
    let joins = joins.map(|join| context.join(&join));
    context.sleep(2);
    let answers = joins.map(|to| context.joined(to));
    let leading = context.sync(&answers[0].leader, 1, &[]);
    assert_eq!(context.synced(leading).error_code, ErrorCode::NONE);
    assert_eq!(context.state(), "Stable");
    context.commits_at_once = false;
    let returning = context.join(&hasty("a", &["range", "sticky"]));
    assert_eq!(context.take(returning), None, "the new id is not stored yet");
    returning
}

#[test]
fn a_new_id_that_is_not_stored_in_time_leaves_everything_as_it_was() {
    let mut context = Context::new();
    let returning = returning_with_more_protocols(&mut context);
    context.sleep(STORE_TIMEOUT_MS);
    assert_eq!(context.joined(returning).error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let other = context.join(&Join::new().instance("c").protocols(&["sticky"]));
    context.commit();
    let refused = context.joined(other);
    assert_eq!(refused.error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL, "a knows range only");
}

#[test]
fn a_new_id_that_is_not_stored_in_time_counts_in_the_rebalance_that_has_begun() {
    let mut context = Context::new();
    let returning = returning_with_more_protocols(&mut context);
    let other = context.join(&hasty("c", &["sticky"]));
    context.sleep(STORE_TIMEOUT_MS);
    assert_eq!(context.take(returning), None, "it waits for the others like all");
    context.commits_at_once = true;
    context.sleep(i64::from(SHORT_REBALANCE_MS) - STORE_TIMEOUT_MS);
    let answers = [returning, other].map(|to| context.joined(to));
    for answer in answers {
        assert_eq!((answer.error_code, answer.generation_id), (ErrorCode::NONE, 2));
        assert_eq!(answer.protocol_name.as_deref(), Some("sticky"), "all know it");
    }
}

#[test]
fn who_comes_back_and_prefers_another_protocol_makes_all_join_again() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    let returning = context.join(&Join::new().instance("a").protocols(&["other", "range"]));
    let joined = context.joined(returning);
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::NONE, 2));
    assert_eq!(joined.protocol_name.as_deref(), Some("other"));
    assert_ne!(joined.member_id, ids[0]);
}

#[test]
fn who_still_uses_the_old_id_is_fenced() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a", "b"]);
    let waiting =
        context.join(&Join::new().member(&ids[0]).instance("a").protocols(&["range", "x"]));
    assert_eq!(context.take(waiting), None, "b has not joined");
    let returning = context.join(&Join::new().instance("a"));
    assert_eq!(context.joined(waiting).error_code, ErrorCode::FENCED_INSTANCE_ID);
    let again = context.join(&Join::new().member(&ids[0]).instance("a"));
    assert_eq!(context.joined(again).error_code, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(context.leave(&[(&ids[0], Some("a"))]), [ErrorCode::FENCED_INSTANCE_ID]);
    let other = context.join(&Join::new().member(&ids[1]).instance("b"));
    assert_eq!(context.joined(returning).generation_id, 2);
    assert_eq!(context.joined(other).generation_id, 2);
}

#[test]
fn a_static_member_that_does_not_join_in_time_keeps_its_place_until_its_session_ends() {
    let mut context = Context::new();
    let joins: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| {
            let join = Join { session_ms: 2 * REBALANCE_MS, ..Join::new().instance(name) };
            context.join(&join)
        })
        .collect();
    context.sleep(2);
    let ids: Vec<_> = joins.into_iter().map(|to| context.joined(to).member_id).collect();
    let changed = Join {
        session_ms: 2 * REBALANCE_MS,
        ..Join::new().instance("a").protocols(&["range", "x"])
    };
    let joining = context.join(&changed.member(&ids[0]));
    context.sleep(i64::from(REBALANCE_MS));
    let joined = context.joined(joining);
    assert_eq!(joined.generation_id, 2);
    assert_eq!(joined.members.len(), 2, "b may come back");
}

#[test]
fn an_administrator_sends_a_static_member_away_by_its_instance_id() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a", "b"]);
    let codes = context.leave(&[("", Some("a")), ("", Some("nobody")), ("", None)]);
    assert_eq!(
        codes,
        [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::UNKNOWN_MEMBER_ID]
    );
    assert_eq!(context.heartbeat(&ids[0], 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(context.heartbeat(&ids[1], 1), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn static_members_are_known_to_another_coordinator() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    let mut context = context.restart();
    let returning = context.join(&Join::new().instance("a"));
    let joined = context.joined(returning);
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::NONE, 1));
    assert_ne!(joined.member_id, ids[0]);
    context.sleep(i64::from(SESSION_MS));
    assert_eq!(context.state(), "Empty", "it never said that it lives");
}

#[test]
fn static_members_with_no_time_to_join_do_not_keep_others_from_their_turn() {
    let mut context = Context::new();
    let ids = stable(&mut context, &["a"]);
    let returning = context.join(&Join { rebalance_ms: 0, ..Join::new().instance("a") });
    assert_eq!(context.joined(returning).error_code, ErrorCode::NONE);
    let pending = context.member_id();
    assert_eq!(context.leave(&[(&pending, None)]), [ErrorCode::NONE]);
    assert_eq!(context.state(), "PreparingRebalance");
    context.sleep(i64::from(SESSION_MS));
    assert_eq!(context.state(), "Empty", "its session ended although it had no time to join");
    assert_ne!(ids[0], pending);
}

#[test]
fn a_static_member_never_joins_with_an_id_that_was_given_out() {
    let mut context = Context::new();
    stable(&mut context, &["a"]);
    let pending = context.member_id();
    let joining = context.join(&Join::new().member(&pending).instance("a"));
    assert_eq!(context.joined(joining).error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
}
