//! The story of a cluster in which replicas may lead from outside the ISR (KIP-966).

use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, IncrementalAlterConfigsRequest, UpdateFeaturesRequest,
};

use super::{Story, directory};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const MIN_ISR: &str = "min.insync.replicas";

impl Story<'_> {
    pub(super) fn of_eligible_leader_replicas(&mut self) {
        self.chapter("Brokers come");
        (1..=5).for_each(|id| self.come(id));
        self.create("t", &[&[1, 2, 3], &[1, 2, 3]], &[(MIN_ISR, "2")]);
        self.create("one", &[&[2, 1]], &[]);
        let unclean = ("unclean.leader.election.enable", "true");
        self.create("u", &[&[3, 4], &[4, 3]], &[(MIN_ISR, "2"), unclean]);
        self.create("w", &[&[4, 5], &[5, 4]], &[(MIN_ISR, "2")]);
        for index in [0, 1] {
            self.assign(directory(5, 1000), "w", index);
        }
        self.isrs_shrink();
        self.leaders_come_from_outside();
        self.all_end_uncleanly();
        self.brokers_shut_down();
        self.replicas_move();
        self.configurations_change();
        self.levels_change();
        self.a_member_is_forgotten();
    }

    fn isrs_shrink(&mut self) {
        self.chapter("ISRs shrink below their minimum, and grow");
        for isr in [&[1, 2][..], &[1], &[1], &[1, 3], &[1, 2, 3], &[1], &[1, 2], &[2, 1, 3], &[1]] {
            self.alter("t", 0, isr);
        }
        self.alter("u", 0, &[3]);
        self.alter("one", 0, &[2]);
        self.alter("one", 0, &[2, 1]);
        self.alter("w", 0, &[4]);
    }

    fn come_back_cleanly(&mut self, id: i32) {
        let previous = self.epochs[&id];
        self.starts += 1;
        self.register_incarnation(id, self.starts, previous);
        self.heartbeat("ready", &self.alive(id));
    }

    fn leaders_come_from_outside(&mut self) {
        self.chapter("Leaders come from outside the ISR");
        self.fall_silent(1);
        self.elect(0, "t", &[0, 1]);
        self.come_back_cleanly(1);
        self.elect(0, "t", &[0, 1]);
        self.alter("t", 0, &[2, 1]);
        self.alter("t", 0, &[2]);
        self.come_back_cleanly(4);
        self.fall_silent(4);
        self.come(4);
        self.fall_silent(5);
        self.come_back_cleanly(5);
        self.alter("w", 0, &[5, 4]);
        self.alter("w", 1, &[5, 4]);
        self.fall_silent(2);
        self.come(2);
        self.alter("t", 1, &[3, 1, 2]);
    }

    fn all_end_uncleanly(&mut self) {
        self.chapter("All end uncleanly");
        self.fall_silent(4);
        self.fall_silent_after(5, &[4]);
        self.come(4);
        self.elect(0, "w", &[0, 1]);
        self.elect(1, "w", &[0]);
        self.come(5);
        self.elect(0, "w", &[0, 1]);
        self.fall_silent(3);
        self.come(3);
        self.fall_silent(1);
        self.fall_silent_after(2, &[1]);
        self.fall_silent_after(3, &[1, 2]);
        for id in [1, 2, 3] {
            self.come(id);
        }
        for index in [0, 1] {
            let leader = self.partition("t", index).leader.0;
            self.alter("t", index, &[leader]);
            let others = [1, 2, 3].into_iter().filter(|id| *id != leader);
            let isr: Vec<i32> = [leader].into_iter().chain(others).collect();
            self.alter("t", index, &isr);
        }
        self.elect(0, "t", &[0, 1]);
    }

    fn brokers_shut_down(&mut self) {
        self.chapter("Brokers shut down");
        for id in [1, 2] {
            let leaves =
                |story: &Self| BrokerHeartbeatRequest { want_shut_down: true, ..story.alive(id) };
            for other in id..=5 {
                self.heartbeat("still there", &self.alive(other));
            }
            self.heartbeat("wants to go", &leaves(self));
            for other in id + 1..=5 {
                self.heartbeat("knows", &self.alive(other));
            }
            self.heartbeat("would be gone", &leaves(self));
            let gone: Vec<i32> = (1..id).collect();
            self.fall_silent_after(id, &gone);
        }
        self.come_back_cleanly(2);
        self.fall_silent_after(3, &[1]);
        self.come(1);
        self.come_back_cleanly(3);
        self.elect(0, "t", &[0, 1]);
    }

    fn replicas_move(&mut self) {
        self.chapter("Partitions move");
        let leader = self.partition("t", 1).leader.0;
        self.alter("t", 1, &[leader]);
        let others: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
        self.reassign("t", 1, Some(&[leader, others[0], 4]), true);
        self.alter("t", 1, &[leader, 4]);
        self.reassign("t", 1, Some(&[1, 2, 3]), true);
        self.reassign("t", 1, None, true);
    }

    fn configure(&mut self, kind: i8, name: &str, operation: i8, value: Option<&str>) {
        let config = AlterableConfig {
            name: MIN_ISR.into(),
            config_operation: operation,
            value: value.map(Into::into),
        };
        let resource = AlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs: vec![config],
        };
        let resources = vec![resource];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let answer = self.decider.alter_configs(&request);
        let what = format!("configure {kind} {name:?}, operation {operation}, {value:?}");
        self.note(&what, &format!("{answer:?}"));
    }

    fn configurations_change(&mut self) {
        self.chapter("Minima change");
        for index in [0, 1] {
            let leader = self.partition("t", index).leader.0;
            self.alter("t", index, &[leader]);
        }
        self.configure(TOPIC, "t", 0, Some("2"));
        self.configure(TOPIC, "t", 0, Some("3"));
        self.configure(BROKER, "3000", 0, Some("2"));
        self.configure(BROKER, "1", 0, Some("2"));
        self.configure(BROKER, "1", 1, None);
        self.configure(BROKER, "", 1, None);
        self.configure(BROKER, "", 0, Some("2"));
        let leader = self.partition("one", 0).leader.0;
        self.alter("one", 0, &[1, 2]);
        self.alter("one", 0, &[2, 1]);
        self.alter("one", 0, &[leader]);
        self.configure(BROKER, "", 0, Some("2"));
        self.configure(BROKER, "", 0, Some("1"));
        self.configure(TOPIC, "t", 1, None);
        self.configure(TOPIC, "t", 0, Some("2"));
        self.configure(TOPIC, "x", 0, Some("2"));
        self.configure(TOPIC, "t", 0, Some("0"));
    }

    fn level(&mut self, feature: &str, level: i16, upgrade_type: i8, validate_only: bool) {
        let key = FeatureUpdateKey {
            feature: feature.into(),
            max_version_level: level,
            upgrade_type,
            ..Default::default()
        };
        let request =
            UpdateFeaturesRequest { timeout_ms: 10_000, feature_updates: vec![key], validate_only };
        let answer = self.decider.update_features(&request);
        let what = format!("level {level} of {feature}, way {upgrade_type}, {validate_only}");
        self.note(&what, &format!("{} {:?}", answer.error_code, answer.error_message));
    }

    fn levels_change(&mut self) {
        self.chapter("Levels change");
        const FEATURE: &str = "eligible.leader.replicas.version";
        for (level, way) in [(2, 1), (-1, 1), (0, 1), (1, 2), (1, 3), (1, 1), (0, 7)] {
            self.level(FEATURE, level, way, false);
        }
        self.level("no.such", 0, 2, false);
        self.level("no.such", 1, 1, false);
        self.level("metadata.version", 29, 2, false);
        self.level(FEATURE, 0, 2, true);
        self.level(FEATURE, 0, 2, false);
        self.configure(BROKER, "1", 0, Some("2"));
        self.configure(BROKER, "", 1, None);
        self.alter("t", 0, &[1, 2, 3]);
        let leader = self.partition("t", 0).leader.0;
        self.alter("t", 0, &[leader]);
        self.fall_silent(leader);
        self.come(leader);
        self.level(FEATURE, 1, 1, true);
        self.level(FEATURE, 1, 1, false);
        self.configure(BROKER, "1", 0, Some("2"));
    }

    fn a_member_is_forgotten(&mut self) {
        self.chapter("A broker is forgotten");
        for id in 1..=5 {
            self.heartbeat("still there", &self.alive(id));
        }
        let request = ottla_protocol::messages::UnregisterBrokerRequest { broker_id: 4 };
        let answer = self.decider.unregister(&request);
        self.note("unregister 4", &format!("{} {:?}", answer.error_code, answer.error_message));
        self.come_back_cleanly(4);
    }
}
