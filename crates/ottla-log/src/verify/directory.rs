//! A data directory as a whole: which partitions are in it, and the files that speak of several of them.

use std::path::{Path, PathBuf};

use ottla_base::TopicPartition;
use ottla_env::{Disk, sys};

use super::partition::{self, Surroundings};
use super::{Options, Report, VerifyError, Weight, texts};
use crate::checkpoint::{self, Offsets};
use crate::error::{Context, StorageError};
use crate::journal::{self, Contents};
use crate::names::{self, DirectoryName};

const CHECKPOINT_REBUILT: &str =
    "ignored: recovery reads more, and records deleted on request may be back";

pub(super) fn verify(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let entries = list(disk, path)?;
    let logs = entries.iter().filter_map(|entry| match &entry.name {
        DirectoryName::Log(partition) if entry.is_directory => Some((partition, &entry.path)),
        DirectoryName::Log(_)
        | DirectoryName::Future(_)
        | DirectoryName::Deleted
        | DirectoryName::Other => None,
    });
    let logs: Vec<_> = logs.collect();
    let is_data_directory = !logs.is_empty() || exists(disk, &path.join(names::META_PROPERTIES));
    if !is_data_directory {
        verify_alone(disk, path, &entries, options, &mut report)?;
        return Ok(report);
    }
    let surroundings = Checkpoints::read(disk, path, Some(&mut report))?;
    texts::meta_properties(disk, &path.join(names::META_PROPERTIES), &mut report)?;
    look_at_journal(disk, path, &mut report)?;
    for (partition, directory) in logs {
        let surroundings = surroundings.of(Some(partition));
        partition::verify(disk, directory, Some(partition), &surroundings, options, &mut report)?;
    }
    for entry in entries.iter().filter(|entry| entry.is_directory) {
        if let Some((what, next_start)) = aside(&entry.path) {
            report.add(Weight::Note, &entry.path, what, next_start);
        }
    }
    Ok(report)
}

/// What of the logs may be in the journal alone, which is no damage of theirs.
fn look_at_journal(disk: &dyn Disk, path: &Path, report: &mut Report) -> Result<(), StorageError> {
    let journals = journal::contents(disk, path)?;
    let was_closed = report.clean;
    for Contents { path, logs, is_damaged } in journals.iter().filter(|_| !was_closed) {
        if *is_damaged {
            let next_start = "passed over: what it has noted is lost where a log lacks it";
            report.add(Weight::Damage, path, "an entry is damaged", next_start);
        }
        if !logs.is_empty() {
            let what = format!("the latest appends to {} logs, which may lack them", logs.len());
            report.add(Weight::Unfinished, path, what, "written to where they belong");
        }
    }
    Ok(())
}

/// One partition's directory; what its parent says of it counts, if that is a data directory.
fn verify_alone(
    disk: &dyn Disk,
    path: &Path,
    entries: &[Entry],
    options: Options,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let is_segment = |entry: &Entry| {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        names::parse_segment_file(&name).is_some() || name == names::PARTITION_METADATA
    };
    if !entries.iter().any(is_segment) {
        return Err(VerifyError::NotALogDirectory(path.to_owned()));
    }
    let (partition, surroundings) = around(disk, path)?;
    (report.in_use, report.clean) = (surroundings.in_use, surroundings.clean);
    partition::verify(disk, path, partition.as_ref(), &surroundings, options, report)?;
    Ok(())
}

/// Whose directory this is, and what the data directory that it is in says of it.
pub(crate) fn around(
    disk: &dyn Disk,
    path: &Path,
) -> Result<(Option<TopicPartition>, Surroundings), StorageError> {
    let absolute = std::path::absolute(path).context("find", path)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partition = match DirectoryName::parse(&name) {
        DirectoryName::Log(partition) => Some(partition),
        DirectoryName::Future(_) | DirectoryName::Deleted | DirectoryName::Other => None,
    };
    let parent = absolute.parent().map(Path::to_owned);
    let parent = parent.filter(|parent| exists(disk, &parent.join(names::META_PROPERTIES)));
    let checkpoints = match parent {
        Some(parent) => Checkpoints::read(disk, &parent, None)?,
        None => Checkpoints::default(),
    };
    let surroundings = checkpoints.of(partition.as_ref());
    Ok((partition, surroundings))
}

struct Entry {
    path: PathBuf,
    name: DirectoryName,
    is_directory: bool,
}

fn list(disk: &dyn Disk, path: &Path) -> Result<Vec<Entry>, StorageError> {
    let entry = |entry: ottla_env::disk::DirectoryEntry| Entry {
        path: path.join(&entry.name),
        name: DirectoryName::parse(&entry.name.to_string_lossy()),
        is_directory: entry.is_directory,
    };
    let mut entries: Vec<_> =
        disk.list(path).context("list", path)?.into_iter().map(entry).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn exists(disk: &dyn Disk, path: &Path) -> bool {
    disk.status(path).is_ok()
}

/// Directories that are no logs, and what becomes of them.
fn aside(path: &Path) -> Option<(&'static str, &'static str)> {
    let name = path.file_name()?.to_string_lossy();
    if name.ends_with(names::DELETE_SUFFIX) {
        return Some(("a partition that was deleted", "removed"));
    }
    if name.ends_with(names::STRAY_SUFFIX) {
        return Some(("a partition that was set aside, since no topic owned it", "left alone"));
    }
    name.ends_with(names::FUTURE_SUFFIX)
        .then_some(("a partition that was on its way here", "left alone"))
}

/// What the files of a data directory say of its partitions.
#[derive(Debug, Default)]
struct Checkpoints {
    clean: bool,
    in_use: bool,
    /// There is such a directory, so that what no file tells is known to be nowhere.
    exists: bool,
    recovery_points: Offsets,
    log_starts: Offsets,
    high_watermarks: Offsets,
}

impl Checkpoints {
    fn read(
        disk: &dyn Disk,
        directory: &Path,
        mut report: Option<&mut Report>,
    ) -> Result<Self, StorageError> {
        let mut offsets = |name: &str, next_start: &str| -> Result<Offsets, StorageError> {
            let path = directory.join(name);
            match checkpoint::read_offsets(disk, &path) {
                Err(StorageError::Corrupt { what, .. }) => {
                    if let Some(report) = &mut report {
                        report.add(Weight::Damage, &path, what, next_start);
                    }
                    Ok(Offsets::new())
                }
                result => result,
            }
        };
        let recovery_points = offsets(names::RECOVERY_POINTS, CHECKPOINT_REBUILT)?;
        let log_starts = offsets(names::LOG_START_OFFSETS, CHECKPOINT_REBUILT)?;
        let high_watermarks = offsets(
            names::HIGH_WATERMARKS,
            "ignored: what of each log is visible is found out anew",
        )?;
        offsets(names::CLEANED_OFFSETS, "ignored: compaction begins at the log's start")?;
        let checkpoints = Self {
            clean: exists(disk, &directory.join(names::CLEAN_SHUTDOWN)),
            in_use: sys::is_locked(&directory.join(names::LOCK)),
            exists: true,
            recovery_points,
            log_starts,
            high_watermarks,
        };
        if let Some(report) = report {
            (report.in_use, report.clean) = (checkpoints.in_use, checkpoints.clean);
        }
        Ok(checkpoints)
    }

    fn of(&self, partition: Option<&TopicPartition>) -> Surroundings {
        let offset = |offsets: &Offsets| partition.and_then(|it| offsets.get(it)).map(|it| it.0);
        Surroundings {
            clean: self.clean,
            in_use: self.in_use,
            is_known: self.exists,
            recovery_point: offset(&self.recovery_points),
            log_start: offset(&self.log_starts),
            high_watermark: offset(&self.high_watermarks),
        }
    }
}
