//! One partition's directory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ottla_base::{Offset, TopicPartition};
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_records::{BatchHeader, RawBatch};

use super::index::{self, OffsetCheck, TimeCheck, TransactionCheck, Wrong};
use super::{Options, Report, Weight, texts};
use crate::audit::{self, Audit, Damage, FileSource, Stretch};
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::index::{OffsetEntry, TimeEntry};
use crate::names;
use crate::policy::roll;
use crate::recovery::swaps;
use crate::txn_index::Versioned;

/// What the data directory says of the partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surroundings {
    pub(super) clean: bool,
    pub(super) in_use: bool,
    /// The directory is part of a data directory, whose files were read.
    pub(super) is_known: bool,
    pub(super) recovery_point: Option<i64>,
    pub(super) log_start: Option<i64>,
    pub(super) high_watermark: Option<i64>,
}

impl Surroundings {
    /// What recovery does not read again: everything after a clean stop, and where nobody knows of a crash.
    pub(crate) fn trusted_end(&self) -> i64 {
        let is_recovered = self.is_known && !self.clean;
        if is_recovered { self.recovery_point.unwrap_or(0) } else { i64::MAX }
    }

    /// After a clean stop the last segment ends where the recovery point is.
    fn end_by_checkpoint(&self) -> i64 {
        let is_told = self.clean && !self.in_use;
        self.recovery_point.filter(|_| is_told).unwrap_or(i64::MAX)
    }

    /// What is known of all of a segment, so large, whose first offset is not before this one, where the next segment
    /// begins at `next`.
    pub(crate) fn stretch<'a>(
        &self,
        size: u64,
        first_offset: i64,
        next: Option<i64>,
        epochs: Option<&'a EpochCache>,
    ) -> Stretch<'a> {
        Stretch {
            position: 0,
            end: size,
            first_offset,
            end_offset: next.unwrap_or_else(|| self.end_by_checkpoint()),
            epochs,
            epochs_end: self.trusted_end(),
        }
    }

    /// Whether the next start cuts damage off in such a segment, and loses nothing by it.
    pub(crate) fn is_torn(&self, damage: &Damage, size: u64, next: Option<i64>) -> bool {
        next.is_none() && damage.end_position == size && self.is_doubtful(damage)
    }

    /// Whether recovery reads it, and takes it for what a crash has left.
    fn is_doubtful(&self, damage: &Damage) -> bool {
        damage.first_offset.0 >= self.trusted_end()
    }
}

const REMOVED: &str = "removed";
const REBUILT: &str = "rebuilt from the batches";
const LOG_GOES_ON: &str = "the log goes on where it ends";

#[derive(Debug, Default)]
struct Files {
    logs: Vec<Offset>,
    snapshots: Vec<(Offset, PathBuf)>,
    metadata_snapshots: Vec<PathBuf>,
    orphans: Vec<(Offset, PathBuf)>,
    /// Each with what becomes of it.
    leftovers: Vec<(PathBuf, &'static str)>,
}

pub(super) fn verify(
    disk: &dyn Disk,
    directory: &Path,
    partition: Option<&TopicPartition>,
    around: &Surroundings,
    options: Options,
    report: &mut Report,
) -> Result<Offset, StorageError> {
    report.partitions += 1;
    let files = list(disk, directory)?;
    texts::partition_metadata(disk, directory, report)?;
    let epochs = texts::leader_epochs(disk, directory, report)?;
    let mut checker = Checker {
        disk,
        directory,
        around,
        options,
        epochs: epochs.as_ref(),
        report,
        next_offset: 0,
    };
    checker.leftovers(&files);
    checker.segments(&files.logs)?;
    for path in &files.metadata_snapshots {
        checker.metadata_snapshot(path)?;
    }
    let end = Offset(checker.next_offset);
    checker.log_end(partition);
    for (offset, path) in &files.snapshots {
        texts::producer_snapshot(disk, path, *offset, end, report)?;
    }
    if let Some(entry) = epochs.as_ref().and_then(EpochCache::latest)
        && entry.start_offset > end
    {
        let path = directory.join(names::LEADER_EPOCHS);
        let what = format!(
            "epoch {} begins at {}, after the log's end {end}",
            entry.epoch, entry.start_offset
        );
        report.add(Weight::Damage, &path, what, "the entry is dropped");
    }
    Ok(end)
}

fn list(disk: &dyn Disk, directory: &Path) -> Result<Files, StorageError> {
    let mut files = Files::default();
    let entries = disk.list(directory).context("list", directory)?;
    let finished = swaps::Left::of(directory, &entries).finished;
    for entry in &entries {
        let (name, path) = (entry.name.to_string_lossy(), directory.join(&entry.name));
        if name.ends_with(names::TEMPORARY) {
            files.leftovers.push((path, "left alone"));
            continue;
        }
        if [names::DELETED, names::CLEANED, names::SWAP].iter().any(|end| name.ends_with(end)) {
            let is_finished = finished.iter().any(|(.., finished)| *finished == path);
            let fate =
                if is_finished { "takes the place of what it was made from" } else { REMOVED };
            files.leftovers.push((path, fate));
            continue;
        }
        match names::parse_segment_file(&name) {
            Some((base_offset, names::LOG)) => files.logs.push(base_offset),
            Some((offset, names::SNAPSHOT)) => files.snapshots.push((offset, path)),
            Some((base_offset, _)) => files.orphans.push((base_offset, path)),
            None if name.ends_with(names::METADATA_SNAPSHOT) => files.metadata_snapshots.push(path),
            None => {}
        }
    }
    files.logs.sort_unstable();
    files.snapshots.sort();
    files.orphans.retain(|(base_offset, _)| files.logs.binary_search(base_offset).is_err());
    Ok(files)
}

/// A segment on its way through the checks.
struct Segment {
    path: PathBuf,
    base_offset: i64,
    /// Where the next one begins.
    next: Option<i64>,
    size: u64,
}

struct Checker<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    around: &'a Surroundings,
    options: Options,
    epochs: Option<&'a EpochCache>,
    report: &'a mut Report,
    /// Where the log ends, as far as it was read.
    next_offset: i64,
}

impl Checker<'_> {
    fn leftovers(&mut self, files: &Files) {
        for (path, fate) in &files.leftovers {
            self.report.add(Weight::Note, path, "left of something unfinished", fate);
        }
        for (_, path) in &files.orphans {
            let what = "it belongs to a segment that is not there";
            self.report.add(Weight::Note, path, what, REMOVED);
        }
    }

    fn segments(&mut self, bases: &[Offset]) -> Result<(), StorageError> {
        for (at, base_offset) in bases.iter().enumerate() {
            let path = names::segment_file(self.directory, *base_offset, names::LOG);
            let size = self.disk.status(&path).context("stat", &path)?.len;
            let next = bases.get(at + 1).map(|next| next.0);
            self.segment(&Segment { path, base_offset: base_offset.0, next, size })?;
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), StorageError> {
        self.report.segments += 1;
        self.report.bytes += segment.size;
        let path =
            |suffix| names::segment_file(self.directory, Offset(segment.base_offset), suffix);
        let offset_path = path(names::INDEX);
        let time_path = path(names::TIME_INDEX);
        let transaction_path = path(names::TXN_INDEX);
        let offsets = index::read::<OffsetEntry>(self.disk, &offset_path)?;
        let times = index::read::<TimeEntry>(self.disk, &time_path)?;
        let transactions = index::read::<Versioned>(self.disk, &transaction_path)?;
        for (path, is_missing) in [(&offset_path, offsets.is_none()), (&time_path, times.is_none())]
        {
            if is_missing {
                self.report.add(Weight::Note, path, "it is missing", REBUILT);
            }
        }
        self.length(&offset_path, offsets.as_ref().map(|it| (it.rest, it.unused)));
        self.length(&time_path, times.as_ref().map(|it| (it.rest, it.unused)));
        self.length(&transaction_path, transactions.as_ref().map(|it| (it.rest, it.unused)));
        let has_times = times.is_some();
        let base = segment.base_offset;
        let mut offsets = OffsetCheck::new(base, offsets.map_or_else(Vec::new, |it| it.entries));
        let mut times = TimeCheck::new(base, times.map_or_else(Vec::new, |it| it.entries));
        let mut transactions =
            TransactionCheck::new(transactions.map_or_else(Vec::new, |it| it.entries));
        let found = self.batches(segment, |position, batch| {
            let header = batch.header();
            offsets.batch(position, header);
            times.batch(header);
            transactions.batch(header);
        })?;
        let damage = found.damage;
        let is_sealed = segment.next.is_some() && has_times && damage.is_empty();
        let end = segment.next.unwrap_or(self.next_offset);
        self.wrong(&offset_path, offsets.finish(), &damage);
        self.wrong(&time_path, times.finish(is_sealed), &damage);
        self.wrong(&transaction_path, transactions.finish(base, end), &damage);
        Ok(())
    }

    /// Reads the batches of a segment, and reports those that are not sound.
    fn batches(
        &mut self,
        segment: &Segment,
        mut visit: impl FnMut(u64, &RawBatch),
    ) -> Result<Audit, StorageError> {
        let file = self.disk.open(&segment.path, Open::Read).context("open", &segment.path)?;
        let first_offset = segment.base_offset.max(self.next_offset);
        let stretch = self.around.stretch(segment.size, first_offset, segment.next, self.epochs);
        let (mut records, mut broken, deep) = (0, Vec::new(), self.options.deep);
        let mut largest_producer_id = self.report.largest_producer_id;
        let mut source = FileSource(self.disk, &file);
        let found = audit::audit(&mut source, &stretch, &mut |position, batch| {
            let header = batch.header();
            records += u64::try_from(header.record_count).unwrap_or(0);
            largest_producer_id = largest_producer_id.max(header.producer_id);
            let objection = if deep { objection_to_records(batch) } else { None };
            let objection = objection.or_else(|| objection_to_header(segment.base_offset, header));
            if let Some(what) = objection {
                broken.push((position, header.base_offset, header.next_offset(), what));
            }
            visit(position, batch);
        });
        let found = found.context("read", &segment.path)?;
        self.report.batches += found.batches;
        self.report.records += records;
        self.report.largest_producer_id = largest_producer_id;
        self.next_offset = found.next_offset.max(segment.base_offset);
        for damage in &found.damage {
            self.damage(segment, damage);
        }
        for (position, first, end, what) in broken {
            let next_start = "kept: consumers that read these records fail";
            let finding = self.report.add(Weight::Damage, &segment.path, what, next_start);
            finding.position = Some(position);
            finding.offsets = Some(Offset(first)..Offset(end));
        }
        Ok(found)
    }

    fn damage(&mut self, segment: &Segment, damage: &Damage) {
        let is_torn = self.around.is_torn(damage, segment.size, segment.next);
        let lost = damage.end_position - damage.position;
        let (weight, next_start) = if is_torn && self.around.in_use {
            (Weight::Unfinished, "perhaps a batch that is just being written".to_owned())
        } else if is_torn {
            (Weight::Unfinished, format!("these {lost} bytes are cut off"))
        } else if self.around.is_doubtful(damage) {
            (Weight::Damage, "the log is cut off here, and what follows is lost".to_owned())
        } else {
            (Weight::Damage, "kept, and reads of these offsets are refused".to_owned())
        };
        let what = format!("{} ({lost} bytes)", damage.what);
        // Where the log ends is not known.
        let end = if damage.end_offset.0 == i64::MAX { None } else { Some(damage.end_offset) };
        let offsets = damage.first_offset..end.unwrap_or(damage.first_offset);
        let finding = self.report.add(weight, &segment.path, what, next_start);
        finding.position = Some(damage.position);
        finding.offsets = Some(offsets);
    }

    fn length(&mut self, path: &Path, len: Option<(usize, usize)>) {
        let Some((rest, unused)) = len else { return };
        if rest > 0 {
            self.report.add(Weight::Damage, path, index::excess(rest), REBUILT);
        }
        if unused > 0 {
            let what = format!("{unused} entries of zeros, as Kafka leaves them when it is killed");
            self.report.add(Weight::Unfinished, path, what, REBUILT);
        }
    }

    /// One finding for each index file: whoever damages an index damages many entries.
    fn wrong(&mut self, path: &Path, mut wrong: Vec<Wrong>, damage: &[Damage]) {
        // What an entry of a damaged batch should say is not known.
        wrong.retain(|wrong| {
            let offset = Offset(wrong.offset);
            !damage.iter().any(|it| {
                let in_bytes =
                    wrong.position.is_some_and(|at| (it.position..it.end_position).contains(&at));
                in_bytes || (it.first_offset..it.end_offset).contains(&offset)
            })
        });
        let Some(first) = wrong.first() else { return };
        let others = match wrong.len() - 1 {
            0 => String::new(),
            1 => "; 1 more entry is wrong".to_owned(),
            others => format!("; {others} more entries are wrong"),
        };
        let what = format!("entry {}: {}{others}", first.number, first.what);
        let is_rebuilt = first.offset >= self.around.trusted_end();
        let next_start = if is_rebuilt {
            REBUILT
        } else {
            "kept; a search that ends nowhere reads the segment from its front"
        };
        let finding = self.report.add(Weight::Damage, path, what, next_start);
        finding.offsets = Some(Offset(first.offset)..Offset(first.offset + 1));
    }

    fn metadata_snapshot(&mut self, path: &Path) -> Result<(), StorageError> {
        let file = self.disk.open(path, Open::Read).context("open", path)?;
        let end = file.metadata().context("stat", path)?.len();
        let stretch = Stretch {
            position: 0,
            end,
            first_offset: 0,
            end_offset: i64::MAX,
            epochs: None,
            epochs_end: 0,
        };
        self.report.bytes += end;
        let found = audit::audit(&mut FileSource(self.disk, &file), &stretch, &mut |_, _| {});
        let found = found.context("read", path)?;
        self.report.batches += found.batches;
        for damage in found.damage {
            let next_start = "not read by Ottla; Kafka's controller does not start";
            let finding = self.report.add(Weight::Damage, path, damage.what, next_start);
            finding.position = Some(damage.position);
        }
        Ok(())
    }

    /// What the checkpoints say of the log's ends.
    fn log_end(&mut self, partition: Option<&TopicPartition>) {
        let end = self.next_offset;
        let name = partition.map(ToString::to_string).unwrap_or_default();
        let parent = self.directory.parent().unwrap_or(self.directory);
        if let Some(point) = self.around.recovery_point
            && !self.around.in_use
            && (point > end || (self.around.clean && point < end))
        {
            let what = format!("{name} was flushed up to {point}, and ends at {end} now");
            let path = parent.join(names::RECOVERY_POINTS);
            let finding = self.report.add(Weight::Damage, &path, what, LOG_GOES_ON);
            finding.offsets = Some(Offset(point.min(end))..Offset(point.max(end)));
        }
        if let Some(start) = self.around.log_start.filter(|start| *start > end && end > 0) {
            let what = format!("{name} starts at {start}, after its end at {end}");
            let next_start = "the log begins again, empty, at its start";
            self.report.add(
                Weight::Damage,
                &parent.join(names::LOG_START_OFFSETS),
                what,
                next_start,
            );
        }
        if let Some(mark) = self.around.high_watermark.filter(|mark| *mark > end) {
            let what = format!("records of {name} up to {mark} were replicated; it ends at {end}");
            let path = parent.join(names::HIGH_WATERMARKS);
            self.report.add(Weight::Damage, &path, what, LOG_GOES_ON);
        }
    }
}

fn objection_to_header(segment_base: i64, header: &BatchHeader) -> Option<String> {
    let last = header.last_offset();
    let is_far = roll::relative(segment_base, last).is_none();
    is_far.then(|| format!("offset {last} is too far from the segment's base offset"))
}

/// What is wrong with the records of a batch whose checksum is right.
fn objection_to_records(batch: &RawBatch) -> Option<String> {
    let header = batch.header();
    let (base, last) = (header.base_offset, header.last_offset());
    let mut previous = base - 1;
    let strayed = batch.look_over(|record| {
        let offset = record.offset.0;
        if offset <= previous || offset > last {
            return ControlFlow::Break(offset);
        }
        previous = offset;
        ControlFlow::Continue(())
    });
    match strayed {
        Ok(strayed) => strayed
            .map(|offset| format!("a record with offset {offset} in a batch of {base} to {last}")),
        Err(error) => Some(error.to_string()),
    }
}
