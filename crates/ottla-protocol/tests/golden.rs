//! Reads what Apache Kafka 4.3.1 wrote, and must write the same bytes; see `golden/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use ottla_protocol::records::{GroupRecord, MetadataRecord, ShareRecord, TransactionRecord};
use ottla_protocol::{ApiKey, Listener};
use support::table;

const GOLDEN: &str = include_str!("golden/kafka-4.3.1.txt");

/// The records of Kafka's plug-in for tiered storage, which have no tables here yet.
fn is_elsewhere(name: &str) -> bool {
    name.starts_with("RemoteLog") || name.starts_with("RemotePartition")
}

fn lines(kind: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let words = GOLDEN.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words.filter(move |words| words[0] == kind).map(|mut words| words.split_off(1))
}

fn unhex(text: &str) -> Bytes {
    if text == "-" {
        return Bytes::new();
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

#[test]
fn what_kafka_wrote_is_read_and_written_again_byte_for_byte() {
    for kind in ["new", "filled", "null"] {
        for line in lines(kind).filter(|line| !is_elsewhere(line[0])) {
            let [name, version, hex] = line[..] else { panic!("{line:?}") };
            let entry = support::find(name).unwrap_or_else(|| panic!("no {name}"));
            let rewritten = (entry.rewrite)(unhex(hex), version.parse().unwrap());
            let rewritten = rewritten.unwrap_or_else(|error| panic!("{line:?}: {error:#}"));
            assert_eq!(rewritten, unhex(hex), "{name} {version}");
        }
    }
}

#[test]
fn every_message_and_version_is_among_what_kafka_wrote() {
    let golden: BTreeSet<_> = lines("filled")
        .filter(|line| !is_elsewhere(line[0]))
        .map(|line| (line[0], line[1].parse::<i16>().unwrap()))
        .collect();
    let ours: BTreeSet<_> = table::ALL
        .iter()
        .flat_map(|entry| entry.versions.clone().map(|version| (entry.name, version)))
        .collect();
    assert_eq!(golden, ours);
}

#[test]
fn a_new_message_has_the_default_values_that_kafka_gives_it() {
    for line in lines("new").filter(|line| !is_elsewhere(line[0])) {
        let [name, version, hex] = line[..] else { panic!("{line:?}") };
        let ours = (support::find(name).unwrap().write_default)(version.parse().unwrap());
        assert_eq!(ours.unwrap(), unhex(hex), "{name} {version}");
    }
}

#[test]
fn the_table_of_apis_is_kafkas() {
    let mut lines = lines("api");
    for api in ApiKey::ALL {
        let headers = |version_of: &dyn Fn(i16) -> i16| {
            let versions: Vec<_> =
                api.versions().map(|version| version_of(version).to_string()).collect();
            versions.join(",")
        };
        let listeners = [(Listener::Broker, "broker"), (Listener::Controller, "controller")];
        let listeners: Vec<_> =
            listeners.iter().filter(|(one, _)| api.is_on(*one)).map(|(_, name)| *name).collect();
        let ours = [
            api.key().to_string(),
            api.name().to_owned(),
            api.versions().start().to_string(),
            api.versions().end().to_string(),
            api.latest_unstable().to_string(),
            listeners.join(","),
            headers(&|version| api.request_header_version(version)),
            headers(&|version| api.response_header_version(version)),
        ];
        assert_eq!(lines.next().as_deref(), Some(&ours.each_ref().map(String::as_str)[..]));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn metadata_records_are_framed_as_kafka_frames_them() {
    let mut keys = BTreeSet::new();
    for line in lines("metadata") {
        let [name, version, hex] = line[..] else { panic!("{line:?}") };
        let (read_version, record) = MetadataRecord::decode(unhex(hex)).unwrap();
        assert_eq!((read_version.to_string(), record.name()), (version.to_owned(), name));
        assert_eq!(record.encode(read_version).unwrap(), unhex(hex), "{name} {version}");
        keys.insert(record.key());
    }
    assert_eq!(keys.len(), 26, "every kind of record");
}

#[test]
fn coordinator_records_are_framed_as_kafka_frames_them() {
    fn check<R: Debug>(
        line: &[&str],
        decode: fn(Bytes, Option<Bytes>) -> Result<R, ottla_protocol::DecodeError>,
        encode: fn(&R, i16) -> Result<(Bytes, Option<Bytes>), ottla_protocol::EncodeError>,
    ) {
        let [_, name, version, key, value] = line[..] else { panic!("{line:?}") };
        let record = decode(unhex(key), Some(unhex(value))).unwrap();
        assert!(format!("{record:?}").starts_with(&format!("{name}(")), "{record:?}");
        let written = encode(&record, version.parse().unwrap()).unwrap();
        assert_eq!(written, (unhex(key), Some(unhex(value))), "{name} {version}");

        let tombstone = decode(unhex(key), None).unwrap();
        assert_eq!(encode(&tombstone, version.parse().unwrap()).unwrap(), (unhex(key), None));
    }
    let mut logs = BTreeSet::new();
    for line in lines("coordinator") {
        logs.insert(line[0]);
        match line[0] {
            "group" => check(&line, GroupRecord::decode, GroupRecord::encode),
            "share" => check(&line, ShareRecord::decode, ShareRecord::encode),
            "transaction" => check(&line, TransactionRecord::decode, TransactionRecord::encode),
            other => panic!("{other}"),
        }
    }
    assert_eq!(logs.len(), 3);
}
