//! openraft's log as a Kafka log: entry *i* is the *i*-th record batch of `__cluster_metadata-0`. Shell.
//!
//! An entry's index counts batches, an offset counts records; [`index::LogIndex`] maps one to the other, and is
//! rebuilt from the batches when the log is opened. A term is a batch's leader epoch.
//!
//! Appending writes to the page cache and returns. The writer thread ([`writer`]) flushes, many appends at a time,
//! and tells openraft afterwards; a vote goes through the same thread, so that it is never durable before an append
//! that came earlier.
//!
//! Where the disk has no room for an entry or a vote, openraft waits until it has ([`room`]).
//!
//! Entries that come from a leader are written with its bytes: the logs of all voters are equal, byte by byte.
//!
//! What the newest snapshot holds may be gone from the log, and is not read again when the log is opened: the entries are
//! counted from there on. The files may reach back further than what openraft knows of.
//!
//! Invariants: `index.end_offset() == log.log_end_offset()`; `cache` holds the last entries of the log, without gaps;
//! `log.log_start_offset() <= index.start_offset() <= newest_snapshot.end_offset`.

pub(crate) mod begun;
pub(crate) mod format;
pub(crate) mod index;
pub(crate) mod room;
#[cfg(test)]
mod tests;
pub(crate) mod vote;
pub(crate) mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow, Range, RangeBounds, RangeInclusive};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::vote::RaftVote as _;
use openraft::{EntryPayload, OptionalSend};
use ottla_base::{BrokerId, LeaderEpoch, Offset, Timestamp, Uuid};
use ottla_env::Clock;
use ottla_env::Disk;
use ottla_log::{AppendError, Log, Origin, ReadError, StorageError};
use ottla_metadata::Endpoint;
use ottla_records::{BatchHeader, Batches, RawBatch, ValidBatch};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::members::Myself;
use crate::raft::{
    Entry, LeaderId, LogId, Membership, Payload, TypeConfig, Vote, Voter, epoch_of, log_id,
};
use crate::snapshot::Extent;
use crate::snapshot::store::{Checkpoint, LoadError, Snapshots};
use crate::workers::{self, Workers};
pub(crate) use begun::Begun;
use format::{Author, Sequence};
use index::LogIndex;
use room::Room;
use vote::VoteFile;
use writer::{Files, Writer};

/// How much of the log is read at once.
const READ_BYTES: usize = 1 << 20;
/// How many entries a reader of a long range gets at once.
const READ_ENTRIES: u64 = 256;

/// The metadata log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the metadata log at offset {offset}: {what}")]
    Corrupt { offset: Offset, what: String },
    #[error("read the metadata log: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the metadata log in {} is gone, and with it what this node has acknowledged and whom it voted for: it had one, as \
         ottla.begun beside it says. Put it back as it was; or empty all directories of this node, so that they are formatted \
         anew and get other directory ids. A static voter (controller.quorum.voters) is formatted by hand, only while the \
         others are up and agree; a node that is only a broker may keep its data (operations.md, \"A lost metadata log\")",
        .0.display()
    )]
    Gone(PathBuf),
    #[error("entry {index} of the metadata log is in a snapshot only")]
    Purged { index: u64 },
    #[error(transparent)]
    Vote(#[from] vote::VoteError),
    #[error(transparent)]
    Snapshot(#[from] LoadError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}

/// The log of one node's quorum. Clones share it.
#[derive(Clone)]
pub(crate) struct Storage {
    shared: Arc<Shared>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Storage").field("index", &state.index).finish_non_exhaustive()
    }
}

struct Shared {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    workers: Arc<dyn Workers>,
    myself: Myself,
    writer: Writer,
    begun: Arc<Begun>,
    snapshots: Snapshots,
    room: Room,
    state: Mutex<State>,
}

/// Whose log it is, and where.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) cluster_id: Arc<str>,
    pub(crate) node_id: BrokerId,
    /// That of the log directory that the log is in.
    pub(crate) directory_id: Uuid,
    pub(crate) disk: Arc<dyn Disk>,
    /// The log's own directory.
    pub(crate) path: PathBuf,
}

struct State {
    index: LogIndex,
    vote: Option<Vote>,
    /// Every set of voters that the log names, with the index of the entry; the first may be in the snapshot only.
    voters: Vec<(u64, Membership)>,
    /// The CRC of the first entry, while that is in the log or the snapshot knows it.
    origin: Option<u32>,
    /// The last entries, from `cache_start` on; all that were not applied yet are here.
    cache: VecDeque<Entry>,
    cache_start: u64,
    sequence: Sequence,
}

impl Storage {
    /// Reads the newest snapshot, and the log after it; returns the snapshot for whoever wants to know the image.
    pub(crate) fn open(
        log: Arc<Log>,
        vote_file: VoteFile,
        place: Place,
        clock: Arc<dyn Clock>,
        workers: Arc<dyn Workers>,
    ) -> Result<(Self, Option<Checkpoint>), LogError> {
        let Place { cluster_id, node_id, directory_id, disk, path } = place;
        let vote = vote_file.read(node_id)?;
        let offsets = log.log_start_offset()..log.log_end_offset();
        let room = Room::beside(Arc::clone(&disk), path.clone());
        let begun = Arc::new(Begun::of_log(Arc::clone(&disk), &path)?);
        let home = path.clone();
        let (snapshots, checkpoint) = Snapshots::open(disk, path, cluster_id, offsets)?;
        let extent = checkpoint.as_ref().map(|checkpoint| &*checkpoint.extent);
        if let Some(extent) = extent {
            settle(&log, extent)?;
        }
        let myself = Myself { id: node_id, directory_id };
        let Scanned { index, voters, origin } = scan(&log, myself, extent)?;
        match index.last() {
            None if begun.is_noted() => return Err(LogError::Gone(home)),
            None => {}
            // It may be older than the note.
            Some(_) => begun.note()?,
        }
        let vote = in_epoch_of_log(vote, index.last(), node_id);
        let cache_start = index.next_index();
        let (cache, sequence) = (VecDeque::new(), Sequence::default());
        let state = State { index, vote, voters, origin, cache, cache_start, sequence };
        let files = Files { log: Arc::clone(&log), vote_file, begun: Arc::clone(&begun) };
        let writer = Writer::start(files, directory_id, node_id, &*workers)?;
        let state = Mutex::new(state);
        let shared = Shared { log, clock, workers, myself, writer, begun, snapshots, room, state };
        Ok((Self { shared: Arc::new(shared) }, checkpoint))
    }

    /// Has something done that may block, beside everything else; an error if nobody has come to its end.
    pub(crate) fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        workers::aside(&*self.shared.workers, work)
    }

    /// This node, as a member.
    pub(crate) fn myself(&self) -> Myself {
        self.shared.myself
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.shared.snapshots
    }

    /// Gives a snapshot that the leader has sent its name, durably: this node has had all that is in it.
    pub(crate) fn install(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.shared.snapshots.install(checkpoint)?;
        self.shared.begun.note()
    }

    pub(crate) fn room(&self) -> &Room {
        &self.shared.room
    }

    /// Lets the files begin later, at the end of a snapshot, as far as openraft has given up what is before.
    pub(crate) fn trim_to(&self, offset: Offset) -> Result<(), StorageError> {
        let first = self.shared.state.lock().index.start_offset();
        let log = &self.shared.log;
        let start = log.delete_records_to(offset.min(first))?;
        log.enforce_retention(self.shared.clock.now_ms().0, start)?;
        Ok(())
    }

    /// Whether the files begin later than with the first record.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.shared.log.log_start_offset() > Offset::ZERO
    }

    /// Bytes of the log's files.
    pub(crate) fn size_in_bytes(&self) -> u64 {
        self.shared.log.size_in_bytes()
    }

    /// Gives an empty log its first entry, durably: who the voters are. A log that has entries keeps its own.
    /// Votes may be older than the entry, when a crash came in between.
    ///
    /// Every voter does this for itself, and all of them must write the same bytes, or their logs are not one log:
    /// hence no time, unless there is but one.
    pub(crate) fn begin(&self, voters: BTreeMap<i32, Voter>) -> io::Result<()> {
        if self.last_index().is_some() {
            return Ok(());
        }
        let now = if voters.len() > 1 { Timestamp::NONE } else { self.shared.clock.now_ms() };
        let ids = voters.keys().copied().collect();
        let membership = Membership::new(vec![ids], voters).map_err(io::Error::other)?;
        let mut entries = vec![Entry::new(log_id(0, 0), EntryPayload::Membership(membership))];
        let mut batches = self.batches_of(&mut entries, now)?;
        self.append_batches(&mut entries, &mut batches)?;
        self.shared.log.flush().map_err(io::Error::other)?;
        self.shared.begun.note()
    }

    /// The voters that the log names last, committed or not.
    pub(crate) fn voters(&self) -> Option<Membership> {
        self.shared.state.lock().voters().cloned()
    }

    /// Where a member is by now, if the log tells; it may have moved since somebody last asked.
    pub(crate) fn endpoints_of(&self, number: i32, directory_id: Uuid) -> Option<Vec<Endpoint>> {
        let state = self.shared.state.lock();
        let voter = state.voters()?.get_node(&number)?;
        (voter.directory_id == directory_id).then(|| voter.endpoints.clone())
    }

    /// Tells the logs of two clusters apart, or two voters who have begun with other voters: the CRC of the first entry.
    pub(crate) fn origin(&self) -> Option<u32> {
        self.shared.state.lock().origin
    }

    /// Whether this node is the only voter.
    pub(crate) fn is_alone(&self) -> bool {
        is_alone(&self.shared.state.lock(), self.shared.myself)
    }

    /// The last entry that is known to be committed without asking others. In a quorum of one, that is what is on disk:
    /// nobody else could have anything else.
    pub(crate) fn committed(&self) -> Option<LogId> {
        let state = self.shared.state.lock();
        let alone = is_alone(&state, self.shared.myself);
        state.index.last().filter(|_| alone)
    }

    /// Ends the writer thread once it has done what it was given.
    pub(crate) fn close(&self) {
        self.shared.writer.close();
    }

    /// The last offset of an entry, for whoever has applied it.
    pub(crate) fn last_offset(&self, index: u64) -> Option<Offset> {
        self.shared.state.lock().index.last_offset(index)
    }

    /// Whether this vote, and the log up to an entry that it has, are on disk.
    pub(crate) fn is_durable(&self, vote: &Vote, upto: Option<LogId>) -> bool {
        let state = self.shared.state.lock();
        let is_flushed = |last: Offset| last < self.shared.log.flushed_offset();
        let has_entries = upto.is_none_or(|upto| {
            let is_purged = state.index.purged() >= Some(upto);
            let last = state.index.last_offset(upto.index());
            state.has_had(upto) && (is_purged || last.is_some_and(is_flushed))
        });
        state.vote == Some(*vote) && has_entries && (upto.is_none() || self.shared.begun.is_noted())
    }

    pub(crate) fn last_index(&self) -> Option<u64> {
        self.shared.state.lock().index.last().map(|last| last.index())
    }

    /// Forgets the entries before `index`, which were applied.
    pub(crate) fn forget_before(&self, index: u64) {
        let mut state = self.shared.state.lock();
        while state.cache_start < index && state.cache.pop_front().is_some() {
            state.cache_start += 1;
        }
    }

    /// How many times the log was flushed, and how many appends that served.
    pub(crate) fn flush_counts(&self) -> (u64, u64) {
        self.shared.writer.counts()
    }

    fn read_entries(&self, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        self.read_some_entries(range, usize::MAX)
    }

    /// The first entries of the range: as many as `bytes_max` allows, and one at least.
    fn read_some_entries(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let (mut entries, cached) = {
            let state = self.shared.state.lock();
            if range.start < state.index.first_index() && !range.is_empty() {
                return Err(LogError::Purged { index: range.start });
            }
            let range = state.index.clamp(range);
            let from = range.start.max(state.cache_start);
            let skip = usize::try_from(from - state.cache_start).expect("a cache fits in memory");
            let take = usize::try_from(range.end.saturating_sub(from)).unwrap_or(usize::MAX);
            let cached: Vec<_> = state.cache.iter().skip(skip).take(take).cloned().collect();
            let on_disk = range.start..range.end.min(state.cache_start);
            (OnDisk::of(&state.index, on_disk), cached)
        };
        let on_disk = entries.first..entries.end;
        let mut all = entries.read(&self.shared.log, self.shared.myself, bytes_max)?;
        if all.len() as u64 == on_disk.end - on_disk.start {
            all.extend(cached);
        }
        let mut bytes = 0_usize;
        let fits = all.iter().enumerate().take_while(|(at, entry)| {
            bytes = bytes.saturating_add(entry.batch.as_ref().map_or(0, ValidBatch::size_in_bytes));
            *at == 0 || bytes <= bytes_max
        });
        all.truncate(fits.count());
        Ok(all)
    }

    /// What these entries are in the log: the bytes that they have in the leader's, if they come from there.
    fn batches_of(&self, entries: &mut [Entry], now: Timestamp) -> io::Result<Vec<ValidBatch>> {
        let state = self.shared.state.lock();
        let mut batches = Vec::with_capacity(entries.len());
        let mut offset = self.shared.log.log_end_offset();
        let mut sequence = state.sequence;
        for entry in entries {
            let batch = match entry.batch.take() {
                Some(batch) => check_place(batch, offset, entry)?,
                None => {
                    format::supersede_unless_next(entry, sequence);
                    self.make_batch(&state, entry, offset, now)?
                }
            };
            sequence.note(entry);
            offset = batch.next_offset();
            batches.push(batch);
        }
        Ok(batches)
    }

    fn make_batch(
        &self,
        state: &State,
        entry: &Entry,
        offset: Offset,
        now: Timestamp,
    ) -> io::Result<ValidBatch> {
        let leader = state.leader().unwrap_or(self.shared.myself.id);
        let author = Author { leader, voters: state.voters(), now };
        let mut batch = format::encode(entry, &author)?;
        batch.assign(offset, epoch_of(&entry.log_id));
        Ok(batch)
    }

    /// Appends entries, as these batches, and takes both; or none of them, and leaves both as they were.
    fn append_batches(
        &self,
        entries: &mut Vec<Entry>,
        batches: &mut Vec<ValidBatch>,
    ) -> io::Result<()> {
        let Some(first) = entries.first().map(Entry::index) else { return Ok(()) };
        let mut state = self.shared.state.lock();
        let next = state.index.next_index();
        if first != next {
            return Err(io::Error::other(format!("entry {first} cannot follow {next}")));
        }
        self.shared.log.append(batches, Origin::Replica).map_err(not_appended)?;
        for (mut entry, batch) in entries.drain(..).zip(batches.drain(..)) {
            state.index.push(batch.header());
            state.note(entry.index(), &entry.payload, batch.header());
            state.sequence.note(&entry);
            entry.batch = Some(batch);
            state.cache.push_back(entry);
        }
        state.check(&self.shared.log);
        Ok(())
    }
}

fn not_appended(error: AppendError) -> io::Error {
    match error {
        AppendError::Storage(error) => error.into(),
        AppendError::Refused(error) => io::Error::other(error),
    }
}

fn is_alone(state: &State, myself: Myself) -> bool {
    state.voters().is_some_and(|voters| voters.voter_ids().eq([myself.id.0]))
}

/// The vote of a node whose log has entries of a later epoch than its vote, or which has entries and no vote: the file is gone, or
/// an earlier one. As with Apache Kafka the node goes on in the epoch of its log. There it may have voted, nobody knows for
/// whom: with a vote for itself, which it need not ask anybody about, it gives none to others.
fn in_epoch_of_log(vote: Option<Vote>, last: Option<LogId>, node_id: BrokerId) -> Option<Vote> {
    let epoch = last.map_or(0, |last| epoch_of(&last).0);
    if vote.as_ref().map_or(0, |vote| vote.leader_id().term) >= epoch {
        return vote;
    }
    tracing::error!(
        epoch, vote = ?vote,
        "quorum-state is older than the metadata log, or is gone: going on in the log's epoch, without a vote for anybody else"
    );
    let leader_id = LeaderId { term: epoch, voted_for: node_id.0 };
    Some(Vote::from_leader_id(leader_id, false))
}

/// A batch of another voter's log goes to the same place in this one: logs that agree on an entry agree on all before.
fn check_place(batch: ValidBatch, offset: Offset, entry: &Entry) -> io::Result<ValidBatch> {
    let epoch = LeaderEpoch(batch.header().partition_leader_epoch);
    if (batch.base_offset(), epoch) == (offset, epoch_of(&entry.log_id)) {
        return Ok(batch);
    }
    let place = format!("{} of epoch {epoch}", batch.base_offset());
    Err(io::Error::other(format!(
        "entry {entry} is at offset {place} elsewhere, and at {offset} here"
    )))
}

impl State {
    fn voters(&self) -> Option<&Membership> {
        self.voters.last().map(|(_, voters)| voters)
    }

    /// Notes what is known by heart of an entry that was added.
    fn note(&mut self, index: u64, payload: &Payload, header: &BatchHeader) {
        if let EntryPayload::Membership(membership) = payload {
            self.voters.push((index, membership.clone()));
        }
        if index == 0 {
            self.origin = Some(header.crc);
        }
    }

    /// Whether an entry is in the log, or has gone from it.
    fn has_had(&self, log_id: LogId) -> bool {
        self.index.purged() >= Some(log_id)
            || self.index.term(log_id.index()) == Some(epoch_of(&log_id).0)
    }

    /// Forgets the entries up to one that is in a snapshot, but for the voters that it named.
    fn purge(&mut self, upto: LogId) {
        self.index.purge(upto);
        let first = self.index.first_index();
        let older = self.voters.partition_point(|(index, _)| *index < first);
        self.voters.drain(..older.saturating_sub(1));
        while self.cache_start < first && self.cache.pop_front().is_some() {
            self.cache_start += 1;
        }
        self.cache_start = self.cache_start.max(first);
    }

    /// Begins again after a snapshot.
    fn restart(&mut self, extent: &Extent, myself: Myself) {
        self.index = LogIndex::starting_after(Some(extent.last()), extent.id.end_offset);
        let membership = myself.sees(extent.voters.membership.clone());
        self.voters = vec![(extent.voters.index, membership)];
        self.origin = extent.origin;
        self.cache.clear();
        self.cache_start = self.index.next_index();
    }

    /// Forgets the entries from `next` on.
    fn truncate(&mut self, next: u64) {
        self.index.truncate(next);
        self.voters.retain(|(index, _)| *index < next);
        self.origin = self.origin.filter(|_| next > 0);
        let kept = next.saturating_sub(self.cache_start);
        self.cache.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.cache_start = self.cache_start.min(next);
    }

    fn leader(&self) -> Option<BrokerId> {
        self.vote.as_ref().map(|vote| BrokerId(vote.leader_id().voted_for))
    }

    fn check(&self, log: &Log) {
        assert_eq!(self.index.end_offset(), log.log_end_offset());
        assert_eq!(self.cache_start + self.cache.len() as u64, self.index.next_index());
    }
}

/// Entries that must be read from the log's files.
struct OnDisk {
    /// Index of the first one, and the one after the last.
    first: u64,
    end: u64,
    offsets: Range<Offset>,
}

impl OnDisk {
    fn of(index: &LogIndex, range: Range<u64>) -> Self {
        let offset = |at| index.base_offset(at).unwrap_or_else(|| index.end_offset());
        let end = range.end.max(range.start);
        let offsets = offset(range.start)..offset(end);
        Self { first: range.start, end, offsets }
    }

    /// Ends with the first entry that goes beyond `bytes_max`.
    fn read(
        &mut self,
        log: &Log,
        myself: Myself,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        for_each_batch(log, self.offsets.clone(), |batch| {
            bytes = bytes.saturating_add(batch.bytes().len());
            let index = self.first + entries.len() as u64;
            let entry = format::entry(&batch, index).map_err(|what| corrupt(&batch, what))?;
            entries.push(myself.sees_in(entry));
            Ok(if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(entries)
    }
}

fn corrupt(batch: &RawBatch, what: impl ToString) -> LogError {
    LogError::Corrupt { offset: Offset(batch.header().base_offset), what: what.to_string() }
}

/// Reads batches in order; `range` begins and ends where batches do.
fn for_each_batch(
    log: &Log,
    range: Range<Offset>,
    mut visit: impl FnMut(RawBatch) -> Result<ControlFlow<()>, LogError>,
) -> Result<(), LogError> {
    let mut at = range.start;
    while at < range.end {
        let slice = log.read(at, READ_BYTES, range.end, true)?;
        let bytes = match &slice.source {
            Some(source) => source.read()?,
            None => Default::default(),
        };
        let before = at;
        for batch in Batches::new(bytes) {
            let batch =
                batch.map_err(|error| LogError::Corrupt { offset: at, what: error.to_string() })?;
            at = Offset(batch.header().next_offset());
            if visit(batch)?.is_break() {
                return Ok(());
            }
        }
        if at == before {
            let what = "the log ends before its end offset".to_owned();
            return Err(LogError::Corrupt { offset: at, what });
        }
    }
    Ok(())
}

struct Scanned {
    index: LogIndex,
    voters: Vec<(u64, Membership)>,
    origin: Option<u32>,
}

/// Maps the log after the snapshot, checking every batch's CRC, and finds the voters that it names.
fn scan(log: &Log, myself: Myself, extent: Option<&Extent>) -> Result<Scanned, LogError> {
    let start = extent.map_or(Offset::ZERO, |extent| extent.id.end_offset);
    let mut index = LogIndex::starting_after(extent.map(Extent::last), start);
    let voters = extent.map(|it| (it.voters.index, myself.sees(it.voters.membership.clone())));
    let (mut voters, mut origin) = (Vec::from_iter(voters), extent.and_then(|it| it.origin));
    for_each_batch(log, start..log.log_end_offset(), |batch| {
        batch.check_crc().map_err(|error| corrupt(&batch, error))?;
        let header = batch.header();
        if header.base_offset != index.end_offset().0 {
            return Err(corrupt(&batch, "it does not follow the batch before"));
        }
        if index.last().is_some_and(|last| epoch_of(&last).0 > header.partition_leader_epoch) {
            return Err(corrupt(&batch, "its epoch is older than that of the batch before"));
        }
        if header.partition_leader_epoch == i32::MAX {
            return Err(corrupt(&batch, "it is of the last epoch that there could be"));
        }
        if header.attributes.is_control() {
            let payload = format::decode(&batch).map_err(|what| corrupt(&batch, what))?;
            if let EntryPayload::Membership(membership) = payload {
                voters.push((index.next_index(), myself.sees(membership)));
            }
        }
        if index.last().is_none() {
            origin = Some(header.crc);
        }
        index.push(header);
        Ok(ControlFlow::Continue(()))
    })?;
    if index.end_offset() != log.log_end_offset() {
        let what = format!("the last batch ends at {}", index.end_offset());
        return Err(LogError::Corrupt { offset: log.log_end_offset(), what });
    }
    Ok(Scanned { index, voters, origin })
}

/// A crash may have come after a snapshot from the leader was there, and before the log that it takes the place of was
/// gone: that log ends earlier, or is another one, of which nothing after the snapshot's end was ever committed.
fn settle(log: &Log, extent: &Extent) -> Result<(), LogError> {
    let end = extent.id.end_offset;
    if !holds(log, extent)? {
        if let (Some(theirs), Some(ours)) = (extent.origin, origin_of(log)?)
            && theirs != ours
        {
            // Somebody's mistake: to believe it would be to delete this log.
            let what =
                format!("snapshot {} is of a log that has begun with something else", extent.id);
            return Err(LogError::Corrupt { offset: Offset::ZERO, what });
        }
        tracing::info!(%end, "the metadata log begins again after the snapshot that the leader has sent");
        log.truncate_fully_and_start_at(end)?;
    }
    Ok(())
}

/// The CRC of the first batch, if that is there.
fn origin_of(log: &Log) -> Result<Option<u32>, LogError> {
    let mut origin = None;
    if log.log_start_offset() == Offset::ZERO {
        for_each_batch(log, Offset::ZERO..log.log_end_offset(), |batch| {
            origin = Some(batch.header().crc);
            Ok(ControlFlow::Break(()))
        })?;
    }
    Ok(origin)
}

/// Whether the snapshot is of this log: logs that have a record of the same epoch at the same offset agree on all before.
fn holds(log: &Log, extent: &Extent) -> Result<bool, LogError> {
    let end = extent.id.end_offset;
    if end == log.log_start_offset() || end > log.log_end_offset() {
        return Ok(end <= log.log_end_offset());
    }
    let mut is_same = false;
    // In a log of something else a batch may begin before the snapshot's end and reach beyond it.
    for_each_batch(log, Offset(end.0 - 1)..log.log_end_offset(), |batch| {
        batch.check_crc().map_err(|error| corrupt(&batch, error))?;
        let header = batch.header();
        is_same =
            (header.next_offset(), header.partition_leader_epoch) == (end.0, extent.id.epoch.0);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(is_same)
}

impl RaftLogReader<TypeConfig> for Storage {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        let storage = self.clone();
        let range = half_open(&range);
        let end = range.end;
        let step = usize::try_from(READ_ENTRIES).expect("a small number");
        let chunks = range.step_by(step).map(move |from| from..end.min(from + READ_ENTRIES));
        stream::iter(chunks.flat_map(move |chunk| match storage.read_entries(chunk) {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error.into())],
        }))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        Ok(self.read_entries(half_open(&range))?)
    }

    /// What is sent to another voter at once.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read_some_entries(start..end, READ_BYTES)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.lock().vote)
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        let state = self.shared.state.lock();
        Ok(state.index.key_log_ids(range.start().index()..=range.end().index()))
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl RaftLogStorage<TypeConfig> for Storage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.shared.state.lock();
        let (last_purged_log_id, last_log_id) = (state.index.purged(), state.index.last());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let Shared { writer, room, .. } = &*self.shared;
        while let Err(error) = writer.save_vote(*vote).await {
            room.wait(error).await?;
        }
        room.written();
        self.shared.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let Shared { clock, writer, room, .. } = &*self.shared;
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        let mut batches = self.batches_of(&mut entries, clock.now_ms())?;
        while let Err(error) = self.append_batches(&mut entries, &mut batches) {
            room.wait(error).await?;
        }
        room.written();
        writer.flush(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.room.wait_for_cut().await?;
        let next = last_log_id.map_or(0, |last| last.index() + 1);
        let mut state = self.shared.state.lock();
        let Some(offset) = state.index.base_offset(next) else { return Ok(()) };
        self.shared.log.truncate_to(offset).map_err(io::Error::other)?;
        state.truncate(next);
        state.check(&self.shared.log);
        Ok(())
    }

    /// Only what is in a snapshot that is on disk may go. The files are made shorter by whoever knows how many snapshots
    /// are kept (`trim_to`); but a log that ends before the snapshot begins again after it.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let newest = self.shared.snapshots.newest_extent();
        let Some(newest) = newest.filter(|newest| log_id <= newest.last()) else {
            return Err(io::Error::other(format!("nothing up to {log_id} is in a snapshot")));
        };
        if !self.shared.state.lock().has_had(log_id) {
            self.shared.room.wait_for_cut().await?;
        }
        let mut state = self.shared.state.lock();
        if state.index.purged() >= Some(log_id) {
            return Ok(());
        }
        if state.has_had(log_id) {
            state.purge(log_id);
        } else if log_id == newest.last() {
            let end = newest.id.end_offset;
            self.shared.log.truncate_fully_and_start_at(end).map_err(io::Error::other)?;
            state.restart(&newest, self.shared.myself);
        } else {
            return Err(io::Error::other(format!("{log_id} is not in the metadata log")));
        }
        state.check(&self.shared.log);
        Ok(())
    }
}
