//! Whatever happens in whatever order: invariants hold, everybody is answered in the end and nobody twice, what another
//! coordinator reads from the log is what this one has, and what clients were told is still there after a crash.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "all other steps are alike")]

mod support;

use std::collections::BTreeMap;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Uuid};
use ottla_coordinator::ReplyTo;
use ottla_coordinator::group::{Reply, Request, TopicDeleted};
use ottla_protocol::records::GroupRecord;
use proptest::prelude::*;
use support::{Commit, Context, GROUP, Join};

#[derive(Debug, Clone)]
enum Step {
    Join { member: usize, instance: Option<u8>, version: i16, protocol: u8, rebalance_ms: i32 },
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
    Crash,
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
        8 => (
            member.clone(),
            proptest::option::weighted(0.3, 0..3_u8),
            2..10_i16,
            0..3_u8,
            prop_oneof![Just(0), Just(-1), 1..60_000_i32],
        )
            .prop_map(|(member, instance, version, protocol, rebalance_ms)| Step::Join {
                member,
                instance,
                version,
                protocol,
                rebalance_ms,
            }),
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
        4 => prop_oneof![Just(0_i64), 1..20_000_i64, Just(RETENTION_REACHED_MS)].prop_map(Step::Sleep),
        6 => Just(Step::CommitLog),
        1 => refusals.prop_map(Step::Refuse),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// Longer than offsets are kept that nobody needs (`offsets.retention.minutes`); all other steps together take far less.
const RETENTION_REACHED_MS: i64 = 700_000_000;

/// What members know.
const PROTOCOLS: [&[&str]; 3] = [&["range"], &["range", "sticky"], &["sticky"]];

fn instance_id(number: u8) -> ByteString {
    format!("instance-{number}").into()
}

/// A run: the machine, and the ids that were given out.
struct Run {
    context: Context,
    ids: Vec<String>,
    /// The offsets that anybody has asked to be committed, by partition, in order.
    asked: BTreeMap<i32, Vec<i64>>,
    /// Who has asked for which of them.
    commits: BTreeMap<ReplyTo, (i32, usize)>,
    /// Which of them a client was told is committed; nothing once it may have been deleted.
    told: BTreeMap<i32, usize>,
    /// Offsets may be deleted at any time: a topic was.
    is_deleting: bool,
}

impl Run {
    fn new(commits_at_once: bool) -> Self {
        let mut context = Context::new();
        context.commits_at_once = commits_at_once;
        Self {
            context,
            ids: Vec::new(),
            asked: BTreeMap::new(),
            commits: BTreeMap::new(),
            told: BTreeMap::new(),
            is_deleting: false,
        }
    }

    /// Static members that know one protocol and all, in a stable group; nothing is committed from now on but by a step.
    fn with_static_members() -> Self {
        let mut run = Self::new(true);
        let joins = [0_u8, 1].map(|number| {
            Join::new().instance(&instance_id(number)).protocols(PROTOCOLS[usize::from(number)])
        });
        let joins = joins.map(|join| run.context.join(&join));
        run.context.sleep(2);
        let answers = joins.map(|to| run.context.joined(to));
        for answer in &answers {
            run.ids.push(answer.member_id.to_string());
        }
        run.context.sync(&answers[0].leader, answers[0].generation_id, &[]);
        assert_eq!(run.context.state(), "Stable");
        run.context.commits_at_once = false;
        run
    }

    /// Looks at the answers that have come.
    fn listen(&mut self) {
        let asked: Vec<_> = self.commits.keys().copied().collect();
        for to in asked {
            let Some(answer) = self.context.take(to) else { continue };
            let (partition, index) = self.commits.remove(&to).unwrap();
            if let Ok(Reply::Commit(Ok(_))) = answer {
                self.told.insert(partition, index);
            }
        }
        if self.is_deleting {
            self.told.clear();
        }
    }

    /// Every offset that a client was told of is there, or one that was asked for after it.
    fn check_told(&self) {
        for (partition, index) in &self.told {
            let found = self.context.offset(GROUP, "topic", *partition);
            let may_be = &self.asked[partition][*index..];
            assert!(may_be.contains(&found), "{found} in partition {partition}, not of {may_be:?}");
        }
    }

    /// What deletes offsets makes it useless to have been told of them.
    fn note_deletion(&mut self, step: &Step) {
        match step {
            Step::DeleteTopic => self.is_deleting = true,
            // By then nobody walks over the groups any longer.
            Step::Sleep(1_000..) if self.is_deleting => self.is_deleting = false,
            Step::Sleep(RETENTION_REACHED_MS..) | Step::DeleteGroup => {}
            _ => return,
        }
        self.told.clear();
        self.commits.clear();
    }

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
            Step::Join { member, instance, version, protocol, rebalance_ms } => {
                let mut join =
                    Join::new().version(version).protocols(PROTOCOLS[usize::from(protocol)]);
                join.rebalance_ms = rebalance_ms;
                join.member = self.ids.get(member).map(|id| (&**id).into()).unwrap_or_default();
                join.instance = instance.map(instance_id);
                let to = context.join(&join);
                // Tests of the machine may look at what a client would be told.
                if let Some(Ok(Reply::Join(answer))) = context.take(to)
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
            Step::LeaveInstance(number) => self.leave("", Some(&*instance_id(number))),
            Step::Commit { member, generation, partition, offset } => {
                let id = member.map(|member| self.id(member)).unwrap_or_default();
                let generation = if member.is_some() { self.generation(generation) } else { -1 };
                let commit =
                    Commit { member: &id, generation, partition, offset, ..Commit::default() };
                let to = self.context.commit_offset(&commit);
                let asked = self.asked.entry(partition).or_default();
                asked.push(offset);
                self.commits.insert(to, (partition, asked.len() - 1));
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
            Step::Restart | Step::Crash => {}
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

/// Takes all steps, and holds everything to the laws after each of them.
fn hold_to_laws(mut run: Run, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let commits_at_once = run.context.commits_at_once;
    for step in steps {
        run.note_deletion(&step);
        run.context = match step {
            Step::Restart => {
                let before = run.context.runtime.shard().stored().clone();
                let context = run.context.restart();
                prop_assert_eq!(context.runtime.shard().stored(), &before);
                context
            }
            Step::Crash => run.context.crash(),
            step => {
                run.take(step);
                run.context
            }
        };
        run.context.commits_at_once = commits_at_once;
        run.context.runtime.shard().check();
        run.listen();
        run.check_told();
    }
    run.context.log.refuses = None;
    run.context.commits_at_once = true;
    run.context.commit();
    run.context.sleep(10_000_000);
    prop_assert_eq!(run.context.unanswered(), 0);
    Ok(())
}

/// What befalls static members whose group is stored late.
fn static_step() -> impl Strategy<Value = Step> {
    let join = (proptest::option::weighted(0.9, 0..3_u8), 0..3_u8);
    prop_oneof![
        6 => join.prop_map(|(instance, protocol)| Step::Join {
            member: usize::MAX,
            instance,
            version: 9,
            protocol,
            rebalance_ms: 20_000,
        }),
        4 => (0..8_000_i64).prop_map(Step::Sleep),
        1 => Just(Step::CommitLog),
        1 => step(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_log_tells_it_all(
        steps in proptest::collection::vec(step(), 1..80),
        commits_at_once: bool,
    ) {
        hold_to_laws(Run::new(commits_at_once), steps)?;
    }

    #[test]
    fn static_members_come_back_whenever_they_like(
        steps in proptest::collection::vec(static_step(), 1..20),
    ) {
        hold_to_laws(Run::with_static_members(), steps)?;
    }
}
