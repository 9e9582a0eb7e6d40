//! What a replica gives to whoever fetches from it: a range of records, or where the two logs part (KIP-595).

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use ottla_log::{Log, ReadError, Slice};
use ottla_replication::follower::EpochEnd;
use ottla_replication::nearest;

use super::{Replica, Role};

/// What is asked of one partition.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Negative asks for no check.
    pub current_leader_epoch: i32,
    pub fetch_offset: Offset,
    /// Negative where it is not known.
    pub last_fetched_epoch: i32,
    /// Negative fails, as in Apache Kafka.
    pub max_bytes: i64,
    /// Whether the first batch comes whole, however large (KIP-74).
    pub min_one_batch: bool,
    /// Whether only the leader answers.
    pub needs_leader: bool,
}

/// How far readers may see.
#[derive(Debug, Clone, Copy)]
pub struct Visible {
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_start: Offset,
}

/// What one partition gives.
#[derive(Debug)]
pub enum Served {
    /// The asker's last epoch ended earlier here.
    Diverged { end: EpochEnd, visible: Visible },
    Records {
        /// `None` if nothing was looked for.
        slice: Option<Slice>,
        visible: Visible,
    },
}

impl Replica {
    /// Answers a fetch. `upper_bound` says how far this reader may read, once it is known that its log fits.
    ///
    /// # Errors
    /// What the fetch is refused with.
    pub fn serve(
        &self,
        asked: &Question,
        upper_bound: impl FnOnce(&Log, Visible) -> Result<Offset, ErrorCode>,
    ) -> Result<Served, ErrorCode> {
        self.check_alive()?;
        // Any negative epoch asks for no check, unlike with other requests.
        self.check_leader_epoch(asked.current_leader_epoch.max(-1))?;
        if asked.needs_leader {
            self.check_leads()?;
        }
        let log = self.log();
        let divergence = self.divergence(asked)?;
        // After the epochs: retention raises the log start before it forgets what was below it, and where it is forgotten
        // already, a record there would seem to fit.
        let visible = self.visible_in(&log);
        let from = asked.fetch_offset;
        if from < visible.log_start {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if let Some(end) = divergence {
            return Ok(Served::Diverged { end, visible });
        }
        if from > log.log_end_offset() {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        let max_bytes =
            usize::try_from(asked.max_bytes).map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
        let upper_bound = upper_bound(&log, visible)?;
        let slice = if from >= upper_bound || (max_bytes == 0 && !asked.min_one_batch) {
            None
        } else {
            let slice = log.read(from, max_bytes, upper_bound, asked.min_one_batch);
            Some(slice.map_err(|error| self.code_of_read(&error))?)
        };
        Ok(Served::Records { slice, visible })
    }

    /// How far readers may see, for one that is not given any records.
    ///
    /// # Errors
    /// What a fetch is refused with before its offset is looked at.
    pub fn visible(&self, current_leader_epoch: i32) -> Result<Visible, ErrorCode> {
        self.check_alive()?;
        self.check_leader_epoch(current_leader_epoch.max(-1))?;
        Ok(self.visible_in(&self.log()))
    }

    fn visible_in(&self, log: &Log) -> Visible {
        let high_watermark = self.high_watermark();
        Visible {
            high_watermark,
            last_stable: log.last_stable_offset(high_watermark),
            log_start: log.log_start_offset(),
        }
    }

    /// The follower in a consumer's rack that it should read from instead; `None` where this broker does not lead.
    #[must_use]
    pub fn nearest_follower<'a>(
        &self,
        rack: &str,
        offset: Offset,
        rack_of: impl Fn(BrokerId) -> Option<&'a str>,
    ) -> Option<BrokerId> {
        match &self.state.lock().role {
            Role::Leader(progress) => {
                nearest(rack, self.broker, progress.readable_at(offset), rack_of)
            }
            Role::Follower(_) | Role::Idle => None,
        }
    }

    fn code_of_read(&self, error: &ReadError) -> ErrorCode {
        match error {
            ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
            // Clients tell their application at once, where they try again for ever after KAFKA_STORAGE_ERROR.
            ReadError::Quarantined { .. } => ErrorCode::CORRUPT_MESSAGE,
            ReadError::Storage(error) => {
                tracing::error!(partition = %self.partition, %error, "read failed");
                ErrorCode::KAFKA_STORAGE_ERROR
            }
        }
    }

    /// Where the asker's log and ours part, if they do.
    fn divergence(&self, asked: &Question) -> Result<Option<EpochEnd>, ErrorCode> {
        if asked.last_fetched_epoch < 0 {
            return Ok(None);
        }
        let (epoch, end_offset) = self
            .end_offset_for_epoch(LeaderEpoch(asked.last_fetched_epoch))
            .ok_or(ErrorCode::OFFSET_OUT_OF_RANGE)?;
        let diverges = epoch.0 < asked.last_fetched_epoch || end_offset < asked.fetch_offset;
        Ok(diverges.then_some(EpochEnd { epoch, end_offset }))
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::Timestamp;

    use super::super::{Outboxes, lead_again, leading, one_record, unflushed_log};
    use super::*;

    #[test]
    fn what_is_before_the_log_is_out_of_range_whether_or_not_the_logs_part() {
        let directory = tempfile::tempdir().unwrap();
        let log = unflushed_log(&directory, &[Timestamp(1_000); 3]);
        log.flush().unwrap();
        let replica = leading(log, &Outboxes::default());
        lead_again(&replica, LeaderEpoch(2));
        replica.append_produced(one_record(Timestamp(1_000)), false).unwrap();
        replica.log().delete_records_to(Offset(2)).unwrap();
        let fetch = |fetch_offset, last_fetched_epoch| {
            let question = Question {
                current_leader_epoch: -1,
                fetch_offset: Offset(fetch_offset),
                last_fetched_epoch,
                max_bytes: 1_000,
                min_one_batch: true,
                needs_leader: true,
            };
            replica.serve(&question, |_, visible| Ok(visible.high_watermark))
        };
        let parted = fetch(2, 1).unwrap();
        assert!(matches!(parted, Served::Diverged { end, .. } if end.end_offset == Offset(3)));
        assert_eq!(fetch(1, 1).unwrap_err(), ErrorCode::OFFSET_OUT_OF_RANGE);
        assert!(matches!(fetch(2, 0), Ok(Served::Records { .. })));
        assert!(matches!(fetch(5, 0), Ok(Served::Diverged { .. })));
        assert_eq!(fetch(5, -1).unwrap_err(), ErrorCode::OFFSET_OUT_OF_RANGE);
    }
}
