//! Which replica consumers are told to read from: `replica.selector.class` (pure).

use crate::settings::{Problem, Settings};

const NAME: &str = "replica.selector.class";

/// Kafka's own two selectors. Any other one is a Java class, which cannot run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSelector {
    Leader,
    /// An in-sync replica in the consumer's rack, if there is one (KIP-392).
    RackAware,
}

impl ReplicaSelector {
    pub(crate) fn from_settings(s: &Settings, problems: &mut Vec<Problem>) -> Self {
        let class = match s.value(NAME) {
            Some(value) => value.to_string(),
            None => return Self::Leader,
        };
        match class.as_str() {
            "" | "org.apache.kafka.common.replica.LeaderSelector" => Self::Leader,
            "org.apache.kafka.common.replica.RackAwareReplicaSelector" => Self::RackAware,
            other => {
                let message = format!(
                    "{NAME}={other} cannot be honoured: Java classes cannot run here; remove it, \
                     or name org.apache.kafka.common.replica.RackAwareReplicaSelector"
                );
                problems.push(Problem { origin: s.origin(NAME), message });
                Self::Leader
            }
        }
    }
}
