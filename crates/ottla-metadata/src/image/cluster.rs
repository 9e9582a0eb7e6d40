//! Brokers and controllers of an image, and the records that change them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{BrokerId, Uuid};
use ottla_protocol::records::{
    BrokerRegistrationChangeRecord, RegisterBrokerRecord, RegisterControllerRecord,
    UnregisterBrokerRecord,
};

use super::{ApplyError, Image};
use crate::delta::Delta;
use crate::feature::SupportedLevels;

/// Where a node listens, as it wants to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, such as `PLAINTEXT`.
    pub listener: Arc<str>,
    pub host: Arc<str>,
    pub port: u16,
    /// Kafka's code: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A broker's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    /// New with every start of the process.
    pub incarnation_id: Uuid,
    /// Given by the controller: requests of an older epoch are refused.
    pub epoch: i64,
    pub endpoints: Vec<Endpoint>,
    pub features: BTreeMap<Arc<str>, SupportedLevels>,
    pub rack: Option<Arc<str>>,
    /// A fenced broker leads nothing and is not told to clients.
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub directories: Vec<Uuid>,
    /// Directories that take no new replicas; `None` until the broker says so.
    pub cordoned_directories: Option<Vec<Uuid>>,
}

/// Of a replica that may be of any registration.
pub(crate) const UNKNOWN_EPOCH: i64 = -1;

impl Broker {
    /// Whether it may lead partitions.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a replica may join an ISR that is said to be of this registration; of one that does not say (−1) it may be any.
    /// Whoever restarted since may have lost what its leader counts on (KIP-903).
    #[must_use]
    pub fn may_join_isr(&self, broker_epoch: i64) -> bool {
        self.is_active() && (broker_epoch == UNKNOWN_EPOCH || broker_epoch == self.epoch)
    }

    /// Whether a replica that is said to be in this directory is reachable there, as far as that is known.
    #[must_use]
    pub fn has_online(&self, directory: Uuid) -> bool {
        match directory {
            Uuid::UNASSIGNED_DIR | Uuid::MIGRATING_DIR => true,
            Uuid::LOST_DIR => false,
            // A registration older than directories says nothing of them.
            _ => self.directories.is_empty() || self.directories.contains(&directory),
        }
    }

    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }

    /// Whether a new replica may be put somewhere here.
    #[must_use]
    pub fn has_uncordoned_directory(&self) -> bool {
        let cordoned = self.cordoned_directories.as_deref().unwrap_or_default();
        cordoned.is_empty() || self.directories.iter().any(|it| !cordoned.contains(it))
    }

    /// Where a new replica goes: known at once when there is only one directory.
    #[must_use]
    pub fn default_directory(&self) -> Uuid {
        match *self.directories {
            [] => Uuid::MIGRATING_DIR,
            [directory] => directory,
            [_, ..] => Uuid::UNASSIGNED_DIR,
        }
    }
}

/// A controller's registration (KIP-919).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    pub id: i32,
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    pub features: BTreeMap<Arc<str>, SupportedLevels>,
}

impl Image {
    pub(super) fn apply_register_broker(
        &mut self,
        record: &RegisterBrokerRecord,
        delta: &mut Delta,
    ) {
        let broker = Broker {
            id: BrokerId(record.broker_id),
            incarnation_id: record.incarnation_id,
            epoch: record.broker_epoch,
            endpoints: record
                .end_points
                .iter()
                .map(|it| endpoint(&it.name, &it.host, it.port, it.security_protocol))
                .collect(),
            features: record
                .features
                .iter()
                .map(|it| feature(&it.name, it.min_supported_version, it.max_supported_version))
                .collect(),
            rack: record.rack.as_deref().map(Arc::from),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.log_dirs.clone(),
            cordoned_directories: record.cordoned_log_dirs.clone(),
        };
        delta.brokers.insert(broker.id);
        self.brokers.insert(broker.id, Arc::new(broker));
    }

    pub(super) fn apply_unregister_broker(
        &mut self,
        record: &UnregisterBrokerRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let id = BrokerId(record.broker_id);
        self.broker_mut("UnregisterBrokerRecord", id, record.broker_epoch)?;
        self.brokers.remove(&id);
        delta.brokers.insert(id);
        Ok(())
    }

    pub(super) fn apply_fencing(
        &mut self,
        record: &'static str,
        id: i32,
        epoch: i64,
        fenced: bool,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let broker = self.broker_mut(record, BrokerId(id), epoch)?;
        broker.fenced = fenced;
        delta.brokers.insert(broker.id);
        Ok(())
    }

    pub(super) fn apply_broker_registration_change(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        const NAME: &str = "BrokerRegistrationChangeRecord";
        let invalid =
            |field, value: i8| ApplyError::Value { record: NAME, field, value: i64::from(value) };
        let broker = self.broker_mut(NAME, BrokerId(record.broker_id), record.broker_epoch)?;
        let fenced = match record.fenced {
            0 => broker.fenced,
            1 => true,
            -1 => false,
            other => return Err(invalid("Fenced", other)),
        };
        let in_controlled_shutdown = match record.in_controlled_shutdown {
            0 => broker.in_controlled_shutdown,
            1 => true,
            other => return Err(invalid("InControlledShutdown", other)),
        };
        (broker.fenced, broker.in_controlled_shutdown) = (fenced, in_controlled_shutdown);
        if !record.log_dirs.is_empty() {
            broker.directories.clone_from(&record.log_dirs);
        }
        if record.cordoned_log_dirs.is_some() {
            broker.cordoned_directories.clone_from(&record.cordoned_log_dirs);
        }
        delta.brokers.insert(broker.id);
        Ok(())
    }

    pub(super) fn apply_register_controller(
        &mut self,
        record: &RegisterControllerRecord,
        delta: &mut Delta,
    ) {
        let controller = Controller {
            id: record.controller_id,
            incarnation_id: record.incarnation_id,
            endpoints: record
                .end_points
                .iter()
                .map(|it| endpoint(&it.name, &it.host, it.port, it.security_protocol))
                .collect(),
            features: record
                .features
                .iter()
                .map(|it| feature(&it.name, it.min_supported_version, it.max_supported_version))
                .collect(),
        };
        delta.controllers.insert(controller.id);
        self.controllers.insert(controller.id, Arc::new(controller));
    }

    fn broker_mut(
        &mut self,
        record: &'static str,
        id: BrokerId,
        epoch: i64,
    ) -> Result<&mut Broker, ApplyError> {
        let broker = self.brokers.get_mut(&id).filter(|broker| broker.epoch == epoch);
        let broker = broker.ok_or(ApplyError::NoBroker { record, broker: id, epoch })?;
        Ok(Arc::make_mut(broker))
    }
}

fn endpoint(listener: &str, host: &str, port: u16, security_protocol: i16) -> Endpoint {
    Endpoint { listener: listener.into(), host: host.into(), port, security_protocol }
}

fn feature(name: &str, min: i16, max: i16) -> (Arc<str>, SupportedLevels) {
    (name.into(), SupportedLevels { min, max })
}
