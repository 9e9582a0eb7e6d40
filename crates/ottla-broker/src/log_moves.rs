//! Moves of logs between this broker's directories: asked for by AlterReplicaLogDirs, carried out one step after the
//! other while the broker works. Shell.
//!
//! When the copy is as good as complete, the controller is told where the log is going to be, and only when the metadata says
//! so does the copy take the log's place: a controller that can't be reached would go on taking the log to be where it was,
//! and if the disk that it is on were lost meanwhile, an empty log there for it. A move that does not come to its end is taken
//! back.
//!
//! Invariant: a move is under way exactly while it is in `under_way`; whoever takes it out ends it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_base::{ErrorCode, TopicPartition, Uuid};
use ottla_log::{FlushListener, Leftover, Move, MoveError, StorageError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::configuration::Configuration;
use crate::directory_reports::DirectoryReports;
use crate::log_directories::{LogDirectories, Member};
use crate::replica::Replica;
use crate::replicas::Replicas;

/// How long a move waits for room in the directory that it goes to, and how long a bound is not looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Wishes for partitions that this broker does not hold, so that nobody fills its memory with them.
const WISHES_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct LogMoves {
    directories: Arc<LogDirectories>,
    replicas: Arc<Replicas>,
    reports: Arc<DirectoryReports>,
    configuration: Arc<Configuration>,
    under_way: Mutex<BTreeMap<TopicPartition, Arc<UnderWay>>>,
    /// Held while a move begins: requests come side by side, and a partition has one copy in the making.
    beginning: Mutex<()>,
    /// Where partitions are to be put that are not here yet.
    wishes: Mutex<HashMap<TopicPartition, Uuid>>,
    begun: Arc<Notify>,
}

/// One move.
#[derive(Debug)]
struct UnderWay {
    replica: Arc<Replica>,
    target: Uuid,
    /// Held during a step; nothing once the move has ended.
    moving: Mutex<Option<Move>>,
    /// When the controller was told last that the log is in the target.
    told: Mutex<Option<Instant>>,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Copied(u64),
    /// The target has no room for more, or the controller does not know yet where the log is going to be.
    Waits,
    Ended,
}

impl LogMoves {
    pub(crate) fn new(
        directories: Arc<LogDirectories>,
        replicas: Arc<Replicas>,
        reports: Arc<DirectoryReports>,
        configuration: Arc<Configuration>,
    ) -> Self {
        Self {
            directories,
            replicas,
            reports,
            configuration,
            under_way: Mutex::default(),
            beginning: Mutex::default(),
            wishes: Mutex::default(),
            begun: Arc::default(),
        }
    }

    /// Has a partition put into this directory if it is created later.
    pub(crate) fn wish(&self, partition: TopicPartition, directory: Uuid) {
        let mut wishes = self.wishes.lock();
        if wishes.len() < WISHES_MAX {
            wishes.insert(partition, directory);
        }
    }

    /// The directory that somebody wants for a partition that is about to be created.
    #[must_use]
    pub(crate) fn fulfil(&self, partition: &TopicPartition) -> Option<Uuid> {
        self.wishes.lock().remove(partition)
    }

    /// Has a partition moved, instead of to where it may be on its way now. One that is there already stays.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR while any directory is offline, as in Apache Kafka: a copy might be in it. REPLICA_NOT_AVAILABLE
    /// where the replica was dropped meanwhile.
    pub(crate) fn begin(&self, replica: &Arc<Replica>, target: &Member) -> Result<(), ErrorCode> {
        let _one_at_a_time = self.beginning.lock();
        check_held(replica)?;
        let name = &replica.partition;
        if self.target_of(name).is_some_and(|id| id != target.id) {
            self.cancel(name);
        }
        let log = replica.log();
        let is_there = log.directory() == target.path();
        if is_there || self.target_of(name).is_some() {
            return Ok(());
        }
        if !self.directories.are_all_online() {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let source = self.directories.at(log.directory()).ok_or(ErrorCode::KAFKA_STORAGE_ERROR)?;
        let [from, to] = [source, target].map(|member| Arc::clone(&member.directory));
        let moving = Move::begin(from, to, &log).map_err(|error| {
            if let MoveError::Gone(_) = error {
                return ErrorCode::REPLICA_NOT_AVAILABLE;
            }
            error!(partition = %name, %error, "a log can't be moved");
            ErrorCode::KAFKA_STORAGE_ERROR
        })?;
        info!(partition = %name, to = %target.path().display(), "moving a log");
        let (moving_replica, moving) = (Arc::clone(replica), Mutex::new(Some(moving)));
        let (target, told) = (target.id, Mutex::default());
        let under_way = UnderWay { replica: moving_replica, target, moving, told };
        self.under_way.lock().insert(name.clone(), Arc::new(under_way));
        // Whoever has dropped it meanwhile may have looked for its move before there was one.
        check_held(replica).inspect_err(|_| self.cancel(name))?;
        self.begun.notify_one();
        Ok(())
    }

    fn target_of(&self, partition: &TopicPartition) -> Option<Uuid> {
        self.under_way.lock().get(partition).map(|under_way| under_way.target)
    }

    /// Gives up a move, if there is one; its copy is gone when this returns.
    pub(crate) fn cancel(&self, partition: &TopicPartition) {
        let Some(under_way) = self.under_way.lock().remove(partition) else { return };
        let Some(moving) = under_way.moving.lock().take() else { return };
        abandon(partition, moving);
        self.take_back(&under_way);
        info!(%partition, "a move was given up");
    }

    /// Begins those again that an earlier process did not end.
    pub(crate) fn begin_again(&self) {
        for (Leftover { partition: name, topic_id, .. }, path) in
            self.directories.interrupted_moves()
        {
            let named = self.directories.named(name).filter_map(|log| log.topic_id());
            let ids = named.filter(|id| topic_id.is_none_or(|of_copy| of_copy == *id));
            let replica = ids.filter_map(|id| self.replicas.find(id, name.partition.0)).next();
            let Some((replica, target)) = replica.zip(self.directories.at(path)) else { continue };
            if let Err(code) = self.begin(&replica, target) {
                warn!(partition = %name, %code, "a move is not begun again");
            }
        }
    }

    /// Carries out what was begun, until the node stops.
    pub(crate) async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            if self.under_way.lock().is_empty() {
                tokio::select! {
                    () = self.begun.notified() => {}
                    _ = stopping.wait_for(|stop| *stop) => {}
                }
                continue;
            }
            let moves_on = Arc::clone(&self);
            let work = tokio::task::spawn_blocking(move || moves_on.step_all());
            let Ok(steps) = work.await else { return };
            tokio::select! {
                () = self.rest_after(&steps) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// The metadata has changed: it may be what a move waits for.
    pub(crate) fn look(&self) {
        if !self.under_way.lock().is_empty() {
            self.begun.notify_one();
        }
    }

    /// Who is told of directories that fail: what the controller takes to be in one of them must not wait.
    pub(crate) fn failure_watch(&self) -> Arc<dyn FlushListener> {
        Arc::new(FailureWatch(Arc::clone(&self.begun)))
    }

    /// Takes each move a step further.
    pub(crate) fn step_all(&self) -> Vec<Step> {
        self.step_those(|_| true)
    }

    /// Takes those moves to their ends of which the controller has been told: they lack next to nothing.
    fn step_told(&self) -> Vec<Step> {
        self.step_those(|it| it.told.lock().is_some())
    }

    fn step_those(&self, is_meant: impl Fn(&UnderWay) -> bool) -> Vec<Step> {
        let moves: Vec<_> = self.under_way.lock().values().cloned().collect();
        moves.iter().filter(|it| is_meant(it)).map(|it| self.step(it)).collect()
    }

    /// Keeps to `replica.alter.log.dirs.io.max.bytes.per.second`, for all moves together.
    async fn rest_after(self: &Arc<Self>, steps: &[Step]) {
        if !steps.is_empty() && steps.iter().all(|step| *step == Step::Waits) {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.begun.notified() => {}
            }
            return;
        }
        let copied = |step: &Step| if let Step::Copied(bytes) = step { *bytes } else { 0 };
        let mut owed: u64 = steps.iter().map(copied).sum();
        while owed > 0 {
            let Some(per_second) = self.configuration.live().throttles.moves else { return };
            let (nap, paid) = nap(owed, per_second);
            tokio::select! {
                () = tokio::time::sleep(nap) => owed = owed.saturating_sub(paid),
                () = self.begun.notified() => {
                    let moves_on = Arc::clone(self);
                    let work = tokio::task::spawn_blocking(move || moves_on.step_told());
                    let Ok(steps) = work.await else { return };
                    owed += steps.iter().map(copied).sum::<u64>();
                }
            }
        }
    }

    fn step(&self, under_way: &Arc<UnderWay>) -> Step {
        let mut moving = under_way.moving.lock();
        let Some(it) = &*moving else { return Step::Ended };
        let name = &under_way.replica.partition;
        let ended = match self.advance(under_way, it) {
            Ok(Some(step)) => return step,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match ended {
            Err(MoveError::Storage(StorageError::Full { .. })) => return Step::Waits,
            Err(MoveError::Behind(_)) => return Step::Copied(0),
            Ok(()) => {
                info!(partition = %name, to = %it.target().path().display(), "a log has moved");
                self.tell(under_way);
            }
            Err(error @ MoveError::GivenAway { .. }) => {
                error!(partition = %name, %error, "a log can only be read until the next start");
                // The directory that it was in is sound, and nobody would look for others to lead.
                under_way.replica.take_offline();
                self.tell(under_way);
            }
            Err(error) => {
                error!(partition = %name, %error, "a log was not moved, and stays where it is");
                // Otherwise the copy may be all that is left: the next start finds out.
                if let Some(moving) = moving.take().filter(|_| self.directories.are_all_online()) {
                    abandon(name, moving);
                }
                self.take_back(under_way);
            }
        }
        *moving = None;
        let mut all = self.under_way.lock();
        // It may have been given up meanwhile, and another one begun.
        if all.get(name).is_some_and(|it| Arc::ptr_eq(it, under_way)) {
            all.remove(name);
        }
        Step::Ended
    }

    /// Copies some more, or lets the copy take the log's place, which is nothing to be done any more.
    fn advance(&self, under_way: &UnderWay, moving: &Move) -> Result<Option<Step>, MoveError> {
        // The controller may take the log to be elsewhere already, and would not let others take over.
        moving.source().check_health()?;
        moving.target().check_health()?;
        let copied = moving.step()?;
        if !copied.nearly_done {
            return Ok(Some(Step::Copied(copied.bytes)));
        }
        if !self.is_expected(under_way) {
            return Ok(Some(Step::Waits));
        }
        under_way.replica.replace_log(|| moving.finish())?;
        Ok(None)
    }

    /// Whether the controller knows that the log is going to be in the target; it is told, and told again now and then, as
    /// others have something to say about the same replica.
    fn is_expected(&self, under_way: &UnderWay) -> bool {
        let UnderWay { replica, target, told, .. } = under_way;
        let last = *told.lock();
        let waiting = self.reports.waiting_for(replica.topic_id, replica.partition.partition.0);
        let is_taken = last.is_some() && waiting.is_none();
        if is_taken && replica.assigned_directory() == Some(*target) {
            return true;
        }
        if waiting != Some(*target) && last.is_none_or(|last| last.elapsed() >= LOOK_AGAIN) {
            self.tell(under_way);
        }
        false
    }

    /// The log is in the target, or is going to be: at the end of the move, or after the next start. The controller, which
    /// knows whether that directory has failed, lets others take over then.
    fn tell(&self, under_way: &UnderWay) {
        let UnderWay { replica, target, told, .. } = under_way;
        *told.lock() = Some(Instant::now());
        self.reports.assigned(replica.topic_id, replica.partition.partition.0, *target);
    }

    /// The log stays where it is, should the controller have been told otherwise.
    fn take_back(&self, under_way: &UnderWay) {
        let UnderWay { replica, told, .. } = under_way;
        let source = self.directories.id_of(&replica.log());
        if let Some(source) =
            source.filter(|_| told.lock().is_some() && check_held(replica).is_ok())
        {
            self.reports.assigned(replica.topic_id, replica.partition.partition.0, source);
        }
    }
}

/// Wakes whoever carries out the moves when a directory fails.
#[derive(Debug)]
struct FailureWatch(Arc<Notify>);

impl FlushListener for FailureWatch {
    fn poisoned(&self, _: &Path, _: &StorageError) {
        self.0.notify_one();
    }
}

/// Under the name of a replica that was dropped may be another topic's log.
fn check_held(replica: &Replica) -> Result<(), ErrorCode> {
    replica.check_alive().map_err(|_| ErrorCode::REPLICA_NOT_AVAILABLE)
}

fn abandon(partition: &TopicPartition, moving: Move) {
    if let Err(error) = moving.abandon() {
        warn!(%partition, %error, "a copy of a log stays until the next start");
    }
}

/// How long to rest for so many bytes, a second at most, and how many of them that is for.
fn nap(owed: u64, per_second: u64) -> (Duration, u64) {
    if owed >= per_second {
        return (LOOK_AGAIN, per_second);
    }
    let micros = owed.saturating_mul(1_000_000).checked_div(per_second).unwrap_or(0);
    (Duration::from_micros(micros), owed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_rests_a_second_for_each_so_many_bytes() {
        assert_eq!(nap(250, 1_000), (Duration::from_millis(250), 250));
        assert_eq!(nap(5_000, 1_000), (LOOK_AGAIN, 1_000));
        assert_eq!(nap(5_000, 0), (LOOK_AGAIN, 0), "nothing at all moves");
    }
}
