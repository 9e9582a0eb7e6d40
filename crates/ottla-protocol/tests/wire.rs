//! The rules of the layout that no single message shows: varints, nulls, tagged fields, fields that a version lacks.

use bytes::Bytes;
use ottla_protocol::messages::{
    ApiVersionsRequest, DeleteRecordsRequest, FetchRequest, MetadataRequest, ProduceRequest,
    fetch_request, produce_request,
};
use ottla_protocol::wire::Malformed;
use ottla_protocol::{Decoder, EncodeError, Encoder, Message, Records};

fn encoded<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut output = Encoder::new();
    message.encode(&mut output, version)?;
    Ok(output.into_bytes())
}

fn decoded<M: Message>(bytes: &'static [u8], version: i16) -> Result<M, Malformed> {
    let mut input = Decoder::new(Bytes::from_static(bytes));
    M::decode(&mut input, version).map_err(|error| error.what)
}

#[test]
fn varints_carry_seven_bits_a_byte_and_at_most_32_in_all() {
    for (value, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0x80, 1]),
        (300, &[0xac, 2]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let mut output = Encoder::new();
        output.unsigned_varint(value);
        let written = output.into_bytes();
        assert_eq!(written, bytes);
        assert_eq!(Decoder::new(written).unsigned_varint(), Ok(value));
    }
    for too_long in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
        let mut input = Decoder::new(Bytes::copy_from_slice(too_long));
        assert_eq!(input.unsigned_varint(), Err(Malformed::Varint));
    }
}

#[test]
fn a_field_that_the_version_lacks_must_have_its_default_unless_it_is_ignorable() {
    let replica = FetchRequest { replica_id: 3, ..Default::default() };
    assert!(encoded(&replica, 14).is_ok());
    let error = encoded(&replica, 15).unwrap_err();
    assert_eq!(error, EncodeError::FieldNotInVersion { field: "replica_id", version: 15 });

    let rack = FetchRequest { rack_id: "a".into(), ..Default::default() };
    assert_eq!(encoded(&rack, 10), encoded(&FetchRequest::default(), 10), "rack_id is ignorable");
}

#[test]
fn a_tagged_field_before_its_version_is_a_field_that_the_version_lacks() {
    let request = FetchRequest {
        replica_state: fetch_request::ReplicaState { replica_id: 1, replica_epoch: 1 },
        ..Default::default()
    };
    assert!(encoded(&request, 15).is_ok());
    for version in [11, 14] {
        let error = encoded(&request, version).unwrap_err();
        assert_eq!(error, EncodeError::FieldNotInVersion { field: "replica_state", version });
    }
}

#[test]
fn null_is_refused_both_ways_in_a_version_that_cannot_say_it() {
    let all_topics = MetadataRequest { topics: None, ..Default::default() };
    assert!(encoded(&all_topics, 1).is_ok());
    let error = encoded(&all_topics, 0).unwrap_err();
    assert_eq!(error, EncodeError::NullNotInVersion { field: "topics", version: 0 });

    assert_eq!(decoded::<MetadataRequest>(&[0xff; 4], 0), Err(Malformed::UnexpectedNull));
    assert_eq!(decoded::<MetadataRequest>(&[0xff; 4], 1).unwrap().topics, None);
}

#[test]
fn a_count_is_compared_with_what_is_left_before_anything_is_read() {
    let result = decoded::<DeleteRecordsRequest>(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], 0);
    assert_eq!(result, Err(Malformed::TooManyElements { count: 0x7fff_ffff, left: 4 }));
}

#[test]
fn the_length_of_a_tagged_field_counts_only_where_the_field_is_unknown() {
    // FetchRequest 12 has the cluster id as tag 0, and no tag 9; Apache Kafka, too, believes only the second length.
    let mut bytes = encoded(&FetchRequest::default(), 12).unwrap().to_vec();
    assert_eq!(bytes.pop(), Some(0), "no tagged fields");
    let known = [&bytes[..], &[2, 0, 100, 2, b'a', 9, 1, b'x']].concat();
    let request = FetchRequest::decode(&mut Decoder::new(known.into()), 12).unwrap();
    assert_eq!(request.cluster_id, Some("a".into()));

    bytes.extend([2, 0, 2, 2, b'a', 9, 100, b'x']);
    let error = FetchRequest::decode(&mut Decoder::new(bytes.into()), 12).unwrap_err();
    assert_eq!(error.what, Malformed::Truncated { needed: 100, left: 1 });
    assert!(error.to_string().starts_with("FetchRequest version 12: "), "{error}");
}

#[test]
fn a_compact_length_beyond_two_gigabytes_is_negative_and_means_null() {
    let mut input = Decoder::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]));
    assert_eq!(input.nullable_bytes(true).unwrap(), None);
    let mut input = Decoder::new(Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x08]));
    let needed = 0x7fff_ffff;
    assert_eq!(input.nullable_bytes(true), Err(Malformed::Truncated { needed, left: 0 }));
}

#[test]
fn a_text_longer_than_32767_bytes_cannot_be_written() {
    let request =
        ApiVersionsRequest { client_software_name: "x".repeat(32768).into(), ..Default::default() };
    assert_eq!(encoded(&request, 3), Err(EncodeError::TooLong(32768)));
}

#[test]
fn what_is_decoded_shares_the_frame() {
    let request = ProduceRequest {
        topic_data: vec![produce_request::TopicProduceData {
            name: "topic".into(),
            partition_data: vec![produce_request::PartitionProduceData {
                index: 0,
                records: Some(Records::Bytes(Bytes::from_static(b"a batch"))),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let frame = encoded(&request, 9).unwrap();
    let read = ProduceRequest::decode(&mut Decoder::new(frame.clone()), 9).unwrap();
    let records = read.topic_data[0].partition_data[0].records.as_ref().unwrap().bytes().unwrap();
    let inside = frame.as_ptr_range();
    assert!(
        inside.contains(&records.as_ptr()) && inside.contains(&read.topic_data[0].name.as_ptr())
    );
}
