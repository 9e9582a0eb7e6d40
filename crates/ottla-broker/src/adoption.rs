//! Topics that their operator wants served from directories which another broker wrote (`ottla topic adopt`; docs/decisions/015-adoption.md). Shell.
//!
//! Done at a start, before anything without a topic is set aside. The controller's decision makes a topic known with
//! all of its partitions or not at all; only then is the wish removed. A topic that cannot be adopted is reported, and
//! set aside like anything else that nobody owns.

use std::sync::Arc;

use ottla_base::{LeaderEpoch, PartitionIndex, ProducerId, TopicPartition};
use ottla_log::adopt::Adoption;
use ottla_log::{Log, LogDirectory};
use ottla_metadata::controller;
use ottla_quorum::Quorum;
use tracing::{error, info};

use crate::broker::Registration;
use crate::log_directories::LogDirectories;

/// Adopts what waits for it.
///
/// # Errors
/// When the controller is gone, or a directory cannot be read.
pub(crate) async fn adopt_all(
    broker: &Registration,
    directories: &LogDirectories,
    quorum: &Quorum,
) -> anyhow::Result<()> {
    for member in directories.members() {
        for adoption in member.directory.adoptions()? {
            adopt(broker, &member.directory, quorum, &adoption).await?;
        }
    }
    Ok(())
}

async fn adopt(
    broker: &Registration,
    directory: &LogDirectory,
    quorum: &Quorum,
    adoption: &Adoption,
) -> anyhow::Result<()> {
    let (topic, id) = (&adoption.topic, adoption.topic_id);
    if quorum.image().topic(id).is_some_and(|known| *known.name == **topic) {
        // A crash came between the decision and this.
        return Ok(directory.adopted(adoption)?);
    }
    let logs = match logs_of(directory, adoption) {
        Ok(logs) => logs,
        Err(reason) => {
            error!(%topic, %id, %reason, "a topic cannot be adopted");
            return Ok(());
        }
    };
    let wish = controller::Adoption {
        name: topic.clone(),
        id,
        broker: broker.id,
        broker_epoch: broker.epoch,
        leader_epochs: logs.iter().map(|log| next_epoch(log)).collect(),
        largest_producer_id: ProducerId(adoption.largest_producer_id),
        configs: adoption.configs.clone(),
    };
    match quorum.adopt_topic(wish).await? {
        Ok(()) => {
            directory.adopted(adoption)?;
            info!(%topic, %id, partitions = logs.len(), "topic adopted");
        }
        Err(rejection) => {
            error!(%topic, %id, reason = %rejection.message, "a topic cannot be adopted");
        }
    }
    Ok(())
}

/// All of the topic's logs, or which one is missing.
fn logs_of(directory: &LogDirectory, adoption: &Adoption) -> Result<Vec<Arc<Log>>, String> {
    let log = |index| {
        let topic = adoption.topic.as_str().into();
        let name = TopicPartition { topic, partition: PartitionIndex(index) };
        let log = directory.log(&name).filter(|log| log.topic_id() == Some(adoption.topic_id));
        log.ok_or_else(|| format!("{name} is not there any more"))
    };
    (0..adoption.partitions).map(log).collect()
}

/// Batches of one epoch are those of one leader: this broker's come after all that are there.
fn next_epoch(log: &Log) -> LeaderEpoch {
    LeaderEpoch(log.latest_epoch().map_or(0, |latest| latest.0.saturating_add(1)))
}
