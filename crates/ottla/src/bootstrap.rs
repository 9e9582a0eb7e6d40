//! The levels of features that a cluster begins with, as the file that formatting leaves for the first start. Pure.
//!
//! The file is Kafka's `bootstrap.checkpoint`: a control batch with SnapshotHeader, a batch of metadata records, a control
//! batch with SnapshotFooter. Whoever is the first active controller goes by its own; a feature that it does not name is at
//! level 0, and without a file all are at their latest.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_metadata::{MetadataRecord, feature, record};
use ottla_protocol::records::{FeatureLevelRecord, SnapshotFooterRecord, SnapshotHeaderRecord};
use ottla_records::{BatchBuilder, Batches, Compression, ControlType};

use crate::initial_controllers::{batch, encode};

/// Where the file is, in the directory of the metadata.
pub(crate) const FILE: &str = "bootstrap.checkpoint";

/// Levels by feature.
pub(crate) type Levels = BTreeMap<String, i16>;

/// The whole file. A level of 0 is not written.
pub(crate) fn to_checkpoint(levels: &Levels, now: Timestamp) -> anyhow::Result<Vec<u8>> {
    let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: now.0 };
    let begin = [(ControlType::SnapshotHeader, encode(&header)?)];
    let mut records = BatchBuilder::new(Compression::None).at(Offset(1), LeaderEpoch(0));
    let mut end = Offset(1);
    for (name, level) in levels.iter().filter(|(_, level)| **level > 0) {
        let record = FeatureLevelRecord { name: name.as_str().into(), feature_level: *level };
        records.append(now, None, Some(&record::encode(&record.into())?), &[]);
        end = end + 1;
    }
    let footer = [(ControlType::SnapshotFooter, encode(&SnapshotFooterRecord { version: 0 })?)];
    let (begin, footer) = (batch(Offset(0), now, &begin), batch(end, now, &footer));
    Ok([begin, records.build_bytes(), footer].concat())
}

/// The levels in a file that this program or Kafka's has written, of the features that are there. Of Kafka's others a
/// cluster of this release makes nothing: it begins without them.
pub(crate) fn from_checkpoint(file: Bytes) -> anyhow::Result<Levels> {
    let mut levels: Levels = feature::supported().map(|(name, _)| (name.to_owned(), 0)).collect();
    let mut batches = Batches::new(file);
    for batch in &mut batches {
        let batch = batch?;
        batch.check_crc()?;
        if batch.header().attributes.is_control() {
            continue;
        }
        for record in batch.records()? {
            let (_, record) = MetadataRecord::decode(record?.value.unwrap_or_default())?;
            if let MetadataRecord::FeatureLevel(record) = record
                && let Some(level) = levels.get_mut(&*record.name)
            {
                *level = record.feature_level;
            }
        }
    }
    ensure!(batches.remaining().is_empty(), "it is cut off");
    for (name, supported) in feature::supported() {
        let level = levels.get(name).copied().unwrap_or(0);
        let is_known = level == 0 || supported.contains(level);
        ensure!(
            is_known,
            "it begins a cluster at {name} {level}, which this release does not know"
        );
    }
    let version = levels.get(feature::METADATA_VERSION).copied().unwrap_or(0);
    let latest = feature::METADATA_VERSION_LEVEL;
    ensure!(
        version == latest,
        "it begins a cluster at metadata.version {version}, and this release writes {latest} only"
    );
    Ok(levels)
}

/// The levels that a directory of metadata was formatted with; none where nothing says so.
pub(crate) fn read(directory: &std::path::Path) -> anyhow::Result<Levels> {
    let file = directory.join(FILE);
    match std::fs::read(&file) {
        Ok(bytes) => from_checkpoint(bytes.into())
            .with_context(|| format!("{} is not usable", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Levels::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(eligible: i16) -> Levels {
        let eligible = (feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), eligible);
        Levels::from([eligible, (feature::METADATA_VERSION.to_owned(), 30)])
    }

    #[test]
    fn levels_come_back_as_they_were_written() {
        for eligible in [0, 1] {
            let file = to_checkpoint(&levels(eligible), Timestamp(7)).unwrap();
            assert_eq!(from_checkpoint(file.into()).unwrap(), levels(eligible));
        }
    }

    #[test]
    fn kafkas_own_file_is_understood_but_for_features_that_are_not_there() {
        let file = include_bytes!("../tests/kafka/bootstrap.checkpoint");
        assert_eq!(from_checkpoint(Bytes::from_static(file)).unwrap(), levels(1));
        let cut = Bytes::from_static(file.get(..file.len() - 3).unwrap());
        assert!(from_checkpoint(cut).is_err());
    }

    #[test]
    fn another_metadata_version_is_not_begun() {
        let older = Levels::from([(feature::METADATA_VERSION.to_owned(), 29)]);
        let file = to_checkpoint(&older, Timestamp(7)).unwrap();
        let error = from_checkpoint(file.into()).unwrap_err().to_string();
        assert_eq!(
            error,
            "it begins a cluster at metadata.version 29, and this release writes 30 only"
        );
    }
}
