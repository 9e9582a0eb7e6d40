//! A segment's two sparse indexes: offset → byte position, and timestamp → offset. The entries and the search
//! among those in memory are pure; the search among those on disk reads the index file.
//!
//! | file | entry, big-endian | bytes |
//! | --- | --- | --- |
//! | `.index` | last offset of a batch − base offset, position of that batch | 4 + 4 |
//! | `.timeindex` | largest timestamp so far, last offset of its batch − base offset | 8 + 4 |
//!
//! Entries rise strictly in their first field. An index is only a hint where to start scanning: it is rebuilt from
//! the log whenever it is in doubt, so it is written behind, many entries at once.
//!
//! Invariant: `first_in_memory <= on_disk <= len`.

use std::fs::File;
use std::io;
use std::ops::Range;

use ottla_env::Disk;

/// Entries that stay in memory after they were written, so that reads near the log's end need no file.
const RECENT_KEPT: usize = 128;
/// Entries that wait in memory before they are written, unless the disk refuses them.
pub(crate) const UNWRITTEN_MAX: usize = 256;
/// Below this many entries one read fetches them all.
const READ_AT_ONCE: u32 = 512;

/// An entry of an index file.
pub(crate) trait Entry: Copy {
    const SIZE: usize;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Option<Self>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, counted from the segment's base offset.
    pub(crate) relative_offset: u32,
    /// Where the batch begins.
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (relative_offset, rest) = bytes.split_first_chunk()?;
        Some(Self {
            relative_offset: u32::from_be_bytes(*relative_offset),
            position: u32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    /// Last offset of the batch with this timestamp, counted from the segment's base offset.
    pub(crate) relative_offset: u32,
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, rest) = bytes.split_first_chunk()?;
        Some(Self {
            timestamp: i64::from_be_bytes(*timestamp),
            relative_offset: u32::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// The index of a segment that is being written: all entries counted, the last ones in memory.
#[derive(Debug, Clone)]
pub(crate) struct Index<E> {
    first_in_memory: u32,
    on_disk: u32,
    in_memory: Vec<E>,
    last: Option<E>,
}

/// Where the last entry at or before a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor<E> {
    Known(Option<E>),
    /// Among the first so many entries of the file.
    InFile(u32),
}

/// Where the first entry behind a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ceiling<E> {
    Known(Option<E>),
    /// Among the first so many entries of the file, or the one that is known.
    InFile(u32, Option<E>),
}

impl<E: Entry> Index<E> {
    pub(crate) const fn empty() -> Self {
        Self { first_in_memory: 0, on_disk: 0, in_memory: Vec::new(), last: None }
    }

    /// An index whose `len` entries are all in its file, the last one being `last`.
    pub(crate) const fn on_disk(len: u32, last: Option<E>) -> Self {
        Self { first_in_memory: len, on_disk: len, in_memory: Vec::new(), last }
    }

    pub(crate) fn len(&self) -> u32 {
        self.first_in_memory
            + u32::try_from(self.in_memory.len()).expect("a segment has at most 2³¹ of them")
    }

    pub(crate) const fn last(&self) -> Option<E> {
        self.last
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.in_memory.push(entry);
        self.last = Some(entry);
    }

    /// The last entry for which `at_or_before` holds; it must hold for a prefix of the entries.
    pub(crate) fn floor(&self, at_or_before: impl Fn(&E) -> bool) -> Floor<E> {
        let after = self.in_memory.partition_point(at_or_before);
        match after.checked_sub(1).and_then(|at| self.in_memory.get(at)) {
            Some(entry) => Floor::Known(Some(*entry)),
            None if self.first_in_memory == 0 => Floor::Known(None),
            None => Floor::InFile(self.first_in_memory),
        }
    }

    /// The first entry for which `is_before` does not hold; it must hold for a prefix of the entries.
    pub(crate) fn ceiling(&self, is_before: impl Fn(&E) -> bool) -> Ceiling<E> {
        let at = self.in_memory.partition_point(is_before);
        let entry = self.in_memory.get(at).copied();
        match self.first_in_memory {
            len @ 1.. if at == 0 => Ceiling::InFile(len, entry),
            _ => Ceiling::Known(entry),
        }
    }

    pub(crate) fn unwritten_len(&self) -> usize {
        self.unwritten_entries().len()
    }

    pub(crate) fn first_unwritten(&self) -> Option<E> {
        self.unwritten_entries().first().copied()
    }

    /// The bytes to put at the end of the file: `(position, bytes)`.
    pub(crate) fn unwritten(&self) -> (u64, Vec<u8>) {
        let mut bytes = Vec::with_capacity(self.unwritten_len() * E::SIZE);
        for entry in self.unwritten_entries() {
            entry.encode(&mut bytes);
        }
        (u64::from(self.on_disk) * E::SIZE as u64, bytes)
    }

    /// The file holds everything now; older entries need not stay in memory.
    pub(crate) fn written(&mut self) {
        self.on_disk = self.len();
        let surplus = self.in_memory.len().saturating_sub(RECENT_KEPT);
        self.in_memory.drain(..surplus);
        self.first_in_memory += u32::try_from(surplus).expect("a segment has at most 2³¹ of them");
    }

    fn unwritten_entries(&self) -> &[E] {
        let written =
            usize::try_from(self.on_disk - self.first_in_memory).expect("a usize is 64 bits");
        self.in_memory.get(written..).expect("first_in_memory <= on_disk <= len")
    }
}

/// Where an entry probably is that is about so far from the first entry to the last.
pub(crate) fn guess(len: u32, part: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates, and any guess will do"
    )]
    let guess = (f64::from(len) * part) as u32;
    guess
}

/// The last of the file's first `len` entries for which `at_or_before` holds.
pub(crate) fn floor_in_file<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    len: u32,
    at_or_before: impl Fn(&E) -> bool,
) -> io::Result<Option<E>> {
    Ok(search_file(disk, file, 0..len, at_or_before)?.floor)
}

/// The same for entries that rise about evenly, and probably near number `guess`: then one read finds it.
pub(crate) fn floor_in_file_near<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    len: u32,
    guess: u32,
    at_or_before: impl Fn(&E) -> bool,
) -> io::Result<Neighbours<E>> {
    let Some(last_first) = len.checked_sub(READ_AT_ONCE) else {
        return search_file(disk, file, 0..len, at_or_before);
    };
    let first = guess.saturating_sub(READ_AT_ONCE / 2).min(last_first);
    let entries = read_entries(disk, file, first, READ_AT_ONCE)?;
    let near = Neighbours::among(first, &entries, &at_or_before);
    match (near.floor, near.next) {
        (None, _) if first > 0 => search_file(disk, file, 0..first, at_or_before),
        (Some(_), None) => search_file(disk, file, near.count - 1..len, at_or_before),
        (Some(_), Some(_)) | (None, _) => Ok(near),
    }
}

/// The first of the file's first `len` entries for which `is_before` does not hold.
pub(crate) fn ceiling_in_file<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    len: u32,
    is_before: impl Fn(&E) -> bool,
) -> io::Result<Option<E>> {
    let found = search_file(disk, file, 0..len, is_before)?;
    match found.next {
        // It is the first of those that were not looked at.
        None if found.count < len => Ok(read_entries(disk, file, found.count, 1)?.first().copied()),
        next => Ok(next),
    }
}

/// How many of the file's first `len` entries there are for which `keep` holds; they must be a prefix.
pub(crate) fn count_in_file<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    len: u32,
    keep: impl Fn(&E) -> bool,
) -> io::Result<u32> {
    Ok(search_file(disk, file, 0..len, keep)?.count)
}

/// Two entries of a file, between which a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbours<E> {
    /// How many entries are at or before the key, with those that were not looked at.
    count: u32,
    /// The last of them.
    pub(crate) floor: Option<E>,
    /// The one behind it, if that was among those that were read.
    pub(crate) next: Option<E>,
}

impl<E: Copy> Neighbours<E> {
    /// Of entries from number `first` on.
    fn among(first: u32, entries: &[E], at_or_before: impl Fn(&E) -> bool) -> Self {
        let after = entries.partition_point(at_or_before);
        Self {
            count: first + u32::try_from(after).expect("a part of a u32"),
            floor: after.checked_sub(1).and_then(|at| entries.get(at)).copied(),
            next: entries.get(after).copied(),
        }
    }
}

/// All before the range are at or before the key, all behind it are not.
fn search_file<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    Range { start: mut low, end: mut high }: Range<u32>,
    at_or_before: impl Fn(&E) -> bool,
) -> io::Result<Neighbours<E>> {
    while high - low > READ_AT_ONCE {
        let middle = low + (high - low) / 2;
        match read_entries::<E>(disk, file, middle, 1)?.first() {
            Some(entry) if at_or_before(entry) => low = middle,
            _ => high = middle,
        }
    }
    let entries: Vec<E> = read_entries(disk, file, low, high - low)?;
    Ok(Neighbours::among(low, &entries, at_or_before))
}

/// Up to `count` entries from number `first` on; fewer where the file ends.
pub(crate) fn read_entries<E: Entry>(
    disk: &dyn Disk,
    file: &File,
    first: u32,
    count: u32,
) -> io::Result<Vec<E>> {
    let mut bytes = vec![0; usize::try_from(count).expect("a usize is 64 bits") * E::SIZE];
    let position = u64::from(first) * E::SIZE as u64;
    let read = disk.read_at(file, &mut bytes, position)?;
    bytes.truncate(read);
    Ok(bytes.chunks_exact(E::SIZE).filter_map(E::decode).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ottla_env::OsDisk;

    use super::*;

    fn entry(n: u32) -> OffsetEntry {
        OffsetEntry { relative_offset: n * 10, position: n * 4096 }
    }

    #[test]
    fn entries_are_kafkas_big_endian_bytes() {
        let mut bytes = Vec::new();
        OffsetEntry { relative_offset: 1, position: 2 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(OffsetEntry::decode(&bytes).map(|e| e.position), Some(2));
        bytes.clear();
        let time = TimeEntry { timestamp: 3, relative_offset: 4 };
        time.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(TimeEntry::decode(&bytes), Some(time));
        assert_eq!(TimeEntry::decode(&bytes[1..]), None);
    }

    #[test]
    fn the_same_floor_is_found_in_memory_and_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let mut index = Index::empty();
        for n in 1..=2000 {
            index.push(entry(n));
            if index.unwritten_len() >= UNWRITTEN_MAX {
                let (position, bytes) = index.unwritten();
                assert_eq!(position, file.metadata().unwrap().len());
                file.write_all(&bytes).unwrap();
                index.written();
            }
        }
        let (_, bytes) = index.unwritten();
        file.write_all(&bytes).unwrap();
        index.written();
        assert_eq!(index.len(), 2000);
        assert_eq!(index.last(), Some(entry(2000)));
        for key in [0, 9, 10, 11, 5555, 18_000, 19_995, 20_000, u32::MAX] {
            let at_or_before = |e: &OffsetEntry| e.relative_offset <= key;
            let expected = Some((key / 10).min(2000)).filter(|n| *n > 0).map(entry);
            assert_eq!(floor_in_file(&OsDisk, &file, 2000, at_or_before).unwrap(), expected);
            match index.floor(at_or_before) {
                Floor::Known(found) => assert_eq!(found, expected),
                Floor::InFile(len) => {
                    assert_eq!(floor_in_file(&OsDisk, &file, len, at_or_before).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn a_guess_finds_the_same_however_far_off_it_is() {
        let mut bytes = Vec::new();
        (1..=2000).for_each(|n| entry(n).encode(&mut bytes));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for len in [2000, READ_AT_ONCE + 1, READ_AT_ONCE, 3, 0] {
            for key in [0, 9, 10, 2559, 2560, 2561, 5119, 5120, 10_000, 19_999, 20_000, u32::MAX] {
                let at_or_before = |e: &OffsetEntry| e.relative_offset <= key;
                let count = (key / 10).min(len);
                let floor = Some(count).filter(|n| *n > 0).map(entry);
                for guess in [0, 255, 256, 257, 511, 512, 1000, 1999, u32::MAX] {
                    let found = floor_in_file_near(&OsDisk, &file, len, guess, at_or_before);
                    let found = found.unwrap();
                    assert_eq!((found.count, found.floor), (count, floor), "{len} {key} {guess}");
                    let next = Some(count + 1).filter(|n| *n <= len).map(entry);
                    assert!(found.next.is_none() || found.next == next);
                }
            }
        }
    }

    #[test]
    fn the_same_ceiling_is_found_in_memory_and_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let mut index = Index::empty();
        // At first nothing is in the file, then the newest are in memory, too, then there are some that are not in the file.
        for count in [100, 1000, 2000, 2100] {
            (index.len() + 1..=count).for_each(|n| index.push(entry(n)));
            if count < 2100 {
                file.write_all(&index.unwritten().1).unwrap();
                index.written();
            }
            for key in [0, 1, 4096, 4097, 2_100_000, 7_600_000, 8_000_000, 8_192_000, u32::MAX] {
                let is_before = |e: &OffsetEntry| e.position < key;
                let expected = Some(key.div_ceil(4096).max(1)).filter(|n| *n <= count).map(entry);
                let found = match index.ceiling(is_before) {
                    Ceiling::Known(found) => found,
                    Ceiling::InFile(len, next) => {
                        ceiling_in_file(&OsDisk, &file, len, is_before).unwrap().or(next)
                    }
                };
                assert_eq!(found, expected, "{key} of {count}");
            }
        }
    }

    #[test]
    fn an_index_without_entries_has_no_floor() {
        let index = Index::<TimeEntry>::empty();
        assert_eq!(index.floor(|_| true), Floor::Known(None));
        assert_eq!(index.unwritten(), (0, Vec::new()));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(floor_in_file::<TimeEntry>(&OsDisk, &file, 0, |_| true).unwrap(), None);
    }
}
