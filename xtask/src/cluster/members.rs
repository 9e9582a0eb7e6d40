//! The members of librdkafka's group: one that stays, and a guest, who comes and goes, so that the group is rebalanced
//! again and again while faults happen (shell).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};

use super::kinds::Kind;
use super::load::{Load, complaint, raise};
use super::told::Role;

const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// So many records a guest reads before it leaves its group.
const VISIT: usize = 1_000;

/// What the members of a group went through.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// How often a guest has come, read and gone.
    pub(super) visits: usize,
    /// Of one partition each.
    pub(super) commits: usize,
    /// The latest that was confirmed, by partition.
    pub(super) committed: BTreeMap<i32, i64>,
    /// Given again although it was committed, or read: partition, offset, and where to go on.
    pub(super) went_back: Vec<(i32, i64, i64)>,
}

impl Load {
    pub(super) fn take_part_with_librdkafka(&self) -> Result<Membership> {
        let group = Arc::<Group>::default();
        let visits = thread::scope(|scope| {
            let guest = scope.spawn(|| self.come_and_go(&group));
            self.stay(&group)?;
            guest.join().map_err(|_| anyhow!("a guest's thread panicked"))?
        })?;
        let mut membership = std::mem::take(&mut *group.lock());
        membership.visits = visits;
        Ok(membership)
    }

    /// Reads whatever no guest has read, to the end.
    fn stay(&self, group: &Arc<Group>) -> Result<()> {
        let consumer = self.member(group)?;
        let mut member = Member::new(BTreeMap::new());
        let elsewhere = || group.lock().committed.clone();
        self.poll(&consumer, Role::Member, "the member of a group", elsewhere, |message| {
            self.read_as_member(&consumer, &mut member, message)
        })
    }

    /// Each time the group is rebalanced twice. Returns how often.
    fn come_and_go(&self, group: &Arc<Group>) -> Result<usize> {
        let mut visits = 0;
        loop {
            let consumer = self.member(group)?;
            let (mut member, mut seen) = (Member::new(BTreeMap::new()), 0);
            while seen < VISIT {
                if self.ends().is_some() || self.is_abandoned() {
                    return Ok(visits);
                }
                if let Some(message) = self.polled(&consumer, Role::Member)? {
                    self.read_as_member(&consumer, &mut member, &message)?;
                    seen += 1;
                }
            }
            visits += 1;
        }
    }

    fn member(&self, group: &Arc<Group>) -> Result<BaseConsumer<Rebalances>> {
        let settings = [
            ("group.id", Kind::Librdkafka.group()),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("fetch.wait.max.ms", "100"),
            // The others are to hear soon of a guest.
            ("heartbeat.interval.ms", "200"),
        ];
        let rebalances = Rebalances { group: Arc::clone(group), begins: Mutex::default() };
        let consumer: BaseConsumer<Rebalances> =
            self.config(&settings).create_with_context(rebalances)?;
        consumer.subscribe(&[self.topic])?;
        Ok(consumer)
    }

    fn read_as_member(
        &self,
        consumer: &BaseConsumer<Rebalances>,
        member: &mut Member,
        message: &BorrowedMessage<'_>,
    ) -> Result<()> {
        let group = &consumer.context().group;
        // Who joins anew begins where the group has committed, and must not commit where it was.
        if let Some(begins) = consumer.context().take() {
            *member = Member::new(begins);
        }
        let (partition, offset) = (message.partition(), message.offset());
        let at_least = member.positions.insert(partition, offset + 1).unwrap_or_default();
        if offset < at_least {
            group.lock().went_back.push((partition, offset, at_least));
        }
        member.read.insert(partition, offset + 1);
        if member.latest_commit.elapsed() > COMMIT_EVERY {
            member.latest_commit = Instant::now();
            if self.commit(consumer, &member.read)? {
                group.confirm(&member.read);
            }
        }
        Ok(())
    }

    /// Whether the coordinator has confirmed; a commit that fails is no promise.
    fn commit<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<bool> {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            list.add_partition_offset(self.topic, partition, Offset::Offset(offset))?;
        }
        let committed = consumer.commit(&list, CommitMode::Sync);
        if let Err(error) = &committed {
            self.note(Kind::Librdkafka, Role::Member, complaint(error));
        }
        Ok(committed.is_ok())
    }
}

/// What the members of librdkafka's group have come to together.
#[derive(Debug, Default)]
struct Group(Mutex<Membership>);

impl Group {
    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coordinator has taken these offsets. Who is told so late must not undo what another member was told.
    fn confirm(&self, offsets: &BTreeMap<i32, i64>) {
        let mut membership = self.lock();
        membership.commits += offsets.len();
        for (&partition, &offset) in offsets {
            raise(&mut membership.committed, partition, offset);
        }
    }
}

/// What a member goes by, from one rebalance to the next.
#[derive(Debug)]
struct Member {
    /// Where each partition goes on at least.
    positions: BTreeMap<i32, i64>,
    read: BTreeMap<i32, i64>,
    latest_commit: Instant,
}

impl Member {
    /// One that begins where the group has committed.
    fn new(positions: BTreeMap<i32, i64>) -> Self {
        Self { positions, read: BTreeMap::new(), latest_commit: Instant::now() }
    }
}

/// Notes when a member's partitions are taken or given, and what the group has committed by then.
#[derive(Debug)]
struct Rebalances {
    group: Arc<Group>,
    begins: Mutex<Option<BTreeMap<i32, i64>>>,
}

impl Rebalances {
    /// Where to begin, if there was a rebalance since somebody looked.
    fn take(&self) -> Option<BTreeMap<i32, i64>> {
        self.begins.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        let begins = self.group.lock().committed.clone();
        *self.begins.lock().unwrap_or_else(PoisonError::into_inner) = Some(begins);
    }
}
