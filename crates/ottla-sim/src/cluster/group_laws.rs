//! What must hold for groups, whatever happens; checked when coordinators have read their logs, hear and answer.
//!
//! - An offset commit that was answered without an error is committed in the log of its partition, as [`super::laws`] says of
//!   what was acknowledged. Whoever leads since then and has read its log has it, or one that came later.
//! - A coordinator answers only while nobody else has led since it has read its log, and after all of that log.
//! - Its groups and offsets are those of its log, replayed by somebody else.
//! - Whoever asks it for offsets that are committed hears what its log says below its high watermark: no less, and no more. So
//!   it is from its first answer on, when it may have read more than it knows to be committed.
//! - The generations that a log tells of a group never fall until the group is deleted; neither do those that one coordinator
//!   tells its members.
//! - A commit of a member is taken in the generation that the log has last, or in a later one; never in an earlier one than
//!   the coordinator has told somebody.
//! - All members of a generation have their parts of one assignment, and no two of them the same partition.
//!
//! In [`super::healing`]: in the end each group is stable, commits, and finds what it has committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{ErrorCode, LeaderEpoch, Offset};
use ottla_broker::parts::Replica;
use ottla_coordinator::group::{GroupShard, Query, Reply, Request};
use ottla_log::Log;
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ottla_protocol::records::GroupRecord;
use ottla_records::{Batches, ValidBatch};

use super::coordinating::{Ask, Coordinated};
use super::members::{Assignment, TOPIC};
use super::network::Key;
use super::node::{Unacknowledged, bytes_of};
use super::world::World;
use crate::law::{Checked, Law, Violation, law};

/// An offset of a group: which group's, in which partition of the one topic that groups read here.
type Name = (ByteString, i32);

/// What a log says, by the simplest way to read it.
#[derive(Debug, Default)]
pub(super) struct Plain {
    end: Offset,
    groups: BTreeMap<ByteString, PlainGroup>,
    /// How often each group was deleted.
    deleted: BTreeMap<ByteString, u32>,
    offsets: BTreeMap<Name, Placed>,
    /// Where offsets were deleted last.
    removed_at: BTreeMap<Name, Offset>,
    /// How often that happened.
    pub(super) removed: u64,
}

#[derive(Debug, Clone, Copy)]
struct PlainGroup {
    generation: i32,
    members: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    value: i64,
    at: Offset,
}

impl Plain {
    /// Reads what was appended since.
    pub(super) fn read_on(&mut self, log: &Log) -> Checked {
        self.read_until(log.log_end_offset(), log)
    }

    pub(super) fn read_until(&mut self, end: Offset, log: &Log) -> Checked {
        let failed = |what: String| Violation::from(what).within("a group's log cannot be read");
        while self.end < end {
            let before = self.end;
            let slice = log.read(self.end, 100_000, end, true);
            let slice = slice.map_err(|error| failed(error.to_string()))?;
            let bytes = bytes_of(slice.source).map_err(|error| failed(error.to_string()))?;
            for batch in Batches::new(bytes) {
                let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
                let batch = batch.map_err(|error| failed(error.to_string()))?;
                if batch.base_offset() >= self.end {
                    self.replay_batch(&batch)?;
                    self.end = batch.next_offset();
                }
            }
            law!(Readable, before < self.end, "a group's log ends at {before}, before {end}");
        }
        Ok(())
    }

    fn replay_batch(&mut self, batch: &ValidBatch) -> Checked {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let decoded = GroupRecord::decode(record.key.unwrap(), record.value);
            self.replay(record.offset, &decoded.unwrap())?;
        }
        Ok(())
    }

    fn replay(&mut self, at: Offset, record: &GroupRecord) -> Checked {
        match record {
            GroupRecord::GroupMetadata(key, Some(value)) => {
                let now = PlainGroup { generation: value.generation, members: value.members.len() };
                let before = self.groups.insert(key.group.clone(), now);
                let before = before.map_or(-1, |before| before.generation);
                law!(
                    Generations,
                    before <= now.generation,
                    "{} at {at}: generation {before}, then {}",
                    key.group,
                    now.generation
                );
            }
            GroupRecord::GroupMetadata(key, None) => {
                self.groups.remove(&key.group);
                *self.deleted.entry(key.group.clone()).or_default() += 1;
            }
            GroupRecord::OffsetCommit(key, Some(value)) => {
                let name = (key.group.clone(), key.partition);
                self.offsets.insert(name, Placed { value: value.offset, at });
            }
            GroupRecord::OffsetCommit(key, None) => {
                let name = (key.group.clone(), key.partition);
                self.offsets.remove(&name);
                self.removed_at.insert(name, at);
                self.removed += 1;
            }
            other => {
                let what = format!("at {at}: nobody stores {other:?}");
                return Err(Violation::of(Law::GroupsOfLog, what));
            }
        }
        Ok(())
    }

    fn deleted(&self, group: &str) -> u32 {
        self.deleted.get(group).copied().unwrap_or(0)
    }

    /// Where an offset was last committed, or deleted.
    fn last_of(&self, name: &Name) -> Option<Offset> {
        let committed = self.offsets.get(name).map(|placed| placed.at);
        committed.max(self.removed_at.get(name).copied())
    }

    fn offsets_of(&self, group: &str) -> BTreeMap<i32, i64> {
        let of_it = self.offsets.iter().filter(|((of, _), _)| *of == *group);
        of_it.map(|((_, partition), placed)| (*partition, placed.value)).collect()
    }
}

/// What an answer will be held to, as it was when the question was heard.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// Where the batch of a commit is, and its number.
    placed: Option<(Offset, u64)>,
    /// The leader epoch of that batch.
    epoch: LeaderEpoch,
    end: Offset,
    /// How often the group had been deleted: whatever is told of a generation belongs to that life of it, though it may
    /// have been deleted again before it is told.
    deleted: u32,
    /// The last generation that the log had.
    stored: Option<i32>,
    /// The last one that anybody was told.
    told: Option<i32>,
    /// What a fetch is to find.
    offsets: BTreeMap<i32, i64>,
}

impl Promise {
    /// What was heard has made the log longer, or not.
    pub(super) fn is_placed(&mut self, before: Offset, log: &Log) -> Checked {
        let end = log.log_end_offset();
        self.end = before;
        if end == before {
            return Ok(());
        }
        let slice = log.read(before, 1, end, true).map_err(|it| it.to_string())?;
        let bytes = bytes_of(slice.source).map_err(|error| error.to_string())?;
        let batch = Batches::new(bytes).next().and_then(|batch| batch.ok()?.verify_crc().ok());
        let batch = batch.ok_or_else(|| format!("nothing is at {before}"))?;
        self.placed = Some((before, u64::from(batch.header().crc)));
        self.epoch = LeaderEpoch(batch.header().partition_leader_epoch);
        self.end = batch.next_offset();
        Ok(())
    }
}

/// What was told to clients.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last commit of each name that was answered.
    commits: BTreeMap<(Key, Name), (Offset, u64)>,
    /// By group, how often that was deleted before, and generation.
    generations: BTreeMap<(Key, ByteString, u32, i32), Generation>,
    /// Where each value is that somebody was to commit; a question that comes twice is in two places.
    placed: BTreeMap<i64, Vec<(Key, Offset)>>,
}

#[derive(Debug)]
struct Generation {
    assignment: u64,
    owners: BTreeMap<i32, ByteString>,
}

impl Told {
    /// What is told of a partition counts no longer: whoever leads it may have lost some of it.
    pub(super) fn give_up(&mut self, key: Key) {
        self.generations.retain(|(of, ..), _| *of != key);
    }
}

impl World {
    /// What whoever asks may rely on.
    pub(super) fn promise(&self, at: usize, it: &Coordinated, ask: &Ask) -> Checked<Promise> {
        let mut promise = Promise::default();
        match ask {
            Ask::Request(Request::Commit(commit)) => {
                let group = &commit.request.group_id;
                promise.stored = it.plain.groups.get(group).map(|group| group.generation);
                let life = (group.clone(), it.plain.deleted(group));
                promise.told = it.told.get(&life).copied();
            }
            Ask::Request(Request::Join(join)) => {
                promise.deleted = it.plain.deleted(&join.request.group_id);
            }
            Ask::Request(Request::Sync(sync)) => {
                promise.deleted = it.plain.deleted(&sync.group_id);
            }
            Ask::Request(Request::FetchStable(fetch)) => {
                promise.offsets = it.plain.offsets_of(&fetch.group.group_id);
                self.check_told(at, it)?;
            }
            Ask::Query(Query::Fetch(fetch)) => {
                promise.offsets = it.committed.offsets_of(&fetch.group.group_id);
            }
            Ask::Request(_) | Ask::Query(_) => {}
        }
        Ok(promise)
    }

    /// A commit is in the log.
    pub(super) fn note_place(&mut self, key: Key, ask: &Ask, promise: &Promise) {
        let Ask::Request(Request::Commit(commit)) = ask else { return };
        let Some((base, _)) = promise.placed else { return };
        let partitions = commit.request.topics.iter().flat_map(|topic| &topic.partitions);
        let value = partitions.map(|partition| partition.committed_offset).next();
        if let Some(value) = value {
            self.told.placed.entry(value).or_default().push((key, base));
        }
    }

    /// An answer without an error goes out.
    pub(super) fn hold_to(
        &mut self,
        at: usize,
        it: &mut Coordinated,
        ask: &Ask,
        promise: &Promise,
        reply: &Reply,
    ) -> Checked {
        match (ask, reply) {
            (Ask::Request(Request::Commit(asked)), Reply::Commit(Ok(_))) => {
                let request = &asked.request;
                let generation = request.generation_id_or_member_epoch;
                self.hold_commit_to(it, &request.group_id, generation, promise)?;
                let (base, number) = promise.placed.unwrap_or_default();
                let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
                for partition in partitions {
                    let name = (request.group_id.clone(), partition.partition_index);
                    let last = self.told.commits.entry((it.key, name)).or_default();
                    *last = (*last).max((base, number));
                }
            }
            (Ask::Request(Request::Join(asked)), Reply::Join(answer))
                if answer.error_code == ErrorCode::NONE =>
            {
                let group = asked.request.group_id.clone();
                let told = it.told.entry((group, promise.deleted)).or_default();
                let generation = answer.generation_id;
                law!(
                    Generations,
                    *told <= generation,
                    "generation {generation} is told after {told}"
                );
                *told = generation;
            }
            (Ask::Request(Request::Sync(asked)), Reply::Sync(answer))
                if answer.error_code == ErrorCode::NONE =>
            {
                let group = asked.group_id.clone();
                let generation = (it.key, group, promise.deleted, asked.generation_id);
                self.hold_assignment_to(generation, &asked.member_id, &answer.assignment)?;
            }
            (Ask::Request(Request::FetchStable(_)), Reply::Fetch(answer)) => {
                let found = found_by(answer);
                let expected = &promise.offsets;
                law!(GroupsOfLog, found == *expected, "a fetch finds {found:?} of {expected:?}");
                self.counts.add("offsets fetched");
            }
            (Ask::Query(Query::Fetch(_)), Reply::Fetch(answer)) => {
                for (partition, value) in found_by(answer) {
                    let places = self.told.placed.get(&value).into_iter().flatten();
                    let mut places = places.filter(|(key, _)| *key == it.key);
                    let is_committed = places.any(|(_, base)| *base < it.high_watermark);
                    law!(
                        FetchedCommitted,
                        is_committed,
                        "{value} is fetched for {partition}, and is not committed"
                    );
                }
                let (found, expected) = (found_by(answer), &promise.offsets);
                law!(
                    FetchedCommitted,
                    found == *expected,
                    "{found:?} is fetched of {expected:?}, which is committed below {}",
                    it.high_watermark
                );
                self.counts.add("committed offsets fetched");
                if it.high_watermark < it.loaded && !expected.is_empty() {
                    self.counts.add("committed offsets fetched before all that was loaded is");
                }
            }
            _ => {}
        }
        let replica = self.replica_of(at, it);
        law!(
            Coordinates,
            replica.is_some_and(|replica| replica.has_led_since(it.since)),
            "{:?} is coordinated on {:?} since {:?}, and others have led",
            it.key,
            self.nodes[at].id,
            it.since
        );
        Ok(())
    }

    fn replica_of(&self, at: usize, it: &Coordinated) -> Option<Arc<Replica>> {
        self.nodes[at].process.as_ref()?.replicas.find(it.key.0, it.key.1.0)
    }

    fn hold_commit_to(
        &mut self,
        it: &Coordinated,
        group: &ByteString,
        generation: i32,
        promise: &Promise,
    ) -> Checked {
        let nowhere = || Violation::of(Law::CommitKept, "a commit is nowhere");
        let (base, number) = promise.placed.ok_or_else(nowhere)?;
        self.counts.add("offsets committed");
        // As if it were a produce of acks=all.
        self.model.acknowledged(&Unacknowledged {
            key: it.key,
            client: 0,
            attempt: 0,
            number,
            base,
            until: promise.end,
            epoch: promise.epoch,
            looks_from: self.now,
            is_of_zombie: false,
        });
        let known = promise.stored.max(promise.told).unwrap_or(-1);
        law!(
            Generations,
            known <= generation,
            "{group}: a commit of generation {generation} is taken, after {known}"
        );
        Ok(())
    }

    fn hold_assignment_to(
        &mut self,
        generation: (Key, ByteString, u32, i32),
        member: &ByteString,
        assignment: &[u8],
    ) -> Checked {
        let name = format!("{} in generation {}", generation.1, generation.3);
        let Some(Assignment { number, partitions }) = Assignment::read(assignment) else {
            let what = format!("{name}: {member} gets no part");
            return Err(Violation::of(Law::OneAssignment, what));
        };
        let known = self.told.generations.entry(generation);
        let known =
            known.or_insert_with(|| Generation { assignment: number, owners: BTreeMap::new() });
        law!(
            OneAssignment,
            known.assignment == number,
            "{name}: members have parts of two assignments"
        );
        for partition in partitions {
            let owner = known.owners.entry(partition).or_insert_with(|| member.clone());
            law!(
                OneAssignment,
                owner == member,
                "{name}: {owner} and {member} have partition {partition}"
            );
        }
        self.counts.add("assignment told");
        Ok(())
    }

    /// A coordinator knows what its log says, and that is everything that was ever answered, unless it leads no longer.
    pub(super) fn check_loaded(
        &mut self,
        at: usize,
        it: &Coordinated,
        shard: &GroupShard,
    ) -> Checked {
        let (plain, stored) = (&it.plain, shard.stored());
        let name = format!("{:?} as {:?} has read it", it.key, self.nodes[at].id);
        for ((group, partition), placed) in &plain.offsets {
            let found = stored.offset(group, TOPIC, *partition).map(|found| found.offset.0);
            let expected = placed.value;
            law!(
                GroupsOfLog,
                found == Some(expected),
                "{name}: {found:?} instead of {expected} for {group} in {partition}"
            );
        }
        let counts = (stored.group_count(), stored.offset_count());
        let expected = (plain.groups.len(), plain.offsets.len());
        law!(
            GroupsOfLog,
            counts == expected,
            "{name}: {counts:?} groups and offsets instead of {expected:?}"
        );
        if plain.groups.values().any(|group| group.members > 0) {
            self.counts.add("group loaded with members");
        }
        self.check_told(at, it)
    }

    /// Whoever leads, and knows it, has what was answered.
    fn check_told(&self, at: usize, it: &Coordinated) -> Checked {
        let state = self.controller.image.partition(it.key.0, it.key.1);
        let replica = self.replica_of(at, it).filter(|replica| replica.has_led_since(it.since));
        let led = replica.and_then(|replica| replica.led_epoch());
        if state.is_none_or(|state| Some(state.leader_epoch) != led) {
            return Ok(());
        }
        for ((key, name), (base, number)) in &self.told.commits {
            // Where the page cache counts as the disk, what was answered may be lost.
            if *key != it.key || self.model.number_at(*key, *base) != Some(*number) {
                continue;
            }
            let found = it.plain.last_of(name);
            law!(
                CommitKept,
                found >= Some(*base),
                "{name:?} was committed at {base}, and {found:?} is known"
            );
        }
        Ok(())
    }
}

fn found_by(answer: &OffsetFetchResponseGroup) -> BTreeMap<i32, i64> {
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let known = partitions.filter(|partition| partition.committed_offset >= 0);
    known.map(|partition| (partition.partition_index, partition.committed_offset)).collect()
}
