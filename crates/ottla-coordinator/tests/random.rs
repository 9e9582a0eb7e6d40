//! Whatever happens in whatever order: invariants hold, nobody is answered twice, and what another coordinator reads
//! from the log is what this one has.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use ottla_base::ErrorCode;
use ottla_base::Uuid;
use ottla_coordinator::group::{Request, TopicDeleted};
use ottla_protocol::records::GroupRecord;
use proptest::prelude::*;
use support::{Commit, Context, GROUP, Join};

#[derive(Debug, Clone)]
enum Step {
    Join { member: usize, instance: Option<u8>, version: i16, protocol: u8 },
    Sync { member: usize, generation: i32 },
    Heartbeat { member: usize, generation: i32 },
    Leave { member: usize },
    LeaveInstance(u8),
    Commit { member: Option<usize>, generation: i32, partition: i32, offset: i64 },
    DeleteGroup,
    DeleteTopic,
    Sleep(i64),
    CommitLog,
    Refuse(ErrorCode),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..6_usize;
    let generation = -1..1_i32;
    let refusals = prop_oneof![
        Just(ErrorCode::NOT_ENOUGH_REPLICAS),
        Just(ErrorCode::MESSAGE_TOO_LARGE),
        Just(ErrorCode::KAFKA_STORAGE_ERROR)
    ];
    prop_oneof![
        8 => (member.clone(), proptest::option::weighted(0.3, 0..3_u8), 2..10_i16, 0..3_u8)
            .prop_map(|(member, instance, version, protocol)| Step::Join { member, instance, version, protocol }),
        6 => (member.clone(), generation.clone())
            .prop_map(|(member, generation)| Step::Sync { member, generation }),
        4 => (member.clone(), generation.clone())
            .prop_map(|(member, generation)| Step::Heartbeat { member, generation }),
        2 => member.clone().prop_map(|member| Step::Leave { member }),
        1 => (0..3_u8).prop_map(Step::LeaveInstance),
        4 => (proptest::option::of(member), generation, 0..3_i32, 0..100_i64).prop_map(
            |(member, generation, partition, offset)| Step::Commit { member, generation, partition, offset }
        ),
        1 => Just(Step::DeleteGroup),
        1 => Just(Step::DeleteTopic),
        4 => prop_oneof![Just(0_i64), 1..20_000_i64, Just(700_000_000)].prop_map(Step::Sleep),
        6 => Just(Step::CommitLog),
        1 => refusals.prop_map(Step::Refuse),
        1 => Just(Step::Restart),
    ]
}

/// A run: the machine, and the ids that were given out.
struct Run {
    context: Context,
    ids: Vec<String>,
}

impl Run {
    fn id(&self, member: usize) -> String {
        self.ids.get(member).cloned().unwrap_or_default()
    }

    /// The group's generation, or one beside it.
    fn generation(&self, off_by: i32) -> i32 {
        let records = self.context.log.decoded();
        let stored = records.iter().rev().find_map(|record| {
            if let GroupRecord::GroupMetadata(_, Some(value)) = record {
                return Some(value.generation);
            }
            None
        });
        stored.unwrap_or(0) + 1 + off_by
    }

    fn take(&mut self, step: Step) {
        let context = &mut self.context;
        match step {
            Step::Join { member, instance, version, protocol } => {
                let names: &[&'static str] =
                    [&["range"][..], &["range", "sticky"], &["sticky"]][usize::from(protocol)];
                let mut join = Join::new().version(version).protocols(names);
                join.member = self.ids.get(member).map(|id| (&**id).into()).unwrap_or_default();
                join.instance = instance.map(|number| format!("instance-{number}").into());
                let to = context.join(&join);
                // Tests of the machine may look at what a client would be told.
                if let Some(Ok(ottla_coordinator::group::Reply::Join(answer))) = context.take(to)
                    && !answer.member_id.is_empty()
                    && self.ids.len() < 6
                {
                    self.ids.push(answer.member_id.to_string());
                }
            }
            Step::Sync { member, generation } => {
                let (id, generation) = (self.id(member), self.generation(generation));
                self.context.sync(&id, generation, &[(&id, "part")]);
            }
            Step::Heartbeat { member, generation } => {
                let (id, generation) = (self.id(member), self.generation(generation));
                self.context.ask(Request::Heartbeat(ottla_protocol::messages::HeartbeatRequest {
                    group_id: GROUP.into(),
                    generation_id: generation,
                    member_id: id.into(),
                    group_instance_id: None,
                }));
            }
            Step::Leave { member } => self.leave(&self.id(member), None),
            Step::LeaveInstance(number) => self.leave("", Some(&format!("instance-{number}"))),
            Step::Commit { member, generation, partition, offset } => {
                let id = member.map(|member| self.id(member)).unwrap_or_default();
                let generation = if member.is_some() { self.generation(generation) } else { -1 };
                let commit =
                    Commit { member: &id, generation, partition, offset, ..Commit::default() };
                self.context.commit_offset(&commit);
            }
            Step::DeleteGroup => {
                context.ask(Request::DeleteGroups(vec![GROUP.into()]));
            }
            Step::DeleteTopic => {
                let topic = TopicDeleted { id: Uuid::from_u128(1), name: "topic".into() };
                context.ask(Request::TopicsDeleted(vec![topic]));
            }
            Step::Sleep(ms) => context.sleep(ms),
            Step::CommitLog => context.commit(),
            Step::Refuse(error) => context.log.refuses = Some(error),
            Step::Restart => {}
        }
    }

    fn leave(&mut self, id: &str, instance: Option<&str>) {
        let identity = ottla_protocol::messages::leave_group_request::MemberIdentity {
            member_id: id.into(),
            group_instance_id: instance.map(Into::into),
            reason: None,
        };
        let request = ottla_protocol::messages::LeaveGroupRequest {
            group_id: GROUP.into(),
            members: vec![identity],
            ..Default::default()
        };
        self.context.ask(Request::Leave(ottla_coordinator::group::LeaveGroup { request }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn another_coordinator_reads_what_this_one_has(
        steps in proptest::collection::vec(step(), 1..80),
        commits_at_once: bool,
    ) {
        let mut run = Run { context: Context::new(), ids: Vec::new() };
        run.context.commits_at_once = commits_at_once;
        for step in steps {
            if matches!(step, Step::Restart) {
                let before = run.context.runtime.shard().stored().clone();
                run.context.log.refuses = None;
                run.context = run.context.restart();
                run.context.commits_at_once = commits_at_once;
                prop_assert_eq!(run.context.runtime.shard().stored(), &before);
            } else {
                run.take(step);
            }
            run.context.runtime.shard().check();
        }
    }
}
