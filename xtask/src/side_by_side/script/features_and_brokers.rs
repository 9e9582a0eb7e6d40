//! Levels of features, and brokers that are to be forgotten.

use anyhow::Result;
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::{UnregisterBrokerRequest, UpdateFeaturesRequest};

use super::super::both::Both;
use super::versions;

/// Before that there is no word for a downgrade that may lose something, and no check without a change.
const TYPES_SINCE: i16 = 1;

pub(super) fn run(both: &mut Both) -> Result<()> {
    ask_all(both)?;
    both.through_controllers(ask_all)
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<UpdateFeaturesRequest>() {
        features(both, version)?;
    }
    for version in versions::<UnregisterBrokerRequest>() {
        for broker_id in [2, 0, -1, i32::MAX] {
            both.ask(version, &format!("broker {broker_id}"), |_| UnregisterBrokerRequest {
                broker_id,
            })?;
        }
    }
    Ok(())
}

fn features(both: &mut Both, version: i16) -> Result<()> {
    const METADATA: &str = "metadata.version";
    let types = if version < TYPES_SINCE { &[1][..] } else { &[1, 2, 3, 0, 4, -1] };
    for level in [30, 29, 31, 99, 0, -1, 6, 7, i16::MIN, i16::MAX] {
        for upgrade_type in types {
            ask(both, version, &[(METADATA, level, *upgrade_type)])?;
        }
    }
    for (feature, level) in [("no.such", 1), ("no.such", 0), ("no.such", -1), ("", 1)] {
        ask(both, version, &[(feature, level, 1)])?;
    }
    ask(both, version, &[(METADATA, 30, 1), ("no.such", 1, 1)])?;
    ask(both, version, &[(METADATA, 30, 1), (METADATA, 30, 1)])?;
    ask(both, version, &[])
}

fn ask(both: &mut Both, version: i16, updates: &[(&str, i16, i8)]) -> Result<()> {
    let update = |(feature, level, upgrade_type): &(&str, i16, i8)| FeatureUpdateKey {
        feature: (*feature).into(),
        max_version_level: *level,
        upgrade_type: *upgrade_type,
        ..Default::default()
    };
    for validate_only in [true, false].into_iter().filter(|check| version >= TYPES_SINCE || !check)
    {
        let request = UpdateFeaturesRequest {
            timeout_ms: 10_000,
            feature_updates: updates.iter().map(update).collect(),
            validate_only,
        };
        let what = format!("{updates:?}, checked only: {validate_only}");
        both.ask(version, &what, |_| request.clone())?;
    }
    Ok(())
}
