//! UpdateFeatures: changes the finalized levels of features, all of a request or none. Pure.
//!
//! A level must be understood by every node that is registered, and every voter must be.
//!
//! This release writes its records in the versions of one `metadata.version`, so that level alone can be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::update_features_response::UpdatableFeatureResult;
use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ottla_protocol::records::FeatureLevelRecord;

use super::{Outcome, Policy, RECORDS_MAX, Rejection, eligible};
use crate::MetadataRecord;
use crate::feature::{self, SupportedLevels};
use crate::image::Image;

/// Where a level may go, under the codes of Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    SafelyDown,
    UnsafelyDown,
    Unknown,
}

impl Direction {
    const fn of(code: i8) -> Self {
        match code {
            1 => Self::Up,
            2 => Self::SafelyDown,
            3 => Self::UnsafelyDown,
            _ => Self::Unknown,
        }
    }
}

/// `voters` elect the controllers' leader, at this `kraft_version`; `version` is the request's: up to version 1 the answer names each feature.
#[must_use]
pub fn update_features(
    image: &Image,
    policy: &Policy,
    voters: &[BrokerId],
    kraft_version: i16,
    request: &UpdateFeaturesRequest,
    version: i16,
) -> Outcome<UpdateFeaturesResponse> {
    // Of a feature named twice the last update counts.
    let updates: BTreeMap<&str, (i16, Direction)> = request
        .feature_updates
        .iter()
        .map(|it| (&*it.feature, (it.max_version_level, Direction::of(it.upgrade_type))))
        .collect();
    let update = |(name, (level, direction)): (&&str, &(i16, Direction))| match *name {
        feature::KRAFT_VERSION => {
            check_kraft_version(policy, kraft_version, *level, *direction).map(|()| Vec::new())
        }
        name => update(image, policy, voters, name, *level, *direction),
    };
    let records = match updates.iter().map(update).collect::<Result<Vec<_>, _>>() {
        Ok(records) => records.concat(),
        Err(Rejection { code, message }) => {
            let message = format!(
                "The update failed for all features since the following feature had an error: {message}"
            );
            return Outcome::unchanged(UpdateFeaturesResponse {
                error_code: code,
                error_message: Some(message.into()),
                ..Default::default()
            });
        }
    };
    // The old form says NONE where the new one says nothing.
    let result = |it: &FeatureUpdateKey| UpdatableFeatureResult {
        feature: it.feature.clone(),
        error_code: ErrorCode::NONE,
        error_message: Some("NONE".into()),
    };
    let results = if version <= 1 {
        request.feature_updates.iter().map(result).collect()
    } else {
        Vec::new()
    };
    Outcome {
        records: if request.validate_only { Vec::new() } else { records },
        reply: UpdateFeaturesResponse { error_message: None, results, ..Default::default() },
    }
}

fn invalid(name: &str, level: i16, reason: &str) -> Rejection {
    let message = format!("Invalid update version {level} for feature {name}. {reason}");
    Rejection::new(ErrorCode::INVALID_UPDATE_VERSION, message)
}

fn update(
    image: &Image,
    policy: &Policy,
    voters: &[BrokerId],
    name: &str,
    level: i16,
    direction: Direction,
) -> Result<Vec<MetadataRecord>, Rejection> {
    check_asked(name, level, direction)?;
    check_supported(image, policy, voters, name, level)?;
    let current = image.feature(name).unwrap_or(0);
    check_direction(name, current, level, direction)?;
    let mut records = match name {
        feature::METADATA_VERSION if level < current => {
            return Err(metadata_downgrade(current, level, direction));
        }
        feature::ELIGIBLE_LEADER_REPLICAS if level > 0 => eligible::begin(image, policy),
        feature::ELIGIBLE_LEADER_REPLICAS => eligible::end(image),
        _ => Vec::new(),
    };
    records.push(FeatureLevelRecord { name: name.into(), feature_level: level }.into());
    if records.len() > RECORDS_MAX {
        return Err(Rejection::too_many_records());
    }
    Ok(records)
}

fn check_asked(name: &str, level: i16, direction: Direction) -> Result<(), Rejection> {
    if direction == Direction::Unknown {
        let reason = "The controller does not support the given upgrade type.";
        return Err(invalid(name, level, reason));
    }
    if level < 0 {
        return Err(invalid(name, level, "A feature version cannot be less than 0."));
    }
    Ok(())
}

fn check_direction(
    name: &str,
    current: i16,
    level: i16,
    direction: Direction,
) -> Result<(), Rejection> {
    if level < current && direction == Direction::Up {
        let reason = "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade.";
        return Err(invalid(name, level, reason));
    }
    if level > current && direction != Direction::Up {
        return Err(invalid(name, level, "Can't downgrade to a newer version."));
    }
    Ok(())
}

/// The quorum's own level, which is that of its log and stays there. Asking for it changes nothing.
fn check_kraft_version(
    policy: &Policy,
    current: i16,
    level: i16,
    direction: Direction,
) -> Result<(), Rejection> {
    let name = feature::KRAFT_VERSION;
    check_asked(name, level, direction)?;
    if let Some(reason) = unsupported(feature::KRAFT_VERSION_LEVELS, level) {
        let controller = policy.node_id;
        return Err(invalid(name, level, &format!("Local controller {controller} {reason}")));
    }
    check_direction(name, current, level, direction)?;
    if level < current {
        return Err(invalid(name, level, "Can't downgrade the version of this feature."));
    }
    if level > current {
        let reason = "This release leaves it at what the cluster was begun with: voters that are known by \
             their configuration stay so.";
        return Err(invalid(name, level, reason));
    }
    Ok(())
}

fn metadata_downgrade(current: i16, level: i16, direction: Direction) -> Rejection {
    let reason = if direction == Direction::UnsafelyDown {
        "Unsafe metadata downgrade is not supported in this version."
    } else {
        "Refusing to perform the requested downgrade because it might delete metadata information."
    };
    let message =
        format!("Unsupported metadata.version downgrade from {current} to {level}. {reason}");
    Rejection::new(ErrorCode::INVALID_UPDATE_VERSION, message)
}

/// Whether everybody understands this level of a feature: this controller, the brokers, the other controllers.
fn check_supported(
    image: &Image,
    policy: &Policy,
    voters: &[BrokerId],
    name: &str,
    level: i16,
) -> Result<(), Rejection> {
    let check = |who: String, levels: SupportedLevels| match unsupported(levels, level) {
        None => Ok(()),
        Some(reason) => Err(invalid(name, level, &format!("{who} {reason}"))),
    };
    check(format!("Local controller {}", policy.node_id), feature::levels_of(name))?;
    if !feature::supported().any(|(known, _)| known == name) {
        return Err(invalid(name, level, &format!("Feature {name} not found.")));
    }
    let of = |features: &BTreeMap<Arc<str>, SupportedLevels>| {
        features.get(name).copied().unwrap_or(SupportedLevels::NONE)
    };
    for broker in image.brokers() {
        check(format!("Broker {}", broker.id), of(&broker.features))?;
    }
    for controller in image.controllers().filter(|it| it.id != policy.node_id.0) {
        check(format!("Controller {}", controller.id), of(&controller.features))?;
    }
    let is_known = |voter: &&BrokerId| {
        **voter == policy.node_id || image.controllers().any(|it| it.id == voter.0)
    };
    match voters.iter().find(|voter| !is_known(voter)) {
        None => Ok(()),
        Some(voter) => {
            let reason =
                format!("controller {voter} has not registered, and may not support this feature");
            Err(invalid(name, level, &reason))
        }
    }
}

fn unsupported(levels: SupportedLevels, level: i16) -> Option<String> {
    let SupportedLevels { min, max } = levels;
    match (levels.contains(level), max) {
        (true, _) => None,
        (false, 0) => Some("does not support this feature.".to_owned()),
        (false, max) if max == min => Some(format!("only supports versions {max}")),
        (false, max) => Some(format!("only supports versions {min}-{max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::image_with_brokers;

    fn key(feature: &str, max_version_level: i16, upgrade_type: i8) -> FeatureUpdateKey {
        FeatureUpdateKey {
            feature: feature.into(),
            max_version_level,
            upgrade_type,
            ..Default::default()
        }
    }

    fn updated(feature_updates: Vec<FeatureUpdateKey>) -> Outcome<UpdateFeaturesResponse> {
        let request = UpdateFeaturesRequest { feature_updates, ..Default::default() };
        update_features(&image_with_brokers(&[1]), &Policy::default(), &[], 1, &request, 1)
    }

    fn refusal(key: FeatureUpdateKey) -> String {
        let outcome = updated(vec![key]);
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.error_code, ErrorCode::INVALID_UPDATE_VERSION);
        outcome.reply.error_message.unwrap().to_string()
    }

    #[test]
    fn the_level_that_there_is_may_be_asked_for_again() {
        let outcome = updated(vec![key("metadata.version", 30, 1)]);
        let record = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 };
        assert_eq!(outcome.records, [record.into()]);
        assert_eq!(outcome.reply.results.len(), 1);
    }

    #[test]
    fn the_metadata_version_does_not_fall() {
        let without_permission = refusal(key("metadata.version", 29, 1));
        assert!(without_permission.contains("without setting the upgrade type"));
        assert!(refusal(key("metadata.version", 29, 2)).contains("downgrade from 30 to 29"));
        assert!(refusal(key("metadata.version", 29, 3)).contains("Unsafe metadata downgrade"));
    }

    #[test]
    fn what_this_release_does_not_have_cannot_be_finalized() {
        assert!(refusal(key("group.version", 1, 1)).contains("does not support this feature"));
        assert!(refusal(key("metadata.version", 31, 1)).contains("only supports versions 7-30"));
        assert!(refusal(key("metadata.version", -1, 1)).contains("cannot be less than 0"));
        assert!(refusal(key("metadata.version", 30, 9)).contains("upgrade type"));
    }

    #[test]
    fn the_kraft_version_may_be_asked_for_where_it_is_and_moves_nowhere() {
        for direction in [1, 2, 3] {
            let outcome = updated(vec![key("kraft.version", 1, direction)]);
            assert_eq!((outcome.reply.error_code, outcome.records), (ErrorCode::NONE, vec![]));
            let supported = "only supports versions 0-1";
            assert!(refusal(key("kraft.version", 2, direction)).contains(supported));
        }
        let without_permission = refusal(key("kraft.version", 0, 1));
        assert!(without_permission.contains("without setting the upgrade type"));
        let downgrade = "Can't downgrade the version of this feature.";
        assert!(refusal(key("kraft.version", 0, 2)).contains(downgrade));
        assert!(refusal(key("kraft.version", 0, 3)).contains(downgrade));
        let request = UpdateFeaturesRequest {
            feature_updates: vec![key("kraft.version", 1, 1)],
            ..Default::default()
        };
        let image = image_with_brokers(&[1]);
        let outcome = update_features(&image, &Policy::default(), &[], 0, &request, 1);
        assert_eq!(outcome.reply.error_code, ErrorCode::INVALID_UPDATE_VERSION);
        assert!(outcome.reply.error_message.unwrap().contains("This release leaves it"));
    }

    #[test]
    fn one_refused_feature_stops_all() {
        let outcome = updated(vec![key("metadata.version", 30, 1), key("no.such", 1, 1)]);
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.results, []);
    }
}
