//! Topics that their operator wants served from directories which another broker wrote (`ottla topic adopt`; docs/decisions/015-adoption.md). Shell.
//!
//! Done at a start, before anything without a topic is set aside. The controller's decision makes a topic known with
//! all of its partitions or not at all; only then is the wish removed. A topic that cannot be adopted is reported, and
//! set aside like anything else that nobody owns.

use std::sync::Arc;

use ottla_base::{LeaderEpoch, PartitionIndex, ProducerId, TopicPartition};
use ottla_log::adopt::Adoption;
use ottla_log::{Log, LogDirectory, StorageError};
use ottla_metadata::{Image, controller};
use ottla_quorum::Quorum;
use tracing::{error, info};

use crate::broker::Registration;
use crate::log_directories::{LogDirectories, Member};

/// Topics that wait to be adopted, and the directories that say so.
#[derive(Debug)]
pub(crate) struct Wishes(Vec<(Arc<LogDirectory>, Adoption)>);

impl Wishes {
    /// Read before the metadata is: a topic of the same name sets the log that carries the wish aside.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn read(directories: &LogDirectories) -> Result<Self, StorageError> {
        let mut wishes = Vec::new();
        for Member { directory, .. } in directories.members() {
            let adoptions = directory.adoptions()?;
            wishes.extend(adoptions.into_iter().map(|it| (Arc::clone(directory), it)));
        }
        Ok(Self(wishes))
    }

    /// Fulfils them.
    ///
    /// # Errors
    /// When the controller is gone, or a directory cannot be written to.
    pub(crate) async fn fulfil(
        self,
        broker: &Registration,
        directories: &LogDirectories,
        quorum: &Quorum,
    ) -> anyhow::Result<()> {
        for (directory, adoption) in self.0 {
            adopt(broker, directories, &directory, quorum, &adoption).await?;
        }
        Ok(())
    }
}

async fn adopt(
    broker: &Registration,
    directories: &LogDirectories,
    directory: &LogDirectory,
    quorum: &Quorum,
    adoption: &Adoption,
) -> anyhow::Result<()> {
    let (topic, id) = (&adoption.topic, adoption.topic_id);
    if quorum.image().topic(id).is_some_and(|known| *known.name == **topic) {
        // A crash came between the decision and this.
        return Ok(directory.adopted(adoption)?);
    }
    let logs = match logs_of(&quorum.image(), directories, adoption) {
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
    let decided = quorum
        .decide_or_reject(move |desk| controller::adopt_topic(desk.image, desk.policy, &wish));
    match decided.await? {
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

/// All of the topic's logs, or why they are not what was announced.
fn logs_of(
    image: &Image,
    directories: &LogDirectories,
    adoption: &Adoption,
) -> Result<Vec<Arc<Log>>, String> {
    if let Some(known) = image.topic_by_name(&adoption.topic) {
        // Its own logs have taken the place of those that are to be adopted.
        return Err(format!("a topic of this name exists, with id {}", known.id));
    }
    let is_its = |log: &Log| log.topic_id() == Some(adoption.topic_id);
    let is_more =
        |log: &Arc<Log>| is_its(log) && log.topic_partition().partition.0 >= adoption.partitions;
    if let Some(more) = directories.logs().iter().find(|log| is_more(log)) {
        // Such as one in another directory, which nobody has named.
        let (name, directory) = (more.topic_partition(), more.directory().display());
        return Err(format!("{name} in {directory} belongs to it, and was not announced"));
    }
    let log = |index| {
        let topic = adoption.topic.as_str().into();
        let name = TopicPartition { topic, partition: PartitionIndex(index) };
        let log = directories.log(&name, adoption.topic_id);
        log.ok_or_else(|| format!("{name} is not there any more"))
    };
    (0..adoption.partitions).map(log).collect()
}

/// Batches of one epoch are those of one leader: this broker's come after all that are there.
fn next_epoch(log: &Log) -> LeaderEpoch {
    LeaderEpoch(log.latest_epoch().map_or(0, |latest| latest.0.saturating_add(1)))
}
