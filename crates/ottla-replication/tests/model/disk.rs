//! A replica's log and what of it is on disk: the rest is lost in a crash, or some of it.

use ottla_base::{LeaderEpoch, Offset, SplitMix64};
use ottla_replication::follower::{EpochEnd, LocalLog};

/// One record; its offset is its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub epoch: i32,
    pub value: u64,
}

#[derive(Debug, Default)]
pub struct Disk {
    /// From offset 0 on; none where they are deleted.
    pub records: Vec<Option<Record>>,
    /// The first offset that can be read.
    pub start: usize,
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
            log_start: offset(self.start),
            log_end: self.end(),
            flushed: offset(self.flushed),
            last_epoch: self.epochs.last().map(|(epoch, _)| LeaderEpoch(*epoch)),
        }
    }

    /// Whether it holds these records, as far as it holds any at their offsets.
    pub fn agrees_with(&self, records: &[Record]) -> bool {
        let mut both = self.records.iter().zip(records);
        both.all(|(mine, other)| mine.is_none_or(|mine| mine == *other))
    }

    pub fn append(&mut self, record: Record) {
        self.assign_epoch(record.epoch);
        self.records.push(Some(record));
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
        self.start = self.start.min(end);
        self.epochs.retain(|(_, start)| *start < end);
        self.checkpointed_high_watermark = self.checkpointed_high_watermark.min(self.end().0);
    }

    /// Drops everything, and begins again at an offset.
    pub fn restart_at(&mut self, start: usize) {
        let high_watermark = self.checkpointed_high_watermark.min(offset(start).0);
        *self = Self {
            records: vec![None; start],
            start,
            flushed: start,
            epochs: Vec::new(),
            checkpointed_high_watermark: high_watermark,
        };
    }

    pub fn delete_to(&mut self, start: usize) {
        self.start = self.start.max(start);
        self.records[..self.start].fill(None);
        let passed = self.epochs.iter().filter(|(_, begins)| *begins <= self.start).count();
        if passed > 0 {
            self.epochs.drain(..passed - 1);
            self.epochs[0].1 = self.start;
        }
    }

    /// Returns how many records are lost.
    pub fn crash(&mut self, random: &mut SplitMix64) -> usize {
        let end = self.records.len();
        let survives = self.flushed + random.below(end - self.flushed + 1);
        if survives < self.start {
            // That it starts there was durable.
            self.restart_at(self.start);
        } else {
            self.truncate(survives);
        }
        // Recovery flushes what it has found.
        self.flushed = self.records.len();
        end.saturating_sub(survives)
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
