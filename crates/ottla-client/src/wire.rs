//! Requests as frames, and frames as answers. Pure.

use std::sync::Arc;

use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::frame::{decode_response, encode_request};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::{ApiKey, Request};

use crate::address::Address;
use crate::error::ClientError;
use crate::versions::BrokerVersions;

/// Length, header and body of a request.
pub(crate) fn frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Bytes, ClientError> {
    encode_request(version, correlation_id, Some(client_id.into()), request)
        .map(|request| request.bytes)
        .map_err(|source| ClientError::Encode { api: R::KEY, source: Arc::new(source) })
}

/// The number that every answer begins with.
pub(crate) fn correlation_id(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|id| i32::from_be_bytes(*id))
}

/// Header off, then the body.
pub(crate) fn read_answer<R: Request>(
    address: &Address,
    answer: Bytes,
    version: i16,
) -> Result<R::Response, ClientError> {
    decode_response::<R>(answer, version)
        .map(|(_, response)| response)
        .map_err(|error| ClientError::malformed(address, R::KEY, &error))
}

/// An answer to ApiVersions.
#[derive(Debug)]
pub(crate) enum Versions {
    Known(ApiVersionsResponse),
    /// Ask again, in this version.
    TryInstead(i16),
}

/// The one answer that may come in another version than the request's: with error 35 it is in version 0.
pub(crate) fn read_api_versions(
    address: &Address,
    answer: Bytes,
    version: i16,
) -> Result<Versions, ClientError> {
    let code = answer.get(4..6).and_then(|code| code.first_chunk()).copied();
    if code.map(i16::from_be_bytes) == Some(ErrorCode::UNSUPPORTED_VERSION.0) && version > 0 {
        let response = read_answer::<ApiVersionsRequest>(address, answer, 0)?;
        return Ok(Versions::TryInstead(highest_served(&response, version)));
    }
    read_answer::<ApiVersionsRequest>(address, answer, version).map(Versions::Known)
}

/// Old brokers name no range with the error; all of them know version 0.
fn highest_served(response: &ApiVersionsResponse, below: i16) -> i16 {
    let own = ApiKey::ApiVersions.key();
    response
        .api_keys
        .iter()
        .find(|api| api.api_key == own)
        .map_or(0, |api| api.max_version.clamp(0, below - 1))
}

pub(crate) fn broker_versions(
    response: ApiVersionsResponse,
) -> Result<BrokerVersions, ClientError> {
    if response.error_code != ErrorCode::NONE {
        return Err(ClientError::refused(
            "asking for the broker's API versions",
            response.error_code,
        ));
    }
    Ok(BrokerVersions {
        apis: response
            .api_keys
            .into_iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect(),
        finalized_features: response
            .finalized_features
            .into_iter()
            .map(|feature| (feature.name.to_string(), feature.max_version_level))
            .collect(),
    })
}
