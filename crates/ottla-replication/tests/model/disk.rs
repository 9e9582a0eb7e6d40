//! A replica's log and what of it is on disk: the rest is lost in a crash, or some of it.

use ottla_base::{LeaderEpoch, Offset};
use ottla_replication::follower::{EpochEnd, LocalLog};

use super::random::Random;

/// One record; its offset is its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub epoch: i32,
    pub value: u64,
}

#[derive(Debug, Default)]
pub struct Disk {
    pub records: Vec<Record>,
    pub flushed: usize,
    /// Where each epoch begins, those without records included.
    epochs: Vec<(i32, usize)>,
    /// As it was written down last.
    pub checkpointed_high_watermark: i64,
}

pub fn offset(at: usize) -> Offset {
    Offset(i64::try_from(at).unwrap())
}

pub fn place(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap()
}

impl Disk {
    pub fn end(&self) -> Offset {
        offset(self.records.len())
    }

    pub fn local(&self) -> LocalLog {
        LocalLog {
            log_start: Offset::ZERO,
            log_end: self.end(),
            flushed: offset(self.flushed),
            last_epoch: self.epochs.last().map(|(epoch, _)| LeaderEpoch(*epoch)),
        }
    }

    pub fn append(&mut self, record: Record) {
        self.assign_epoch(record.epoch);
        self.records.push(record);
    }

    pub fn assign_epoch(&mut self, epoch: i32) {
        if self.epochs.last().is_none_or(|(latest, _)| *latest != epoch) {
            self.epochs.push((epoch, self.records.len()));
        }
    }

    pub fn truncate(&mut self, to: usize) {
        self.records.truncate(to);
        self.flushed = self.flushed.min(self.records.len());
        let end = self.records.len();
        self.epochs.retain(|(_, start)| *start < end);
        self.checkpointed_high_watermark = self.checkpointed_high_watermark.min(self.end().0);
    }

    /// Returns how many records are lost.
    pub fn crash(&mut self, random: &mut Random) -> usize {
        let end = self.records.len();
        let survives = self.flushed + random.below(end - self.flushed + 1);
        self.truncate(survives);
        // Recovery flushes what it has found.
        self.flushed = survives;
        end - survives
    }

    /// Kafka's rule: the largest epoch up to one, and where the next one begins.
    pub fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let latest = self.epochs.last()?;
        if latest.0 == epoch.0 {
            return Some(EpochEnd { epoch, end_offset: self.end() });
        }
        let next = self.epochs.iter().position(|(it, _)| *it > epoch.0)?;
        let floor = next.checked_sub(1).map_or(epoch, |at| LeaderEpoch(self.epochs[at].0));
        Some(EpochEnd { epoch: floor, end_offset: offset(self.epochs[next].1) })
    }
}
