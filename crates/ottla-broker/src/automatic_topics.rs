//! Topics that are made because somebody needs them: what the controller is asked for. Pure.

use bytestring::ByteString;
use ottla_config::{BrokerConfig, Settings};
use ottla_metadata::topic_name;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

/// The shape of a topic; -1 leaves a number to the controller.
#[derive(Debug, Clone)]
struct Shape {
    partitions: i32,
    replication_factor: i32,
    configs: Vec<(&'static str, String)>,
}

/// The shapes of the cluster's own topics, and of all others.
#[derive(Debug, Clone)]
pub(crate) struct AutomaticTopics {
    consumer_offsets: Shape,
    transaction_state: Shape,
    share_group_state: Shape,
    of_users: Shape,
}

impl AutomaticTopics {
    pub(crate) fn new(config: &BrokerConfig, settings: &Settings) -> Self {
        // What this broker's properties do not name is up to the controller's.
        let own = |name: &str, value: i32| if settings.is_set(name) { value } else { -1 };
        Self {
            of_users: Shape {
                partitions: own("num.partitions", config.num_partitions),
                replication_factor: own(
                    "default.replication.factor",
                    config.default_replication_factor,
                ),
                configs: Vec::new(),
            },
            consumer_offsets: Shape {
                partitions: config.offsets_topic_num_partitions,
                replication_factor: config.offsets_topic_replication_factor,
                configs: vec![
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "producer".to_owned()),
                    ("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
                ],
            },
            transaction_state: Shape {
                partitions: config.transaction_state_log_num_partitions,
                replication_factor: config.transaction_state_log_replication_factor,
                configs: vec![
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "uncompressed".to_owned()),
                    ("min.insync.replicas", config.transaction_state_log_min_isr.to_string()),
                    ("segment.bytes", config.transaction_state_log_segment_bytes.to_string()),
                    ("unclean.leader.election.enable", "false".to_owned()),
                ],
            },
            share_group_state: Shape {
                partitions: config.share_coordinator_state_topic_num_partitions,
                replication_factor: config.share_coordinator_state_topic_replication_factor,
                configs: vec![
                    ("cleanup.policy", "delete".to_owned()),
                    ("compression.type", "producer".to_owned()),
                    (
                        "min.insync.replicas",
                        config.share_coordinator_state_topic_min_isr.to_string(),
                    ),
                    ("retention.ms", "-1".to_owned()),
                    (
                        "segment.bytes",
                        config.share_coordinator_state_topic_segment_bytes.to_string(),
                    ),
                ],
            },
        }
    }

    /// The topic as it is asked for.
    pub(crate) fn creatable(&self, name: ByteString) -> CreatableTopic {
        let shape = match &*name {
            topic_name::CONSUMER_OFFSETS => &self.consumer_offsets,
            topic_name::TRANSACTION_STATE => &self.transaction_state,
            topic_name::SHARE_GROUP_STATE => &self.share_group_state,
            _ => &self.of_users,
        };
        let config = |(name, value): &(&'static str, String)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some(value.as_str().into()),
        };
        CreatableTopic {
            name,
            num_partitions: shape.partitions,
            replication_factor: i16::try_from(shape.replication_factor).unwrap_or(i16::MAX),
            configs: shape.configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        }
    }
}
