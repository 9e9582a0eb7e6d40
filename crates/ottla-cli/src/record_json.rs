//! A record as one line of JSON. Pure.
//!
//! Bytes that are UTF-8 are a string; others are base64, and a field beside them says so:
//! `"value":"AP8=","value_encoding":"base64"`. No field is there without a meaning, and null is null.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ottla_client::{ConsumedRecord, TimestampType};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

/// Wraps a record for serde; fields come in the order topic, partition, offset, timestamp, headers, key, value.
#[derive(Debug)]
pub(crate) struct RecordJson<'a> {
    pub(crate) topic: &'a str,
    pub(crate) record: &'a ConsumedRecord,
}

impl Serialize for RecordJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.record.partition)?;
        map.serialize_entry("offset", &self.record.offset)?;
        map.serialize_entry("timestamp", &self.record.timestamp)?;
        map.serialize_entry("timestamp_type", timestamp_type(self.record.timestamp_type))?;
        map.serialize_entry("headers", &Headers(self.record))?;
        entry(&mut map, ["key", "key_encoding"], self.record.key.as_deref())?;
        entry(&mut map, ["value", "value_encoding"], self.record.value.as_deref())?;
        map.end()
    }
}

fn timestamp_type(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// A list rather than an object: header names may repeat, and their order counts.
struct Headers<'a>(&'a ConsumedRecord);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.headers.len()))?;
        for (name, value) in &self.0.headers {
            list.serialize_element(&Header { name, value: value.as_deref() })?;
        }
        list.end()
    }
}

struct Header<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        entry(&mut map, ["value", "value_encoding"], self.value)?;
        map.end()
    }
}

/// The bytes under the first name; the second name appears only when they are not text.
fn entry<M: SerializeMap>(
    map: &mut M,
    [name, encoding]: [&str; 2],
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.serialize_entry(name, &()),
        Some(Ok(text)) => map.serialize_entry(name, text),
        Some(Err(bytes)) => {
            map.serialize_entry(name, &STANDARD.encode(bytes))?;
            map.serialize_entry(encoding, "base64")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;

    pub(crate) fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: 3,
            offset: 42,
            timestamp: 1_767_225_600_000,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(b"k1")),
            value: Some(Bytes::from_static(b"hello")),
            headers: vec![("a".into(), Some(Bytes::from_static(b"1"))), ("b".into(), None)],
        }
    }

    fn json(record: &ConsumedRecord) -> String {
        serde_json::to_string(&RecordJson { topic: "orders", record }).unwrap()
    }

    #[test]
    fn text_is_a_string_and_null_is_null() {
        assert_eq!(
            json(&record()),
            concat!(
                r#"{"topic":"orders","partition":3,"offset":42,"timestamp":1767225600000,"#,
                r#""timestamp_type":"CreateTime","#,
                r#""headers":[{"name":"a","value":"1"},{"name":"b","value":null}],"#,
                r#""key":"k1","value":"hello"}"#
            )
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_base64_and_say_so() {
        let mut record = record();
        record.headers = vec![("h".into(), Some(Bytes::from_static(&[0xff])))];
        record.key = None;
        record.value = Some(Bytes::from_static(&[0, 0xff]));
        assert!(json(&record).ends_with(concat!(
            r#""headers":[{"name":"h","value":"/w==","value_encoding":"base64"}],"#,
            r#""key":null,"value":"AP8=","value_encoding":"base64"}"#
        )));
    }
}
