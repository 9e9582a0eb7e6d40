//! What nodes of one cluster tell each other that Kafka has no message for. Pure.
//!
//! A frame like any other, with a key far above Kafka's, so that both share listeners and connections:
//!
//! | | request | answer |
//! | --- | --- | --- |
//! | length of what follows, int32 | ✓ | ✓ |
//! | key, int16: [`PeerKey`] | ✓ | |
//! | version, int16: 0 | ✓ | |
//! | correlation id, int32 | ✓ | ✓ |
//! | body: its format belongs to the room that sends it | ✓ | ✓ |
//!
//! No answer to ApiVersions names these keys: clients have no use for them.

use bytes::Bytes;

use crate::wire::Encoder;

/// What a body is about, and whose format it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum PeerKey {
    /// A message among the voters of the metadata log (`ottla-quorum`); answered.
    Quorum = 31_000,
    /// How far a follower has its partitions on disk (`ottla-broker`); answered with nothing.
    Flushed = 31_001,
    /// Where a controller stands among those that form a cluster (`ottla-broker`); answered.
    Standing = 31_002,
    /// What a new node must know to join a cluster (`ottla-broker`); answered.
    Joining = 31_003,
}

/// How nodes call themselves in ApiVersions where they talk to each other (KIP-511): where clients and controllers share a
/// listener, they alone are told of what controllers serve.
pub const NODE_SOFTWARE_NAME: &str = "ottla-node";

impl PeerKey {
    const ALL: [Self; 4] = [Self::Quorum, Self::Flushed, Self::Standing, Self::Joining];
}

const VERSION: i16 = 0;

/// A peer's request, read from a frame without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRequest {
    pub key: PeerKey,
    pub correlation_id: i32,
    pub body: Bytes,
}

impl PeerRequest {
    /// The request in a frame, or `None` if the frame is one of Kafka's protocol or of an unknown version.
    #[must_use]
    pub fn decode(frame: &Bytes) -> Option<Self> {
        let (&[k0, k1, v0, v1, c0, c1, c2, c3], _) = frame.split_first_chunk()?;
        let sent = i16::from_be_bytes([k0, k1]);
        let key = PeerKey::ALL.into_iter().find(|key| *key as i16 == sent)?;
        let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
        let known = i16::from_be_bytes([v0, v1]) == VERSION;
        known.then(|| Self { key, correlation_id, body: frame.slice(HEADER_LEN..) })
    }

    /// The whole frame, with its length.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut output = Encoder::with_capacity(4 + HEADER_LEN + self.body.len());
        output.i32(length(HEADER_LEN + self.body.len()));
        output.i16(self.key as i16);
        output.i16(VERSION);
        output.i32(self.correlation_id);
        output.raw(&self.body);
        output.into_bytes()
    }
}

/// Key, version and correlation id.
const HEADER_LEN: usize = 8;

/// The whole frame of an answer, with its length.
#[must_use]
pub fn encode_answer(correlation_id: i32, body: &[u8]) -> Bytes {
    let mut output = Encoder::with_capacity(8 + body.len());
    output.i32(length(4 + body.len()));
    output.i32(correlation_id);
    output.raw(body);
    output.into_bytes()
}

/// The body of an answer, from a frame without its length.
#[must_use]
pub fn answer_body(frame: &Bytes) -> Option<Bytes> {
    (frame.len() >= 4).then(|| frame.slice(4..))
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a node sends its peers less than 2 GiB at once")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiKey;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let body = Bytes::from_static(b"body");
        let sent = PeerRequest { key: PeerKey::Quorum, correlation_id: 7, body };
        let frame = sent.encode();
        assert_eq!(frame.slice(..4), 12_i32.to_be_bytes().as_slice());
        assert_eq!(PeerRequest::decode(&frame.slice(4..)), Some(sent));
    }

    #[test]
    fn a_frame_of_kafkas_protocol_is_none_of_ours() {
        for key in [ApiKey::Produce as i16, ApiKey::Vote as i16] {
            let mut frame = vec![0; 20];
            frame[..2].copy_from_slice(&key.to_be_bytes());
            assert_eq!(PeerRequest::decode(&Bytes::from(frame)), None);
        }
        assert_eq!(PeerRequest::decode(&Bytes::from_static(&[0x79])), None);
    }

    #[test]
    fn kafka_does_not_know_the_keys() {
        for key in PeerKey::ALL {
            assert!(ApiKey::try_from(key as i16).is_err());
        }
    }

    #[test]
    fn an_answer_carries_the_correlation_id_before_its_body() {
        let frame = encode_answer(9, b"yes");
        assert_eq!(frame, [0, 0, 0, 7, 0, 0, 0, 9, b'y', b'e', b's'].as_slice());
        assert_eq!(answer_body(&frame.slice(4..)), Some(Bytes::from_static(b"yes")));
        assert_eq!(answer_body(&frame.slice(..3)), None);
    }
}
