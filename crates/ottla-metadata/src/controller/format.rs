//! The first records of a new cluster's log. Pure.

use std::collections::BTreeMap;

use ottla_protocol::records::FeatureLevelRecord;

use super::{Outcome, Policy, eligible};
use crate::feature;
use crate::image::Image;

/// Finalizes the features that the cluster is to begin with, where nothing is finalized yet. Those that `levels` does not
/// name begin at the latest level.
#[must_use]
pub fn format(image: &Image, policy: &Policy, levels: &BTreeMap<String, i16>) -> Outcome<()> {
    if image.is_formatted() {
        return Outcome::unchanged(());
    }
    let level = |name: &'static str, latest| levels.get(name).copied().unwrap_or(latest);
    let finalized =
        |name: &'static str, level| FeatureLevelRecord { name: name.into(), feature_level: level };
    let version = level(feature::METADATA_VERSION, feature::METADATA_VERSION_LEVEL);
    let mut records = vec![finalized(feature::METADATA_VERSION, version).into()];
    let name = feature::ELIGIBLE_LEADER_REPLICAS;
    let eligible = level(name, feature::ELIGIBLE_LEADER_REPLICAS_LEVEL);
    if eligible > 0 {
        records.push(finalized(name, eligible).into());
        records.push(eligible::cluster_min_isr(policy));
    }
    Outcome { records, reply: () }
}

#[cfg(test)]
mod tests {
    use ottla_base::BrokerId;

    use super::*;
    use crate::delta::ConfigResource;

    fn formatted(levels: &[(&str, i16)]) -> Image {
        let levels = levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        let mut image = Image::new("cluster");
        let policy = Policy::default();
        for record in format(&image, &policy, &levels).records {
            image.apply(&record).unwrap();
        }
        assert_eq!(format(&image, &policy, &levels), Outcome::unchanged(()));
        image
    }

    #[test]
    fn a_new_cluster_begins_with_the_latest_levels_and_an_old_one_is_left_alone() {
        let image = formatted(&[]);
        let features: Vec<_> = image.features().collect();
        assert_eq!(features, [("eligible.leader.replicas.version", 1), ("metadata.version", 30)]);
        let least: Vec<_> = image.config(&ConfigResource::default_broker()).collect();
        assert_eq!(least, [("min.insync.replicas", "1")]);
    }

    #[test]
    fn a_cluster_may_begin_without_eligible_leader_replicas() {
        let image = formatted(&[("eligible.leader.replicas.version", 0)]);
        assert_eq!(image.features().collect::<Vec<_>>(), [("metadata.version", 30)]);
        assert_eq!(image.config(&ConfigResource::default_broker()).count(), 0);
        assert_eq!(image.config(&ConfigResource::broker(BrokerId(1))).count(), 0);
    }
}
