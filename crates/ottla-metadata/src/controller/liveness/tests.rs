//! Sessions, heartbeats and shutdowns, call by call.

use super::*;
use crate::MetadataRecord;
use crate::controller::brokers::tests::{
    directory_of, fence, image_with_brokers, partition_record, register, registration,
};
use ottla_base::{LeaderEpoch, TopicId, Uuid};
use ottla_protocol::records::{BrokerRegistrationChangeRecord, PartitionChangeRecord, TopicRecord};

const TOPIC: TopicId = TopicId::from_u128(9);
const SESSION: Duration = Duration::from_secs(9);

const fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A controller, what it appended, and the time.
struct Cluster {
    image: Image,
    policy: Policy,
    liveness: Liveness,
    next_offset: Offset,
    now: Duration,
}

impl Cluster {
    /// Unfenced brokers of epoch 1, with a fresh session each.
    fn of(ids: &[i32]) -> Self {
        let image = image_with_brokers(ids);
        let policy = Policy::default();
        let liveness = Liveness::new(&image, &policy, Duration::ZERO);
        Self { image, policy, liveness, next_offset: Offset(100), now: Duration::ZERO }
    }

    fn situation(&self) -> Situation<'_> {
        let Self { image, policy, next_offset, now, .. } = self;
        Situation { image, policy, next_offset: *next_offset, now: *now }
    }

    fn create_topic(&mut self, partitions: &[(&[i32], &[i32])]) {
        self.append(&[TopicRecord { name: "t".into(), topic_id: TOPIC }.into()]);
        for (index, (replicas, isr)) in (0..).zip(partitions) {
            self.append(&[partition_record(TOPIC, index, replicas, isr)]);
        }
    }

    fn append(&mut self, records: &[MetadataRecord]) {
        records.iter().for_each(|record| self.image.apply(record).unwrap());
        self.next_offset = self.next_offset + count(records.len());
        self.image.check();
    }

    fn heartbeat(&mut self, request: &BrokerHeartbeatRequest) -> Outcome<BrokerHeartbeatResponse> {
        let mut liveness = std::mem::replace(&mut self.liveness, Liveness::nobody());
        let outcome = liveness.on_heartbeat(self.situation(), request).unwrap();
        self.liveness = liveness;
        self.append(&outcome.records);
        outcome
    }

    fn reply(&mut self, request: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
        self.heartbeat(request).reply
    }

    fn register(&mut self, id: i32, incarnation: i32) -> Result<BrokerEpoch, ErrorCode> {
        let mut liveness = std::mem::replace(&mut self.liveness, Liveness::nobody());
        let result = liveness.on_registration(self.situation(), &registration(id, incarnation));
        self.liveness = liveness;
        let outcome = result.map_err(|rejection| rejection.code)?;
        self.append(&outcome.records);
        Ok(outcome.reply)
    }

    /// Who is fenced when the time has come to this.
    fn wait_until(&mut self, now: Duration) -> Vec<BrokerId> {
        self.now = now;
        let mut liveness = std::mem::replace(&mut self.liveness, Liveness::nobody());
        let outcome = liveness.on_deadline(self.situation());
        self.liveness = liveness;
        self.append(&outcome.records);
        outcome.reply
    }

    fn is_fenced(&self, id: i32) -> bool {
        self.image.broker(BrokerId(id)).unwrap().fenced
    }

    fn leader_of(&self, index: i32) -> BrokerId {
        self.image.partition(TOPIC, index.into()).unwrap().leader
    }
}

impl Liveness {
    fn nobody() -> Self {
        Self { brokers: BTreeMap::new() }
    }
}

fn alive(broker_id: i32, current_metadata_offset: i64) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id,
        broker_epoch: 1,
        current_metadata_offset,
        ..Default::default()
    }
}

fn leaving(broker_id: i32, current_metadata_offset: i64) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest { want_shut_down: true, ..alive(broker_id, current_metadata_offset) }
}

#[test]
fn a_new_broker_is_let_in_once_it_knows_of_its_own_registration() {
    let mut cluster = Cluster::of(&[1]);
    let BrokerEpoch(broker_epoch) = cluster.register(2, 2).unwrap();
    assert_eq!(broker_epoch, 100);
    let early = BrokerHeartbeatRequest { broker_epoch, ..alive(2, 99) };
    let outcome = cluster.heartbeat(&early);
    assert_eq!(outcome.records, []);
    assert_eq!((outcome.reply.is_caught_up, outcome.reply.is_fenced), (false, true));
    let wants_fence = BrokerHeartbeatRequest { broker_epoch, want_fence: true, ..alive(2, 100) };
    let reply = cluster.reply(&wants_fence);
    assert_eq!((reply.is_caught_up, reply.is_fenced), (true, true));
    let outcome = cluster.heartbeat(&BrokerHeartbeatRequest { broker_epoch, ..alive(2, 100) });
    let unfence = BrokerRegistrationChangeRecord {
        broker_id: 2,
        broker_epoch,
        fenced: -1,
        ..Default::default()
    };
    assert_eq!(outcome.records, [unfence.into()]);
    assert_eq!((outcome.reply.is_caught_up, outcome.reply.is_fenced), (true, false));
}

#[test]
fn a_heartbeat_of_another_registration_is_refused_and_counts_for_nobody() {
    let mut cluster = Cluster::of(&[1]);
    cluster.now = at(5000);
    let stale = BrokerHeartbeatRequest { broker_epoch: 0, ..alive(1, 50) };
    let mut liveness = Liveness::new(&cluster.image, &cluster.policy, Duration::ZERO);
    let refused = liveness.on_heartbeat(cluster.situation(), &stale).unwrap_err();
    assert_eq!(refused.code, ErrorCode::STALE_BROKER_EPOCH);
    assert_eq!(liveness.deadline(), Some(SESSION));
    let unknown = liveness.on_heartbeat(cluster.situation(), &alive(7, 50)).unwrap_err();
    assert_eq!(unknown.code, ErrorCode::STALE_BROKER_EPOCH);
}

#[test]
fn who_is_silent_for_a_session_is_fenced_and_its_partitions_go_to_others() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[1, 2], &[1, 2]), (&[2, 1], &[2, 1]), (&[1], &[1])]);
    cluster.now = at(4000);
    cluster.heartbeat(&alive(2, 50));
    assert_eq!(cluster.liveness.deadline(), Some(SESSION));
    assert_eq!(cluster.wait_until(SESSION - at(1)), []);
    assert_eq!(cluster.wait_until(SESSION), [BrokerId(1)]);
    assert!(cluster.is_fenced(1));
    let leaders = [0, 1, 2].map(|index| cluster.leader_of(index));
    assert_eq!(leaders, [BrokerId(2), BrokerId(2), BrokerId::NONE]);
    let partition = |index: i32| cluster.image.partition(TOPIC, index.into()).unwrap();
    assert_eq!(partition(0).isr, [BrokerId(2)]);
    assert_eq!(partition(1).leader_epoch, LeaderEpoch(0));
    assert_eq!(partition(2).isr, [BrokerId(1)]);
    assert_eq!(cluster.liveness.deadline(), Some(at(4000) + SESSION));
}

#[test]
fn brokers_that_fall_silent_together_are_fenced_one_after_the_other() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    cluster.create_topic(&[(&[1, 2, 3], &[1, 2, 3])]);
    cluster.now = at(1000);
    cluster.heartbeat(&alive(3, 50));
    assert_eq!(cluster.wait_until(SESSION), [BrokerId(1), BrokerId(2)]);
    let partition = cluster.image.partition(TOPIC, 0.into()).unwrap();
    assert_eq!((partition.leader, &*partition.isr), (BrokerId(3), &[BrokerId(3)][..]));
}

#[test]
fn a_fenced_broker_comes_back_and_leads_what_waited_for_it() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[1], &[1]), (&[2, 1], &[2])]);
    cluster.heartbeat(&alive(2, 50));
    cluster.wait_until(SESSION);
    assert_eq!(cluster.leader_of(0), BrokerId::NONE);
    assert!(!cluster.reply(&alive(1, 150)).is_fenced);
    assert_eq!(cluster.leader_of(0), BrokerId(1));
    assert_eq!(cluster.liveness.deadline(), Some(SESSION + SESSION));
}

#[test]
fn a_cut_connection_alone_moves_no_leader() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[1, 2], &[1, 2])]);
    cluster.now = at(1000);
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(1), at(1000));
    assert_eq!(cluster.liveness.deadline(), Some(at(1000) + RECONNECT_GRACE));
    cluster.now = at(1200);
    cluster.heartbeat(&alive(1, 50));
    assert_eq!(cluster.wait_until(at(1400)), []);
    assert_eq!(cluster.leader_of(0), BrokerId(1));
    assert_eq!(cluster.liveness.deadline(), Some(SESSION));
}

#[test]
fn a_broker_whose_connection_is_cut_and_who_does_not_come_back_is_fenced_after_the_grace() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[1, 2], &[1, 2])]);
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(1), at(1000));
    assert_eq!(cluster.wait_until(at(1299)), []);
    assert_eq!(cluster.wait_until(at(1300)), [BrokerId(1)]);
    assert_eq!(cluster.leader_of(0), BrokerId(2));
}

#[test]
fn the_grace_prolongs_no_session_and_is_given_only_once() {
    let mut cluster = Cluster::of(&[1]);
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(1), at(8900));
    assert_eq!(cluster.liveness.deadline(), Some(SESSION));
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(1), at(1000));
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(1), at(1250));
    assert_eq!(cluster.liveness.deadline(), Some(at(1300)));
}

#[test]
fn the_connection_of_an_earlier_process_says_nothing_of_the_present_one() {
    let mut cluster = Cluster::of(&[1]);
    cluster.liveness.on_connection_lost(BrokerId(1), BrokerEpoch(0), at(1000));
    assert_eq!(cluster.liveness.deadline(), Some(SESSION));
}

#[test]
fn a_shutdown_ends_when_all_others_know_that_nothing_is_led_any_more() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    cluster.create_topic(&[(&[1, 2], &[1, 2]), (&[1], &[1])]);
    for id in 1..=3 {
        cluster.heartbeat(&alive(id, 100));
    }
    let outcome = cluster.heartbeat(&leaving(1, 102));
    let leaves = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 1,
        in_controlled_shutdown: 1,
        ..Default::default()
    };
    let led_by = |partition_id, leader, isr| PartitionChangeRecord {
        partition_id,
        topic_id: TOPIC,
        leader,
        isr,
        ..Default::default()
    };
    let expected = [leaves.into(), led_by(0, 2, Some(vec![2])).into(), led_by(1, -1, None).into()];
    assert_eq!(outcome.records, expected);
    assert_eq!((outcome.reply.is_fenced, outcome.reply.should_shut_down), (false, false));

    // The records are at 103, 104 and 105.
    cluster.heartbeat(&alive(2, 105));
    cluster.heartbeat(&alive(3, 104));
    let outcome = cluster.heartbeat(&leaving(1, 105));
    assert_eq!((outcome.records.len(), outcome.reply.should_shut_down), (0, false));
    cluster.heartbeat(&alive(3, 105));
    let reply = cluster.reply(&leaving(1, 105));
    assert_eq!((reply.is_fenced, reply.should_shut_down), (true, true));
    assert!(cluster.is_fenced(1));
}

#[test]
fn who_waits_for_records_to_be_known_waits_for_them_where_they_are() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[1], &[1])]);
    cluster.heartbeat(&alive(2, 101));
    // The records are meant to be at 102 and 103, and are at 105 and 106.
    cluster.heartbeat(&leaving(1, 101));
    cluster.liveness.on_shifted(&(Offset(102)..Offset(104)), 3);
    cluster.next_offset = cluster.next_offset + 3;
    cluster.heartbeat(&alive(2, 105));
    assert!(!cluster.reply(&leaving(1, 105)).should_shut_down);
    cluster.heartbeat(&alive(2, 106));
    assert!(cluster.reply(&leaving(1, 106)).should_shut_down);
    // What was awaited before is where it was.
    let BrokerEpoch(broker_epoch) = cluster.register(3, 3).unwrap();
    cluster.liveness.on_shifted(&(Offset(broker_epoch + 1)..Offset(broker_epoch + 5)), 3);
    let knows = BrokerHeartbeatRequest { broker_epoch, ..alive(3, broker_epoch) };
    assert!(!cluster.reply(&knows).is_fenced);
}

#[test]
fn who_leads_nothing_may_go_at_once() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.create_topic(&[(&[2, 1], &[2, 1])]);
    let reply = cluster.reply(&leaving(1, 100));
    assert!(reply.is_fenced && reply.should_shut_down);
    assert_eq!(cluster.image.partition(TOPIC, 0.into()).unwrap().isr, [BrokerId(2)]);
    let again = cluster.heartbeat(&leaving(1, 100));
    assert_eq!(again.records, []);
    assert!(again.reply.should_shut_down);
}

#[test]
fn the_last_broker_may_go_too() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create_topic(&[(&[1], &[1])]);
    assert!(!cluster.reply(&leaving(1, 100)).should_shut_down);
    assert!(cluster.reply(&leaving(1, 100)).should_shut_down);
}

#[test]
fn a_broker_can_ask_to_be_fenced() {
    let mut cluster = Cluster::of(&[1, 2]);
    let wants_fence = BrokerHeartbeatRequest { want_fence: true, ..alive(1, 50) };
    let reply = cluster.reply(&wants_fence);
    assert_eq!((reply.is_fenced, reply.should_shut_down), (true, false));
    assert!(cluster.is_fenced(1));
    let wants_both = BrokerHeartbeatRequest { want_fence: true, ..leaving(2, 50) };
    assert!(cluster.reply(&wants_both).should_shut_down);
}

#[test]
fn a_heartbeat_tells_of_directories_that_failed_or_are_cordoned() {
    let mut cluster = Cluster::of(&[1, 2]);
    let two = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 1,
        log_dirs: vec![directory_of(1), directory_of(5)],
        ..Default::default()
    };
    cluster.append(&[two.into()]);
    cluster.create_topic(&[(&[1, 2], &[1, 2])]);
    let request = BrokerHeartbeatRequest {
        offline_log_dirs: vec![directory_of(1)],
        cordoned_log_dirs: Some(vec![directory_of(5)]),
        ..alive(1, 100)
    };
    let outcome = cluster.heartbeat(&request);
    assert_eq!(outcome.records.len(), 3, "{outcome:?}");
    assert_eq!(cluster.leader_of(0), BrokerId(2));
    let broker = cluster.image.broker(BrokerId(1)).unwrap();
    assert_eq!(broker.directories, [directory_of(5)]);
    assert!(!broker.has_uncordoned_directory());
    assert_eq!(cluster.heartbeat(&request).records, []);
}

#[test]
fn another_process_under_the_id_of_a_living_broker_is_refused_until_that_is_fenced() {
    let mut cluster = Cluster::of(&[1, 2]);
    assert_eq!(cluster.register(2, 9), Err(ErrorCode::DUPLICATE_BROKER_REGISTRATION));
    assert_eq!(cluster.register(2, 2), Ok(BrokerEpoch(1)));
    cluster.liveness.on_connection_lost(BrokerId(2), BrokerEpoch(1), at(0));
    cluster.wait_until(at(300));
    let epoch = cluster.next_offset.0;
    assert_eq!(cluster.register(2, 9), Ok(BrokerEpoch(epoch)));
}

#[test]
fn so_it_is_while_that_one_is_fenced_as_long_as_it_is_heard_from() {
    let mut cluster = Cluster::of(&[1]);
    let BrokerEpoch(broker_epoch) = cluster.register(2, 2).unwrap();
    let behind = BrokerHeartbeatRequest { broker_epoch, ..alive(2, broker_epoch - 1) };
    cluster.now = at(1000);
    assert!(cluster.reply(&behind).is_fenced);
    cluster.heartbeat(&alive(1, 100));
    assert_eq!(cluster.wait_until(at(1000) + SESSION - at(1)), []);
    assert_eq!(cluster.register(2, 9), Err(ErrorCode::DUPLICATE_BROKER_REGISTRATION));
    let lost = BrokerEpoch(broker_epoch);
    cluster.liveness.on_connection_lost(BrokerId(2), lost, at(1000));
    let epoch = cluster.next_offset.0;
    assert_eq!(cluster.register(2, 9), Ok(BrokerEpoch(epoch)));
}

#[test]
fn whoever_was_told_to_end_is_not_waited_for() {
    let mut cluster = Cluster::of(&[1, 2]);
    assert!(cluster.reply(&leaving(1, 100)).should_shut_down);
    let epoch = cluster.next_offset.0;
    assert_eq!(cluster.register(1, 9), Ok(BrokerEpoch(epoch)));
}

#[test]
fn the_broker_of_the_controllers_own_process_never_waits_for_the_one_before_it() {
    let mut cluster = Cluster::of(&[1]);
    cluster.policy.node_id = BrokerId(1);
    assert_eq!(cluster.register(1, 9), Ok(BrokerEpoch(100)));
    assert_eq!(cluster.liveness.deadline(), None);
}

/// Its node was a broker, too, until the last start.
#[test]
fn a_broker_that_has_only_the_id_of_the_controllers_process_is_fenced_when_it_is_silent() {
    let mut cluster = Cluster::of(&[1, 2]);
    cluster.policy = Policy { node_id: BrokerId(1), is_broker: false, ..Policy::default() };
    cluster.liveness = Liveness::new(&cluster.image, &cluster.policy, Duration::ZERO);
    assert_eq!(cluster.wait_until(SESSION), [1, 2].map(BrokerId));
}

#[test]
fn an_amended_registration_must_be_known_as_well() {
    let mut cluster = Cluster::of(&[1]);
    assert_eq!(cluster.register(1, 1), Ok(BrokerEpoch(1)));
    assert!(!cluster.reply(&alive(1, 99)).is_caught_up);
    assert!(cluster.reply(&alive(1, 100)).is_caught_up);
}

#[test]
fn a_new_controller_gives_a_session_to_those_who_may_lead() {
    let mut image = image_with_brokers(&[1, 2]);
    fence(&mut image, 2);
    let incarnation = registration(3, 3);
    register(&mut image, &incarnation, 50);
    let liveness = Liveness::new(&image, &Policy::default(), at(7));
    let sessions: Vec<_> =
        liveness.brokers.iter().filter(|(_, it)| it.expires_at.is_some()).collect();
    assert_eq!(sessions.len(), 1);
    assert_eq!(liveness.deadline(), Some(at(7) + SESSION));
    assert_ne!(incarnation.incarnation_id, Uuid::ZERO);
}
