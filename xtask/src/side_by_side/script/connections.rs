//! What is no request at all, or one that nobody serves: both brokers hang up, or answer the same.

use anyhow::Result;
use ottla_protocol::messages::MetadataRequest;
use ottla_protocol::{ApiKey, Encoder, Message as _};

use super::super::both::Both;
use super::super::connection::{Connection, Reply};

/// The TLS hello of a client that was told the wrong port.
const TLS_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x03];

pub(super) fn run(both: &mut Both) -> Result<()> {
    garbage(both)?;
    lengths(both)?;
    headers(both)?;
    bodies(both)?;
    Ok(())
}

fn say(both: &mut Both, what: &str, bytes: &[u8]) -> Result<()> {
    both.talk(&format!("connection: {what}"), |_, connection| {
        connection.send(bytes);
        Ok(vec![kind(&connection.receive()?)])
    })
}

/// Says something that is not whole, and that nothing more will come.
fn say_and_stop(both: &mut Both, what: &str, bytes: &[u8]) -> Result<()> {
    both.talk(&format!("connection: {what}"), |_, connection| {
        connection.send(bytes);
        connection.finish_sending();
        Ok(vec![kind(&connection.receive()?)])
    })
}

fn garbage(both: &mut Both) -> Result<()> {
    say(both, "an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    say_and_stop(both, "a TLS hello", TLS_HELLO)?;
    say(both, "bytes of all ones", &[0xff; 64])?;
    say_and_stop(both, "nothing", b"")?;
    say_and_stop(both, "half a length", &[0, 0])?;
    say_and_stop(both, "a length and no frame", &[0, 0, 0, 16])?;
    Ok(())
}

fn lengths(both: &mut Both) -> Result<()> {
    for length in [-1, i32::MIN, i32::MAX, 104_857_601] {
        say(both, &format!("a frame of {length} bytes"), &length.to_be_bytes())?;
    }
    say(both, "an empty frame", &[0, 0, 0, 0])?;
    for length in 1_u8..8 {
        let frame = [
            &[0, 0, 0, length][..],
            [0, 18, 0, 0, 0, 0, 0].get(..usize::from(length)).unwrap_or_default(),
        ];
        say(both, &format!("a frame of {length} bytes, less than a header"), &frame.concat())?;
    }
    Ok(())
}

fn headers(both: &mut Both) -> Result<()> {
    for key in [-1, 4, 7, 93, 1000, i16::MAX, i16::MIN] {
        say(both, &format!("the unknown API key {key}"), &frame(key, 0, 1, &[]))?;
    }
    // What only controllers serve.
    for api in [ApiKey::Vote, ApiKey::BrokerRegistration, ApiKey::AllocateProducerIds] {
        say(both, &format!("{api}, which is for controllers"), &frame(api.key(), 0, 2, &[0; 8]))?;
    }
    for api in SERVED {
        let (lowest, highest) = (*api.versions().start(), *api.versions().end());
        let below = (0..lowest).chain([-1]);
        for version in below.chain([highest + 1, i16::MAX]) {
            let header = api.request_header_version(version);
            let bytes = frame(api.key(), version, header, &[0; 16]);
            say(both, &format!("{api} v{version}, which is not served"), &bytes)?;
        }
    }
    let length = |bytes: &[u8]| {
        let prefix = i32::try_from(bytes.len()).expect("a short frame").to_be_bytes();
        [&prefix[..], bytes].concat()
    };
    let client = |length_of_client: &[u8]| {
        length(&[&[0, 18, 0, 0, 0, 0, 0, 9][..], length_of_client].concat())
    };
    say(both, "a client id that is longer than the frame", &client(&[0x7f, 0xff]))?;
    say(both, "a client id of length -2", &client(&[0xff, 0xfe]))?;
    say(both, "no client id", &client(&[0xff, 0xff]))?;
    say(both, "a client id that is no text", &client(&[0, 2, 0xc3, 0x28]))?;
    Ok(())
}

/// All but ApiVersions, which answers in every version.
const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::FindCoordinator,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::InitProducerId,
    ApiKey::DescribeCluster,
    ApiKey::DescribeTopicPartitions,
];

fn bodies(both: &mut Both) -> Result<()> {
    let metadata = metadata_of_none();
    let answered = |connection: &mut Connection| Ok(vec![kind(&connection.receive()?)]);
    both.talk("connection: bytes behind a request", |_, connection| {
        connection.send(&frame(3, 1, 1, &[&metadata[..], &[1, 2, 3]].concat()));
        answered(connection)
    })?;
    both.talk("connection: a request without its last byte", |_, connection| {
        connection.send(&frame(3, 1, 1, metadata.split_last().map_or(&[], |(_, rest)| rest)));
        answered(connection)
    })?;
    say(both, "a list that is longer than the frame", &frame(3, 1, 1, &i32::MAX.to_be_bytes()))?;
    say(both, "a list of length -2", &frame(3, 1, 1, &(-2_i32).to_be_bytes()))?;
    say(both, "a text that is longer than the frame", &frame(3, 1, 1, &[0, 0, 0, 1, 0x7f, 0xff]))?;
    say(both, "null for a text that can't be null", &frame(3, 1, 1, &[0, 0, 0, 1, 0xff, 0xff]))?;
    say(both, "a text that is no text", &frame(3, 1, 1, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28]))?;
    say(both, "a compact list that is longer than the frame", &frame(3, 9, 2, &[0xff; 5]))?;
    say(both, "a varint that does not end", &frame(3, 9, 2, &[0x80; 12]))?;
    both.talk("connection: two requests at once", |_, connection| {
        let request = frame(3, 1, 1, &metadata);
        connection.send(&[&request[..], &request[..]].concat());
        Ok(kinds(&[connection.receive()?, connection.receive()?]))
    })?;
    both.talk("connection: a request in single bytes", |_, connection| {
        for byte in frame(3, 1, 1, &metadata) {
            connection.send(&[byte]);
        }
        answered(connection)
    })?;
    both.talk("connection: a good request, then a bad one", |_, connection| {
        let bad = frame(1000, 0, 1, &[]);
        connection.send(&frame(3, 1, 1, &metadata));
        let answer = connection.receive()?;
        connection.send(&bad);
        Ok(kinds(&[answer, connection.receive()?]))
    })
}

fn kinds(replies: &[Reply]) -> Vec<Reply> {
    replies.iter().map(kind).collect()
}

/// Answers hold ports and ids: sometimes it only matters whether there is one.
pub(super) fn kind(reply: &Reply) -> Reply {
    match reply {
        Reply::Frame(_) => Reply::Frame(bytes::Bytes::from_static(b"an answer")),
        Reply::Closed => Reply::Closed,
        Reply::Nothing => Reply::Nothing,
    }
}

/// The body of Metadata v1 for no topic.
fn metadata_of_none() -> Vec<u8> {
    let mut body = Encoder::new();
    let request = MetadataRequest {
        topics: Some(Vec::new()),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    request.encode(&mut body, 1).expect("version 1 has all that is set");
    body.into_bytes().to_vec()
}

fn frame(key: i16, version: i16, header_version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Encoder::new();
    let begin = frame.begin_frame();
    let header = ottla_protocol::header::RequestHeader {
        request_api_key: key,
        request_api_version: version,
        correlation_id: 5,
        client_id: Some("odd".into()),
    };
    header.encode(&mut frame, header_version).expect("every header can be written");
    frame.raw(body);
    frame.end_frame(begin).expect("a short frame has a length");
    frame.into_bytes().to_vec()
}
