//! How far each replica holds the leader's log on disk, and what readers may see.
//!
//! Pure: appends, completed flushes and the controller's answers come in as method calls; what must
//! happen next goes out as [`Command`]s, which the broker executes.
//!
//! "Acknowledged means on disk; visible means that no crash takes it back": the high watermark is the
//! smallest *flushed* offset over the ISR, not the smallest copied one as in Apache Kafka. Where the
//! log is configured to call the page cache safe, it reports each append as flushed, and Kafka's rule
//! comes out.
//!
//! Invariants, checked after every event by [`Progress::check`]:
//!
//! - `high_watermark <= log_end`, and it never moves back within one leader epoch.
//! - `flushed(leader) <= log_end`.
//! - The leader is always in the in-sync replica set (ISR).
//! - While the ISR is smaller than `min_isr`, the high watermark stands still.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{BrokerId, Offset};

/// The replication state of one partition, on its leader, in one leader epoch.
#[derive(Debug)]
pub struct Progress {
    leader: BrokerId,
    log_end: Offset,
    high_watermark: Offset,
    /// What each replica that was heard from in this leader epoch has on disk; exclusive.
    flushed: BTreeMap<BrokerId, Offset>,
    isr: BTreeSet<BrokerId>,
    /// The smaller of `min.insync.replicas` and the replication factor.
    min_isr: usize,
    commands: Vec<Command>,
}

/// What the broker must do next. Data, never an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Wake delayed fetches, and acks=all produces that wait for an offset up to this one.
    AdvanceHighWatermark(Offset),
}

impl Progress {
    /// A new leader starts a new epoch: what the other replicas hold is not yet known, and
    /// everything that the leader found on its own disk (`log_end`) counts as flushed there.
    ///
    /// # Panics
    /// If `high_watermark > log_end`, or the leader is not in the ISR.
    #[must_use]
    pub fn new(
        leader: BrokerId,
        isr: BTreeSet<BrokerId>,
        min_isr: usize,
        high_watermark: Offset,
        log_end: Offset,
    ) -> Self {
        let mut progress = Self {
            leader,
            log_end,
            high_watermark,
            flushed: BTreeMap::from([(leader, log_end)]),
            isr,
            min_isr,
            commands: Vec::new(),
        };
        progress.advance_high_watermark();
        progress.check();
        progress
    }

    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether acks=all may be accepted: the ISR is as large as `min.insync.replicas` asks.
    #[must_use]
    pub fn has_enough_replicas(&self) -> bool {
        self.isr.len() >= self.min_isr
    }

    /// The leader's log now ends at `log_end`; nothing of it needs to be on disk.
    ///
    /// # Panics
    /// If the log became shorter: a leader never truncates its own log.
    pub fn on_append(&mut self, log_end: Offset) {
        assert!(self.log_end <= log_end, "a leader never truncates its own log");
        self.log_end = log_end;
        self.check();
    }

    /// Everything below `flushed` is on the disk of `replica`. Reports may arrive out of order; an
    /// old one changes nothing.
    pub fn on_flushed(&mut self, replica: BrokerId, flushed: Offset) {
        let known = self.flushed.entry(replica).or_insert(flushed);
        *known = flushed.max(*known);
        self.advance_high_watermark();
        self.check();
    }

    /// The controller's answer is the truth, whatever we had proposed.
    pub fn on_isr_committed(&mut self, isr: BTreeSet<BrokerId>) {
        self.isr = isr;
        self.advance_high_watermark();
        self.check();
    }

    pub fn on_min_isr_changed(&mut self, min_isr: usize) {
        self.min_isr = min_isr;
        self.advance_high_watermark();
        self.check();
    }

    #[must_use]
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    fn advance_high_watermark(&mut self) {
        if !self.has_enough_replicas() {
            return;
        }
        // `None` sorts first: one replica not yet heard from in this epoch holds the mark where the
        // previous leader left it.
        let slowest = self.isr.iter().map(|replica| self.flushed.get(replica).copied()).min();
        if let Some(Some(slowest)) = slowest
            && self.high_watermark < slowest
        {
            self.high_watermark = slowest;
            self.commands.push(Command::AdvanceHighWatermark(slowest));
        }
    }

    fn check(&self) {
        assert!(self.high_watermark <= self.log_end, "readers see only what was appended");
        assert!(self.flushed.get(&self.leader) <= Some(&self.log_end), "flushed before appended");
        assert!(self.isr.contains(&self.leader), "the leader is in sync with itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Command::AdvanceHighWatermark;

    const LEADER: BrokerId = BrokerId(1);

    fn leader_with_isr(isr: &[i32], min_isr: usize) -> Progress {
        let isr = isr.iter().copied().map(BrokerId).collect();
        Progress::new(LEADER, isr, min_isr, Offset::ZERO, Offset::ZERO)
    }

    #[test]
    fn an_append_is_visible_only_once_it_is_on_disk() {
        let mut progress = leader_with_isr(&[1], 1);
        progress.on_append(Offset(10));
        assert_eq!(progress.take_commands(), []);

        progress.on_flushed(LEADER, Offset(7));
        assert_eq!(progress.take_commands(), [AdvanceHighWatermark(Offset(7))]);
    }

    #[test]
    fn a_late_report_of_an_older_flush_changes_nothing() {
        let mut progress = leader_with_isr(&[1], 1);
        progress.on_append(Offset(10));
        progress.on_flushed(LEADER, Offset(10));
        assert_eq!(progress.take_commands(), [AdvanceHighWatermark(Offset(10))]);

        progress.on_flushed(LEADER, Offset(4));
        assert_eq!(progress.take_commands(), []);
        assert_eq!(progress.high_watermark(), Offset(10));
    }

    #[test]
    fn the_whole_isr_must_hold_a_record_on_disk_before_it_is_visible() {
        let mut progress = leader_with_isr(&[1, 2, 3], 1);
        progress.on_append(Offset(10));
        progress.on_flushed(LEADER, Offset(10));
        progress.on_flushed(BrokerId(2), Offset(10));
        assert_eq!(progress.take_commands(), []);

        progress.on_flushed(BrokerId(3), Offset(7));
        assert_eq!(progress.take_commands(), [AdvanceHighWatermark(Offset(7))]);
    }

    #[test]
    fn the_high_watermark_stands_still_while_the_isr_is_too_small() {
        let mut progress = leader_with_isr(&[1], 2);
        progress.on_append(Offset(5));
        progress.on_flushed(LEADER, Offset(5));
        assert_eq!(progress.take_commands(), []);
        assert!(!progress.has_enough_replicas());

        progress.on_min_isr_changed(1);
        assert_eq!(progress.take_commands(), [AdvanceHighWatermark(Offset(5))]);
    }

    #[test]
    fn what_a_new_leader_finds_on_its_disk_is_visible_at_once_when_it_is_the_whole_isr() {
        let progress = Progress::new(LEADER, BTreeSet::from([LEADER]), 1, Offset(3), Offset(9));
        assert_eq!(progress.high_watermark(), Offset(9));
    }
}
