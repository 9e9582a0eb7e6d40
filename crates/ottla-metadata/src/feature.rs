//! Names and levels of the features that a cluster finalizes (KIP-584). Pure.

use ottla_protocol::messages::broker_registration_request;

/// The feature that decides which metadata records, in which versions, may be written.
pub const METADATA_VERSION: &str = "metadata.version";
/// 4.3-IV0, the latest level that Kafka 4.3 uses in production; records are written in this level's versions.
pub const METADATA_VERSION_LEVEL: i16 = 30;

/// The levels of one feature that a node understands, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupportedLevels {
    pub min: i16,
    pub max: i16,
}

impl SupportedLevels {
    /// Of a feature that a node does not know.
    pub const NONE: Self = Self { min: 0, max: 0 };

    #[must_use]
    pub const fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// The feature with which a partition remembers who may lead it from outside its ISR (KIP-966): 0 is off, 1 is on.
pub const ELIGIBLE_LEADER_REPLICAS: &str = "eligible.leader.replicas.version";
pub const ELIGIBLE_LEADER_REPLICAS_LEVEL: i16 = 1;

/// The feature with which the metadata log names its voters by their directories (KIP-853): 0 is off, 1 is on. It is the quorum's,
/// not the image's, and nobody moves its level.
pub const KRAFT_VERSION: &str = "kraft.version";
pub const KRAFT_VERSION_LEVELS: SupportedLevels = SupportedLevels { min: 0, max: 1 };

/// What this release understands, by name. A feature that is not here is not finalized in the image.
pub fn supported() -> impl Iterator<Item = (&'static str, SupportedLevels)> {
    [
        (ELIGIBLE_LEADER_REPLICAS, SupportedLevels { min: 0, max: ELIGIBLE_LEADER_REPLICAS_LEVEL }),
        // 3.3-IV3 is the oldest level that Kafka 4.3 starts with.
        (METADATA_VERSION, SupportedLevels { min: 7, max: METADATA_VERSION_LEVEL }),
    ]
    .into_iter()
}

/// The same, as a broker of this release says it when it registers.
#[must_use]
pub fn of_registration() -> Vec<broker_registration_request::Feature> {
    supported()
        .map(|(name, levels)| broker_registration_request::Feature {
            name: name.into(),
            min_supported_version: levels.min,
            max_supported_version: levels.max,
        })
        .collect()
}

/// The levels of one feature that this release understands; of one that it does not know, 0 alone.
#[must_use]
pub fn levels_of(name: &str) -> SupportedLevels {
    let known = supported().find(|(known, _)| *known == name);
    known.map_or(SupportedLevels::NONE, |(_, levels)| levels)
}
