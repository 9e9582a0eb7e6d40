//! The first records of a new cluster's log. Pure.

use ottla_protocol::records::FeatureLevelRecord;

use super::Outcome;
use crate::feature;
use crate::image::Image;

/// Finalizes `metadata.version` where nothing is finalized yet; nothing else is, until it exists.
#[must_use]
pub fn format(image: &Image) -> Outcome<()> {
    if image.is_formatted() {
        return Outcome::unchanged(());
    }
    let record = FeatureLevelRecord {
        name: feature::METADATA_VERSION.into(),
        feature_level: feature::METADATA_VERSION_LEVEL,
    };
    Outcome { records: vec![record.into()], reply: () }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_begins_with_its_metadata_version_and_an_old_one_is_left_alone() {
        let mut image = Image::new("cluster");
        let outcome = format(&image);
        assert_eq!(outcome.records.len(), 1);
        image.apply(&outcome.records[0]).unwrap();
        assert_eq!(image.feature("metadata.version"), Some(30));
        assert_eq!(format(&image), Outcome::unchanged(()));
    }
}
