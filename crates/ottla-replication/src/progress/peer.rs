//! What a leader knows of one follower. Pure.
//!
//! A follower is caught up at the largest time `t` such that it has on disk what the leader's log held at `t`. When the
//! leader's log held what is known for the times of fetches only, as in Kafka; of these the oldest that the follower has
//! not reached yet is kept, and the latest: a flush may take longer than the next fetch takes to come, and a follower
//! that is compared with its latest fetch only would then never be caught up.
//!
//! Invariant: `awaited` is older than `latest`, and ends no later.

use std::time::Duration;

use ottla_base::Offset;

use super::{FetchRefusal, Fetched, FollowerFlushed};

/// The smallest time by which a deadline is over: one at which a follower is still in sync does not count.
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Peer {
    /// Of the incarnation that has fetched last; `None` before the first fetch in this leader epoch.
    pub(super) broker_epoch: Option<i64>,
    /// Whether its broker may be in an ISR, as far as is known.
    pub(super) is_eligible: bool,
    /// It has left the ISR, or was refused there, and has not fetched since: what it had says nothing of whether it follows.
    pub(super) must_fetch: bool,
    /// What it is known to have on disk; exclusive.
    pub(super) flushed: Option<Offset>,
    pub(super) log_start: Option<Offset>,
    caught_up_at: Option<Duration>,
    awaited: Option<Mark>,
    latest: Option<Mark>,
}

/// Where the leader's log ended at a time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    log_end: Offset,
}

impl Peer {
    /// One that is in sync when the leader epoch begins is as good as caught up then.
    pub(super) const fn new(caught_up_at: Option<Duration>) -> Self {
        Self {
            broker_epoch: None,
            is_eligible: false,
            must_fetch: true,
            flushed: None,
            log_start: None,
            caught_up_at,
            awaited: None,
            latest: None,
        }
    }

    pub(super) fn on_fetch(
        &mut self,
        fetched: &Fetched,
        log_end: Offset,
    ) -> Result<(), FetchRefusal> {
        self.enter(fetched)?;
        (self.is_eligible, self.must_fetch) = (fetched.is_eligible, false);
        self.log_start = Some(fetched.log_start_offset);
        // One that is late tells of a shorter log than there is by now: what was flushed stays so, as a disk is lost
        // only with its process, and that has another broker epoch then.
        if !fetched.reports_flushes {
            self.flushed = self.flushed.max(Some(fetched.fetch_offset));
        }
        self.mark(Mark { at: fetched.now, log_end });
        self.reach_marks();
        Ok(())
    }

    /// What an earlier incarnation had on disk may be gone with its disk.
    fn enter(&mut self, fetched: &Fetched) -> Result<(), FetchRefusal> {
        let (replica, found) = (fetched.replica, fetched.broker_epoch);
        match self.broker_epoch {
            Some(current) if current == found => {}
            Some(current) if found < current && found >= 0 => {
                return Err(FetchRefusal::OldBrokerEpoch { replica, found, current });
            }
            None => self.broker_epoch = Some(found),
            Some(_) => {
                *self = Self { broker_epoch: Some(found), ..Self::new(None) };
            }
        }
        Ok(())
    }

    pub(super) fn on_flushed(&mut self, report: &FollowerFlushed) {
        if self.broker_epoch == Some(report.broker_epoch) {
            self.flushed = self.flushed.max(Some(report.flushed));
            self.reach_marks();
        }
    }

    fn mark(&mut self, mark: Mark) {
        if self.awaited.is_none() {
            self.awaited = Some(mark);
        } else {
            self.latest = Some(mark);
        }
    }

    fn reach_marks(&mut self) {
        while let Some(mark) = self.awaited.filter(|mark| self.flushed >= Some(mark.log_end)) {
            self.caught_up_at = self.caught_up_at.max(Some(mark.at));
            self.awaited = self.latest.take();
        }
    }

    /// Whether it is proposed for the ISR once it has what it needs.
    pub(super) const fn may_join(&self) -> bool {
        self.is_eligible && !self.must_fetch
    }

    /// Whether it has everything, or had so not long ago.
    pub(super) fn is_caught_up(&self, log_end: Offset, now: Duration, lag_max: Duration) -> bool {
        let is_recent = |at| now.saturating_sub(at) <= lag_max;
        self.flushed == Some(log_end) || self.caught_up_at.is_some_and(is_recent)
    }

    /// The latest time at which it had everything, as far as is known.
    pub(super) fn caught_up_at(&self, log_end: Offset, now: Duration) -> Option<Duration> {
        if self.flushed == Some(log_end) { Some(now) } else { self.caught_up_at }
    }

    /// When it will no longer be caught up, if nothing happens.
    pub(super) fn deadline(&self, log_end: Offset, lag_max: Duration) -> Option<Duration> {
        if self.flushed == Some(log_end) {
            return None;
        }
        Some(
            self.caught_up_at
                .map_or(Duration::ZERO, |at| at.saturating_add(lag_max).saturating_add(TICK)),
        )
    }
}
