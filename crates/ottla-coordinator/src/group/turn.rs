//! One event's way through a group: the time, the settings, and what comes out. Pure.

use std::time::Duration;

use bytestring::ByteString;
use ottla_base::Timestamp;
use ottla_protocol::records::GroupRecord;

use super::{GroupShard, Next, Reply, Settings, Timer};
use crate::shard::{Outcome, ReplyTo};
use crate::timers::TimerChange;

#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub now: Timestamp,
    pub settings: &'a Settings,
    pub outcome: Outcome<GroupShard>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Timestamp, settings: &'a Settings) -> Self {
        Self { now, settings, outcome: Outcome::default() }
    }

    pub(crate) fn reply(&mut self, to: ReplyTo, reply: impl Into<Reply>) {
        self.outcome.replies.push((to, reply.into()));
    }

    /// Only for what tells nothing of what is stored.
    pub(crate) fn reply_at_once(&mut self, to: ReplyTo, reply: impl Into<Reply>) {
        self.outcome.at_once.push((to, reply.into()));
    }

    pub(crate) fn append(&mut self, record: GroupRecord) {
        self.outcome.records.push(record);
    }

    pub(crate) fn then(&mut self, next: Next) {
        debug_assert!(self.outcome.next.is_none(), "one thing follows");
        self.outcome.next = Some(next);
    }

    pub(crate) fn has_records(&self) -> bool {
        !self.outcome.records.is_empty()
    }

    /// Units: milliseconds from now.
    pub(crate) fn set_timer(&mut self, timer: Timer, after_ms: i64) {
        // A client may ask for a negative timeout: over at once.
        let after = Duration::from_millis(u64::try_from(after_ms).unwrap_or(0));
        self.outcome.timers.push(TimerChange::Set(timer, after));
    }

    pub(crate) fn cancel_timer(&mut self, timer: Timer) {
        self.outcome.timers.push(TimerChange::Cancel(timer));
    }

    pub(crate) fn set_session(&mut self, group: &ByteString, member: &ByteString, after_ms: i32) {
        self.set_timer(session(group, member), i64::from(after_ms));
    }

    pub(crate) fn cancel_session(&mut self, group: &ByteString, member: &ByteString) {
        self.cancel_timer(session(group, member));
    }
}

fn session(group: &ByteString, member: &ByteString) -> Timer {
    Timer::Session { group: group.clone(), member: member.clone() }
}
