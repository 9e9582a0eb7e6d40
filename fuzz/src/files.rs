//! Arbitrary bytes as the files of a directory, for the fuzzers that open one.

use std::fs;
use std::path::Path;

use ottla_records::{HEADER_LEN, crc32c};
use tempfile::TempDir;

/// In the byte that says which file follows: the checksums of its batches, or of a journal's entries, are put right, or hardly
/// anything would be seen of what lies behind them.
pub const REPAIRED: u8 = 0x80;

const CRC: std::ops::Range<usize> = 17..21;

/// How each entry of a journal begins, whose header ends with its own checksum and that of what follows.
pub const JOURNAL: &[u8] = b"OJ01";
const JOURNAL_CHECKED_LEN: usize = 24;
pub const JOURNAL_HEADER_LEN: usize = 32;

/// A directory that is gone afterwards; in memory, where the machine has such a place.
#[must_use]
pub fn directory() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let temporary =
        if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    temporary.expect("there is room for a temporary directory")
}

/// In a name: an offset, which the file's first eight bytes say.
pub const OFFSET: &str = "{offset}";
/// In a name: a leader epoch, which four bytes say that come next.
pub const EPOCH: &str = "{epoch}";

/// Takes `data` apart into files: a byte says which one of these, and two how long it is.
pub fn lay(root: &Path, names: &[&str], data: &[u8]) {
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let [which, high, low] = *head;
        let name = names[usize::from(which & !REPAIRED) % names.len()];
        let len = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (bytes, behind) = tail.split_at(len);
        let (name, bytes) = named(name, bytes);
        let mut bytes = bytes.to_vec();
        if which & REPAIRED == REPAIRED {
            match bytes.starts_with(JOURNAL) {
                true => repair_journal(&mut bytes),
                false => repair(&mut bytes),
            }
        }
        put(root, &name, &bytes);
        rest = behind;
    }
}

/// A name with its numbers, and what the file holds.
fn named<'a>(name: &str, bytes: &'a [u8]) -> (String, &'a [u8]) {
    let (mut name, mut rest) = (name.to_owned(), bytes);
    if name.contains(OFFSET) {
        let (offset, behind) = rest.split_first_chunk().unwrap_or((&[0; 8], rest));
        name = name.replace(OFFSET, &format!("{:020}", u64::from_be_bytes(*offset)));
        rest = behind;
    }
    if name.contains(EPOCH) {
        let (epoch, behind) = rest.split_first_chunk().unwrap_or((&[0; 4], rest));
        name = name.replace(EPOCH, &format!("{:010}", u32::from_be_bytes(*epoch)));
        rest = behind;
    }
    (name, rest)
}

/// Writes a file, in a directory that need not be there.
pub fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    let directory = path.parent().expect("it is below the root");
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, bytes));
    written.expect("there is room for a file");
}

/// The same as [`lay`] takes apart; of a file that is too long the beginning.
pub fn push(data: &mut Vec<u8>, which: u8, file: &[u8]) {
    let len = u16::try_from(file.len()).unwrap_or(u16::MAX);
    data.push(which);
    data.extend(len.to_be_bytes());
    data.extend(&file[..usize::from(len)]);
}

/// Gives the entries of a journal the right checksums, as far as their lengths tell where they are.
pub fn repair_journal(file: &mut [u8]) {
    let mut rest = file;
    while let Some((header, behind)) = rest.split_at_mut_checked(JOURNAL_HEADER_LEN) {
        let len = header[4..8].try_into().map_or(0, u32::from_be_bytes);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some((body, behind)) = behind.split_at_mut_checked(len) else { return };
        let (checked, checksums) = header.split_at_mut(JOURNAL_CHECKED_LEN);
        let both = [crc32c(checked), crc32c(body)].map(u32::to_be_bytes);
        checksums.copy_from_slice(both.as_flattened());
        rest = behind;
    }
}

fn repair(file: &mut [u8]) {
    let mut rest = file;
    while rest.len() >= HEADER_LEN {
        let length = rest[8..12].try_into().map_or(0, i32::from_be_bytes);
        let size = usize::try_from(length).map_or(0, |length| length + 12);
        if size < HEADER_LEN || size > rest.len() {
            return;
        }
        let (batch, behind) = rest.split_at_mut(size);
        let crc = crc32c(&batch[CRC.end..]);
        batch[CRC].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}
