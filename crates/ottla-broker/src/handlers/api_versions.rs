//! ApiVersions (key 18), versions 0–4: what is served on this listener, and the cluster's features.
//!
//! - The answer's header is always version 0, so that a client of any age can read it.
//! - An unknown version gets a version 0 answer with UNSUPPORTED_VERSION and this API's own range.
//! - v3: client software name and version, which must fit a pattern (else INVALID_REQUEST).
//! - A listener that serves clients and controllers names to clients what a broker's does, and to nodes of the cluster, whose
//!   software has a name of its own, what controllers serve as well.
//! - Before v4 a supported feature with lowest level 0 is left out (KAFKA-17492).
//! - Among the features is the quorum's own, `kraft.version`, whose level is in its log and not in the image.

use ottla_base::ErrorCode;
use ottla_metadata::feature;
use ottla_protocol::ApiKey;
use ottla_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::peer::NODE_SOFTWARE_NAME;

use super::{Context, told};
use crate::answer::Outcome;

pub(super) fn handle(context: &Context, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.version >= 3
        && !(is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version))
    {
        let error_code = ErrorCode::INVALID_REQUEST;
        return ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() };
    }
    let image = context.broker.image();
    let of_quorum = (feature::KRAFT_VERSION, context.broker.quorum.kraft_version());
    let is_node = &*request.client_software_name == NODE_SOFTWARE_NAME;
    ApiVersionsResponse {
        api_keys: told(&context.listener, is_node).map(|(key, _)| advertised(key)).collect(),
        supported_features: feature::supported()
            .chain([(feature::KRAFT_VERSION, feature::KRAFT_VERSION_LEVELS)])
            .filter(|(_, levels)| context.version >= 4 || levels.min > 0)
            .map(|(name, levels)| SupportedFeatureKey {
                name: name.into(),
                min_version: levels.min,
                max_version: levels.max,
            })
            .collect(),
        finalized_features_epoch: image.offset.0,
        finalized_features: image
            .features()
            .chain([of_quorum])
            .filter(|(_, level)| *level > 0)
            .map(|(name, level)| FinalizedFeatureKey {
                name: name.into(),
                max_version_level: level,
                min_version_level: level,
            })
            .collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Answers a version that we do not know, in version 0, which every client understands.
pub(super) fn unsupported_version(mut context: Context) -> Outcome {
    context.version = 0;
    context.answer(&ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: vec![advertised(ApiKey::ApiVersions)],
        ..ApiVersionsResponse::default()
    })
}

fn advertised(api_key: ApiKey) -> ApiVersion {
    let versions = api_key.stable_versions();
    // Produce 0–2 are gone, but clients built on librdkafka before 2.8 take the compression codecs
    // that a broker knows from the lowest version that it advertises (KAFKA-18659).
    let min_version = if api_key == ApiKey::Produce { 0 } else { *versions.start() };
    ApiVersion { api_key: api_key as i16, min_version, max_version: *versions.end() }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_fit_the_pattern_of_kip_511() {
        for good in ["a", "apache-kafka-java", "4.3.1", "v1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", ".", "ü"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
