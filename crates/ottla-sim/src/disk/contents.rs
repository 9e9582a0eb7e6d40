//! What of one file is on the disk, and what was done to it since. Pure.
//!
//! Each page reaches the disk by itself, as it was at some moment since the last sync: with the first so many of the
//! changes that touched it. The length goes its own way. So a crash can leave holes of zeros, old bytes between new
//! ones, and a length that fits neither.

use crate::Random;

/// What a file system writes at once, and what a disk does.
const PAGE: usize = 4096;
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// Invariant: `durable` with all of `changes` is what a reader sees, but for what a failed sync has lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    durable: Vec<u8>,
    changes: Vec<Change>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { position, bytes: written } => {
                let end = position + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(part) = bytes.get_mut(*position..end) {
                    part.copy_from_slice(written);
                }
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    fn touches(&self, start: usize, end: usize) -> bool {
        match self {
            Self::Write { position, bytes } => *position < end && position + bytes.len() > start,
            Self::SetLen(len) => *len < end,
        }
    }

    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write { position, bytes } => len.max(position + bytes.len()),
            Self::SetLen(len) => *len,
        }
    }
}

impl Contents {
    pub(crate) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes, changes: Vec::new() }
    }

    pub(crate) fn write(&mut self, position: usize, bytes: Vec<u8>) {
        self.changes.push(Change::Write { position, bytes });
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.changes.push(Change::SetLen(len));
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.changes.is_empty()
    }

    /// As a reader sees it.
    pub(crate) fn visible(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    pub(crate) fn sync(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        changes.iter().for_each(|change| change.apply(&mut self.durable));
    }

    /// A sync that failed: some pages were written, the others count as clean from now on and never will be.
    pub(crate) fn fail_sync(&mut self, random: &mut Random) {
        self.durable = self.after_crash(random);
        self.changes.clear();
    }

    /// Changes what is on the disk behind everybody's back.
    pub(crate) fn flip(&mut self, at: usize, bit: u8) {
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// What a loss of power leaves.
    pub(crate) fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        if self.changes.is_empty() || random.happens(1_500) {
            return self.durable.clone();
        }
        if random.happens(1_500) {
            return self.visible();
        }
        let unit = if random.happens(5_000) { PAGE } else { SECTOR };
        let len = self.surviving_len(random);
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        for start in (0..len).step_by(unit) {
            let end = (start + unit).min(len);
            let page = self.surviving_page(start, start + unit, random);
            if let Some(part) = bytes.get_mut(start..end) {
                part.iter_mut().zip(page).for_each(|(to, from)| *to = from);
            }
        }
        bytes
    }

    fn surviving_len(&self, random: &mut Random) -> usize {
        let mut lens = vec![self.durable.len()];
        for change in &self.changes {
            let len = lens.last().copied().unwrap_or(0);
            lens.push(change.len_after(len));
        }
        let at = random.below(lens.len());
        let len = lens.get(at).copied().unwrap_or(0);
        // A file grows on the disk as its pages are written.
        match lens.get(at + 1).filter(|next| **next > len && random.happens(5_000)) {
            Some(next) => len + random.below(next - len),
            None => len,
        }
    }

    fn surviving_page(&self, start: usize, end: usize, random: &mut Random) -> Vec<u8> {
        let mut page = vec![0; end - start];
        let on_disk = self.durable.iter().skip(start);
        page.iter_mut().zip(on_disk).for_each(|(to, from)| *to = *from);
        let touching: Vec<_> = self.changes.iter().filter(|it| it.touches(start, end)).collect();
        let count = random.below(touching.len() + 1);
        for change in touching.into_iter().take(count) {
            match change {
                Change::Write { position, bytes } => {
                    for (at, byte) in page.iter_mut().enumerate() {
                        let from = (start + at).checked_sub(*position);
                        if let Some(from) = from.and_then(|from| bytes.get(from)) {
                            *byte = *from;
                        }
                    }
                }
                Change::SetLen(len) => {
                    page.iter_mut().skip(len.saturating_sub(start)).for_each(|byte| *byte = 0);
                }
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let mut contents = Contents::durable(vec![1; 1000]);
        contents.write(1000, vec![2; 1000]);
        contents.write(500, vec![3; 10]);
        contents
    }

    #[test]
    fn a_synced_file_survives_as_it_is() {
        let mut contents = contents();
        let visible = contents.visible();
        contents.sync();
        for seed in 0..50 {
            assert_eq!(contents.after_crash(&mut Random::new(seed, 0)), visible);
        }
    }

    #[test]
    fn every_sector_is_old_or_new_and_the_length_between_them() {
        let mut lengths = std::collections::BTreeSet::new();
        let (mut torn, mut holes) = (0, 0);
        for seed in 0..500 {
            let bytes = contents().after_crash(&mut Random::new(seed, 0));
            assert!((1000..=2000).contains(&bytes.len()));
            assert!(bytes[..500].iter().chain(&bytes[510..1000]).all(|byte| *byte == 1));
            assert!(bytes[500..510].iter().all(|byte| *byte == bytes[500] || *byte != 2));
            assert!(bytes[1000..].iter().all(|byte| [0, 2].contains(byte)));
            lengths.insert(bytes.len());
            let new = bytes[1000..].iter().filter(|byte| **byte == 2).count();
            torn += usize::from(new > 0 && new < 1000);
            holes += usize::from(bytes[1000..].windows(2).any(|pair| pair == [0, 2]));
        }
        assert!(lengths.len() > 20 && torn > 50 && holes > 20, "{torn} torn, {holes} with holes");
    }

    #[test]
    fn what_was_cut_off_may_come_back() {
        let mut back = 0;
        for seed in 0..100 {
            let mut contents = Contents::durable(vec![1; 1000]);
            contents.set_len(100);
            contents.write(100, vec![2; 100]);
            let bytes = contents.after_crash(&mut Random::new(seed, 0));
            assert!(bytes[..100].iter().all(|byte| *byte == 1));
            back += usize::from(bytes.len() == 1000 && bytes[900] == 1);
        }
        assert!(back > 10, "{back}");
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_one_writes() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut contents = contents();
            contents.fail_sync(&mut Random::new(seed, 0));
            contents.sync();
            lost += usize::from(contents.visible() != self::contents().visible());
        }
        assert!(lost > 50, "{lost}");
    }
}
