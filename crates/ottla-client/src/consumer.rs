//! Reads records of chosen partitions, from wherever each begins, for as long as it is asked to.
//!
//! Each leader has one fetch in flight for all of its partitions that have none; the answer is
//! taken apart in the task that fetched it, and the next fetch leaves before its records are
//! handed out. A position moves only past batches that were handed out or hidden on purpose, so
//! that an answer which is lost or refused is simply asked for again.

mod fetch;
mod group;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{ErrorCode, LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition};
use ottla_records::TimestampType;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::fetch::{Arrived, Wanted};
pub(crate) use self::group::assignment_in;
pub use self::group::{Batch, GroupConsumer, GroupOptions, GroupPolled, Receipt};
use crate::client::{Client, TopicFilter};
use crate::error::ClientError;
use crate::metadata::Metadata;
use crate::offsets::{Isolation, OffsetQuery};
use crate::retry::longer;

/// How long a topic may be missing from a cluster's answers before it counts as deleted.
const DISAPPEARANCE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    pub isolation: Isolation,
    /// How long a broker may hold a fetch until `min_bytes` are there.
    pub max_wait: Duration,
    pub min_bytes: i32,
    /// Of one answer; a batch is never cut, so the first one may be larger.
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 16 << 20,
            partition_max_bytes: 2 << 20,
        }
    }
}

/// Where reading a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    Earliest,
    /// Only what is written from now on.
    Latest,
    /// So many offsets before the end, as far as the log goes back.
    BeforeEnd(i64),
    At(Offset),
    /// The first record at or after this time; the end, if there is none.
    Since(Timestamp),
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What [`Consumer::poll`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    Records(Fetched),
    Repositioned(Repositioned),
}

/// Progress in one partition: perhaps without records, when all that was passed is hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub partition: TopicPartition,
    pub records: Vec<ConsumedRecord>,
    /// Where the next fetch begins.
    pub next_offset: Offset,
}

/// The log does not reach to where reading was to go on: retention has removed it, or it was
/// never written. Reading goes on at the nearest offset there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repositioned {
    pub partition: TopicPartition,
    pub from: Offset,
    pub to: Offset,
}

#[derive(Debug)]
pub struct Consumer {
    client: Client,
    options: ConsumerOptions,
    assigned: BTreeMap<TopicPartition, Assigned>,
    fetches: JoinSet<Vec<Arrived>>,
    /// Found, but not handed out yet.
    found: VecDeque<Polled>,
    /// The topics' metadata is to be asked for before the next fetches.
    stale: bool,
    answers: u64,
}

/// One partition that is read.
#[derive(Debug)]
struct Assigned {
    position: Offset,
    /// The end of the log when reading began.
    end: Offset,
    /// The topic as it was then: another one under its name has other records.
    topic_id: TopicId,
    in_flight: bool,
    out_of_range: bool,
    trouble: Option<Trouble>,
    /// When it last got records, counted in answers: who waits longest is asked for first.
    served: u64,
}

/// Fetches have failed since the last that did not.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    not_before: Instant,
    pause: Duration,
}

impl Consumer {
    /// Finds out where reading begins in each partition.
    ///
    /// # Errors
    /// That of a partition of which it is not found out by the client's timeout, or cannot be.
    pub async fn assign(
        client: Client,
        positions: BTreeMap<TopicPartition, Position>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let mut consumer = Self {
            client,
            options,
            assigned: BTreeMap::new(),
            fetches: JoinSet::new(),
            found: VecDeque::new(),
            stale: false,
            answers: 0,
        };
        let ends =
            consumer.list(positions.keys().map(|p| (p.clone(), OffsetQuery::Latest))).await?;
        let queries =
            positions.iter().filter_map(|(p, position)| Some((p.clone(), query(*position)?)));
        let begins = consumer.list(queries).await?;
        let metadata = consumer.client.metadata();
        for (partition, position) in positions {
            let end = ends.get(&partition).copied().flatten().unwrap_or_default();
            let begin = begins.get(&partition).copied().flatten();
            let topic_id = metadata.topics.get(&partition.topic).map(|topic| topic.id);
            let assigned = Assigned {
                position: resolve(position, begin, end),
                end,
                topic_id: topic_id.unwrap_or_default(),
                in_flight: false,
                out_of_range: false,
                trouble: None,
                served: 0,
            };
            consumer.assigned.insert(partition, assigned);
        }
        Ok(consumer)
    }

    /// The next thing that is found, whenever that is. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// When a partition could not be read for longer than the client's timeout, or cannot be read at all.
    pub async fn poll(&mut self) -> Result<Polled, ClientError> {
        loop {
            self.refresh_if_stale().await?;
            self.reposition().await?;
            let wake = self.start_fetches();
            if let Some(found) = self.found.pop_front() {
                return Ok(found);
            }
            let alarm = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(arrived) = self.fetches.join_next() => {
                    self.take_in(arrived.expect("fetching does not panic"))?;
                }
                () = alarm => {}
            }
        }
    }

    /// Whether everything that was there when reading began has been handed out.
    #[must_use]
    pub fn has_reached_end(&self) -> bool {
        self.found.is_empty()
            && self.assigned.values().all(|assigned| assigned.end <= assigned.position)
    }

    async fn list(
        &self,
        queries: impl Iterator<Item = (TopicPartition, OffsetQuery)>,
    ) -> Result<BTreeMap<TopicPartition, Option<Offset>>, ClientError> {
        let listed = self.client.list_offsets(queries.collect(), self.options.isolation).await;
        listed
            .into_iter()
            .map(|(partition, found)| Ok((partition, found?.map(|found| found.offset))))
            .collect()
    }

    /// Starts a fetch at every leader that has idle partitions; returns when the next of those in trouble may go on.
    fn start_fetches(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let metadata = self.client.metadata();
        let mut by_leader: BTreeMap<_, Vec<Wanted>> = BTreeMap::new();
        let mut wake: Option<Instant> = None;
        for (partition, assigned) in &mut self.assigned {
            if assigned.in_flight {
                continue;
            }
            if let Some(trouble) = assigned.trouble.filter(|trouble| now < trouble.not_before) {
                wake = Some(wake.map_or(trouble.not_before, |wake| wake.min(trouble.not_before)));
                continue;
            }
            let known = metadata.partition(&partition.topic, partition.partition.0);
            let Some((leader, leader_epoch)) =
                known.and_then(|known| Some((known.leader?, known.leader_epoch)))
            else {
                let trouble = Trouble::after(assigned.trouble, now);
                assigned.trouble = Some(trouble);
                self.stale = true;
                wake = Some(wake.map_or(trouble.not_before, |wake| wake.min(trouble.not_before)));
                continue;
            };
            assigned.in_flight = true;
            by_leader.entry(leader).or_default().push(assigned.wanted(partition, leader_epoch));
        }
        for (leader, mut wanted) in by_leader {
            wanted.sort_by_key(|wanted| wanted.served);
            let (client, options) = (self.client.clone(), self.options.clone());
            self.fetches.spawn(fetch::fetch(client, leader, wanted, options));
        }
        wake
    }

    fn take_in(&mut self, arrived: Vec<Arrived>) -> Result<(), ClientError> {
        self.answers += 1;
        for Arrived { partition, result } in arrived {
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            assigned.in_flight = false;
            match result {
                Ok(parsed) => {
                    assigned.trouble = None;
                    if assigned.position < parsed.next_offset {
                        assigned.position = parsed.next_offset;
                        assigned.served = self.answers;
                        let (records, next_offset) = (parsed.records, parsed.next_offset);
                        self.found.push_back(Polled::Records(Fetched {
                            partition,
                            records,
                            next_offset,
                        }));
                    }
                }
                Err(ClientError::Refused { code: ErrorCode::OFFSET_OUT_OF_RANGE, .. }) => {
                    assigned.out_of_range = true;
                }
                Err(error) if error.is_retriable() => {
                    let trouble = Trouble::after(assigned.trouble, Instant::now());
                    if self.client.options().timeout < trouble.since.elapsed() {
                        return Err(error);
                    }
                    assigned.trouble = Some(trouble);
                    self.stale = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Learns of new leaders. That the cluster does not answer shows in the fetches, too; that a
    /// topic is gone shows only here.
    async fn refresh_if_stale(&mut self) -> Result<(), ClientError> {
        if !self.stale {
            return Ok(());
        }
        let topics: Vec<_> = self.assigned.keys().map(|p| p.topic.clone()).collect();
        let mut names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        names.dedup();
        let refreshed = self.client.refresh(TopicFilter::Named(&names)).await;
        self.stale = false;
        if refreshed.is_ok() {
            self.check_topics(&self.client.metadata())?;
        } else {
            self.give_up_in_time(refreshed)?;
        }
        Ok(())
    }

    /// Passes an error on once a partition has been in trouble for too long.
    fn give_up_in_time(&self, result: Result<(), ClientError>) -> Result<(), ClientError> {
        let troubles = self.assigned.values().filter_map(|assigned| assigned.trouble);
        let longest = troubles.map(|trouble| trouble.since.elapsed()).max().unwrap_or_default();
        if self.client.options().timeout < longest { result } else { Ok(()) }
    }

    fn check_topics(&self, metadata: &Metadata) -> Result<(), ClientError> {
        for (partition, assigned) in &self.assigned {
            let Some(topic) = metadata.topics.get(&partition.topic) else {
                let missing = assigned.trouble.map_or(Duration::ZERO, |t| t.since.elapsed());
                if DISAPPEARANCE_MAX.min(self.client.options().timeout) < missing {
                    return Err(ClientError::NoSuchTopic(partition.topic.clone()));
                }
                continue;
            };
            let (then, now) = (assigned.topic_id, topic.id);
            if then != TopicId::ZERO && now != TopicId::ZERO && then != now {
                return Err(ClientError::TopicRecreated(partition.topic.clone()));
            }
        }
        Ok(())
    }

    /// Moves partitions whose position is outside of their log to the nearest end of it.
    async fn reposition(&mut self) -> Result<(), ClientError> {
        let lost = |queries: &BTreeMap<TopicPartition, Assigned>, query| -> Vec<_> {
            let lost = queries.iter().filter(|(_, assigned)| assigned.out_of_range);
            lost.map(|(partition, _)| (partition.clone(), query)).collect()
        };
        let first = lost(&self.assigned, OffsetQuery::Earliest);
        if first.is_empty() {
            return Ok(());
        }
        let last = lost(&self.assigned, OffsetQuery::Latest);
        let first = self.list(first.into_iter()).await?;
        let last = self.list(last.into_iter()).await?;
        for (partition, first) in first {
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            let first = first.unwrap_or_default();
            let last = last.get(&partition).copied().flatten().unwrap_or(first);
            let (from, to) = (assigned.position, assigned.position.clamp(first, last.max(first)));
            assigned.out_of_range = false;
            assigned.position = to;
            // Equal when the log has grown to the position in the meantime.
            if from != to {
                self.found.push_back(Polled::Repositioned(Repositioned { partition, from, to }));
            }
        }
        Ok(())
    }
}

impl Assigned {
    fn wanted(&self, partition: &TopicPartition, leader_epoch: LeaderEpoch) -> Wanted {
        Wanted {
            partition: partition.clone(),
            topic_id: self.topic_id,
            leader_epoch,
            offset: self.position,
            served: self.served,
        }
    }
}

impl Trouble {
    fn after(earlier: Option<Self>, now: Instant) -> Self {
        let pause = longer(earlier.map_or(Duration::ZERO, |earlier| earlier.pause));
        Self { since: earlier.map_or(now, |earlier| earlier.since), not_before: now + pause, pause }
    }
}

/// What must be asked to know where a position is; the end is known anyway.
fn query(position: Position) -> Option<OffsetQuery> {
    match position {
        Position::Earliest | Position::BeforeEnd(_) => Some(OffsetQuery::Earliest),
        Position::Since(time) => Some(OffsetQuery::AtOrAfter(time)),
        Position::Latest | Position::At(_) => None,
    }
}

fn resolve(position: Position, begin: Option<Offset>, end: Offset) -> Offset {
    match position {
        Position::At(offset) => offset,
        Position::Latest => end,
        Position::Earliest | Position::Since(_) => begin.unwrap_or(end),
        Position::BeforeEnd(records) => {
            let back = Offset(end.0.saturating_sub(records));
            back.max(begin.unwrap_or(end)).min(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_offsets_within_the_log() {
        let (begin, end) = (Some(Offset(10)), Offset(20));
        assert_eq!(resolve(Position::Earliest, begin, end), Offset(10));
        assert_eq!(resolve(Position::Latest, None, end), Offset(20));
        assert_eq!(resolve(Position::At(Offset(3)), None, end), Offset(3));
        assert_eq!(resolve(Position::BeforeEnd(3), begin, end), Offset(17));
        assert_eq!(resolve(Position::BeforeEnd(99), begin, end), Offset(10));
        assert_eq!(resolve(Position::BeforeEnd(-1), begin, end), Offset(20));
    }

    #[test]
    fn a_time_after_the_last_record_is_the_end() {
        let since = Position::Since(Timestamp(5));
        assert_eq!(resolve(since, None, Offset(20)), Offset(20));
        assert_eq!(resolve(since, Some(Offset(12)), Offset(20)), Offset(12));
    }

    #[test]
    fn trouble_counts_from_its_beginning_and_pauses_longer_each_time() {
        let start = Instant::now();
        let first = Trouble::after(None, start);
        let second = Trouble::after(Some(first), first.not_before);
        assert_eq!(second.since, start);
        assert!(first.pause < second.pause);
    }
}
