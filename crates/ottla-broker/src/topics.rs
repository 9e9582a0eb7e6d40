//! Carries out on this broker what the metadata says: logs of new topics are created, those of deleted ones removed.
//!
//! A log that can't be made now, for want of room or because the disk refuses, is tried again; whoever else is in sync leads
//! meanwhile.
//!
//! Invariant: a partition is in `missing.logs` if it is to be here and its log could not be made; nothing of it was here then.

pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::plan::{Incarnation, NamedLog, Partitions, Step};
use ottla_base::{BrokerId, PartitionIndex, TopicId, TopicPartition, Uuid};
use ottla_config::TopicConfig;
use ottla_coordinator::group::TopicDeleted;
use ottla_env::Clock;
use ottla_log::{CreateError, Log, LogCleaner};
use ottla_metadata::{ConfigResource, Delta, Image, Partition, Topic, topic_name};
use ottla_quorum::Publisher;
use ottla_replication::Throttled;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::cleaner;
use crate::configuration::Configuration;
use crate::directory_reports::DirectoryReports;
use crate::fetchers::Fetchers;
use crate::group_coordinator::GroupCoordinator;
use crate::handovers::has_others;
use crate::listener::stopped;
use crate::log_directories::LogDirectories;
use crate::log_moves::LogMoves;
use crate::replica::{Replica, Standing, Terms, Throttling};
use crate::replicas::Replicas;
use crate::throttles::Throttles;
use crate::topic_config;

/// How often it is tried to make the logs that could not be made.
const MAKE_MISSING_EVERY: Duration = Duration::from_secs(1);

/// Why a log is set aside.
const NO_TOPIC: &str = "it belongs to no topic";
const MAY_BE_OUTDATED: &str = "its directory was out, and its partition is in another one, which is out now; if this is the newest all the same, such as \
     one that was copied here by hand, give it its name back and start again";

/// The logs and replicas of this broker, kept equal to the metadata.
#[derive(Debug)]
pub(crate) struct Topics {
    /// This process: metadata that is older than its registration gives it nothing to lead.
    pub me: Incarnation,
    pub clock: Arc<dyn Clock>,
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
    /// `replica.fetch.backoff.ms`
    pub fetch_backoff: Duration,
    pub fetchers: Arc<Fetchers>,
    pub throttles: Arc<Throttles>,
    pub directories: Arc<LogDirectories>,
    pub replicas: Arc<Replicas>,
    pub configuration: Arc<Configuration>,
    pub groups: Arc<GroupCoordinator>,
    pub reports: Arc<DirectoryReports>,
    pub moves: Arc<LogMoves>,
    /// Whether what was there at the start has been taken up: from then on, a created topic is a new one.
    pub started: AtomicBool,
    /// Logs that were there at the start and that nothing in the metadata owned: no log that was made since is one.
    pub strays: Mutex<BTreeSet<NamedLog>>,
    /// What was to be here at the start and was not, while a directory could not be read: the log may be there.
    pub absent: Mutex<BTreeSet<(TopicId, PartitionIndex)>>,
    /// Log directories that the process before this one did not have: what newer logs there may be instead of theirs was made
    /// without them.
    pub returned: Mutex<BTreeSet<Uuid>>,
    pub missing: MissingLogs,
    /// The metadata that was carried out last; held while some is, and while what is heard beyond it is.
    pub published: Mutex<Option<Arc<Image>>>,
    pub cleaner: Option<Arc<LogCleaner>>,
}

/// Logs that could not be made, and where: something may be left there, so that it is there that they are tried again, as long as
/// nobody says otherwise. `None` is for wherever new ones go.
#[derive(Debug, Default)]
pub(crate) struct MissingLogs {
    logs: Mutex<BTreeMap<(TopicId, PartitionIndex), Option<Uuid>>>,
    due: Notify,
}

impl Publisher for Topics {
    fn publish(&self, image: &Arc<Image>, delta: &Delta) {
        let mut published = self.published.lock();
        self.carry_out(published.as_deref(), image, delta);
        *published = Some(Arc::clone(image));
    }

    /// Only now can nobody commit an offset any more in a topic that is gone.
    fn visible(&self, delta: &Delta) {
        self.forget_offsets_in(delta);
        if !delta.brokers.is_empty() {
            // Nobody waits for the replicas of a broker that is gone.
            self.replicas.all().iter().for_each(|replica| replica.deletions.wake());
        }
    }
}

impl Topics {
    /// `before` is the image that the delta began with.
    fn carry_out(&self, before: Option<&Image>, image: &Image, delta: &Delta) {
        // First of all: what is made below is made with it.
        let has_new_defaults = self.configuration.follow(image, delta);
        let has_begun = self.started.load(Ordering::Relaxed);
        let carried_out = before.filter(|_| has_begun);
        let Some(steps) = self.me.steps(carried_out, image, delta, has_new_defaults) else {
            return;
        };
        if !has_begun {
            *self.returned.lock() = self.returned_since(before);
        }
        if has_new_defaults || !has_begun {
            self.take_defaults();
        }
        steps.into_iter().for_each(|step| self.take(image, step));
        self.started.store(true, Ordering::Relaxed);
    }

    fn take(&self, image: &Image, step: Step<'_>) {
        match step {
            Step::Begin => *self.strays.lock() = self.without_owner(image),
            Step::Gone { topic, held } => self.delete(topic, &held),
            Step::Made { topic, held } => self.create_all(image, topic, &held),
            Step::Changed { topic, held, left } => self.follow_all(image, topic, &held, &left),
            Step::Eligible { broker, is_active } => {
                self.replicas.on_eligibility_changed(broker, is_active);
            }
            Step::Reconfigured { topic } => self.reconfigure(image, topic),
        }
    }

    /// The directories that are here and were not when this broker registered last, as far as that is known: `before` is the
    /// metadata without the registration of this process.
    fn returned_since(&self, before: Option<&Image>) -> BTreeSet<Uuid> {
        let registered = before.and_then(|image| image.broker(self.me.broker));
        let Some(registered) = registered.filter(|it| !it.directories.is_empty()) else {
            return BTreeSet::new();
        };
        let mut here: BTreeSet<Uuid> = self.directories.online().into_iter().collect();
        here.retain(|id| !registered.directories.contains(id));
        here
    }

    /// What the directories and the cleaner must know of the broker's own configuration.
    fn take_defaults(&self) {
        let live = self.configuration.live();
        self.directories.set_producer_id_expiration_ms(live.producer_id_expiration_ms);
        self.directories.set_reserved_bytes(live.reserved_bytes);
        self.replicas.outboxes.handovers.look();
        self.throttles.leader.allow(live.throttles.leader);
        self.throttles.follower.allow(live.throttles.follower);
        self.fetchers.resize(live.fetchers);
        if let Some(cleaner) = &self.cleaner {
            cleaner.reconfigure(cleaner::options(&live.cleaner));
        }
    }

    fn without_owner(&self, image: &Image) -> BTreeSet<NamedLog> {
        let logs = self.directories.logs();
        let named = logs.iter().map(|log| (log.topic_partition().clone(), log.topic_id()));
        self.me.strays(image, named)
    }

    /// Renames the strays that nothing has come to own since: never served, never deleted. The metadata goes on meanwhile, and
    /// what it makes here is no stray, although the image that everybody sees may not have it yet.
    pub(crate) fn set_strays_aside(&self) {
        let mut strays = self.strays.lock();
        for (name, topic_id) in std::mem::take(&mut *strays) {
            let is_it = |log: &Arc<Log>| log.topic_id() == topic_id;
            self.directories
                .named(&name)
                .filter(is_it)
                .for_each(|log| self.set_aside(&log, NO_TOPIC));
        }
    }

    fn set_aside(&self, log: &Log, why: &str) {
        let (partition, directory) = (log.topic_partition(), log.directory().display());
        match self.directories.set_aside(log) {
            Ok(_) => warn!(%partition, %directory, why, "a log was set aside as -stray"),
            Err(error) => error!(%partition, %directory, why, %error, "a log can't be set aside"),
        }
    }

    fn create_all(&self, image: &Image, topic: &Topic, held: &Partitions<'_>) {
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            self.groups.topic_seen(topic.partition_count());
        }
        if held.is_empty() {
            return;
        }
        let demands = self.demands_of(image, topic);
        for (index, partition) in held {
            self.create(image, topic, *index, partition, &demands);
        }
    }

    /// Makes the log of a partition that this broker is to hold.
    fn create(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        demands: &Demands,
    ) {
        let name = &topic.name;
        let was_missing = self.is_missing(topic.id, index);
        if let Err(error) = self.try_create(image, topic, index, partition, demands) {
            // Clients get KAFKA_STORAGE_ERROR for it.
            self.replicas.note_unopened(topic.id, index);
            let is_missing = self.is_missing(topic.id, index);
            if is_missing && !was_missing {
                error!(topic = %name, partition = %index, %error, "log can't be made: it is tried again");
                self.missing.due.notify_one();
            } else if !is_missing {
                error!(topic = %name, partition = %index, %error, "log can't be opened");
            }
            if is_missing {
                self.leave_to_others(image, topic, index, partition);
            }
        }
    }

    /// Whether the log could not be made when that was tried last, for a reason that may pass.
    fn is_missing(&self, topic_id: TopicId, index: PartitionIndex) -> bool {
        self.missing.logs.lock().contains_key(&(topic_id, index))
    }

    /// Has others who are in sync lead, as they do where the replica's directory has failed.
    fn leave_to_others(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) {
        let me = self.me.broker;
        let is_known = partition.directory_of(me) == Some(Uuid::LOST_DIR);
        if !is_known && partition.is_in_isr(me) && has_others(image, partition, me) {
            self.reports.assigned(topic.id, index.0, Uuid::LOST_DIR);
        }
    }

    /// Makes the logs that could not be made when they can be.
    pub(crate) async fn make_missing_logs(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            let is_waiting = !self.missing.logs.lock().is_empty();
            tokio::select! {
                () = self.missing.due.notified(), if !is_waiting => continue,
                () = tokio::time::sleep(MAKE_MISSING_EVERY), if is_waiting => {}
                () = stopped(&mut stopping) => return,
            }
            let topics = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || topics.make_missing()).await.is_err() {
                error!("making logs that could not be made before panicked");
            }
        }
    }

    /// As many as can be made, of those that are wanted still.
    fn make_missing(&self) {
        let published = self.published.lock();
        let Some(image) = &*published else { return };
        let missing = self.missing.logs.lock().clone();
        let mut closed = BTreeSet::new();
        for ((topic_id, index), place) in missing {
            let topic = image.topic(topic_id);
            let partition = topic.and_then(|topic| topic.partition(index));
            let is_wanted = |partition: &&Partition| {
                partition.replicas.contains(&self.me.broker)
                    && self.replicas.find(topic_id, index.0).is_none()
            };
            let Some((topic, partition)) = topic.zip(partition.filter(is_wanted)) else {
                self.missing.logs.lock().remove(&(topic_id, index));
                continue;
            };
            if !closed.contains(&place) {
                let demands = self.demands_of(image, topic);
                match self.try_create(image, topic, index, partition, &demands) {
                    Ok(()) => {
                        info!(topic = %topic.name, partition = %index, "log made, which could not be before");
                        continue;
                    }
                    // For the others that are to be there it is the same.
                    Err(error) if error.concerns_directory() => _ = closed.insert(place),
                    Err(_) => {}
                }
            }
            // There may have been nobody before.
            self.leave_to_others(image, topic, index, partition);
        }
    }

    fn try_create(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        demands: &Demands,
    ) -> Result<(), CreateError> {
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
        let log_config = Arc::new(topic_config::log_config(&demands.config));
        let assigned = partition.directory_of(self.me.broker).unwrap_or(Uuid::UNASSIGNED_DIR);
        let is_here = || self.directories.log(&name, topic.id).is_some();
        let has_been_made = !self.is_missing(topic.id, index);
        let is_relied_on = partition.relies_on(self.me.broker) && has_been_made;
        if assigned == Uuid::LOST_DIR && !is_here() && is_relied_on {
            // It was the last in its ISR, and its disks are gone: an empty log would pass for the one that is lost.
            return Err(CreateError::NoDirectory { log: name.to_string() });
        }
        self.strays.lock().remove(&(name.clone(), Some(topic.id)));
        let log = self.open_log(&name, topic.id, partition, assigned, log_config)?;
        // The controller may have been told that it is lost, and not have said so yet.
        let was_missing = self.missing.logs.lock().remove(&(topic.id, index)).is_some();
        let is_news = |id: &Uuid| was_missing || *id != assigned;
        if let Some(directory) = self.directories.id_of(&log).filter(is_news) {
            self.reports.assigned(topic.id, index.0, directory);
        }
        let rules = topic_config::rules(name, &demands.config);
        let high_watermark = log.noted_high_watermark().unwrap_or_else(|| log.log_start_offset());
        let outboxes = &self.replicas.outboxes;
        let replica = Replica::new(self.me.broker, topic.id, log, high_watermark, rules, outboxes);
        let replica = Arc::new(replica);
        replica.set_throttled(demands.throttling_of(index, self.me.broker));
        self.replicas.insert(Arc::clone(&replica));
        self.settle(image, topic, index, partition, &replica, demands);
        Ok(())
    }

    /// Lets a replica lead, follow or do neither, as the metadata says.
    fn settle(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        replica: &Arc<Replica>,
        demands: &Demands,
    ) {
        let terms = Terms {
            broker_epoch: self.me.registered(image).map(|broker| broker.epoch),
            min_insync_replicas: topic.least_isr(partition, demands.min_insync_replicas()),
            lag_max: self.lag_max,
            fetch_backoff: self.fetch_backoff,
            now: self.clock.monotonic(),
        };
        let standing = replica.follow_metadata(partition, &terms);
        self.moves.look();
        let handovers = &self.replicas.outboxes.handovers;
        handovers.with(replica, |is_away| {
            let leader = match standing {
                Standing::Follows(leader) if !is_away => Some(leader),
                Standing::Follows(_) | Standing::Leads | Standing::Idle => None,
            };
            self.fetchers.follow(replica, leader);
        });
        let is_lost = partition.directory_of(self.me.broker) == Some(Uuid::LOST_DIR);
        if is_lost || standing == Standing::Leads && self.directories.is_full(&replica.log()) {
            handovers.look();
        }
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            match standing {
                Standing::Leads => self.groups.elected(replica),
                Standing::Follows(_) | Standing::Idle => self.groups.resigned(index.0),
            }
        }
    }

    /// Others lead some partitions meanwhile, or nobody does, as `image` has it: what the metadata will say when it gets
    /// here.
    pub(crate) fn hear(&self, image: &Image, news: &[(TopicId, PartitionIndex)]) {
        let _published = self.published.lock();
        for (topic_id, index) in news {
            let Some(topic) = image.topic(*topic_id) else { continue };
            let replica = self.replicas.find(*topic_id, index.0);
            let (Some(replica), Some(partition)) = (replica, topic.partition(*index)) else {
                continue;
            };
            let demands = self.demands_of(image, topic);
            self.settle(image, topic, *index, partition, &replica, &demands);
        }
    }

    /// The partition's log as it is on disk, or a new one.
    fn open_log(
        &self,
        name: &TopicPartition,
        topic_id: TopicId,
        partition: &Partition,
        assigned: Uuid,
        config: Arc<ottla_log::LogConfig>,
    ) -> Result<Arc<Log>, CreateError> {
        // The name belonged to a topic that was deleted while this broker did not look, or the directory was out.
        let is_another_s = |log: &Arc<Log>| log.topic_id() != Some(topic_id);
        let others = self.directories.named(name).filter(is_another_s);
        others.for_each(|log| self.set_aside(&log, NO_TOPIC));
        if let Some(log) = self.directories.log(name, topic_id) {
            if self.may_be_outdated(&log, assigned) && partition.relies_on(self.me.broker) {
                // The next start does not know of it any more.
                self.set_aside(&log, MAY_BE_OUTDATED);
                return Err(CreateError::NoDirectory { log: name.to_string() });
            }
            log.set_config(config);
            return Ok(log);
        }
        let may_be_elsewhere = !self.directories.unreadable().is_empty();
        if may_be_elsewhere && self.is_absent((topic_id, name.partition)) {
            return Err(CreateError::NoDirectory { log: name.to_string() });
        }
        // It was about to be moved to where the metadata has it, and the disk that it was on is gone.
        let is_lost = partition.relies_on(self.me.broker)
            && self.directories.has_unfinished_copy(name, topic_id);
        if is_lost {
            return Err(CreateError::NoDirectory { log: name.to_string() });
        }
        // That directory is not among ours any more, and nobody counts on what was in it.
        let is_given_up = || {
            let is_known = self.directories.with_id(assigned).is_some();
            !may_be_elsewhere && !is_known && !partition.relies_on(self.me.broker)
        };
        let missing_from = self.missing.logs.lock().get(&(topic_id, name.partition)).copied();
        let place = match (assigned, missing_from) {
            (Uuid::UNASSIGNED_DIR | Uuid::MIGRATING_DIR, _) => self.moves.fulfil(name),
            // It was said to be lost when it could not be made: there was none.
            (Uuid::LOST_DIR, Some(place)) => place,
            _ if is_given_up() => self.moves.fulfil(name),
            // An empty log in another directory would pass for the one that is not readable now.
            (assigned, _) => Some(assigned),
        };
        let made = self.directories.create(name.clone(), topic_id, config, place);
        let is_not_ours = |error: &CreateError| {
            place.is_some() && matches!(error, CreateError::NoDirectory { .. })
        };
        if made.as_ref().is_err_and(|error| !is_not_ours(error)) {
            self.missing.logs.lock().insert((topic_id, name.partition), place);
        }
        made
    }

    /// Whether the log of a partition may have gone on elsewhere than where this one was found: in a directory that is not here
    /// now, while that of this one was out.
    fn may_be_outdated(&self, log: &Log, assigned: Uuid) -> bool {
        let is_away = match assigned {
            // Nothing is said of a newer one.
            Uuid::UNASSIGNED_DIR | Uuid::MIGRATING_DIR | Uuid::LOST_DIR => false,
            assigned => self.directories.with_id(assigned).is_none(),
        };
        let found = self.directories.id_of(log);
        is_away && found.is_some_and(|found| self.returned.lock().contains(&found))
    }

    /// Whether a partition that has no log here had one before the start, for all that is known. It may have been moved without
    /// the controller having heard of it, so that where it is said to be says nothing; and whatever changes later, such as
    /// that this broker is elected, is no reason to begin with an empty log.
    fn is_absent(&self, partition: (TopicId, PartitionIndex)) -> bool {
        let mut absent = self.absent.lock();
        if !self.started.load(Ordering::Relaxed) {
            absent.insert(partition);
        }
        absent.contains(&partition)
    }

    fn follow_all(
        &self,
        image: &Image,
        topic: &Topic,
        held: &Partitions<'_>,
        left: &[PartitionIndex],
    ) {
        self.absent.lock().retain(|(id, index)| *id != topic.id || !left.contains(index));
        for index in left {
            match self.replicas.find(topic.id, index.0) {
                Some(_) => self.drop_replica(topic, *index),
                None => self.replicas.forget_unopened(topic.id, *index),
            }
        }
        if held.is_empty() {
            return;
        }
        let demands = self.demands_of(image, topic);
        for (index, partition) in held {
            match self.replicas.find(topic.id, index.0) {
                Some(replica) => {
                    self.settle(image, topic, *index, partition, &replica, &demands);
                }
                None => self.create(image, topic, *index, partition, &demands),
            }
        }
    }

    /// A partition is held elsewhere from now on.
    fn drop_replica(&self, topic: &Topic, index: PartitionIndex) {
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            self.groups.resigned(index.0);
        }
        if let Some(replica) = self.replicas.remove(topic.id, index) {
            self.fetchers.follow(&replica, None);
        }
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
        self.moves.cancel(&name);
        // Under this name may be another topic's by now, and stays.
        if let Err(error) = self.directories.delete(&name, topic.id) {
            error!(partition = %name, %error, "log can't be deleted");
        }
    }

    fn delete(&self, topic: &Topic, held: &[PartitionIndex]) {
        self.absent.lock().retain(|(id, _)| *id != topic.id);
        held.iter().for_each(|index| self.drop_replica(topic, *index));
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            self.groups.topic_gone();
        }
        info!(topic = %topic.name, id = %topic.id, "topic deleted");
    }

    fn forget_offsets_in(&self, delta: &Delta) {
        let deleted = delta.deleted.iter();
        let deleted: Vec<_> =
            deleted.map(|(id, name)| TopicDeleted { id: *id, name: (&**name).into() }).collect();
        if !deleted.is_empty() {
            self.groups.topics_deleted(&deleted);
        }
    }

    fn reconfigure(&self, image: &Image, topic: &Topic) {
        let demands = self.demands_of(image, topic);
        for (index, partition) in topic.partitions() {
            let Some(replica) = self.replicas.find(topic.id, index.0) else { continue };
            replica.set_log_config(Arc::new(topic_config::log_config(&demands.config)));
            replica.set_rules(topic_config::rules(replica.partition.clone(), &demands.config));
            let least_isr = topic.least_isr(partition, demands.min_insync_replicas());
            replica.on_min_isr_changed(least_isr);
            replica.set_throttled(demands.throttling_of(index, self.me.broker));
        }
    }

    fn demands_of(&self, image: &Image, topic: &Topic) -> Demands {
        let resource = ConfigResource::topic(Arc::clone(&topic.name));
        let defaults = &self.configuration.live().topic_defaults;
        Demands::of(defaults.with_overrides(image.config(&resource)))
    }
}

/// What a topic's configuration asks of all its partitions here; made once for all of them, as it is put together from
/// some forty properties, and the lists of replicas that are held back may name thousands.
struct Demands {
    config: TopicConfig,
    throttled_leaders: Throttled,
    throttled_followers: Throttled,
}

impl Demands {
    fn of(config: TopicConfig) -> Self {
        let parse = |items: &[String]| Throttled::parse(items.iter().map(String::as_str));
        Self {
            throttled_leaders: parse(&config.leader_replication_throttled_replicas),
            throttled_followers: parse(&config.follower_replication_throttled_replicas),
            config,
        }
    }

    fn throttling_of(&self, index: PartitionIndex, broker: BrokerId) -> Throttling {
        Throttling {
            as_leader: self.throttled_leaders.includes(index.0, broker.0),
            as_follower: self.throttled_followers.includes(index.0, broker.0),
        }
    }

    fn min_insync_replicas(&self) -> usize {
        usize::try_from(self.config.min_insync_replicas).unwrap_or(1)
    }
}
