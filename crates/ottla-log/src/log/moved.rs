//! What a move to another directory needs of a log, and of its copy.

use std::sync::Arc;

use ottla_base::Offset;

use super::Log;
use crate::checkpoint;
use crate::error::StorageError;
use crate::names;
use crate::recovery::producers::Restored;

/// Where a log was cut off that was not.
const NOWHERE: Offset = Offset(i64::MAX);

impl Log {
    /// Remembers from here on where the log is cut off, and lets compaction change nothing: a copy that has a record from
    /// before and lacks the tombstone from after would give a deleted key its value back. Says no if somebody has done
    /// so already.
    pub(crate) fn begin_copy(&self) -> bool {
        let mut writer = self.writer.lock();
        let is_first = writer.copied.is_none();
        writer.copied.get_or_insert(NOWHERE);
        is_first
    }

    pub(crate) fn end_copy(&self) {
        self.writer.lock().copied = None;
    }

    /// Whether the log was cut off since its copy has followed last.
    pub(crate) fn is_cut(&self) -> bool {
        self.writer.lock().copied.is_some_and(|cut| cut < NOWHERE)
    }

    /// Where the copy is to be cut off, too; who asks does so before anything else.
    pub(crate) fn take_cut(&self) -> Option<Offset> {
        let cut = self.writer.lock().copied.replace(NOWHERE);
        cut.filter(|cut| *cut < NOWHERE)
    }

    /// Lets nothing be appended for a while.
    pub(crate) fn pause(&self) {
        self.writer.lock().paused = true;
    }

    /// A log that was closed meanwhile stays closed.
    pub(crate) fn resume(&self) {
        self.writer.lock().paused = false;
    }

    /// Forgets what the log has forgotten of which this is a copy: transactions that have ended for good.
    pub(crate) fn settle_as(&self, original: &Self) {
        if let Some(noted) = original.noted_high_watermark() {
            // What the copy does not have yet may be cut off the log before it has.
            self.settle_transactions(noted.min(self.log_end_offset()));
        }
    }

    /// Takes over what the log knows of which this is a copy, and what its batches alone do not tell: where it starts,
    /// epochs without records, producers whose batches are deleted.
    pub(crate) fn adopt(&self, original: &Self) -> Result<(), StorageError> {
        self.set_config(original.config());
        let (start, epochs) = {
            let state = original.state.read();
            (state.log_start_offset, state.epochs.clone())
        };
        let producers = original.producers();
        if let Some(noted) = original.noted_high_watermark() {
            self.note_high_watermark(noted);
        }
        let mut writer = self.lock_writer()?;
        let path = self.home.path().join(names::LEADER_EPOCHS);
        checkpoint::replace_durably(&*self.env().disk, &path, &epochs.to_text())?;
        {
            let mut state = self.state.write();
            state.epochs = epochs;
            state.log_start_offset = state.log_start_offset.max(start);
            state.check();
        }
        // One of this offset may tell only of those whose batches are here. Recovery looks for it where a segment begins.
        self.replace_producers(&mut writer, Restored { producers, newest_snapshot: None });
        let end = self.log_end_offset();
        self.roll_to(&mut writer, end)?;
        self.create_active_durably(&mut writer)?;
        if let Some(snapshot) = self.snapshot_producers(&mut writer, end)? {
            writer.mark_dirty(&Arc::new(snapshot), self.env().now_ms());
        }
        Ok(())
    }

    /// Whether only a checkpoint tells where it starts.
    pub(crate) fn starts_within_a_segment(&self) -> bool {
        self.log_start_offset() > self.first_base_offset()
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{LeaderEpoch, Timestamp, TopicPartition, Uuid};
    use ottla_env::{ManualClock, OsDisk};
    use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker};

    use super::*;
    use crate::moves::Move;
    use crate::testing::log_on;
    use crate::{DirectoryOptions, LogConfig, LogDirectory};

    fn begin_transaction(log: &Log, id: i64) {
        let mut data = BatchBuilder::new(Compression::None).producer(id, 0, 0).transactional();
        data.append(Timestamp(1), None, Some(b"v"), &[]);
        log.append_batch(data.build(), LeaderEpoch(0)).unwrap();
    }

    fn end_transaction(log: &Log, id: i64) {
        let (commit, marker) = (ControlType::Commit, EndTransactionMarker { coordinator_epoch: 0 });
        let end = BatchBuilder::end_of_transaction((id, 0), commit, marker, Timestamp(1));
        log.append_batch(end.build(), LeaderEpoch(0)).unwrap();
    }

    #[test]
    fn a_copy_remembers_of_transactions_what_the_log_does() {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (source, log) = log_on(from.path(), Arc::new(OsDisk), LogConfig::default());
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let target = LogDirectory::open(to.path(), config, options, clock).unwrap();
        let copy = Move::begin(Arc::new(source), Arc::new(target), &log).unwrap();
        let follow = || while !copy.step().unwrap().nearly_done {};
        let remembered = |log: &Log| log.transactions.lock().clone();
        for id in 0..100 {
            begin_transaction(&log, id);
            end_transaction(&log, id);
        }
        begin_transaction(&log, 100);
        begin_transaction(&log, 101);
        log.note_high_watermark(log.log_end_offset());
        end_transaction(&log, 100);
        follow();
        assert_eq!(remembered(copy.future()), remembered(&log));
        assert_eq!(log.last_stable_offset(Offset(202)), Offset(200));
        // What is cut off again may be appended with another end.
        log.truncate_to(Offset(150)).unwrap();
        follow();
        begin_transaction(&log, 102);
        end_transaction(&log, 102);
        follow();
        assert_eq!(remembered(copy.future()), remembered(&log));
        let stable = log.last_stable_offset(Offset(151));
        assert_eq!(stable, Offset(150));
        let moved = copy.finish().unwrap();
        assert_eq!(moved.last_stable_offset(Offset(151)), stable);
    }

    #[test]
    fn a_log_that_was_closed_while_it_paused_stays_closed() {
        let temporary = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        let directory =
            LogDirectory::open(temporary.path(), config.clone(), options, clock).unwrap();
        let partition = TopicPartition::new("t", 0);
        let log = directory.create(partition, Uuid([7; 16]), Arc::new(config)).unwrap();
        let append = || {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(Timestamp(1), None, Some(b"v"), &[]);
            log.append_batch(builder.build(), LeaderEpoch(0))
        };
        append().unwrap();
        log.pause();
        assert!(append().is_err());
        log.resume();
        append().unwrap();
        log.pause();
        log.close().unwrap();
        log.resume();
        assert!(append().is_err());
        assert!(log.check_compactable().is_err());
    }

    #[test]
    fn a_log_that_pauses_is_looked_through_by_time() {
        let temporary = tempfile::tempdir().unwrap();
        let (_directory, log) = with_unwritten_indexes(temporary.path());
        let found = |at| log.offset_for_timestamp(Timestamp(at)).map(|it| it.map(|it| it.offset));
        log.pause();
        assert_eq!(found(2).unwrap(), Some(Offset(2)));
        assert_eq!(log.max_timestamp().unwrap().map(|it| it.offset), Some(Offset(3)));
        drop(log.close_for_deletion());
        found(2).unwrap_err();
    }

    /// A log with four batches, each later than the one before it, whose index entries are in memory.
    fn with_unwritten_indexes(path: &std::path::Path) -> (LogDirectory, Arc<Log>) {
        let config = LogConfig { index_interval_bytes: 1, ..LogConfig::default() };
        let (directory, log) = log_on(path, Arc::new(OsDisk), config);
        for n in 0..4 {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(Timestamp(n), None, Some(b"v"), &[]);
            log.append_batch(builder.build(), LeaderEpoch(0)).unwrap();
        }
        log.flush().unwrap();
        (directory, log)
    }

    /// What the next start believes to be on the disk, and how many entries the two indexes have there.
    fn believed(log: &Log) -> (Option<Offset>, [u64; 2]) {
        let entries = |suffix, size: u64| {
            let path = names::segment_file(&log.home.path(), Offset(0), suffix);
            std::fs::metadata(path).unwrap().len() / size
        };
        let point = log.env().recovery_points.get(&log.partition);
        (point, [entries(names::INDEX, 8), entries(names::TIME_INDEX, 12)])
    }

    #[test]
    fn a_checkpoint_writes_the_indexes_of_a_log_that_pauses_before_it_says_that_they_are_there() {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, log) = with_unwritten_indexes(temporary.path());
        assert_eq!(believed(&log), (None, [0, 0]));
        log.pause();
        directory.checkpoint().unwrap();
        assert_eq!(believed(&log), (Some(Offset(4)), [3, 3]));
    }

    #[test]
    fn a_checkpoint_says_no_more_of_a_log_that_is_about_to_go_than_the_one_before() {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, log) = with_unwritten_indexes(temporary.path());
        drop(log.close_for_deletion());
        directory.checkpoint().unwrap();
        assert_eq!(believed(&log), (Some(Offset(0)), [0, 0]));
    }
}
