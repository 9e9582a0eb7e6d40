//! The log's producers: told apart from their retries before an append, and written down where segments end.

use std::fs::File;
use std::sync::atomic::Ordering;

use ottla_base::Offset;
use ottla_env::disk::Open;
use ottla_records::ValidBatch;

use super::append::{Appended, Origin};
use super::{Log, UnsyncedNames, Writer};
use crate::error::{AppendError, Context, StorageError};
use crate::names;
use crate::producers::{
    Decision, ProducerRefusal, Producers, Sender, Written, WrittenBatch, snapshot,
};
use crate::recovery::producers::{self, Extent, Replay, Restored};
use crate::transactions::Transactions;

/// Producers as the batches before an offset leave them, while the log is cut off nowhere.
#[derive(Debug)]
pub(super) struct Foreseen<'a> {
    replay: Replay<'a>,
    offset: Offset,
    truncations: u64,
}

impl Log {
    /// All producers that this log remembers.
    #[must_use]
    pub fn producers(&self) -> Producers {
        self.writer.lock().producers.clone()
    }

    /// How many producers this log remembers; does not wait for a write.
    #[must_use]
    pub fn producer_count(&self) -> usize {
        self.producer_count.load(Ordering::Relaxed)
    }

    /// Forgets the producers that have written nothing for `producer.id.expiration.ms`.
    pub(crate) fn expire_producers(&self, now_ms: i64) {
        if self.producer_count() == 0 {
            return;
        }
        let mut writer = self.writer.lock();
        self.env().expire(&mut writer.producers, now_ms);
        self.count_producers(&writer);
    }

    /// Whether batches may go into the log next; `Some` when they are there already.
    pub(super) fn check_producers(
        &self,
        writer: &Writer,
        batches: &[ValidBatch],
        origin: Origin,
    ) -> Result<Option<Appended>, AppendError> {
        let sender = match origin {
            Origin::Client(_) => Sender::Client,
            Origin::Leader(_) => Sender::Coordinator,
            Origin::Replica => return Ok(None),
        };
        for batch in batches {
            match writer.producers.check(&Written::of(batch), sender) {
                Decision::Append => {}
                Decision::Duplicate(written) => return Ok(Some(self.appended_before(&written))),
                Decision::Refuse(refusal) => {
                    if let ProducerRefusal::OutOfOrderSequence { .. } = refusal {
                        // What is missing was sent ahead of this, and found no room: its producer has to send both again. Told
                        // of a gap, librdkafka begins a new epoch, in which no earlier copy is known.
                        self.env().room.check()?;
                    }
                    return Err(refusal.into());
                }
            }
        }
        Ok(None)
    }

    /// Kafka tells a retry the batch's own largest timestamp, whatever kind of timestamp the topic has.
    fn appended_before(&self, written: &WrittenBatch) -> Appended {
        Appended {
            base_offset: written.first_offset(),
            last_offset: written.last_offset,
            log_append_time: written.timestamp,
            log_start_offset: self.log_start_offset(),
            duplicate: true,
        }
    }

    pub(super) fn note_producers(&self, writer: &mut Writer, batches: &[ValidBatch]) {
        batches.iter().for_each(|batch| writer.producers.append(&Written::of(batch)));
        self.count_producers(writer);
    }

    pub(super) fn count_producers(&self, writer: &Writer) {
        self.producer_count.store(writer.producers.len(), Ordering::Relaxed);
    }

    /// Writes down the producers as all batches before an offset leave them, which is where the log ends. `None` when
    /// that was done before.
    pub(super) fn snapshot_producers(
        &self,
        writer: &mut Writer,
        offset: Offset,
    ) -> Result<Option<File>, StorageError> {
        if writer.newest_snapshot == Some(offset) {
            return Ok(None);
        }
        let path = names::segment_file(&self.home.path(), offset, names::SNAPSHOT);
        // In place: a snapshot that a crash leaves unfinished has a wrong checksum, and the one before it counts.
        let disk = &self.env().disk;
        let file = disk.open(&path, Open::Replace).context("create", &path)?;
        let bytes = snapshot::encode(&writer.producers);
        disk.write_all_at(&file, &bytes, 0).context("write", &path)?;
        self.unsnapshotted_bytes.store(0, Ordering::Relaxed);
        let previous = writer.newest_snapshot.replace(offset);
        if let Some(previous) = previous.filter(|at| !self.is_base_offset(*at)) {
            // Truncations need those where segments begin; beside them only the newest counts.
            let path = names::segment_file(&self.home.path(), previous, names::SNAPSHOT);
            // It may have gone with an empty segment; one that stays is removed by the next start.
            if let Err(error) = disk.remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "cannot remove a snapshot");
            }
        }
        writer.unsynced_names = writer.unsynced_names.max(UnsyncedNames::Files);
        Ok(Some(file))
    }

    fn is_base_offset(&self, offset: Offset) -> bool {
        self.state.read().segments().any(|segment| segment.base_offset == offset.0)
    }

    /// How many bytes lie after the newest snapshot of the producers.
    pub(crate) fn unsnapshotted_bytes(&self) -> u64 {
        self.unsnapshotted_bytes.load(Ordering::Relaxed)
    }

    /// Reads what [`Log::producers_before`] needs of a log that is to be cut off at an offset, which may be as much as a
    /// segment. Flushes and appends go on; who appends waits for no more than a snapshot to be read.
    pub(super) fn foresee_producers(&self, offset: Offset) -> Result<Foreseen<'_>, StorageError> {
        let (mut foreseen, extents) = {
            let _writer = self.lock_writer()?;
            let snapshots = producers::list(&*self.env().disk, &self.home.path())?;
            let mut replay = Replay::new(&self.home, snapshots);
            // Snapshots come and go with the writer only. Without it none is removed because it can't be read.
            replay.load_newest_up_to(offset)?;
            (Foreseen { replay, offset, truncations: self.truncations() }, self.extents())
        };
        foreseen.replay.advance_to(offset, extents.into_iter())?;
        Ok(foreseen)
    }

    /// The producers as the batches before an offset leave them, for a log that is about to be cut off there. What
    /// was written down of more than these is durably gone when this returns: other batches will take their place.
    pub(super) fn producers_before(
        &self,
        _writer: &Writer,
        offset: Offset,
        foreseen: Option<Foreseen<'_>>,
    ) -> Result<Restored, StorageError> {
        let snapshots = producers::list(&*self.env().disk, &self.home.path())?;
        // Damage may have been found meanwhile, with which more is cut off than was asked for.
        let counts =
            |it: &Foreseen<'_>| it.truncations == self.truncations() && it.offset == offset;
        let foreseen = foreseen.filter(counts);
        let mut replay = match foreseen {
            Some(Foreseen { replay, .. }) => replay.with_snapshots(snapshots),
            None => Replay::new(&self.home, snapshots),
        };
        replay.advance_to(offset, self.extents().into_iter())?;
        let state = self.state.read();
        let bases: Vec<i64> = state.segments().map(|segment| segment.base_offset).collect();
        drop(state);
        replay.finish(&bases)
    }

    /// Before segments go: what they make of their producers is durably written down where the first one begins that
    /// stays. A crash finds it nowhere else.
    pub(super) fn keep_producers_of_oldest(
        &self,
        writer: &Writer,
        count: usize,
    ) -> Result<(), StorageError> {
        let extents = self.extents();
        let Some(first_kept) = extents.get(count) else { return Ok(()) };
        if writer.producers.is_empty() {
            return Ok(());
        }
        let offset = first_kept.base_offset();
        let disk = &self.env().disk;
        let mut replay = Replay::new(&self.home, producers::list(&**disk, &self.home.path())?);
        let written = replay.was_written_at(offset, extents.into_iter())?;
        let path = names::segment_file(&self.home.path(), offset, names::SNAPSHOT);
        let file = match written {
            None => disk.open(&path, Open::Write).context("open", &path)?,
            Some(producers) => {
                let bytes = snapshot::encode(&producers);
                disk.write(&path, &bytes).context("write", &path)?
            }
        };
        let synced = disk.sync_data(&file).context("flush", &path);
        synced.inspect_err(|error| self.env().poison(error))
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        let state = self.state.read();
        state.sealed.iter().map(Extent::from).chain([Extent::from(&state.active)]).collect()
    }

    /// Forgets everything, for a log that is about to be emptied.
    pub(super) fn forget_producers(&self, writer: &mut Writer) -> Result<(), StorageError> {
        // No snapshot is of fewer offsets.
        let snapshots = producers::list(&*self.env().disk, &self.home.path())?;
        Replay::new(&self.home, snapshots).remove_after(Offset(-1))?;
        self.replace_producers(writer, Restored::default());
        *self.transactions.lock() = Transactions::default();
        Ok(())
    }

    pub(super) fn replace_producers(&self, writer: &mut Writer, restored: Restored) {
        writer.producers = restored.producers;
        writer.newest_snapshot = restored.newest_snapshot;
        self.restore_transactions(writer);
        self.count_producers(writer);
    }
}
