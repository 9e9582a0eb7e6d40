//! What is written is read back, what is cut or changed is not, and Apache Kafka 4.3.1 writes the same.
//!
//! `../kafka` holds a snapshot that Kafka wrote: one node, formatted with `--standalone`, with two topics, one of them with
//! a configuration, one default for all brokers, and a block of producer ids.

use ottla_base::{LeaderEpoch, Uuid};
use ottla_metadata::Endpoint;
use ottla_protocol::records::ConfigRecord;
use ottla_records::Batches;

use super::*;
use crate::raft::{Membership, Voter};

const KAFKAS: &[u8] = include_bytes!("../kafka/00000000000000000147-0000000001.checkpoint");

fn batches(bytes: &[u8]) -> Vec<RawBatch> {
    Batches::new(Bytes::copy_from_slice(bytes)).map(|batch| batch.unwrap()).collect()
}

fn metadata_records(batches: &[RawBatch]) -> Vec<(i16, MetadataRecord)> {
    let data = batches.iter().filter(|batch| !batch.header().attributes.is_control());
    let records = data.flat_map(|batch| batch.records().unwrap());
    records
        .map(|record| {
            let value = record.unwrap().value.unwrap();
            // A frame version, the record's type and its version, each a varint of one byte here.
            (i16::from(value[2]), MetadataRecord::decode(value).unwrap().1)
        })
        .filter(|(_, record)| is_supported(record))
        .collect()
}

/// Of the features that Kafka finalizes only these are known here.
fn is_supported(record: &MetadataRecord) -> bool {
    let MetadataRecord::FeatureLevel(record) = record else { return true };
    ottla_metadata::feature::supported()
        .any(|(name, levels)| *name == *record.name && levels.contains(record.feature_level))
}

fn kinds(batches: &[RawBatch]) -> Vec<Vec<ControlType>> {
    let control = batches.iter().filter(|batch| batch.header().attributes.is_control());
    control
        .map(|batch| batch.records().unwrap().map(|it| kind(&it.unwrap()).unwrap()).collect())
        .collect()
}

fn image_of(records: &[(i16, MetadataRecord)]) -> Image {
    let mut image = Image::new("cluster");
    records.iter().for_each(|(_, record)| image.apply(record).unwrap());
    image
}

fn extent(by_directory: bool) -> Extent {
    let endpoint = Endpoint {
        listener: "CONTROLLER".into(),
        host: "localhost".into(),
        port: 9093,
        security_protocol: 0,
    };
    let voter = match by_directory {
        true => Voter { directory_id: Uuid([7; 16]), endpoints: vec![endpoint] },
        false => Voter { directory_id: Uuid::ZERO, endpoints: Vec::new() },
    };
    let nodes = std::collections::BTreeMap::from([(1, voter)]);
    let membership = Membership::new(vec![[1].into()], nodes).unwrap();
    let log_id = crate::raft::log_id(0, 0);
    let payload = openraft::EntryPayload::Membership(membership.clone());
    let entry = <crate::raft::Entry as openraft::entry::RaftEntry>::new(log_id, payload);
    let author =
        format::Author { leader: ottla_base::BrokerId(1), voters: None, now: Timestamp(5) };
    let mut batch = format::encode(&entry, &author).unwrap();
    batch.assign(Offset(0), LeaderEpoch(0));
    Extent {
        id: SnapshotId { end_offset: Offset(147), epoch: LeaderEpoch(1) },
        entries: 90,
        timestamp: Timestamp(1_000),
        origin: Some(batch.header().crc),
        voters: Arc::new(Voters { index: 0, membership, batch }),
    }
}

fn written(extent: &Extent, image: &Image) -> Vec<u8> {
    encode(extent, image).flat_map(|batch| batch.unwrap().to_bytes()).collect()
}

fn read(id: SnapshotId, bytes: &[u8]) -> Result<Contents> {
    let mut reader = Reader::new(id, Image::new("cluster"));
    let mut batches = Batches::new(Bytes::copy_from_slice(bytes));
    for batch in batches.by_ref() {
        reader.take(&batch?)?;
    }
    if !batches.remaining().is_empty() {
        return Err(SnapshotError::Unexpected("it is cut off"));
    }
    reader.finish()
}

/// Topics, and the features that a node supports, are in the order of a hash there.
fn sorted(records: &[(i16, MetadataRecord)]) -> Vec<String> {
    let by_name = |(version, mut record): (i16, MetadataRecord)| {
        if let MetadataRecord::RegisterController(record) = &mut record {
            record.features.sort_by_key(|feature| feature.name.to_string());
        } else if let MetadataRecord::RegisterBroker(record) = &mut record {
            record.features.sort_by_key(|feature| feature.name.to_string());
        }
        format!("{version} {record:?}")
    };
    let mut texts: Vec<String> = records.iter().cloned().map(by_name).collect();
    texts.sort();
    texts
}

#[test]
fn kafkas_records_of_a_cluster_are_ours_in_the_same_versions_and_order() {
    let kafkas = batches(KAFKAS);
    let their_records = metadata_records(&kafkas);
    let image = image_of(&their_records);
    assert_eq!(image.topic_count(), 2);
    let bytes = written(&extent(true), &image);
    let ours = batches(&bytes);
    let our_records = metadata_records(&ours);
    assert_eq!(sorted(&our_records), sorted(&their_records));
    let names = |records: &[(i16, MetadataRecord)]| {
        let mut names: Vec<_> = records.iter().map(|(_, record)| record.name()).collect();
        names.dedup();
        // Which of the two topics comes first is not said; both have a partition at least.
        names.retain(|name| !["TopicRecord", "PartitionRecord"].contains(name));
        names
    };
    assert_eq!(names(&our_records), names(&their_records));
    let MetadataRecord::FeatureLevel(first) = &their_records[0].1 else { panic!() };
    assert_eq!(&*first.name, "metadata.version");
    assert_eq!(our_records[0], their_records[0]);
    assert_eq!(kinds(&ours), kinds(&kafkas));
}

#[test]
fn a_snapshot_that_kafka_wrote_is_refused_in_so_many_words() {
    let id = extent(true).id;
    let error = read(id, KAFKAS).unwrap_err();
    assert!(matches!(error, SnapshotError::NotUnderstood(_)), "{error}");
    assert!(error.to_string().contains("not written by Ottla"), "{error}");
}

#[test]
fn what_is_written_is_read_back_with_everything_that_openraft_counts() {
    for (by_directory, origin) in [(true, true), (false, false)] {
        let mut extent = extent(by_directory);
        extent.origin = extent.origin.filter(|_| origin);
        let mut image = image_of(&metadata_records(&batches(KAFKAS)));
        let bytes = written(&extent, &image);
        let contents = read(extent.id, &bytes).unwrap();
        (image.offset, image.epoch) = (Offset(146), LeaderEpoch(1));
        assert_eq!(contents.image, image);
        assert_eq!(contents.extent, extent);
        let first = &batches(&bytes)[0];
        assert_eq!(read_header(extent.id, first).unwrap(), extent);
        // Kafka knows voters in snapshots only by their directories.
        assert_eq!(kinds(&batches(&bytes))[0].len(), if by_directory { 3 } else { 1 });
    }
}

#[test]
fn an_empty_image_and_one_of_many_batches_are_snapshots_too() {
    let extent = extent(true);
    let empty = Image::new("cluster");
    assert_eq!(batches(&written(&extent, &empty)).len(), 2);
    assert!(read(extent.id, &written(&extent, &empty)).is_ok());
    let mut large = Image::new("cluster");
    for number in 0..20_000 {
        let record = ConfigRecord {
            resource_type: 32,
            resource_name: format!("group-{number}").into(),
            name: "consumer.session.timeout.ms".into(),
            value: Some("45000".into()),
        };
        large.apply(&record.into()).unwrap();
    }
    let bytes = written(&extent, &large);
    assert!(batches(&bytes).len() > 3);
    assert_eq!(read(extent.id, &bytes).unwrap().image.config_resources().count(), 20_000);
}

#[test]
fn wherever_a_snapshot_is_cut_or_changed_it_is_none() {
    let extent = extent(true);
    let bytes = written(&extent, &image_of(&metadata_records(&batches(KAFKAS))));
    for cut in 0..bytes.len() {
        assert!(read(extent.id, &bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        assert!(read(extent.id, &changed).is_err(), "changed at {at}");
    }
    assert!(read(extent.id, &[&*bytes, &bytes].concat()).is_err(), "twice");
    let other = SnapshotId { epoch: LeaderEpoch(2), ..extent.id };
    assert!(read(other, &bytes).is_err(), "under the name of another epoch");
}
