//! Registration of brokers and controllers. Pure.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_protocol::messages::{BrokerRegistrationRequest, ControllerRegistrationRequest};
use ottla_protocol::messages::{broker_registration_request, controller_registration_request};
use ottla_protocol::records::{
    RegisterBrokerRecord, RegisterControllerRecord, register_broker_record,
    register_controller_record,
};

use super::draft::Draft;
use super::fencing::{self, partitions};
use super::{Outcome, Policy, Rejection};
use crate::feature::{self, SupportedLevels};
use crate::image::{Broker, Image, Partition};

/// What a broker must name in its requests from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerEpoch(pub i64);

/// Takes a broker into the cluster, fenced. A new incarnation gets `new_epoch`, which must be the offset of the first
/// record. It leaves every ISR in which somebody else is, and leads nothing: whatever it held in memory is gone.
///
/// A broker none of whose log directories is left has lost all its logs. Where others have the data it begins anew;
/// where it was the last one in the ISR it stays there, in [`Uuid::LOST_DIR`], and is never elected from it: an empty
/// log would pass for the one that is lost.
///
/// Whether another process under the same id is still alive is for [`Liveness`](super::Liveness) to know.
///
/// With eligible leader replicas it matters how the process before this one ended (KIP-966). If the request names that
/// one's epoch, it ended cleanly, and everything is on its disks; else nobody relies on what it has. The same goes for
/// what was in a directory that is missing now.
///
/// # Errors
/// INCONSISTENT_CLUSTER_ID, INVALID_REGISTRATION, UNSUPPORTED_VERSION, BROKER_ID_NOT_REGISTERED
pub fn register_broker(
    image: &Image,
    policy: &Policy,
    request: &BrokerRegistrationRequest,
    new_epoch: i64,
) -> Result<Outcome<BrokerEpoch>, Rejection> {
    check_cluster(image, &request.cluster_id)?;
    if request.is_migrating_zk_broker {
        let message = "Controller does not support registering ZK brokers.";
        return Err(Rejection::new(ErrorCode::BROKER_ID_NOT_REGISTERED, message));
    }
    check_directories(image, request)?;
    check_features(image, request)?;
    let id = BrokerId(request.broker_id);
    let existing = image.broker(id);
    let amended = existing.filter(|existing| existing.incarnation_id == request.incarnation_id);
    let epoch = amended.map_or(new_epoch, |existing| existing.epoch);
    let mut draft = Draft::on(image);
    draft.push(register_broker_record(request, epoch, amended));
    if amended.is_none() {
        if has_lost_all(image, id, &request.log_dirs) {
            fencing::lose_logs(&mut draft, policy, id);
        } else {
            if image.has_eligible_leader_replicas() {
                let was_clean =
                    existing.is_some_and(|it| it.epoch == request.previous_broker_epoch);
                let is_there = |partition: &Partition| {
                    partition.directory_of(id).is_some_and(|it| request.log_dirs.contains(&it))
                };
                fencing::doubt(&mut draft, policy, id, |it| !was_clean || !is_there(it));
            }
            fencing::leave(&mut draft, policy, id);
        }
    }
    Ok(Outcome { records: draft.records, reply: BrokerEpoch(epoch) })
}

/// Whether the broker had directories, and none of them is among these. What it had tell its registration, if it has
/// one, and its replicas.
fn has_lost_all(image: &Image, id: BrokerId, directories: &[Uuid]) -> bool {
    let registered = image.broker(id).into_iter().flat_map(|broker| broker.directories.clone());
    let assigned = partitions(image).filter_map(|(_, _, partition)| partition.directory_of(id));
    let assigned = assigned.filter(|directory| !is_reserved(*directory));
    let mut before = registered.chain(assigned).peekable();
    before.peek().is_some() && !before.any(|directory| directories.contains(&directory))
}

fn register_broker_record(
    request: &BrokerRegistrationRequest,
    epoch: i64,
    amended: Option<&Broker>,
) -> RegisterBrokerRecord {
    let endpoint =
        |it: &broker_registration_request::Listener| register_broker_record::BrokerEndpoint {
            name: it.name.clone(),
            host: it.host.clone(),
            port: it.port,
            security_protocol: it.security_protocol,
        };
    let feature =
        |it: &broker_registration_request::Feature| register_broker_record::BrokerFeature {
            name: it.name.clone(),
            min_supported_version: it.min_supported_version,
            max_supported_version: it.max_supported_version,
        };
    RegisterBrokerRecord {
        broker_id: request.broker_id,
        is_migrating_zk_broker: false,
        incarnation_id: request.incarnation_id,
        broker_epoch: epoch,
        end_points: request.listeners.iter().map(endpoint).collect(),
        features: request.features.iter().map(feature).collect(),
        rack: request.rack.clone(),
        fenced: amended.is_none_or(|existing| existing.fenced),
        in_controlled_shutdown: amended.is_some_and(|existing| existing.in_controlled_shutdown),
        log_dirs: request.log_dirs.clone(),
        cordoned_log_dirs: None,
    }
}

/// Notes a controller's listeners, so that brokers can tell where it is.
///
/// # Errors
/// UNSUPPORTED_VERSION if it does not understand what is finalized.
pub fn register_controller(
    image: &Image,
    request: &ControllerRegistrationRequest,
) -> Result<Outcome<()>, Rejection> {
    let features = request.features.iter();
    let features: Vec<(&str, SupportedLevels)> = features
        .map(|it| (&*it.name, levels(it.min_supported_version, it.max_supported_version)))
        .collect();
    check_levels(image, "controller", &features)?;
    let endpoint = |it: &controller_registration_request::Listener| {
        register_controller_record::ControllerEndpoint {
            name: it.name.clone(),
            host: it.host.clone(),
            port: it.port,
            security_protocol: it.security_protocol,
        }
    };
    let feature = |it: &controller_registration_request::Feature| {
        register_controller_record::ControllerFeature {
            name: it.name.clone(),
            min_supported_version: it.min_supported_version,
            max_supported_version: it.max_supported_version,
        }
    };
    let record = RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        zk_migration_ready: false,
        end_points: request.listeners.iter().map(endpoint).collect(),
        features: request.features.iter().map(feature).collect(),
    };
    Ok(Outcome { records: vec![record.into()], reply: () })
}

/// Lets a registered broker lead and be seen. Only tests use it: brokers ask by heartbeats, and
/// [`Liveness`](super::Liveness) sees to it that they know the cluster before.
///
/// # Errors
/// STALE_BROKER_EPOCH
pub fn unfence_broker(
    image: &Image,
    policy: &Policy,
    id: BrokerId,
    epoch: i64,
) -> Result<Outcome<()>, Rejection> {
    check_epoch(image, id, epoch)?;
    let mut draft = Draft::on(image);
    fencing::unfence(&mut draft, policy, id);
    Ok(Outcome { records: draft.records, reply: () })
}

/// The registration of a broker that names its present epoch.
pub(super) fn check_epoch(image: &Image, id: BrokerId, epoch: i64) -> Result<&Broker, Rejection> {
    let stale = |message: String| Rejection::new(ErrorCode::STALE_BROKER_EPOCH, message);
    let broker = image
        .broker(id)
        .ok_or_else(|| stale(format!("No broker registration found for broker id {id}")))?;
    if broker.epoch == epoch {
        Ok(broker)
    } else {
        let expected = broker.epoch;
        Err(stale(format!("Expected broker epoch {expected}, but got broker epoch {epoch}")))
    }
}

pub(super) fn check_cluster(image: &Image, cluster_id: &str) -> Result<(), Rejection> {
    let expected = &image.cluster_id;
    if **expected == *cluster_id {
        return Ok(());
    }
    Err(Rejection::new(
        ErrorCode::INCONSISTENT_CLUSTER_ID,
        format!("Expected cluster ID {expected}, but got cluster ID {cluster_id}"),
    ))
}

fn invalid_registration(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::INVALID_REGISTRATION, message)
}

fn check_directories(image: &Image, request: &BrokerRegistrationRequest) -> Result<(), Rejection> {
    let directories = &request.log_dirs;
    if directories.is_empty() {
        return Err(invalid_registration("No directories specified in request"));
    }
    if directories.iter().any(|directory| is_reserved(*directory)) {
        return Err(invalid_registration("Reserved directory ID in request"));
    }
    let distinct: BTreeSet<_> = directories.iter().collect();
    if distinct.len() < directories.len() {
        return Err(invalid_registration("Duplicate directory ID in request"));
    }
    let others = image.brokers().filter(|broker| broker.id.0 != request.broker_id);
    for other in others {
        if let Some(directory) = directories.iter().find(|it| other.directories.contains(it)) {
            let message =
                format!("Broker {} is already registered with directory {directory}", other.id);
            return Err(invalid_registration(message));
        }
    }
    Ok(())
}

/// Kafka keeps the first hundred identifiers for purposes of its own.
fn is_reserved(directory: Uuid) -> bool {
    u128::from_be_bytes(directory.0) < 100
}

fn check_features(image: &Image, request: &BrokerRegistrationRequest) -> Result<(), Rejection> {
    if !request.features.iter().any(|it| &*it.name == feature::METADATA_VERSION) {
        return Err(invalid_registration(format!(
            "Request features do not contain '{}'",
            feature::METADATA_VERSION
        )));
    }
    let features = request.features.iter();
    let features: Vec<(&str, SupportedLevels)> = features
        .map(|it| (&*it.name, levels(it.min_supported_version, it.max_supported_version)))
        .collect();
    check_levels(image, "broker", &features)
}

const fn levels(min: i16, max: i16) -> SupportedLevels {
    SupportedLevels { min, max }
}

/// A node must understand every finalized level; a feature that it does not name is at 0 there.
fn check_levels(
    image: &Image,
    who: &str,
    features: &[(&str, SupportedLevels)],
) -> Result<(), Rejection> {
    for (name, levels) in features {
        check_level(who, name, *levels, image.feature(name).unwrap_or(0))?;
    }
    let is_named = |name: &str| features.iter().any(|(known, _)| *known == name);
    for (name, level) in image.features().filter(|(name, _)| !is_named(name)) {
        check_level(who, name, SupportedLevels::NONE, level)?;
    }
    Ok(())
}

fn check_level(
    who: &str,
    name: &str,
    levels: SupportedLevels,
    finalized: i16,
) -> Result<(), Rejection> {
    if levels.contains(finalized) {
        return Ok(());
    }
    let SupportedLevels { min, max } = levels;
    Err(Rejection::new(
        ErrorCode::UNSUPPORTED_VERSION,
        format!(
            "Unable to register because the {who} does not support finalized version {finalized} of \
             {name}. The {who} wants a version between {min} and {max}, inclusive."
        ),
    ))
}

#[cfg(test)]
pub(crate) mod tests;
