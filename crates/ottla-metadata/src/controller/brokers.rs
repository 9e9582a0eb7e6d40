//! Registration and unfencing of brokers, and who leads what in the meantime. Pure.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_protocol::messages::{BrokerRegistrationRequest, ControllerRegistrationRequest};
use ottla_protocol::messages::{broker_registration_request, controller_registration_request};
use ottla_protocol::records::{
    BrokerRegistrationChangeRecord, PartitionChangeRecord, RegisterBrokerRecord,
    RegisterControllerRecord, register_broker_record, register_controller_record,
};

use super::{Outcome, Rejection};
use crate::MetadataRecord;
use crate::feature::{self, SupportedLevels};
use crate::image::{Broker, Image, Partition, Topic};

/// What a broker must name in its requests from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerEpoch(pub i64);

/// Takes a broker into the cluster, fenced. A new incarnation gets `new_epoch`, which must be
/// larger than all before, and loses its leaderships: whatever it held in memory is gone.
pub fn register_broker(
    image: &Image,
    request: &BrokerRegistrationRequest,
    new_epoch: i64,
) -> Result<Outcome<BrokerEpoch>, Rejection> {
    check_cluster(image, &request.cluster_id)?;
    check_directories(image, request)?;
    check_features(image, request)?;
    let id = BrokerId(request.broker_id);
    let same_incarnation =
        image.broker(id).filter(|existing| existing.incarnation_id == request.incarnation_id);
    let (mut records, epoch) = match same_incarnation {
        Some(existing) => (Vec::new(), existing.epoch),
        None => (give_up_leaderships(image, id), new_epoch),
    };
    records.push(register_broker_record(request, epoch, same_incarnation).into());
    Ok(Outcome { records, reply: BrokerEpoch(epoch) })
}

fn register_broker_record(
    request: &BrokerRegistrationRequest,
    epoch: i64,
    same_incarnation: Option<&Broker>,
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
        fenced: same_incarnation.is_none_or(|existing| existing.fenced),
        in_controlled_shutdown: same_incarnation
            .is_some_and(|existing| existing.in_controlled_shutdown),
        log_dirs: request.log_dirs.clone(),
        cordoned_log_dirs: None,
    }
}

/// Notes a controller's listeners, so that brokers can tell where it is.
#[must_use]
pub fn register_controller(request: &ControllerRegistrationRequest) -> Outcome<()> {
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
    Outcome { records: vec![record.into()], reply: () }
}

/// Lets a broker work that has caught up with the metadata log; it leads again what waited for it.
pub fn unfence_broker(image: &Image, id: BrokerId, epoch: i64) -> Result<Outcome<()>, Rejection> {
    let broker = check_epoch(image, id, epoch)?;
    if !broker.fenced {
        return Ok(Outcome::unchanged(()));
    }
    let unfence = BrokerRegistrationChangeRecord {
        broker_id: id.0,
        broker_epoch: epoch,
        fenced: -1,
        ..Default::default()
    };
    let mut records = vec![unfence.into()];
    let waits_for_it = |it: &Partition| it.leader == BrokerId::NONE && it.is_in_isr(id);
    let leaderless = partitions(image).filter(|(_, _, partition)| waits_for_it(partition));
    records.extend(leaderless.map(|(topic, index, _)| change_leader(topic, index, id, None)));
    Ok(Outcome { records, reply: () })
}

/// A broker that comes back knows nothing of what it led: another member of the ISR leads, or,
/// where there is none, nobody until it is unfenced. Either way a new leader epoch begins.
fn give_up_leaderships(image: &Image, id: BrokerId) -> Vec<MetadataRecord> {
    partitions(image)
        .filter_map(|(topic, index, partition)| give_up(image, id, topic, index, partition))
        .collect()
}

/// Takes a broker out of a partition's ISR, and out of its leadership.
pub(super) fn give_up(
    image: &Image,
    id: BrokerId,
    topic: &Topic,
    index: i32,
    partition: &Partition,
) -> Option<MetadataRecord> {
    if !partition.is_in_isr(id) {
        return None;
    }
    let is_active = |broker: BrokerId| image.broker(broker).is_some_and(Broker::is_active);
    let isr: Vec<BrokerId> = partition.isr.iter().copied().filter(|&it| it != id).collect();
    let successor =
        partition.replicas.iter().copied().find(|&it| isr.contains(&it) && is_active(it));
    // The ISR is never empty: its last member may hold what nobody else does.
    let isr = (!isr.is_empty()).then_some(isr);
    if partition.leader == id {
        let leader = successor.unwrap_or(BrokerId::NONE);
        return Some(change_leader(topic, index, leader, isr));
    }
    let record = PartitionChangeRecord {
        partition_id: index,
        topic_id: topic.id,
        isr: Some(isr?.into_iter().map(|it| it.0).collect()),
        ..Default::default()
    };
    Some(record.into())
}

fn change_leader(
    topic: &Topic,
    partition: i32,
    leader: BrokerId,
    isr: Option<Vec<BrokerId>>,
) -> MetadataRecord {
    PartitionChangeRecord {
        partition_id: partition,
        topic_id: topic.id,
        leader: leader.0,
        isr: isr.map(|isr| isr.into_iter().map(|it| it.0).collect()),
        ..Default::default()
    }
    .into()
}

pub(super) fn partitions(image: &Image) -> impl Iterator<Item = (&Topic, i32, &Partition)> {
    image.topics().flat_map(|topic| {
        topic.partitions().map(move |(index, partition)| (topic, index.0, partition))
    })
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

fn check_cluster(image: &Image, cluster_id: &str) -> Result<(), Rejection> {
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

/// A broker must understand every finalized level; a feature that it does not name is at 0 there.
fn check_features(image: &Image, request: &BrokerRegistrationRequest) -> Result<(), Rejection> {
    if !request.features.iter().any(|it| &*it.name == feature::METADATA_VERSION) {
        return Err(invalid_registration(format!(
            "Request features do not contain '{}'",
            feature::METADATA_VERSION
        )));
    }
    for feature in &request.features {
        let levels = SupportedLevels {
            min: feature.min_supported_version,
            max: feature.max_supported_version,
        };
        check_feature(&feature.name, levels, image.feature(&feature.name).unwrap_or(0))?;
    }
    let unnamed = image
        .features()
        .filter(|(name, _)| !request.features.iter().any(|feature| *feature.name == **name));
    for (name, level) in unnamed {
        check_feature(name, SupportedLevels { min: 0, max: 0 }, level)?;
    }
    Ok(())
}

fn check_feature(name: &str, levels: SupportedLevels, finalized: i16) -> Result<(), Rejection> {
    if levels.contains(finalized) {
        return Ok(());
    }
    let SupportedLevels { min, max } = levels;
    Err(Rejection::new(
        ErrorCode::UNSUPPORTED_VERSION,
        format!(
            "Unable to register because the broker does not support finalized version {finalized} of \
             {name}. The broker wants a version between {min} and {max}, inclusive."
        ),
    ))
}

#[cfg(test)]
pub(crate) mod tests;
