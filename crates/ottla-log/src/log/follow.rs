//! Appending what a leader has answered: batches that it has validated, at the offsets and in the epochs that it gave them.

use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset};
use ottla_records::{BatchError, Batches, ValidBatch};

use super::append::{Origin, size_of};
use super::{Log, Writer};
use crate::error::{FollowError, StorageError};
use crate::policy::roll;

impl Log {
    /// Appends the batches of a leader's answer to a Fetch from this log's end, as they are: nothing is decompressed, and
    /// no producer is asked for its sequence numbers. A batch that is cut off at the end is passed over. So is one of a
    /// later epoch than `up_to`, with all that follows it: whoever leads in it was asked by a follower of an earlier
    /// leader, whose log may need to be cut off first (KAFKA-18723).
    ///
    /// Returns how many bytes were appended. Nobody is asked to flush them. If this fails, a part may have been appended:
    /// as many batches as fit into a segment are appended at once.
    ///
    /// # Errors
    /// [`FollowError::Damaged`] for a batch whose checksum is wrong or that makes no sense, and
    /// [`FollowError::OutOfOrder`] for one that begins before the log's end: nothing is appended then.
    /// [`FollowError::Storage`] as in [`Log::append`].
    pub fn append_as_follower(
        &self,
        records: Bytes,
        up_to: LeaderEpoch,
    ) -> Result<u64, FollowError> {
        let mut batches = checked(records, up_to)?;
        let Some(first) = batches.first() else { return Ok(0) };
        self.begin_within(first)?;
        let size = size_of(&batches);
        let mut writer = self.lock_writer()?;
        self.check_follows(&batches)?;
        self.env().room.claim(size)?;
        let appended = self.append_by_segments(&mut writer, &mut batches);
        appended.map_err(|error| self.env().room.judge(error, size))?;
        self.env().room.written();
        Ok(size)
    }

    /// A leader's log may begin within a batch, where records were deleted. A follower that begins there, too, gets all
    /// of the batch.
    fn begin_within(&self, first: &ValidBatch) -> Result<(), StorageError> {
        let end = self.log_end_offset();
        let begins_before = first.base_offset() < end && end <= first.last_offset();
        if begins_before && end == self.log_start_offset() {
            return self.truncate_fully_and_start_at(first.base_offset());
        }
        Ok(())
    }

    fn check_follows(&self, batches: &[ValidBatch]) -> Result<(), FollowError> {
        let mut end = self.log_end_offset();
        for batch in batches {
            let found = batch.base_offset();
            if found < end {
                return Err(FollowError::OutOfOrder { end, found });
            }
            end = batch.next_offset();
        }
        Ok(())
    }

    fn append_by_segments(
        &self,
        writer: &mut Writer,
        mut batches: &mut [ValidBatch],
    ) -> Result<(), StorageError> {
        let segment_bytes = self.config().segment_bytes;
        while !batches.is_empty() {
            let (run, rest) = batches.split_at_mut(fit_together(batches, segment_bytes));
            self.append_new(writer, run, Origin::Replica)?;
            batches = rest;
        }
        Ok(())
    }
}

/// What of an answer is to be appended, each batch as the leader has written it.
fn checked(records: Bytes, up_to: LeaderEpoch) -> Result<Vec<ValidBatch>, FollowError> {
    let mut checked = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch.map_err(|error| damaged(&checked, error))?;
        if batch.header().partition_leader_epoch > up_to.0 {
            break;
        }
        let batch = batch.verify_crc().map_err(|error| damaged(&checked, error))?;
        if batch.next_offset() <= batch.base_offset() {
            return Err(damaged(&checked, BatchError::Record("it ends before it begins")));
        }
        checked.push(batch);
    }
    Ok(checked)
}

fn damaged(before: &[ValidBatch], error: BatchError) -> FollowError {
    FollowError::Damaged { after: before.last().map(ValidBatch::last_offset), error }
}

/// How many of the first batches fit into one segment; at least one.
fn fit_together(batches: &[ValidBatch], segment_bytes: u64) -> usize {
    let base = batches.first().map_or(Offset::ZERO, ValidBatch::base_offset);
    let mut size = 0;
    let fits = |batch: &&ValidBatch| {
        size += batch.size_in_bytes() as u64;
        size <= segment_bytes && roll::relative(base.0, batch.last_offset().0).is_some()
    };
    batches.iter().take_while(fits).count().max(1)
}
