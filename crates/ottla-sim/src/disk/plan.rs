//! What goes wrong, and when: drawn call by call. Pure.

use crate::Random;

/// The kinds of calls that fail for different reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Create,
    Name,
    Read,
    Write,
    SetLen,
    Allocate,
    Sync,
    SyncDirectory,
    SyncFileSystem,
}

impl Call {
    pub(crate) const fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::SyncDirectory | Self::SyncFileSystem)
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Stop,
    NoSpace,
    Io,
}

/// How often things go wrong, in ten thousand calls of their kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// The process stops before this call, counted from now.
    pub stop_in: Option<u64>,
    /// Once a file gets a name with this ending, the process stops before so many calls more.
    pub stop_after: Option<(&'static str, u64)>,
    /// The disk is full, for a few calls.
    pub no_space: u32,
    pub read_error: u32,
    pub write_error: u32,
    pub name_error: u32,
    pub sync_error: u32,
    /// The platform cannot sync a whole file system.
    pub no_sync_file_system: bool,
}

/// For how many calls a disk is full at most.
const FULL_FOR: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Plan,
    stopped: bool,
    full_for: usize,
    drawn: u64,
}

impl Faults {
    pub(crate) fn set(&mut self, plan: Plan) {
        self.plan = plan;
        self.full_for = 0;
    }

    /// Nothing goes wrong until the plan is back.
    pub(crate) fn suspend(&mut self) -> Self {
        let calm = Plan { no_sync_file_system: self.plan.no_sync_file_system, ..Plan::default() };
        let calm = Self { plan: calm, stopped: self.stopped, ..Self::default() };
        std::mem::replace(self, calm)
    }

    pub(crate) fn resume(&mut self, suspended: Self) {
        *self = suspended;
    }

    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// A file has got a name.
    pub(crate) fn named(&mut self, name: &str) {
        if let Some((_, calls)) = self.plan.stop_after.take_if(|(end, _)| name.ends_with(*end)) {
            self.plan.stop_in = Some(calls);
        }
    }

    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn draw(&mut self, call: Call, random: &mut Random) -> Option<Fault> {
        let fault = self.next(call, random);
        self.drawn += u64::from(fault.is_some());
        fault
    }

    fn next(&mut self, call: Call, random: &mut Random) -> Option<Fault> {
        if let Some(left) = &mut self.plan.stop_in {
            self.stopped |= *left == 0;
            *left = left.saturating_sub(1);
        }
        if self.stopped {
            return Some(Fault::Stop);
        }
        let takes_room = matches!(call, Call::Create | Call::Write | Call::Allocate);
        if takes_room && self.full_for == 0 && random.happens(self.plan.no_space) {
            self.full_for = 1 + random.below(FULL_FOR);
        }
        if takes_room && self.full_for > 0 {
            self.full_for -= 1;
            return Some(Fault::NoSpace);
        }
        let rate = match call {
            Call::Open | Call::Read => self.plan.read_error,
            Call::Write | Call::SetLen | Call::Allocate => self.plan.write_error,
            Call::Create | Call::Name => self.plan.name_error,
            Call::Sync | Call::SyncDirectory | Call::SyncFileSystem => self.plan.sync_error,
        };
        random.happens(rate).then_some(Fault::Io)
    }
}
