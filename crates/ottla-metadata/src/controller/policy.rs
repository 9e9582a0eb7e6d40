//! What the controller's configuration says about decisions. Pure.

use std::time::Duration;

use ottla_base::BrokerId;
use ottla_config::ProcessRoles;
use ottla_config::describe::topic_defaults;
use ottla_config::dynamic::Dynamic;
use ottla_config::settings::Settings;
use ottla_config::topic::TopicConfig;
use ottla_config::value::Value;

use crate::delta::ConfigResource;
use crate::image::Image;

/// What a policy and the image come to. It takes reading the whole configuration: once for a request, not for each thing that
/// the request names.
#[derive(Debug)]
pub(super) struct InEffect {
    /// What was changed at run time.
    pub dynamic: Dynamic,
    /// The policy's settings with that on top.
    pub settings: Settings,
    /// What a topic gets where it sets nothing.
    pub topic_defaults: TopicConfig,
}

/// The configuration that decisions depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// `num.partitions`: what a topic gets that asks for −1.
    pub num_partitions: i32,
    /// `default.replication.factor`: what a topic gets that asks for −1.
    pub default_replication_factor: i16,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `broker.session.timeout.ms`.
    pub broker_session_timeout: Duration,
    /// `leader.imbalance.check.interval.seconds`; `None` without `auto.leader.rebalance.enable`.
    pub leader_balance_interval: Option<Duration>,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_election_interval: Duration,
    /// The node that decides, whose configuration this is.
    pub node_id: BrokerId,
    /// Whether it is a broker, too. A broker of its id is another process, or none any more, where it is not.
    pub is_broker: bool,
    /// Everything that was set on this node when it started.
    pub settings: Settings,
}

impl Default for Policy {
    /// A node that sets nothing.
    fn default() -> Self {
        Self::from_settings(Settings::default())
    }
}

impl Policy {
    #[must_use]
    pub fn from_settings(settings: Settings) -> Self {
        let long = |name: &str| u64::try_from(settings.long(name)).unwrap_or_default();
        let session_timeout_ms = settings.int("broker.session.timeout.ms");
        Self {
            num_partitions: settings.int("num.partitions"),
            default_replication_factor: i16::try_from(settings.int("default.replication.factor"))
                .unwrap_or(i16::MAX),
            delete_topic_enable: settings.boolean("delete.topic.enable"),
            broker_session_timeout: Duration::from_millis(
                u64::try_from(session_timeout_ms).unwrap_or_default(),
            ),
            leader_balance_interval: settings
                .boolean("auto.leader.rebalance.enable")
                .then(|| Duration::from_secs(long("leader.imbalance.check.interval.seconds"))),
            unclean_election_interval: Duration::from_millis(long(
                "unclean.leader.election.interval.ms",
            )),
            node_id: match settings.value("node.id") {
                Some(Value::Int(id)) => BrokerId(id),
                _ => BrokerId::NONE,
            },
            is_broker: ProcessRoles::from_settings(&settings).broker,
            settings,
        }
    }

    /// Whether a broker is in the process of the controller that decides.
    pub(super) fn is_own_broker(&self, id: BrokerId) -> bool {
        self.is_broker && id == self.node_id
    }

    /// What was changed at run time for this node, and for all.
    #[must_use]
    pub fn dynamic(&self, image: &Image) -> Dynamic {
        Dynamic::from_stored(
            image.config(&ConfigResource::broker(self.node_id)),
            image.config(&ConfigResource::default_broker()),
        )
    }

    pub(super) fn in_effect(&self, image: &Image) -> InEffect {
        let dynamic = self.dynamic(image);
        let settings = dynamic.over(&self.settings);
        InEffect { topic_defaults: TopicConfig::from_broker(&settings), dynamic, settings }
    }

    /// What a topic gets where it sets nothing.
    #[must_use]
    pub fn topic_defaults(&self, image: &Image) -> TopicConfig {
        topic_defaults(&self.settings, &self.dynamic(image))
    }
}
