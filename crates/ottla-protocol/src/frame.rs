//! A request or response as it stands on a connection: its length in four bytes, a header, a body.
//!
//! The length is written and read here for what we send; whoever reads a connection splits off frames before it calls
//! [`Incoming::decode`] or [`decode_response`], which take a frame without its length.

use bytes::Bytes;
use bytestring::ByteString;

use crate::api::ApiKey;
use crate::header::{RequestHeader, ResponseHeader};
use crate::wire::{DecodeError, Decoder, EncodeError, Encoder, Gap, Malformed, Message, Request};

/// The header of a request, and the body still to be read.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub api: ApiKey,
    pub header: RequestHeader,
    /// Stands at the first byte of the body.
    pub body: Decoder,
}

impl Incoming {
    /// Reads the header. The version that it names need not be one that we know: the header's own layout is the same
    /// in all versions to come, and ApiVersions is answered in any case.
    ///
    /// # Errors
    /// [`DecodeError`] for an API key that is not in the table, or a header that is cut off or malformed.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let mut body = Decoder::new(frame);
        let api = peek_api(&body).map_err(|what| DecodeError {
            message: RequestHeader::NAME,
            version: 0,
            position: 0,
            what,
        })?;
        let (api, version) = api;
        let header = RequestHeader::decode(&mut body, api.request_header_version(version))?;
        Ok(Self { api, header, body })
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] for a version that is not in the table, or a body that is cut off or malformed. What follows the
    /// message is no error.
    pub fn message<R: Request>(&mut self) -> Result<R, DecodeError> {
        R::decode(&mut self.body, self.header.request_api_version)
    }
}

fn peek_api(frame: &Decoder) -> Result<(ApiKey, i16), Malformed> {
    let mut peek = frame.clone();
    let key = peek.i16()?;
    let api = ApiKey::try_from(key).map_err(|_| Malformed::UnknownKey(key.into()))?;
    Ok((api, peek.i16()?))
}

/// A response ready to be sent: bytes, and the gaps between them that somebody else's bytes fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub bytes: Bytes,
    pub gaps: Vec<Gap>,
    /// The length with the gaps filled.
    pub total_len: usize,
}

/// The whole frame of a response, with its length in front.
///
/// # Errors
/// [`EncodeError`] for a version that the message has not, what that version cannot say, or more than 2 GiB.
pub fn encode_response<M: Message>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &M,
) -> Result<Outgoing, EncodeError> {
    let mut output = Encoder::with_capacity(128);
    let begin = output.begin_frame();
    let header = ResponseHeader { correlation_id };
    header.encode(&mut output, api.response_header_version(version))?;
    response.encode(&mut output, version)?;
    output.end_frame(begin)?;
    let total_len = output.total_len();
    let (bytes, gaps) = output.finish();
    Ok(Outgoing { bytes, gaps, total_len })
}

/// The whole frame of a request, with its length in front.
///
/// # Errors
/// As [`encode_response`].
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<ByteString>,
    request: &R,
) -> Result<Outgoing, EncodeError> {
    let mut output = Encoder::with_capacity(128);
    let begin = output.begin_frame();
    let header = RequestHeader {
        request_api_key: R::KEY.key(),
        request_api_version: version,
        correlation_id,
        client_id,
    };
    header.encode(&mut output, R::KEY.request_header_version(version))?;
    request.encode(&mut output, version)?;
    output.end_frame(begin)?;
    let total_len = output.total_len();
    let (bytes, gaps) = output.finish();
    Ok(Outgoing { bytes, gaps, total_len })
}

/// Reads the response to a request of version `version`.
///
/// # Errors
/// [`DecodeError`] for a version that the response has not, or bytes that are cut off or malformed. What follows the
/// message is no error.
pub fn decode_response<R: Request>(
    frame: Bytes,
    version: i16,
) -> Result<(ResponseHeader, R::Response), DecodeError> {
    let mut input = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut input, R::KEY.response_header_version(version))?;
    let response = R::Response::decode(&mut input, version)?;
    Ok((header, response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ApiVersionsRequest, FetchRequest, FetchResponse, fetch_response};
    use crate::wire::Records;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = FetchRequest { max_wait_ms: 500, ..Default::default() };
        let sent = encode_request(12, 7, Some("me".into()), &request).unwrap();
        assert_eq!(sent.bytes.len(), sent.total_len);
        let (length, frame) = sent.bytes.split_at(4);
        assert_eq!(length, u32::try_from(frame.len()).unwrap().to_be_bytes());

        let mut incoming = Incoming::decode(sent.bytes.slice(4..)).unwrap();
        assert_eq!(incoming.api, ApiKey::Fetch);
        assert_eq!(incoming.header.client_id, Some("me".into()));
        assert_eq!(incoming.message::<FetchRequest>(), Ok(request));
        assert_eq!(incoming.body.finish(), Ok(()));
    }

    #[test]
    fn the_header_of_a_request_from_the_future_is_still_read() {
        let mut sent = Encoder::new();
        sent.raw(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0, 1, 2, 3]);
        let incoming = Incoming::decode(sent.into_bytes()).unwrap();
        assert_eq!(incoming.api, ApiKey::ApiVersions);
        assert_eq!(incoming.header.correlation_id, 5);
        assert_eq!(incoming.header.request_api_version, 99);
    }

    #[test]
    fn the_header_of_a_flexible_request_keeps_the_old_client_id() {
        let sent = encode_request(3, 1, Some("ab".into()), &ApiVersionsRequest::default()).unwrap();
        let expected = [0, 18, 0, 3, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 1, 1, 0];
        assert_eq!(sent.bytes.slice(4..), expected.as_slice());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = Incoming::decode(Bytes::from_static(&[0, 99, 0, 0])).unwrap_err();
        assert_eq!(error.what, Malformed::UnknownKey(99));
    }

    #[test]
    fn deferred_records_leave_a_gap_that_the_length_counts() {
        let partition = |records| fetch_response::PartitionData {
            records: Some(records),
            ..Default::default()
        };
        let response = |records: [Records; 2]| FetchResponse {
            responses: vec![fetch_response::FetchableTopicResponse {
                partitions: records.into_iter().map(partition).collect(),
                ..Default::default()
            }],
            // A tagged field behind the gaps, whose bytes are moved when its length is known.
            node_endpoints: vec![fetch_response::NodeEndpoint {
                host: "a.example".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let sources = [b"first".as_slice(), b"and second".as_slice()];
        let deferred = [0, 1].map(|slot: u32| Records::Deferred {
            slot,
            len: u32::try_from(sources[slot as usize].len()).unwrap(),
        });
        let there = sources.map(|source| Records::Bytes(Bytes::from_static(source)));

        let sent = encode_response(ApiKey::Fetch, 17, 3, &response(deferred)).unwrap();
        let mut filled = Vec::new();
        let mut from = 0;
        for gap in &sent.gaps {
            filled.extend_from_slice(&sent.bytes[from..gap.at]);
            filled.extend_from_slice(sources[gap.slot as usize]);
            from = gap.at;
        }
        filled.extend_from_slice(&sent.bytes[from..]);
        assert_eq!(filled.len(), sent.total_len);
        assert_eq!(filled, encode_response(ApiKey::Fetch, 17, 3, &response(there)).unwrap().bytes);
    }
}
