//! The indexes of a segment, held against its batches. Pure, but for reading the files.
//!
//! Apache Kafka before 4 wrote offset entries with the last offset of all batches that were appended at once, and time
//! entries with the offset of a record inside of a batch. Both are as good for a search, and no finding.

use std::path::Path;

use ottla_env::Disk;
use ottla_records::BatchHeader;

use crate::error::{Context, StorageError};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::txn_index::{self, Versioned};

/// The entries of an index file.
#[derive(Debug)]
pub(crate) struct Entries<E> {
    pub(crate) entries: Vec<E>,
    /// Entries of zeros at the end: room that Kafka took in advance.
    pub(crate) unused: usize,
    /// Bytes after the last whole entry.
    pub(crate) rest: usize,
}

/// `None` if there is no such file.
pub(crate) fn read<E: Entry>(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<Entries<E>>, StorageError> {
    let bytes = match disk.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", path),
    };
    let chunks = bytes.chunks_exact(E::SIZE);
    let rest = chunks.remainder().len();
    let is_used = |chunk: &[u8]| chunk.iter().any(|byte| *byte != 0);
    let total = chunks.len();
    let used = chunks.clone().rposition(is_used).map_or(0, |last| last + 1);
    let entries = chunks.take(used).filter_map(E::decode).collect();
    Ok(Some(Entries { entries, unused: total - used, rest }))
}

/// What is wrong with a file that has so many bytes after its last whole entry.
pub(crate) fn excess(rest: usize) -> String {
    format!("{rest} bytes follow the last whole entry")
}

/// An entry that is wrong: its number, a position in the segment that it speaks of, and why.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) number: usize,
    pub(super) position: Option<u64>,
    pub(super) offset: i64,
    pub(super) what: String,
}

const DOES_NOT_RISE: &str = "the entry does not rise";
const POINTS_BEYOND: &str = "it points beyond the last batch";

/// The numbers of entries that do not rise above the ones before them.
fn falling<E>(entries: &[E], rises: impl Fn(&E, &E) -> bool) -> Vec<usize> {
    let pairs = entries.iter().zip(entries.iter().skip(1)).enumerate();
    pairs.filter(|(_, (a, b))| !rises(a, b)).map(|(number, _)| number + 1).collect()
}

/// Offset entries on the way through the segment's batches.
#[derive(Debug)]
pub(super) struct OffsetCheck {
    base_offset: i64,
    entries: Vec<OffsetEntry>,
    at: usize,
    /// An entry whose offset is beyond its batch, and should be the last one of a later batch.
    awaited: Option<(usize, i64)>,
    pub(super) wrong: Vec<Wrong>,
}

impl OffsetCheck {
    pub(super) fn new(base_offset: i64, entries: Vec<OffsetEntry>) -> Self {
        let mut check = Self { base_offset, entries, at: 0, awaited: None, wrong: Vec::new() };
        let rises = |a: &OffsetEntry, b: &OffsetEntry| {
            b.relative_offset > a.relative_offset && b.position > a.position
        };
        for number in falling(&check.entries, rises) {
            check.blame(number, DOES_NOT_RISE.to_owned());
        }
        check
    }

    pub(super) fn batch(&mut self, position: u64, header: &BatchHeader) {
        let last = header.last_offset();
        if let Some((number, offset)) = self.awaited {
            if last >= offset {
                self.awaited = None;
            }
            if last > offset {
                self.blame(number, format!("no batch ends at offset {offset}"));
            }
        }
        while let Some(entry) = self.entries.get(self.at).copied() {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            match u64::from(entry.position).cmp(&position) {
                std::cmp::Ordering::Greater => return,
                std::cmp::Ordering::Less => {
                    self.blame(self.at, format!("no batch begins at byte {}", entry.position));
                }
                std::cmp::Ordering::Equal if offset < last => {
                    let what = format!("offset {offset}, where a batch ends with {last}");
                    self.blame(self.at, what);
                }
                std::cmp::Ordering::Equal if offset > last => {
                    self.awaited = Some((self.at, offset))
                }
                std::cmp::Ordering::Equal => {}
            }
            self.at += 1;
        }
    }

    pub(super) fn finish(mut self) -> Vec<Wrong> {
        if let Some((number, offset)) = self.awaited {
            self.blame(number, format!("no batch ends at offset {offset}"));
        }
        for number in self.at..self.entries.len() {
            self.blame(number, POINTS_BEYOND.to_owned());
        }
        self.wrong
    }

    fn blame(&mut self, number: usize, what: String) {
        let Some(entry) = self.entries.get(number) else { return };
        let (position, offset) = (Some(entry.position.into()), i64::from(entry.relative_offset));
        self.wrong.push(Wrong { number, position, offset: self.base_offset + offset, what });
    }
}

/// Time entries on the way through the segment's batches.
#[derive(Debug)]
pub(super) struct TimeCheck {
    base_offset: i64,
    entries: Vec<TimeEntry>,
    at: usize,
    largest: i64,
    pub(super) wrong: Vec<Wrong>,
}

impl TimeCheck {
    pub(super) fn new(base_offset: i64, entries: Vec<TimeEntry>) -> Self {
        let mut check = Self { base_offset, entries, at: 0, largest: -1, wrong: Vec::new() };
        let rises = |a: &TimeEntry, b: &TimeEntry| {
            b.timestamp > a.timestamp && b.relative_offset >= a.relative_offset
        };
        for number in falling(&check.entries, rises) {
            check.blame(number, DOES_NOT_RISE.to_owned());
        }
        check
    }

    pub(super) fn batch(&mut self, header: &BatchHeader) {
        self.largest = self.largest.max(header.max_timestamp);
        while let Some(entry) = self.entries.get(self.at).copied() {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            if offset > header.last_offset() {
                return;
            }
            if offset < header.base_offset {
                self.blame(self.at, format!("no batch holds offset {offset}"));
            } else if header.max_timestamp != entry.timestamp || self.largest != entry.timestamp {
                let what = format!(
                    "timestamp {} for offset {offset}, where the batch has {} and the largest so far is {}",
                    entry.timestamp, header.max_timestamp, self.largest
                );
                self.blame(self.at, what);
            }
            self.at += 1;
        }
    }

    /// A segment that is no longer written ends its time index with its largest timestamp.
    pub(super) fn finish(mut self, is_sealed: bool) -> Vec<Wrong> {
        for number in self.at..self.entries.len() {
            self.blame(number, POINTS_BEYOND.to_owned());
        }
        let last = self.entries.last().map_or(-1, |entry| entry.timestamp);
        if is_sealed && last != self.largest {
            let what =
                format!("it ends with timestamp {last}, and the largest is {}", self.largest);
            let number = self.entries.len().saturating_sub(1);
            self.wrong.push(Wrong { number, position: None, offset: self.base_offset, what });
        }
        self.wrong
    }

    fn blame(&mut self, number: usize, what: String) {
        let Some(entry) = self.entries.get(number) else { return };
        let offset = self.base_offset + i64::from(entry.relative_offset);
        self.wrong.push(Wrong { number, position: None, offset, what });
    }
}

/// Aborted transactions on the way through the batches of the segment that their markers are in.
#[derive(Debug)]
pub(super) struct TransactionCheck {
    entries: Vec<Versioned>,
    at: usize,
    pub(super) wrong: Vec<Wrong>,
}

impl TransactionCheck {
    pub(super) fn new(entries: Vec<Versioned>) -> Self {
        let mut check = Self { entries, at: 0, wrong: Vec::new() };
        let mut previous = -1;
        for number in 0..check.entries.len() {
            let Some(Versioned { version, transaction: it }) = check.entries.get(number).copied()
            else {
                break;
            };
            let objection = if version != txn_index::VERSION {
                Some(format!("version {version} is not known"))
            } else if it.last_offset.0 <= previous {
                Some(format!("last offset {} does not rise", it.last_offset))
            } else if it.first_offset.0 < 0 || it.first_offset > it.last_offset {
                Some(format!("it begins at {} and ends at {}", it.first_offset, it.last_offset))
            } else if it.producer_id.0 < 0 || it.last_stable_offset.0 < 0 {
                Some("a negative producer id or last stable offset".to_owned())
            } else {
                None
            };
            previous = previous.max(it.last_offset.0);
            if let Some(what) = objection {
                check.blame(number, what);
            }
        }
        check
    }

    pub(super) fn batch(&mut self, header: &BatchHeader) {
        while let Some(Versioned { transaction: it, .. }) = self.entries.get(self.at).copied() {
            let marker = it.last_offset.0;
            if marker > header.last_offset() {
                return;
            }
            let is_marker = header.attributes.is_control()
                && header.base_offset <= marker
                && header.producer_id == it.producer_id.0;
            // Compaction may have taken the marker.
            if header.base_offset <= marker && !is_marker {
                let what = format!("offset {marker} is no marker of producer {}", it.producer_id);
                self.blame(self.at, what);
            }
            self.at += 1;
        }
    }

    pub(super) fn finish(mut self, base_offset: i64, end_offset: i64) -> Vec<Wrong> {
        for number in 0..self.entries.len() {
            let last = self.entries.get(number).map_or(-1, |entry| entry.transaction.last_offset.0);
            if last < base_offset || last >= end_offset {
                self.blame(number, format!("offset {last} is not in this segment"));
            }
        }
        self.wrong
    }

    fn blame(&mut self, number: usize, what: String) {
        let Some(entry) = self.entries.get(number) else { return };
        let offset = entry.transaction.last_offset.0;
        self.wrong.push(Wrong { number, position: None, offset, what });
    }
}
